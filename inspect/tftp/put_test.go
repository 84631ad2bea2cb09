package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPut has servers of all kinds take a file, or not.
func TestPut(t *testing.T) {
	const (
		wrq   = "\x00\x02f\x00octet\x00tsize\x0010\x00timeout\x001\x00blksize\x008\x00"
		plain = "\x00\x02f\x00octet\x00"
		oack  = "\x00\x06tsize\x0010\x00timeout\x001\x00blksize\x008\x00"
		data1 = "\x00\x03\x00\x0112345678"
		data2 = "\x00\x03\x00\x0290"
		whole = "\x00\x03\x00\x011234567890"
		ack0  = "\x00\x04\x00\x00"
		ack1  = "\x00\x04\x00\x01"
		ack2  = "\x00\x04\x00\x02"
	)
	tests := []struct {
		name   string
		script script
		sent   int64
		err    error
		code   int // of an *Error, -1: none
		extra  []string
	}{
		{"options", script{
			{wrq, ucmTID, []string{oack}}, {data1, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack2}},
		}, 10, nil, -1, nil},
		{"no options at the server", script{
			{wrq, ucmTID, []string{ack0}}, {whole, ucmTID, []string{ack1}},
		}, 10, nil, -1, nil},
		{"some options", script{
			{wrq, ucmTID, []string{"\x00\x06BLKSIZE\x008\x00"}}, {data1, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack2}},
		}, 10, nil, -1, nil},
		{"single port", script{
			{wrq, ucmAddr, []string{ack0}}, {whole, ucmAddr, []string{ack1}},
		}, 10, nil, -1, nil},
		{"options denied", script{
			{wrq, ucmTID, []string{"\x00\x05\x00\x08no\x00"}}, {plain, otherTID, []string{ack0}}, {whole, otherTID, []string{ack1}},
		}, 10, nil, -1, nil},
		{"options illegal", script{
			{wrq, ucmTID, []string{"\x00\x05\x00\x04what?\x00"}}, {plain, otherTID, []string{ack0}}, {whole, otherTID, []string{ack1}},
		}, 10, nil, -1, nil},
		{"denied without options, too", script{
			{wrq, ucmTID, []string{"\x00\x05\x00\x04what?\x00"}}, {plain, otherTID, []string{"\x00\x05\x00\x04what?\x00"}},
		}, 0, nil, int(CodeIllegal), nil},
		{"not writable", script{{wrq, ucmTID, []string{"\x00\x05\x00\x02Access violation\x00"}}}, 0, nil, int(CodeAccess), nil},
		{"file is there", script{{wrq, ucmTID, []string{"\x00\x05\x00\x06File already exists\x00"}}}, 0, nil, int(CodeExists), nil},
		{"error on the way", script{
			{wrq, ucmTID, []string{oack}}, {data1, ucmTID, []string{ack1}}, {data2, ucmTID, []string{"\x00\x05\x00\x03Disk full\x00"}},
		}, 8, nil, int(CodeDiskFull), nil},
		{"lost blocks", script{
			{wrq, ucmTID, nil}, {wrq, ucmTID, nil}, {wrq, ucmTID, []string{oack}},
			{data1, ucmTID, nil}, {data1, ucmTID, []string{ack1}},
			{data2, ucmTID, nil}, {data2, ucmTID, nil}, {data2, ucmTID, nil}, {data2, ucmTID, []string{ack2}},
		}, 10, nil, -1, nil},
		// The sorcerer's apprentice: an acknowledgement that comes twice must not have
		// the next block sent twice. (RFC 1123, section 4.2.3.1.)
		{"doubled acknowledgements", script{
			{wrq, ucmTID, []string{oack, oack, ack0}}, {data1, ucmTID, []string{ack1, ack1, ack1}}, {data2, ucmTID, []string{ack1, oack, ack2, ack2}},
		}, 10, nil, -1, nil},
		{"acknowledgement of what was not sent", script{
			{wrq, ucmTID, []string{ack1, ack2, oack}}, {data1, ucmTID, []string{ack2, "\x00\x04\xff\xff", ack1}}, {data2, ucmTID, []string{ack2}},
		}, 10, nil, -1, nil},
		{"junk", script{
			{wrq, ucmTID, []string{"", "\x00", "\x00\x63", "\x00\x04\x00", "\x00\x05", "\x00\x03\x00\x00", oack}},
			{data1, ucmTID, []string{"", "\x00\x04", "\x00\x05\x00", data1, ack1}}, {data2, ucmTID, []string{ack2}},
		}, 10, nil, -1, nil},
		{"options without end", script{{wrq, ucmTID, []string{"\x00\x06tsize"}}}, 0, errOption, -1, nil},
		{"option that was not asked", script{
			{wrq, ucmTID, []string{"\x00\x06windowsize\x008\x00"}},
		}, 0, errOption, -1, []string{"\x00\x05\x00\x08Option not acceptable\x00"}},
		{"larger blocks than asked", script{
			{wrq, ucmTID, []string{"\x00\x06blksize\x009\x00"}},
		}, 0, errOption, -1, []string{"\x00\x05\x00\x08Option not acceptable\x00"}},
		{"another timeout than asked", script{
			{wrq, ucmTID, []string{"\x00\x06timeout\x002\x00"}},
		}, 0, errOption, -1, []string{"\x00\x05\x00\x08Option not acceptable\x00"}},
		{"silence", script{{wrq, ucmTID, nil}}, 0, ErrNoAnswer, -1, []string{wrq, wrq, wrq, wrq}},
		{"silence later", script{
			{wrq, ucmTID, []string{oack}}, {data1, ucmTID, nil},
		}, 0, ErrNoAnswer, -1, []string{data1, data1, data1, data1}},
		{"silence at the end", script{
			{wrq, ucmTID, []string{oack}}, {data1, ucmTID, []string{ack1}}, {data2, ucmTID, nil},
		}, 8, ErrNoAnswer, -1, []string{data2, data2, data2, data2}},
		{"only doubles", script{
			{wrq, ucmTID, []string{oack}}, {data1, ucmTID, []string{ack1}},
			{data2, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack1}}, {data2, ucmTID, []string{ack1}},
		}, 8, ErrNoAnswer, -1, nil},
		{"another server", script{{wrq, otherAddr, []string{ack0}}}, 0, ErrNoAnswer, -1, []string{wrq, wrq, wrq, wrq}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(1)
				extra := tt.script.play(t, n)
				sent, err := Put(t.Context(), n.listen(insideIP), ucmAddr, "f", Bytes([]byte("1234567890")), Options{BlockSize: 8})
				var e *Error
				switch {
				case sent != tt.sent:
					t.Errorf("Put sent %d bytes, want %d", sent, tt.sent)
				case tt.code >= 0:
					if !errors.As(err, &e) || int(e.Code) != tt.code {
						t.Errorf("Put: %v, want error %d", err, tt.code)
					}
				case !errors.Is(err, tt.err):
					t.Errorf("Put: %v, want %v", err, tt.err)
				}
				if diff := cmp.Diff(tt.extra, extra()); diff != "" {
					t.Errorf("sent besides (-want +got)\n%s", diff)
				}
			})
		})
	}
}

