package media

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha1"
	"crypto/subtle"
	"encoding"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"patchbay/inspect"
)

// This file is SRTP itself: what RFC 3711 does to the bytes of one packet. It
// knows no streams, addresses or sessions; crypt.go says which index a packet
// has, and keeps a window for each SSRC.
//
//	RTP     |<-------- authenticated, with the ROC behind it -------->|
//	        +--------+------+-----------+-----------------------------+-----+
//	        | header | CSRC | extension | payload                     | tag |
//	        +--------+------+-----------+-----------------------------+-----+
//	                                    |<-------- encrypted -------->|
//
//	RTCP    |<------------------ authenticated ------------------->|
//	        +--------+------+--------------------------+-----------+-----+
//	        | header | SSRC | reports                  | E | index | tag |
//	        +--------+------+--------------------------+-----------+-----+
//	                        |<------ encrypted ------->|
//
// (RFC 3711, sections 3.1 and 3.4. There is no MKI.)

const (
	// Labels of what is derived from the master key. (RFC 3711, section 4.3.)
	labelCipher = 0
	labelAuth   = 1
	labelSalt   = 2
	labelRTCP   = 3 // added to each of them for SRTCP

	authKeyLen = 20 // bytes, RFC 3711 section 5.2
	longTag    = 10 // bytes; of SRTCP always (RFC 4568, section 6.2.2)
	shortTag   = 4  // bytes

	rtcpIndexLen  = 4 // bytes
	rtcpEncrypted = 1 << 31

	// Packets that one key may secure. (RFC 3711, section 9.2.)
	maxRTPIndex  = 1<<48 - 1
	maxRTCPIndex = 1<<31 - 1

	// replayWindow is how far behind the newest packet one may come and be
	// taken, in packets; RFC 3711 section 3.3.2 asks for 64 at least.
	replayWindow = 128
)

var (
	errState  = errors.New("media: SHA-1 here keeps its state in another form")
	errReplay = errors.New("media: replayed")
	errAuth   = errors.New("media: authentication failed")
	errHeader = errors.New("media: header longer than the packet")
	errRoom   = errors.New("media: no room for the tag")
	errWorn   = errors.New("media: the key has secured all the packets it may")
)

// A transform secures packets of one direction under the keys derived from one
// master key: AES in counter mode, HMAC-SHA1. From packet to packet it keeps
// nothing, and it is small, for a packet finds its call's memory cold. It
// allocates nothing, and several goroutines may use it at once.
type transform struct {
	block        cipher.Block
	salt         [2]uint64       // 14 bytes and two zeros, in network order
	inner, outer [sha1.Size]byte // hashes after the padded keys of HMAC
	tag          int             // bytes
	desks        *desks
}

// newTransform derives the session keys of k, for SRTCP if rtcp says so.
func newTransform(k *inspect.Key, rtcp bool, d *desks) (*transform, error) {
	t := &transform{tag: longTag, desks: d}
	switch k.Suite {
	case inspect.AES_CM_128_SHA1_32:
		if !rtcp {
			t.tag = shortTag
		}
	case inspect.AES_CM_128_SHA1_80:
	default:
		return nil, fmt.Errorf("media: suite %v is not supported", k.Suite)
	}
	label := byte(0)
	if rtcp {
		label = labelRTCP
	}
	master, err := aes.NewCipher(k.Master[:])
	if err != nil {
		return nil, errors.New("media: key refused")
	}
	var key, salt [aes.BlockSize]byte
	var auth [authKeyLen]byte
	derive(key[:], master, &k.Salt, label+labelCipher)
	derive(auth[:], master, &k.Salt, label+labelAuth)
	derive(salt[:len(k.Salt)], master, &k.Salt, label+labelSalt)
	if t.block, err = aes.NewCipher(key[:]); err != nil {
		return nil, errors.New("media: key refused")
	}
	t.salt = [2]uint64{binary.BigEndian.Uint64(salt[:]), binary.BigEndian.Uint64(salt[8:])}
	w := d.get()
	defer d.put(w)
	if t.inner, err = w.padded(auth[:], 0x36); err == nil {
		t.outer, err = w.padded(auth[:], 0x5c)
	}
	return t, err
}

// A desk is what one packet is worked on with.
type desk struct {
	pad     [10 * aes.BlockSize]byte // of a G.711 packet, 20 ms, at once
	sum     [sha1.Size]byte
	hash    hash.Hash
	restore encoding.BinaryUnmarshaler // is hash
	state   []byte                     // of hash after one block, as it tells and takes it
}

func newDesk() *desk {
	h := sha1.New()
	w := &desk{hash: h, restore: h.(encoding.BinaryUnmarshaler)}
	w.state, _ = w.after(make([]byte, sha1.BlockSize))
	return w
}

// after returns the state of the hash after one block.
func (w *desk) after(block []byte) ([]byte, error) {
	w.hash.Reset()
	w.hash.Write(block)
	return w.hash.(encoding.BinaryMarshaler).MarshalBinary()
}

