package tftp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	ucmAddr  = netip.MustParseAddrPort("10.20.0.11:69")
	ucmTID   = netip.MustParseAddrPort("10.20.0.11:40000")
	otherTID = netip.MustParseAddrPort("10.20.0.11:40001")
	insideIP = netip.MustParseAddrPort("10.20.0.1:0")
)

// script answers the client packet by packet: what it gets, and what goes
// back from which port.
type script []struct {
	want string // packet from the client
	from netip.AddrPort
	send []string
}

// play runs the script and returns what the client sent that was not in it.
func (s script) play(t *testing.T, n *memNet) (extra func() []string) {
	var got []string
	step := 0
	n.onSend = func(from, to netip.AddrPort, b []byte) {
		if to.Addr() != ucmAddr.Addr() {
			return
		}
		if step == len(s) || s[step].want != string(b) {
			got = append(got, string(b))
			return
		}
		for _, p := range s[step].send {
			n.deliverLocked(from, memPacket{[]byte(p), s[step].from})
		}
		step++
	}
	return func() []string {
		if step < len(s) {
			t.Errorf("the client sent %d of %d packets; next %q", step, len(s), s[step].want)
		}
		return got
	}
}

func TestGet(t *testing.T) {
	const (
		rrq   = "\x00\x01f\x00octet\x00tsize\x000\x00blksize\x008\x00"
		plain = "\x00\x01f\x00octet\x00"
		ack0  = "\x00\x04\x00\x00"
		ack1  = "\x00\x04\x00\x01"
		ack2  = "\x00\x04\x00\x02"
	)
	block512 := "\x00\x03\x00\x01" + string(pattern(512))
	tests := []struct {
		name   string
		script script
		max    int64
		want   string
		err    error
		code   int // of an *Error, -1: none
		extra  []string
	}{
		{"options", script{
			{rrq, ucmTID, []string{"\x00\x06tsize\x0010\x00blksize\x008\x00"}},
			{ack0, ucmTID, []string{"\x00\x03\x00\x0112345678"}},
			{ack1, ucmTID, []string{"\x00\x03\x00\x0290"}},
			{ack2, ucmTID, nil},
		}, 0, "1234567890", nil, -1, nil},
		{"server makes blocks smaller", script{
			{rrq, ucmTID, []string{"\x00\x06BLKSIZE\x008\x00"}},
			{ack0, ucmTID, []string{"\x00\x03\x00\x0112345678"}},
			{ack1, ucmTID, []string{"\x00\x03\x00\x02"}},
			{ack2, ucmTID, nil},
		}, 0, "12345678", nil, -1, nil},
		{"no options at the server", script{
			{rrq, ucmTID, []string{block512}},
			{ack1, ucmTID, []string{"\x00\x03\x00\x02x"}},
			{ack2, ucmTID, nil},
		}, 0, string(pattern(512)) + "x", nil, -1, nil},
		{"single port", script{
			{rrq, ucmAddr, []string{"\x00\x03\x00\x01x"}},
			{ack1, ucmAddr, nil},
		}, 0, "x", nil, -1, nil},
		{"options denied", script{
			{rrq, ucmTID, []string{"\x00\x05\x00\x08no\x00"}},
			{plain, otherTID, []string{"\x00\x03\x00\x01x"}},
			{ack1, otherTID, nil},
		}, 0, "x", nil, -1, nil},
		{"options illegal", script{
			{rrq, ucmTID, []string{"\x00\x05\x00\x04what?\x00"}},
			{plain, otherTID, []string{"\x00\x03\x00\x01x"}},
			{ack1, otherTID, nil},
		}, 0, "x", nil, -1, nil},
		{"not found", script{{rrq, ucmTID, []string{"\x00\x05\x00\x01nope\x00"}}}, 0, "", nil, int(CodeNotFound), nil},
		{"error on the way", script{
			{rrq, ucmTID, []string{block512}},
			{ack1, ucmTID, []string{"\x00\x05\x00\x00disk\x00"}},
		}, 0, "", nil, int(CodeUndefined), nil},
		{"doubled block is acknowledged again", script{
			{rrq, ucmTID, []string{block512, block512}},
			{ack1, ucmTID, []string{"\x00\x03\x00\x02x"}},
			{ack1, ucmTID, nil},
			{ack2, ucmTID, nil},
		}, 0, string(pattern(512)) + "x", nil, -1, nil},
		{"block out of order", script{
			{rrq, ucmTID, []string{"\x00\x03\x00\x05zzz", "\x00\x03\x00\x01x"}},
			{ack1, ucmTID, nil},
		}, 0, "x", nil, -1, nil},
		{"junk", script{
			{rrq, ucmTID, []string{"", "\x00", "\x00\x63", "\x00\x03\x00", "\x00\x05", "\x00\x04\x00\x00", "\x00\x03\x00\x01x"}},
			{ack1, ucmTID, nil},
		}, 0, "x", nil, -1, nil},
		{"too large by tsize", script{
			{rrq, ucmTID, []string{"\x00\x06tsize\x00100\x00"}},
		}, 99, "", ErrTooLarge, -1, []string{"\x00\x05\x00\x00Cancelled\x00"}},
		{"too large by weight", script{
			{rrq, ucmTID, []string{block512}},
		}, 99, "", ErrTooLarge, -1, []string{"\x00\x05\x00\x00Cancelled\x00"}},
		{"block over its size", script{
			{rrq, ucmTID, []string{"\x00\x06blksize\x008\x00"}},
			{ack0, ucmTID, []string{"\x00\x03\x00\x01123456789"}},
		}, 0, "", errLong, -1, []string{"\x00\x05\x00\x00Cancelled\x00"}},
		{"option that was not asked", script{
			{rrq, ucmTID, []string{"\x00\x06windowsize\x008\x00"}},
		}, 0, "", errOption, -1, []string{"\x00\x05\x00\x08Option not acceptable\x00"}},
		{"larger blocks than asked", script{
			{rrq, ucmTID, []string{"\x00\x06blksize\x00512\x00"}},
		}, 0, "", errOption, -1, []string{"\x00\x05\x00\x08Option not acceptable\x00"}},
		{"silence", script{{rrq, ucmTID, nil}}, 0, "", ErrNoAnswer, -1, []string{rrq, rrq, rrq, rrq}},
		{"silence later", script{
			{rrq, ucmTID, []string{block512}},
			{ack1, ucmTID, nil},
		}, 0, "", ErrNoAnswer, -1, []string{ack1, ack1, ack1, ack1, "\x00\x05\x00\x00Cancelled\x00"}},
		{"another server", script{{rrq, otherAddr, []string{"\x00\x03\x00\x01x"}}}, 0, "", ErrNoAnswer, -1, []string{rrq, rrq, rrq, rrq}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(1)
				extra := tt.script.play(t, n)
				got, err := Get(t.Context(), n.listen(insideIP), ucmAddr, "f", Options{BlockSize: 8, MaxSize: tt.max})
				if string(got) != tt.want && err == nil {
					t.Errorf("Get = %q, want %q", got, tt.want)
				}
				var e *Error
				switch {
				case tt.code >= 0:
					if !errors.As(err, &e) || int(e.Code) != tt.code {
						t.Errorf("Get: %v, want error %d", err, tt.code)
					}
				case !errors.Is(err, tt.err):
					t.Errorf("Get: %v, want %v", err, tt.err)
				}
				if diff := cmp.Diff(tt.extra, extra()); diff != "" {
					t.Errorf("sent besides (-want +got)\n%s", diff)
				}
			})
		})
	}
}