// A taker is a server that takes files.
type taker struct {
	files  map[string][]byte
	blocks []uint16 // acknowledged, of the last file
}

// take takes one file on a socket, and acknowledges again what comes again until
// lingering ends.
func (s *taker) take(t *testing.T, n *memNet, linger time.Duration) (wait func()) {
	pc, tid := n.listen(ucmAddr), n.listen(ucmTID)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer pc.Close()
		defer tid.Close()
		buf := make([]byte, 2048)
		size, addr, err := pc.ReadFrom(buf)
		req, bad := ParseRequest(buf[:size])
		if err != nil || bad != nil || req.Op != OpWrite {
			t.Errorf("request %q: %v, %v", buf[:size], err, bad)
			return
		}
		block := defaultBlock
		for _, o := range req.Options {
			if o.Name == "blksize" {
				fmt.Sscan(o.Value, &block)
			}
		}
		answer, next := AppendOptions(nil, req.Options), uint16(1)
		var file []byte
		s.blocks = nil
		for over := false; ; {
			tid.WriteTo(answer, addr)
			tid.SetReadDeadline(time.Now().Add(linger))
			size, from, err := tid.ReadFrom(buf)
			if err != nil {
				if over {
					s.files[req.Name] = file
				}
				return
			}
			addr = from
			got, data, err := ParseData(buf[:size])
			if err == nil && got == next && !over {
				file = append(file, data...)
				s.blocks = append(s.blocks, got)
				answer, next, over = AppendAck(nil, got), next+1, len(data) < block
			}
		}
	}()
	return func() { <-done }
}