// Where the hash stands in a desk's state. (crypto/sha1: "sha", 1, the hash, an
// empty block, the length.)
const stateHash = 4

// desks are those that nobody works at. One is always warm, where a call's
// memory is not.
type desks struct{ free sync.Pool }

func (d *desks) get() *desk {
	if w, ok := d.free.Get().(*desk); ok {
		return w
	}
	return newDesk()
}

func (d *desks) put(w *desk) { d.free.Put(w) }

// derive fills out with what label names. The key derivation rate is 0, so that
// nothing is ever derived anew. (RFC 3711, section 4.3.3.)
func derive(out []byte, master cipher.Block, salt *[14]byte, label byte) {
	var x, pad [aes.BlockSize]byte
	copy(x[:], salt[:])
	x[7] ^= label
	for n := byte(0); len(out) > 0; n++ {
		x[15] = n
		master.Encrypt(pad[:], x[:])
		out = out[copy(out, pad[:]):]
	}
}

// Format hides the keys from every verb.
func (t *transform) Format(f fmt.State, _ rune) { io.WriteString(f, "SRTP keys (hidden)") }

// sealRTP encrypts the RTP packet b, whose header is header bytes long, and
// appends the tag, for which b must have the capacity. It returns the new
// length. The caller sees to it that no index is used twice with one SSRC.
func (t *transform) sealRTP(b []byte, header int, index uint64) (int, error) {
	n := len(b) + t.tag
	if n > cap(b) {
		return 0, errRoom
	}
	if index > maxRTPIndex {
		return 0, errWorn
	}
	w := t.desks.get()
	defer t.desks.put(w)
	t.xor(w, b[header:], binary.BigEndian.Uint32(b[8:]), index)
	t.authenticate(w, b, uint32(index>>16))
	copy(b[len(b):n], w.sum[:])
	return n, nil
}

// openRTP authenticates and decrypts the SRTP packet b, whose header is header
// bytes long, as the one of that index, and returns its length without the tag.
// A packet that fails is unchanged.
func (t *transform) openRTP(b []byte, header int, index uint64) (int, error) {
	n := len(b) - t.tag
	if n < header {
		return 0, errAuth
	}
	w := t.desks.get()
	defer t.desks.put(w)
	t.authenticate(w, b[:n], uint32(index>>16))
	if subtle.ConstantTimeCompare(b[n:], w.sum[:t.tag]) != 1 {
		return 0, errAuth
	}
	t.xor(w, b[header:n], binary.BigEndian.Uint32(b[8:]), index)
	return n, nil
}

// sealRTCP is sealRTP for a compound RTCP packet.
func (t *transform) sealRTCP(b []byte, index uint32) (int, error) {
	n := len(b) + rtcpIndexLen
	if n+t.tag > cap(b) {
		return 0, errRoom
	}
	if index > maxRTCPIndex {
		return 0, errWorn
	}
	w := t.desks.get()
	defer t.desks.put(w)
	t.xor(w, b[rtcpHeaderLen:], binary.BigEndian.Uint32(b[4:]), uint64(index))
	b = b[:n+t.tag]
	binary.BigEndian.PutUint32(b[n-rtcpIndexLen:], index|rtcpEncrypted)
	w.begin(&t.inner)
	w.hash.Write(b[:n])
	w.end(&t.outer)
	copy(b[n:], w.sum[:])
	return len(b), nil
}

// rtcpIndex returns the index that the SRTCP packet b names; ok says that b is
// long enough to have one.
func (t *transform) rtcpIndex(b []byte) (index uint32, ok bool) {
	n := len(b) - t.tag - rtcpIndexLen
	if n < rtcpHeaderLen {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[n:]) &^ rtcpEncrypted, true
}

// openRTCP is openRTP for SRTCP. Packets that are not encrypted authenticate
// all the same. (RFC 3711, section 3.4: the E flag.)
func (t *transform) openRTCP(b []byte) (int, error) {
	index, ok := t.rtcpIndex(b)
	if !ok {
		return 0, errAuth
	}
	n := len(b) - t.tag
	w := t.desks.get()
	defer t.desks.put(w)
	w.begin(&t.inner)
	w.hash.Write(b[:n])
	w.end(&t.outer)
	if subtle.ConstantTimeCompare(b[n:], w.sum[:t.tag]) != 1 {
		return 0, errAuth
	}
	n -= rtcpIndexLen
	if b[n]&0x80 != 0 {
		t.xor(w, b[rtcpHeaderLen:n], binary.BigEndian.Uint32(b[4:]), uint64(index))
	}
	return n, nil
}

