package media

import (
	"fmt"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v2"

	"patchbay/inspect"
)

// A crypter is one direction of one stream, in our hands or in a library's: it
// works in place and returns the new length.
type crypter interface {
	seal(b []byte) (int, error)
	open(b []byte) (int, error)
}

type ours struct {
	tx sender
	rx receiver
}

func (o *ours) seal(b []byte) (int, error) { return o.tx.seal(b, false) }
func (o *ours) open(b []byte) (int, error) { return o.rx.open(b, false) }

// library is pion/srtp called as well as it can be: a header that is used
// again, and a destination with room.
type library struct {
	c      *srtp.Context
	header rtp.Header
}

func (l *library) seal(b []byte) (int, error) {
	out, err := l.c.EncryptRTP(b[:0], b, &l.header)
	return len(out), err
}

func (l *library) open(b []byte) (int, error) {
	out, err := l.c.DecryptRTP(b[:0], b, &l.header)
	return len(out), err
}

var benchDesks desks

func newOurs(tb testing.TB, k inspect.Key) crypter {
	o := new(ours)
	var err error
	if o.tx, err = newSender(k, &sender{}, &benchDesks); err == nil {
		o.rx, err = newReceiver(k, &benchDesks)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return o
}

func newLibrary(tb testing.TB, k inspect.Key) crypter { return &library{c: peer(tb, k)} }

// BenchmarkSRTP is the SRTP operation alone: 172 bytes of RTP, one packet of
// each stream after the other, renumbering and replay window included.
func BenchmarkSRTP(b *testing.B) {
	for _, op := range []string{"seal", "open"} {
		for _, n := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s/%d/patchbay", op, n), func(b *testing.B) { benchSRTP(b, newOurs, n, op == "open") })
			b.Run(fmt.Sprintf("%s/%d/pion", op, n), func(b *testing.B) { benchSRTP(b, newLibrary, n, op == "open") })
		}
	}
}

func benchSRTP(b *testing.B, make1 func(testing.TB, inspect.Key) crypter, n int, open bool) {
	type pair struct{ seal, open crypter }
	pairs := make([]pair, n)
	for i := range pairs {
		k := testKey(byte(i), inspect.AES_CM_128_SHA1_80)
		k.Master[15] = byte(i >> 8)
		pairs[i] = pair{make1(b, k), make1(b, k)}
	}
	const window = 1000 // packets prepared outside the clock
	var packets [window][]byte
	for i := range packets {
		packets[i] = make([]byte, 0, 256)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		b.StopTimer()
		k := min(window, b.N-done)
		for i := range k {
			c := pairs[(done+i)%n]
			packets[i] = append(packets[i][:0], voice(uint16((done+i)/n), 7)...)
			if open {
				m, err := c.seal.seal(packets[i])
				if err != nil {
					b.Fatal(err)
				}
				packets[i] = packets[i][:m]
			}
		}
		b.StartTimer()
		for i, p := range packets[:k] {
			c := pairs[(done+i)%n]
			var err error
			if open {
				_, err = c.open.open(p)
			} else {
				_, err = c.seal.seal(p)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		done += k
	}
}