// TestPutWhole sends files of sizes around those of blocks, also such that numbers of
// blocks begin anew, while packets are lost, doubled and overtaken.
func TestPutWhole(t *testing.T) {
	for _, tt := range []struct {
		size, block int
		loss        float64
	}{
		{0, 8, 0}, {1, 8, 0}, {8, 8, 0}, {9, 8, 0}, {511, 0, 0}, {512, 0, 0}, {513, 0, 0}, {100_000, 1428, 0.2},
		{65535 * 8, 8, 0}, {65536*8 + 3, 8, 0}, {2*65536*8 + 8, 8, 0.001},
	} {
		t.Run(fmt.Sprintf("%d by %d", tt.size, tt.block), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(uint64(tt.size))
				n.loss, n.double, n.delay = tt.loss, tt.loss, tt.loss
				s := &taker{files: make(map[string][]byte)}
				wait := s.take(t, n, time.Minute)
				want := pattern(tt.size)
				sent, err := Put(t.Context(), n.listen(insideIP), ucmAddr, "asa.cfg", Bytes(want), Options{BlockSize: tt.block, Tries: 12})
				wait()
				if err != nil || sent != int64(tt.size) || !bytes.Equal(s.files["asa.cfg"], want) {
					t.Errorf("Put sent %d bytes, %v; the server has %d of %d", sent, err, len(s.files["asa.cfg"]), tt.size)
				}
			})
		})
	}
}

// TestPutLocksOn has a second port of the server, and a stranger, speak up in a transfer.
func TestPutLocksOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		pc := n.listen(insideIP)
		one, two, stranger := rawPhone{t, n.listen(ucmTID)}, rawPhone{t, n.listen(otherTID)}, rawPhone{t, n.listen(otherAddr)}
		done := make(chan error)
		go func() {
			_, err := Put(t.Context(), pc, ucmAddr, "f", Bytes(pattern(600)), Options{})
			done <- err
		}()
		synctest.Wait()
		stranger.send(pc.at, AppendAck(nil, 0))
		synctest.Wait()
		one.send(pc.at, AppendAck(nil, 0))
		two.send(pc.at, AppendAck(nil, 0))
		synctest.Wait()
		two.wantError(CodeUnknownTID)
		if b, _ := one.recv(time.Millisecond); !bytes.Equal(b, AppendData(nil, 1, pattern(600)[:512])) {
			t.Errorf("first port got % x, want block 1", b)
		}
		two.send(pc.at, (&Error{CodeDiskFull, "not yours"}).AppendTo(nil))
		stranger.send(pc.at, AppendAck(nil, 1))
		one.send(pc.at, AppendAck(nil, 1))
		one.send(pc.at, AppendAck(nil, 2))
		if err := <-done; err != nil {
			t.Errorf("Put: %v", err)
		}
		if err := pc.Close(); err != nil {
			t.Errorf("Put closed the socket: %v", err)
		}
	})
}