// authenticate leaves the tag of an RTP packet in w.sum; the roll-over counter
// counts as if it followed the packet. (RFC 3711, section 4.2.)
func (t *transform) authenticate(w *desk, b []byte, roc uint32) {
	w.begin(&t.inner)
	w.hash.Write(b)
	binary.BigEndian.PutUint32(w.sum[:], roc)
	w.hash.Write(w.sum[:4])
	w.end(&t.outer)
}

// xor encrypts or decrypts b. (RFC 3711, section 4.1.1.)
//
//	counter   |    salt, 14 bytes     | 0 |
//	      XOR |   | SSRC  |   index   | 0 |
//	      +   |                       | n |  for block n
//
// All counters are written before the first is encrypted: a block read while
// its halves are still being stored waits for them, which costs a fifth.
func (t *transform) xor(w *desk, b []byte, ssrc uint32, index uint64) {
	hi, lo := t.salt[0]^uint64(ssrc), t.salt[1]^index<<16
	for len(b) > 0 {
		n := min(len(b), len(w.pad))
		for i := 0; i < n; i += aes.BlockSize {
			binary.BigEndian.PutUint64(w.pad[i:], hi)
			binary.BigEndian.PutUint64(w.pad[i+8:], lo)
			lo++
		}
		for i := 0; i < n; i += aes.BlockSize {
			t.block.Encrypt(w.pad[i:i+aes.BlockSize], w.pad[i:i+aes.BlockSize])
		}
		b = b[subtle.XORBytes(b, b, w.pad[:n]):]
	}
}

// HMAC-SHA1 (RFC 2104) under a key whose padded forms have been hashed already:
// to put that hash back for each packet saves two of six blocks.

// padded returns the hash after the key padded and XORed with a byte.
func (w *desk) padded(key []byte, with byte) (h [sha1.Size]byte, err error) {
	pad := make([]byte, sha1.BlockSize)
	copy(pad, key)
	for i := range pad {
		pad[i] ^= with
	}
	state, err := w.after(pad)
	const end = stateHash + sha1.Size
	if err != nil || len(state) < end || len(state) != len(w.state) ||
		!bytes.Equal(state[:stateHash], w.state[:stateHash]) || !bytes.Equal(state[end:], w.state[end:]) {
		return h, errState // the rest, too, depends on what was hashed
	}
	copy(h[:], state[stateHash:])
	return h, nil
}

// begin has the hash go on from h, which is after one block.
func (w *desk) begin(h *[sha1.Size]byte) {
	copy(w.state[stateHash:], h[:])
	w.restore.UnmarshalBinary(w.state)
}

// end leaves the whole code in sum.
func (w *desk) end(outer *[sha1.Size]byte) {
	w.hash.Sum(w.sum[:0])
	w.begin(outer)
	w.hash.Write(w.sum[:])
	w.hash.Sum(w.sum[:0])
}

// rtpHeader returns how many bytes of b are header, with CSRCs and extension.
// (RFC 3550, sections 5.1 and 5.3.1.) It reports false if b is shorter.
func rtpHeader(b []byte) (int, bool) {
	if len(b) < rtpHeaderLen {
		return 0, false
	}
	n := rtpHeaderLen + int(b[0]&0x0f)*4
	if b[0]&0x10 != 0 {
		if len(b) < n+4 {
			return 0, false
		}
		n += 4 + int(binary.BigEndian.Uint16(b[n+2:]))*4
	}
	return n, n <= len(b)
}

// A window remembers the newest packet that authenticated and which before it
// have. It is asked before a packet is authenticated, and told after.
type window struct {
	high uint64    // the newest index
	seen [2]uint64 // bit n: high - n came
}

// begin returns the window after a stream's first packet.
func begin(index uint64) window { return window{high: index, seen: [2]uint64{1}} }

// index returns the index of the packet with that sequence number, whose
// roll-over counter is guessed. (RFC 3711, section 3.3.1 and appendix A.)
// There is nothing before roll-over 0: what would be there is far ahead.
func (w *window) index(seq uint16) uint64 {
	const half = 1 << 15
	roc, last := w.high>>16, uint16(w.high)
	switch {
	case last < half && int(seq)-int(last) > half && roc > 0:
		roc--
	case last >= half && int(last)-half > int(seq):
		roc++
	}
	return roc<<16 | uint64(seq)
}

// fresh reports whether a packet of that index may still be taken.
func (w *window) fresh(index uint64) bool {
	if index > w.high {
		return index <= maxRTPIndex
	}
	n := w.high - index
	return n < replayWindow && w.seen[n/64]>>(n%64)&1 == 0
}

// take notes that the packet of that index has authenticated.
func (w *window) take(index uint64) {
	if index > w.high {
		n := index - w.high
		w.high = index
		if n < 64 {
			w.seen = [2]uint64{w.seen[0] << n, w.seen[1]<<n | w.seen[0]>>(64-n)}
		} else {
			w.seen = [2]uint64{0, w.seen[0] << (n - 64)}
		}
	}
	n := w.high - index
	w.seen[n/64] |= 1 << (n % 64)
}
