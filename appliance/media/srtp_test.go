package media

import (
	"bytes"
	"crypto/aes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/pion/rtp"

	"patchbay/inspect"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// room returns a copy of b with room for any tag.
func room(b []byte) []byte { return append(make([]byte, 0, len(b)+16), b...) }

// vectorKey is the master key of RFC 3711, appendix B.3.
func vectorKey(t testing.TB, suite inspect.Suite) inspect.Key {
	k := inspect.Key{Suite: suite}
	copy(k.Master[:], unhex(t, "E1F97A0D3E018BE0D64FA32C06DE4139"))
	copy(k.Salt[:], unhex(t, "0EC675AD498AFEEBB6960B3AABE6"))
	return k
}

// RFC 3711, appendix B.3; SRTCP and what is longer from
// reference/srtp-keying.md, section 7.
func TestDerive(t *testing.T) {
	k := vectorKey(t, inspect.AES_CM_128_SHA1_80)
	master, err := aes.NewCipher(k.Master[:])
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name  string
		label byte
		want  string
	}{
		{"RTP cipher", labelCipher, "C61E7A93744F39EE10734AFE3FF7A087"},
		{"RTP salt", labelSalt, "30CBBC08863D8C85D49DB34A9AE1"},
		{"RTP auth", labelAuth, `CEBE321F6FF7716B 6FD4AB49AF256A15 6D38BAA48F0A0ACF 3C34E2359E6CDBCE
			E049646C43D9327A D175578EF7227098 6371C10C9A369AC2 F94A8C5FBCDDDC25
			6D6E919A48B610EF 17C2041E47403576 6B68642C59BBFC2F 34DB60DBDFB2`},
		{"RTCP cipher", labelRTCP + labelCipher, "4c1aa45a81f73d61c800bbb00fbb1eaa"},
		{"RTCP auth", labelRTCP + labelAuth, "8d54534feb49ae8e7993a6bd0b844fc323a93dfd"},
		{"RTCP salt", labelRTCP + labelSalt, "9581c7ad87b3e530bf3e4454a8b3"},
	}
	for _, tt := range tests {
		want := unhex(t, strings.NewReplacer("\n", "", "\t", "").Replace(tt.want))
		got := make([]byte, len(want))
		derive(got, master, &k.Salt, tt.label)
		if !bytes.Equal(got, want) {
			t.Errorf("%s: %x, want %x", tt.name, got, want)
		}
	}
}

// RFC 3711, appendix B.2: the key stream, also where it is near its end.
func TestKeyStream(t *testing.T) {
	block, err := aes.NewCipher(unhex(t, "2B7E151628AED2A6ABF7158809CF4F3C"))
	if err != nil {
		t.Fatal(err)
	}
	tf := &transform{desks: new(desks), block: block, salt: [2]uint64{0xF0F1F2F3F4F5F6F7, 0xF8F9FAFBFCFD0000}}
	stream := make([]byte, 0xff02*aes.BlockSize)
	tf.xor(newDesk(), stream, 0, 0)
	for at, want := range map[int]string{
		0:      "E03EAD0935C95E80E166B16DD92B4EB4",
		1:      "D23513162B02D0F72A43A2FE4A5F97AB",
		2:      "41E95B3BB0A2E8DD477901E4FCA894C0",
		0xfeff: "EC8CDF7398607CB0F2D21675EA9EA1E4",
		0xff00: "362B7C3C6773516318A077D7FC5073AE",
		0xff01: "6A2CC3787889374FBEB4C81B17BA6C44",
	} {
		if got := stream[at*aes.BlockSize:][:aes.BlockSize]; !bytes.Equal(got, unhex(t, want)) {
			t.Errorf("block %#x: %X, want %s", at, got, want)
		}
	}
	for n := range 40 { // any length is the same stream
		got := make([]byte, n)
		tf.xor(newDesk(), got, 0, 0)
		if !bytes.Equal(got, stream[:n]) {
			t.Errorf("%d bytes: %x, want %x", n, got, stream[:n])
		}
	}
}