// TestGetLocksOn has a second transfer for the same request reach the client.
func TestGetLocksOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(600)
		pc := n.listen(insideIP)
		one, two := rawPhone{t, n.listen(ucmTID)}, rawPhone{t, n.listen(otherTID)}
		done := make(chan error)
		var got []byte
		go func() {
			var err error
			got, err = Get(t.Context(), pc, ucmAddr, "f", Options{})
			done <- err
		}()
		synctest.Wait()
		one.send(pc.at, AppendData(nil, 1, data[:512]))
		two.send(pc.at, AppendData(nil, 1, data[:512]))
		synctest.Wait()
		two.wantError(CodeUnknownTID)
		if b, _ := one.recv(time.Millisecond); string(b) != "\x00\x04\x00\x01" {
			t.Errorf("first port got % x, want ACK 1", b)
		}
		one.send(pc.at, AppendData(nil, 2, data[512:]))
		if err := <-done; err != nil || !bytes.Equal(got, data) {
			t.Errorf("Get: %d bytes, %v", len(got), err)
		}
		if err := pc.Close(); err != nil {
			t.Errorf("Get closed the socket: %v", err)
		}
	})
}

func TestGetCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		cause := errors.New("phone gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(1500*time.Millisecond, func() { cancel(cause) })
		start := time.Now()
		_, err := Get(ctx, n.listen(insideIP), ucmAddr, "f", Options{})
		if !errors.Is(err, cause) || time.Since(start) != 1500*time.Millisecond {
			t.Errorf("Get: %v after %v; want %v after 1.5s", err, time.Since(start), cause)
		}
	})
}

