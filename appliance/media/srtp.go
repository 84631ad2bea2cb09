package media

import (
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
	errReplay = errors.New("media: replayed")
	errAuth   = errors.New("media: authentication failed")
	errHeader = errors.New("media: header longer than the packet")
	errRoom   = errors.New("media: no room for the tag")
	errWorn   = errors.New("media: the key has secured all the packets it may")
)

// A transform secures packets of one direction under the keys derived from one
// master key: AES in counter mode, HMAC-SHA1. From packet to packet it keeps
// nothing. It allocates nothing, and is for one goroutine at a time.
type transform struct {
	block cipher.Block
	salt  [2]uint64 // 14 bytes and two zeros, in network order
	tag   int       // bytes
	mac   mac

	pad [10 * aes.BlockSize]byte // of a G.711 packet, 20 ms, at once
	sum [sha1.Size]byte
}

// newTransform derives the session keys of k, for SRTCP if rtcp says so.
func newTransform(k *inspect.Key, rtcp bool) (*transform, error) {
	t := &transform{tag: longTag}
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
	return t, t.mac.init(auth[:])
}

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
	t.xor(b[header:], binary.BigEndian.Uint32(b[8:]), index)
	t.authenticate(b, uint32(index>>16))
	copy(b[len(b):n], t.sum[:])
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
	t.authenticate(b[:n], uint32(index>>16))
	if subtle.ConstantTimeCompare(b[n:], t.sum[:t.tag]) != 1 {
		return 0, errAuth
	}
	t.xor(b[header:n], binary.BigEndian.Uint32(b[8:]), index)
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
	t.xor(b[rtcpHeaderLen:], binary.BigEndian.Uint32(b[4:]), uint64(index))
	b = b[:n+t.tag]
	binary.BigEndian.PutUint32(b[n-rtcpIndexLen:], index|rtcpEncrypted)
	t.mac.begin()
	t.mac.write(b[:n])
	t.mac.end(&t.sum)
	copy(b[n:], t.sum[:])
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
	t.mac.begin()
	t.mac.write(b[:n])
	t.mac.end(&t.sum)
	if subtle.ConstantTimeCompare(b[n:], t.sum[:t.tag]) != 1 {
		return 0, errAuth
	}
	n -= rtcpIndexLen
	if b[n]&0x80 != 0 {
		t.xor(b[rtcpHeaderLen:n], binary.BigEndian.Uint32(b[4:]), uint64(index))
	}
	return n, nil
}

// authenticate leaves the tag of an RTP packet in sum; the roll-over counter
// counts as if it followed the packet. (RFC 3711, section 4.2.)
func (t *transform) authenticate(b []byte, roc uint32) {
	t.mac.begin()
	t.mac.write(b)
	binary.BigEndian.PutUint32(t.sum[:], roc)
	t.mac.write(t.sum[:4])
	t.mac.end(&t.sum)
}

// xor encrypts or decrypts b. (RFC 3711, section 4.1.1.)
//
//	counter   |    salt, 14 bytes     | 0 |
//	      XOR |   | SSRC  |   index   | 0 |
//	      +   |                       | n |  for block n
//
// All counters are written before the first is encrypted: a block read while
// its halves are still being stored waits for them, which costs a fifth.
func (t *transform) xor(b []byte, ssrc uint32, index uint64) {
	hi, lo := t.salt[0]^uint64(ssrc), t.salt[1]^index<<16
	for len(b) > 0 {
		n := min(len(b), len(t.pad))
		for i := 0; i < n; i += aes.BlockSize {
			binary.BigEndian.PutUint64(t.pad[i:], hi)
			binary.BigEndian.PutUint64(t.pad[i+8:], lo)
			lo++
		}
		for i := 0; i < n; i += aes.BlockSize {
			t.block.Encrypt(t.pad[i:i+aes.BlockSize], t.pad[i:i+aes.BlockSize])
		}
		b = b[subtle.XORBytes(b, b, t.pad[:n]):]
	}
}

// A mac is HMAC-SHA1 (RFC 2104) under one key. The hash after the inner and
// after the outer padded key is kept and put back for each packet, which saves
// two of six blocks.
type mac struct {
	hash         hash.Hash
	state        encoding.BinaryUnmarshaler // of hash
	inner, outer []byte
}

func (m *mac) init(key []byte) error {
	m.hash = sha1.New()
	var ok bool
	if m.state, ok = m.hash.(encoding.BinaryUnmarshaler); !ok {
		return errors.New("media: SHA-1 here does not take back its state")
	}
	padded := func(with byte) ([]byte, error) {
		pad := make([]byte, sha1.BlockSize)
		copy(pad, key)
		for i := range pad {
			pad[i] ^= with
		}
		m.hash.Reset()
		m.hash.Write(pad)
		a, ok := m.hash.(encoding.BinaryMarshaler)
		if !ok {
			return nil, errors.New("media: SHA-1 here does not tell its state")
		}
		return a.MarshalBinary()
	}
	var err error
	if m.inner, err = padded(0x36); err == nil {
		m.outer, err = padded(0x5c)
	}
	return err
}

// begin starts a packet. The state is the one this hash gave, so that it takes
// it back.
func (m *mac) begin() { m.state.UnmarshalBinary(m.inner) }

func (m *mac) write(b []byte) { m.hash.Write(b) }

// end leaves the whole code in sum.
func (m *mac) end(sum *[sha1.Size]byte) {
	m.hash.Sum(sum[:0])
	m.state.UnmarshalBinary(m.outer)
	m.hash.Write(sum[:])
	m.hash.Sum(sum[:0])
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