// reference/srtp-keying.md, section 7.
func TestSealVectors(t *testing.T) {
	plain := unhex(t, "8000ffff000000a0cafebabe 000102030405060708090a0b0c0d0e0f10111213")
	const at0, at1 = "8000ffff000000a0cafebabe58c43f542802acd92f48fe341db1b81cf83e8a0e",
		"8000ffff000000a0cafebabe35599132630af4863bf4d1ed7dbfbe81535691b5"
	for _, tt := range []struct {
		suite inspect.Suite
		roc   uint64
		want  string
	}{
		{inspect.AES_CM_128_SHA1_32, 0, at0 + "48ee22d2"},
		{inspect.AES_CM_128_SHA1_80, 0, at0 + "48ee22d297c2fee4992e"},
		{inspect.AES_CM_128_SHA1_32, 1, at1 + "3cdb365f"},
		{inspect.AES_CM_128_SHA1_80, 1, at1 + "3cdb365fd8b5d01c7386"},
	} {
		k := vectorKey(t, tt.suite)
		tf, err := newTransform(&k, false, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		b := room(plain)
		n, err := tf.sealRTP(b, rtpHeaderLen, tt.roc<<16|0xffff)
		if err != nil || !bytes.Equal(b[:n], unhex(t, tt.want)) {
			t.Errorf("%v, roll-over %d: %x, %v; want %s", tt.suite, tt.roc, b[:n], err, tt.want)
		}
		if n, err = tf.openRTP(b[:n], rtpHeaderLen, tt.roc<<16|0xffff); err != nil || !bytes.Equal(b[:n], plain) {
			t.Errorf("%v, roll-over %d, opened: %x, %v", tt.suite, tt.roc, b[:n], err)
		}
	}
	report := unhex(t, "81c90007cafebabe 000102030405060708090a0b0c0d0e0f1011121314151617")
	want := unhex(t, "81c90007cafebabeda82aaf34b2914111d5a31e15ed1000c6e550139d5013b308000000127867a6e3de83d04b273")
	for _, suite := range []inspect.Suite{inspect.AES_CM_128_SHA1_32, inspect.AES_CM_128_SHA1_80} {
		k := vectorKey(t, suite)
		tf, err := newTransform(&k, true, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		b := room(report)
		n, err := tf.sealRTCP(b, 1)
		if err != nil || !bytes.Equal(b[:n], want) {
			t.Errorf("SRTCP of %v: %x, %v; want %x", suite, b[:n], err, want)
		}
		if n, err = tf.openRTCP(b[:n]); err != nil || !bytes.Equal(b[:n], report) {
			t.Errorf("SRTCP of %v, opened: %x, %v", suite, b[:n], err)
		}
	}
}

func randomKey(r *rand.Rand) inspect.Key {
	k := inspect.Key{Suite: inspect.AES_CM_128_SHA1_32 + inspect.Suite(r.IntN(2))}
	for i := range k.Master {
		k.Master[i] = byte(r.Uint32())
	}
	for i := range k.Salt {
		k.Salt[i] = byte(r.Uint32())
	}
	return k
}

// randomRTP returns a packet with some CSRCs, perhaps an extension, and a
// payload of any length.
func randomRTP(r *rand.Rand, seq uint16, ssrc uint32) []byte {
	b := make([]byte, rtpHeaderLen, 1600)
	b[0] = 0x80 | byte(r.IntN(16))
	b[1] = byte(r.Uint32())
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], r.Uint32())
	binary.BigEndian.PutUint32(b[8:], ssrc)
	for range int(b[0]&0x0f) * 4 {
		b = append(b, byte(r.Uint32()))
	}
	if r.IntN(3) == 0 {
		b[0] |= 0x10
		words := r.IntN(5)
		b = append(b, 0x42, 0x42, 0, byte(words))
		for range words * 4 {
			b = append(b, byte(r.Uint32()))
		}
	}
	n := r.IntN(64)
	if r.IntN(4) == 0 {
		n = r.IntN(1400)
	}
	for range n {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

// What we seal a peer with other SRTP reads, and the other way round, through
// many wraps of the sequence number and with packets out of order.
func TestAgainstPion(t *testing.T) {
	r := rand.New(rand.NewPCG(3711, 4))
	for round := range 40 {
		k := randomKey(r)
		rx, err := newReceiver(k, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		tx, err := newSender(k, &sender{}, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		mouth, ear := peer(t, k), peer(t, k)
		type flow struct {
			ssrc uint32
			seq  uint16
		}
		flows := make([]flow, 1+r.IntN(3))
		for i := range flows {
			flows[i] = flow{r.Uint32(), uint16(r.Uint32() >> 17)}
		}
		step := 1 + r.IntN(1<<14-1) // a wrap every few packets, or none
		var held, heldPlain []byte  // a packet of mouth that comes late
		for i := range 300 {
			f := &flows[r.IntN(len(flows))]
			f.seq += uint16(1 + r.IntN(step))
			plain := randomRTP(r, f.seq, f.ssrc)

			sealed, err := mouth.EncryptRTP(nil, plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			if held == nil && r.IntN(8) == 0 {
				held, heldPlain = sealed, plain
			} else {
				openOnce(t, &rx, sealed, plain)
			}
			if held != nil && r.IntN(4) == 0 {
				b := room(held) // maybe too late by now: but never wrong
				if n, err := rx.open(b, false); err == nil && !bytes.Equal(b[:n], heldPlain) {
					t.Fatalf("late: %x, want %x", b[:n], heldPlain)
				}
				held = nil
			}

			b := room(plain)
			n, err := tx.seal(b, false)
			if err != nil {
				t.Fatalf("round %d, packet %d: seal: %v", round, i, err)
			}
			number := binary.BigEndian.Uint16(b[2:])
			got, err := ear.DecryptRTP(nil, b[:n], nil)
			if err != nil {
				t.Fatalf("round %d, packet %d: the peer does not read %d: %v", round, i, number, err)
			}
			binary.BigEndian.PutUint16(got[2:], f.seq)
			if !bytes.Equal(got, plain) {
				t.Fatalf("round %d, packet %d: the peer reads\n%x, want\n%x", round, i, got, plain)
			}
		}
		for i := range 20 {
			report := append([]byte{0x80, 200, 0, 6}, make([]byte, 24)...)
			binary.BigEndian.PutUint32(report[4:], flows[0].ssrc)
			for j := 8; j < len(report); j++ {
				report[j] = byte(r.Uint32())
			}
			sealed, err := mouth.EncryptRTCP(nil, report, nil)
			if err != nil {
				t.Fatal(err)
			}
			b := room(sealed)
			if n, err := rx.open(b, true); err != nil || !bytes.Equal(b[:n], report) {
				t.Fatalf("report %d: %x, %v; want %x", i, b[:n], err, report)
			}
			if _, err := rx.open(room(sealed), true); err != errReplay {
				t.Errorf("report %d once more: %v", i, err)
			}
			b = room(report)
			n, err := tx.seal(b, true)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ear.DecryptRTCP(nil, b[:n], nil); err != nil || !bytes.Equal(got, report) {
				t.Fatalf("report %d: the peer reads %x, %v; want %x", i, got, err, report)
			}
		}
	}
}

// openOnce has rx open sealed, which must be plain, and not a second time; a
// change of any one bit must not pass.
func openOnce(t *testing.T, rx *receiver, sealed, plain []byte) {
	t.Helper()
	forged := room(sealed)
	bit := int(plain[5]) % (len(forged) * 8)
	forged[bit/8] ^= 1 << (bit % 8)
	before := bytes.Clone(forged)
	if _, err := rx.open(forged, false); err == nil {
		t.Fatalf("bit %d changed, and taken", bit)
	}
	if !bytes.Equal(forged, before) {
		t.Fatal("a packet that failed was changed")
	}
	b := room(sealed)
	n, err := rx.open(b, false)
	if err != nil || !bytes.Equal(b[:n], plain) {
		t.Fatalf("%x, %v; want %x", b[:n], err, plain)
	}
	if _, err := rx.open(room(sealed), false); err != errReplay {
		t.Fatalf("once more: %v, want %v", err, errReplay)
	}
}

// The window against the set of all that came.
func TestWindow(t *testing.T) {
	r := rand.New(rand.NewPCG(3711, 5))
	for range 50 {
		first := r.Uint64N(1 << 20)
		w, came, high := begin(first), map[uint64]bool{first: true}, first
		spread := 1 + r.Uint64N(300)
		for range 500 {
			i := high + r.Uint64N(spread)
			if back := r.Uint64N(2 * spread); r.IntN(2) == 0 && back <= high {
				i = high - back
			}
			want := !came[i] && (i > high || high-i < replayWindow)
			if got := w.fresh(i); got != want {
				t.Fatalf("fresh(%d) = %t with highest %d, want %t", i, got, high, want)
			}
			if want {
				w.take(i)
				came[i], high = true, max(high, i)
			}
		}
	}
}

// The guess of the roll-over counter against RFC 3711, appendix A, as it stands
// there.
func TestIndexGuess(t *testing.T) {
	appendixA := func(roc, last, seq int64) int64 {
		v := roc
		if last < 32768 {
			if seq-last > 32768 {
				v = roc - 1
			}
		} else if last-32768 > seq {
			v = roc + 1
		}
		return v*65536 + seq
	}
	edges := []int64{0, 1, 2, 32766, 32767, 32768, 32769, 65534, 65535}
	for _, last := range edges {
		for _, seq := range edges {
			for _, roc := range []int64{1, 2, 70000} {
				w := begin(uint64(roc<<16 | last))
				if got, want := w.index(uint16(seq)), uint64(appendixA(roc, last, seq)); got != want {
					t.Errorf("highest %d:%d, number %d: index %#x, want %#x", roc, last, seq, got, want)
				}
			}
			w := begin(uint64(last))
			if got := w.index(uint16(seq)); got>>16 > 1 {
				t.Errorf("highest 0:%d, number %d: index %#x", last, seq, got)
			}
		}
	}
}

// A forged packet must not move the roll-over counter or the window.
func TestForgeryMovesNothing(t *testing.T) {
	k := testKey(1, inspect.AES_CM_128_SHA1_80)
	rx, err := newReceiver(k, new(desks))
	if err != nil {
		t.Fatal(err)
	}
	mouth := peer(t, k)
	say := func(seq uint16) {
		t.Helper()
		sealed, err := mouth.EncryptRTP(nil, voice(seq, 7), nil)
		if err != nil {
			t.Fatal(err)
		}
		b := room(sealed)
		if n, err := rx.open(b, false); err != nil || !bytes.Equal(b[:n], voice(seq, 7)) {
			t.Fatalf("number %d: %v", seq, err)
		}
	}
	say(65530)
	for _, seq := range []uint16{65531, 65535, 0, 5, 30000, 40000} {
		before := fmt.Sprint(rx.streams)
		if _, err := rx.open(append(voice(seq, 7), make([]byte, longTag)...), false); err == nil {
			t.Fatalf("forged number %d was taken", seq)
		}
		if fmt.Sprint(rx.streams) != before {
			t.Errorf("forged number %d moved the window", seq)
		}
	}
	for seq := uint16(65531); seq != 20; seq++ {
		say(seq)
	}
	if got := rx.streams[0].high; got != 1<<16|19 {
		t.Errorf("highest index %#x, want 0x10013", got)
	}
}

// A key is not used for more packets than it may, and a new one begins with
// roll-over 0, also where the numbers go on.
func TestSenderLimits(t *testing.T) {
	k := testKey(1, inspect.AES_CM_128_SHA1_32)
	s, err := newSender(k, &sender{}, new(desks))
	if err != nil {
		t.Fatal(err)
	}
	put := func(seq uint16) (uint16, error) {
		b := room(voice(seq, 7))
		_, err := s.seal(b, false)
		return binary.BigEndian.Uint16(b[2:]), err
	}
	if _, err := put(1); err != nil {
		t.Fatal(err)
	}
	s.next[0].high, s.next[0].offset = maxRTPIndex-1, 65533
	if n, err := put(2); err != nil || n != 65535 {
		t.Errorf("the last packet: number %d, %v", n, err)
	}
	for seq := range uint16(5) {
		if _, err := put(3 + seq); !errors.Is(err, errWorn) {
			t.Errorf("after the last packet: %v, want %v", err, errWorn)
		}
	}
	s.reports = maxRTCPIndex
	if _, err := s.seal(room(make([]byte, 28)), true); !errors.Is(err, errWorn) {
		t.Errorf("after the last report: %v", err)
	}

	next := testKey(2, inspect.AES_CM_128_SHA1_32)
	if s, err = newSender(next, &s, new(desks)); err != nil {
		t.Fatal(err)
	}
	ear := peer(t, next)
	for seq := uint16(8); seq < 20; seq++ { // goes on at 65535, then wraps
		b := room(voice(seq, 7))
		n, err := s.seal(b, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ear.DecryptRTP(nil, b[:n], nil); err != nil {
			t.Errorf("under the new key, as number %d: %v", binary.BigEndian.Uint16(b[2:]), err)
		}
	}
}

func TestKeysHidden(t *testing.T) {
	k := vectorKey(t, inspect.AES_CM_128_SHA1_32)
	rx, err := newReceiver(k, new(desks))
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s", "%q"} {
		got := fmt.Sprintf(verb, rx.rtp)
		if verb != "%s" && verb != "%q" { // fmt follows a pointer where a verb is wrong, as vet says
			got += fmt.Sprintf(verb, &rx) + fmt.Sprintf(verb, rx) + fmt.Sprintf(verb, &leg{rx: rx})
		}
		got = strings.ToLower(got)
		for _, secret := range []string{"c61e7a93", "e1f97a0d", "198 30 122", "225 249 122", "0xc6, 0x1e", "0xe1, 0xf9"} {
			if strings.Contains(got, secret) {
				t.Errorf("%s prints a key: %s", verb, got)
			}
		}
	}
}

func TestTransformAllocs(t *testing.T) {
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("needs a build without -race, under which a sync.Pool forgets at random")
	}
	k := testKey(1, inspect.AES_CM_128_SHA1_32)
	rx, err := newReceiver(k, new(desks))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := newSender(k, &sender{}, new(desks))
	if err != nil {
		t.Fatal(err)
	}
	var seq uint16
	plain := voice(1, 7)
	b, report := make([]byte, 0, 256), make([]byte, 28, 64)
	n := testing.AllocsPerRun(200, func() {
		seq++
		b = append(b[:0], plain...)
		binary.BigEndian.PutUint16(b[2:], seq)
		n, err := tx.seal(b, false)
		if err == nil {
			n, err = rx.open(b[:n], false)
		}
		if err != nil || n != len(plain) {
			t.Fatal(n, err)
		}
		n, err = tx.seal(report, true)
		if err == nil {
			_, err = rx.open(report[:n], true)
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations for a packet and a report each way, want none", n)
	}
}

// FuzzSRTP seals anything, has a peer with other SRTP read it where that calls
// it a packet, and opens anything: nothing that the key has not sealed may pass.
func FuzzSRTP(f *testing.F) {
	f.Add(voice(1, 7), uint64(1), false)
	f.Add(unhex(f, "8000ffff000000a0cafebabe58c43f542802acd92f48fe341db1b81cf83e8a0e48ee22d2"), uint64(1<<16|0xffff), false)
	f.Add(unhex(f, "81c90007cafebabeda82aaf34b2914111d5a31e15ed1000c6e550139d5013b308000000127867a6e3de83d04b273"), uint64(1), true)
	f.Add([]byte{0x90, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xbe, 0xde, 0, 1, 1, 2, 3, 4, 9, 9}, uint64(maxRTPIndex), false)
	f.Add(bytes.Repeat([]byte{0x9f}, 80), uint64(0), false)
	f.Add(bytes.Repeat([]byte{0x80}, 8), uint64(maxRTCPIndex), true)
	k := testKey(5, inspect.AES_CM_128_SHA1_80)
	f.Fuzz(func(t *testing.T, in []byte, index uint64, rtcp bool) {
		rx, err := newReceiver(k, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		if len(in) > 4096 || len(in) < rtcpHeaderLen || !rtcp && len(in) < rtpHeaderLen {
			return
		}
		b := room(in)
		if _, err := rx.open(b, rtcp); err == nil {
			t.Fatalf("% x passed", in)
		}
		if !bytes.Equal(b, in) {
			t.Fatal("what failed was changed")
		}
		tf, err := newTransform(&k, rtcp, new(desks))
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if rtcp {
			n, err = tf.sealRTCP(b, uint32(index))
			if (err == nil) != (uint32(index) <= maxRTCPIndex) {
				t.Fatalf("index %d: %v", uint32(index), err)
			}
		} else {
			header, ok := rtpHeader(b)
			if !ok {
				return
			}
			index = index&^0xffff | uint64(binary.BigEndian.Uint16(b[2:]))
			n, err = tf.sealRTP(b, header, index)
			if (err == nil) != (index <= maxRTPIndex) {
				t.Fatalf("index %d: %v", index, err)
			}
			if err == nil && bytes.Contains(b[header:n], in[header:]) && len(in)-header > 8 {
				t.Fatalf("% x left in the clear", in)
			}
		}
		if err != nil {
			return
		}
		if pionReads(in, rtcp) {
			ear, out := peer(t, k), []byte(nil)
			if rtcp {
				out, err = ear.DecryptRTCP(nil, b[:n], nil)
			} else {
				ear.SetROC(binary.BigEndian.Uint32(b[8:]), uint32(index>>16))
				out, err = ear.DecryptRTP(nil, b[:n], nil)
			}
			if err != nil || !bytes.Equal(out, in) {
				t.Fatalf("the peer reads % x, %v; want % x", out, err, in)
			}
		}
		if rtcp {
			n, err = tf.openRTCP(b[:n])
		} else {
			header, _ := rtpHeader(b)
			n, err = tf.openRTP(b[:n], header, index)
		}
		if err != nil || !bytes.Equal(b[:n], in) {
			t.Fatalf("% x, %v; want % x", b[:n], err, in)
		}
	})
}

// pionReads reports whether the peer's library takes b for a packet with the
// header that we see.
func pionReads(b []byte, rtcp bool) bool {
	if rtcp {
		return b[0]>>6 == 2
	}
	var h rtp.Header
	n, err := h.Unmarshal(b)
	header, _ := rtpHeader(b)
	return err == nil && n == header
}