// TestPutEnds ends transfers by what is not the server's fault.
func TestPutEnds(t *testing.T) {
	cause := errors.New("interrupted")
	for _, tt := range []struct {
		name  string
		after time.Duration // until the context ends; 0: it does not
		file  File
		err   error
		told  string
	}{
		{"before the answer", 500 * time.Millisecond, Bytes(pattern(600)), cause, ""},
		{"in the middle", 1500 * time.Millisecond, Bytes(pattern(600)), cause, "Cancelled"},
		{"half a file", 0, File{io.NopCloser(io.MultiReader(bytes.NewReader(pattern(512)), iotest.ErrReader(io.ErrClosedPipe))), -1}, io.ErrClosedPipe, "Server error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(1)
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.after > 0 {
					time.AfterFunc(tt.after, func() { cancel(cause) })
				}
				var told []string
				n.onSend = func(from, to netip.AddrPort, b []byte) {
					if e, err := ParseError(b); err == nil {
						told = append(told, e.Msg)
					} else if block, _, err := ParseData(b); err == nil && tt.after == 0 {
						n.deliverLocked(from, memPacket{AppendAck(nil, block), ucmTID})
					} else if OpOf(b) == OpWrite {
						time.AfterFunc(time.Second-time.Millisecond, func() { n.deliver(from, memPacket{AppendAck(nil, 0), ucmTID}) })
					}
				}
				began := time.Now()
				_, err := Put(ctx, n.listen(insideIP), ucmAddr, "f", tt.file, Options{})
				if !errors.Is(err, tt.err) || tt.after > 0 && time.Since(began) != tt.after {
					t.Errorf("Put: %v after %v, want %v", err, time.Since(began), tt.err)
				}
				if strings.Join(told, ", ") != tt.told {
					t.Errorf("the server is told %q, want %q", told, tt.told)
				}
			})
		})
	}
}

// An operator's terminal obeys no server.
func TestErrorText(t *testing.T) {
	e, err := ParseError([]byte("\x00\x05\x00\x02\x1b[2Jno\r\nway \xff\u009b é\x00"))
	if want := "tftp: error 2: ?[2Jno??way ?? é"; err != nil || e.Error() != want {
		t.Errorf("%q, %v; want %q", e.Error(), err, want)
	}
}

// FuzzClient has a server answer with packets that it makes of the input: after a
// byte that counts its bytes, one packet or, after 0, the end of those that answer one.
func FuzzClient(f *testing.F) {
	pack := func(packets ...string) (b []byte) {
		for _, p := range packets {
			b = append(append(b, byte(len(p))), p...)
		}
		return b
	}
	f.Add(pack("\x00\x06blksize\x008\x00", "", "\x00\x04\x00\x01", "", "\x00\x04\x00\x02"), true)
	f.Add(pack("\x00\x04\x00\x00", "", "\x00\x05\x00\x03Disk full\x00"), true)
	f.Add(pack("\x00\x06tsize\x009\x00blksize\x008\x00", "", "\x00\x03\x00\x0112345678", "", "\x00\x03\x00\x029"), false)
	f.Add(pack("\x00\x05\x00\x08\x00", "", "\x00\x03\x00\x01x"), false)
	f.Fuzz(func(t *testing.T, b []byte, put bool) {
		synctest.Test(t, func(t *testing.T) {
			n := newMemNet(1)
			n.onSend = func(from, to netip.AddrPort, _ []byte) {
				for len(b) > 0 {
					size := min(int(b[0]), len(b)-1)
					p := b[1 : 1+size]
					if b = b[1+size:]; size == 0 {
						return
					}
					n.deliverLocked(from, memPacket{slices.Clone(p), ucmTID})
				}
			}
			want, o := pattern(20), Options{BlockSize: 8, Tries: 2, MaxSize: 100}
			if put {
				if n, err := Put(t.Context(), n.listen(insideIP), ucmAddr, "f", Bytes(want), o); n < 0 || n > 20 || err == nil && n != 20 {
					t.Errorf("Put = %d, %v", n, err)
				}
			} else if got, err := Get(t.Context(), n.listen(insideIP), ucmAddr, "f", o); len(got) > 100 {
				t.Errorf("Get: %d bytes, %v", len(got), err)
			}
		})
	})
}