// TestOpen reads a file as it comes, and gives it up half-way.
func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(100000)
		s := serve(t, n, map[string][]byte{"f": data}, nil)
		pc := n.listen(insideIP)
		f, err := Open(t.Context(), pc, boxAddr, "f", Options{BlockSize: 1024})
		if err != nil || f.Size != int64(len(data)) {
			t.Fatalf("Open: size %d, %v", f.Size, err)
		}
		half := make([]byte, 50000)
		if _, err := io.ReadFull(f.Body, half); err != nil || !bytes.Equal(half, data[:50000]) {
			t.Fatalf("first half: %v", err)
		}
		if err := f.Body.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if _, err := f.Body.Read(half); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		if err := f.Body.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		synctest.Wait()
		if st := s.server.Stats(); st.Failed != 1 || st.Active != 0 {
			t.Errorf("server: %+v; want the transfer ended", st)
		}
		_, err = Open(t.Context(), n.listen(insideIP), boxAddr, "missing", Options{})
		if !IsNotFound(err) {
			t.Errorf("Open of a missing file: %v", err)
		}
		s.stop()
		if got := n.open(); got != 0 {
			t.Errorf("%d sockets left open", got)
		}
	})
}

func TestOpenBlockSize(t *testing.T) {
	n := newMemNet(1)
	for _, size := range []int{-1, 7, 65465} {
		if _, err := Open(t.Context(), n.listen(insideIP), ucmAddr, "f", Options{BlockSize: size}); !errors.Is(err, errOption) {
			t.Errorf("Open with blocks of %d: %v", size, err)
		}
	}
	if got := n.open(); got != 0 {
		t.Errorf("%d sockets left open", got)
	}
}

// TestRelay passes a file from one server through the client to the other, as
// the box does with firmware, while the phone is slow.
func TestRelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(3)
		n.loss = 0.05
		data := pattern(200000)
		patient := func(s *Server) { s.Waits = evenWaits(4*time.Second, 12) }
		up := serveAt(t, n, ucmAddr, patient, func(context.Context, netip.AddrPort, netip.AddrPort, string) (File, error) {
			return Bytes(data), nil
		})
		down := serveAt(t, n, boxAddr, patient, func(ctx context.Context, _, _ netip.AddrPort, name string) (File, error) {
			return Open(ctx, n.listen(insideIP), ucmAddr, name, Options{BlockSize: 1024, Tries: 12})
		})
		got, err := Get(t.Context(), n.listen(phoneAddr), boxAddr, "SCCP41.loads", Options{BlockSize: 1428, Tries: 12})
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		down()
		up()
	})
}

// serveAt starts a Server at an address and returns its end.
func serveAt(t *testing.T, n *memNet, at netip.AddrPort, change func(*Server), open func(context.Context, netip.AddrPort, netip.AddrPort, string) (File, error)) func() {
	s := &Server{Open: open, NewTID: n.newTID}
	change(s)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	pc := n.listen(at)
	go func() { done <- s.Serve(ctx, pc, at) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve at %v: %v", at, err)
		}
	}
}
