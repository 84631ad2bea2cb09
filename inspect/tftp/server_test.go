package tftp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	boxAddr   = netip.MustParseAddrPort("203.0.113.10:69")
	phoneAddr = netip.MustParseAddrPort("198.51.100.7:1024")
	otherAddr = netip.MustParseAddrPort("198.51.100.8:1024")
)

// pattern returns n bytes that differ from block to block.
func pattern(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

// bench is a Server on a memNet, in a synctest bubble.
type bench struct {
	t      *testing.T
	net    *memNet
	server *Server
	mu     sync.Mutex
	events []Event
	stop   func()
}

// serve starts a Server for files; more names fail as their error says.
func serve(t *testing.T, n *memNet, files map[string][]byte, change func(*Server)) *bench {
	b := &bench{t: t, net: n}
	b.server = &Server{
		Open: func(_ context.Context, _, _ netip.AddrPort, name string) (File, error) {
			data, ok := files[name]
			if !ok {
				return File{}, fmt.Errorf("test: %q: %w", name, fs.ErrNotExist)
			}
			return Bytes(data), nil
		},
		NewTID: n.newTID,
		Trace: func(e Event) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.events = append(b.events, e)
		},
	}
	if change != nil {
		change(b.server)
	}
	pc := n.listen(boxAddr)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- b.server.Serve(ctx, pc, boxAddr) }()
	b.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		pc.Close()
	}
	return b
}

func (b *bench) kinds() []EventKind {
	b.mu.Lock()
	defer b.mu.Unlock()
	var ks []EventKind
	for _, e := range b.events {
		ks = append(ks, e.Kind)
	}
	return ks
}

// rawPhone sends and receives single packets.
type rawPhone struct {
	t *testing.T
	*memConn
}

func (p rawPhone) send(to netip.AddrPort, b []byte) {
	p.t.Helper()
	if _, err := p.WriteTo(b, net.UDPAddrFromAddrPort(to)); err != nil {
		p.t.Fatal(err)
	}
}

func (p rawPhone) read(name string, opts ...Option) []byte {
	b := Request{Op: OpRead, Name: name, Mode: "octet", Options: opts}.AppendTo(nil)
	p.send(boxAddr, b)
	return b
}

// recv returns the next packet, or nil if none comes within wait.
func (p rawPhone) recv(wait time.Duration) ([]byte, netip.AddrPort) {
	p.t.Helper()
	p.SetReadDeadline(time.Now().Add(wait))
	buf := make([]byte, 2048)
	n, from, err := p.ReadFrom(buf)
	if isTimeout(err) {
		return nil, netip.AddrPort{}
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return buf[:n], addrPortOf(from)
}

func (p rawPhone) wantData(block uint16, data []byte) netip.AddrPort {
	p.t.Helper()
	b, from := p.recv(time.Millisecond)
	got, d, err := ParseData(b)
	if err != nil || got != block || !bytes.Equal(d, data) {
		p.t.Fatalf("got block %d of %d bytes, %v (% .20x); want block %d of %d", got, len(d), err, b, block, len(data))
	}
	return from
}

func (p rawPhone) wantError(code Code) {
	p.t.Helper()
	b, _ := p.recv(time.Millisecond)
	if e, err := ParseError(b); err != nil || e.Code != code {
		p.t.Fatalf("got %v, %v (% .20x); want error %d", e, err, b, code)
	}
}

func (p rawPhone) wantNothing(wait time.Duration) {
	p.t.Helper()
	if b, from := p.recv(wait); b != nil {
		p.t.Fatalf("got % .20x from %v; want nothing", b, from)
	}
}

// TestTransfer sends files of telling sizes over good and bad networks, with
// our client at the other end.
func TestTransfer(t *testing.T) {
	networks := []struct {
		name                string
		loss, double, delay float64
	}{
		{"good", 0, 0, 0},
		{"lossy", 0.15, 0, 0},
		{"doubling", 0, 0.3, 0},
		{"overtaking", 0, 0.2, 0.2},
		{"bad", 0.1, 0.1, 0.1},
	}
	sizes := []int{0, 1, 511, 512, 513, 1024, 1468 * 3, 40000}
	for _, nw := range networks {
		for _, single := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/single=%v", nw.name, single), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newMemNet(7)
					n.loss, n.double, n.delay = nw.loss, nw.double, nw.delay
					files := make(map[string][]byte)
					for _, size := range sizes {
						files[fmt.Sprint(size)] = pattern(size)
					}
					b := serve(t, n, files, func(s *Server) {
						s.SinglePort = single
						s.Waits = []time.Duration{time.Second, time.Second, time.Second, time.Second, time.Second, time.Second, time.Second, time.Second}
					})
					for _, size := range sizes {
						for _, block := range []int{0, 8, 1428, 8192} {
							if block == 8 && size > 2000 {
								continue
							}
							pc := n.listen(netip.AddrPortFrom(phoneAddr.Addr(), 0))
							got, err := Get(t.Context(), pc, boxAddr, fmt.Sprint(size), Options{BlockSize: block, Tries: 12})
							if err != nil || !bytes.Equal(got, pattern(size)) {
								t.Errorf("%d bytes in blocks of %d: got %d bytes, %v", size, block, len(got), err)
							}
							pc.Close()
						}
					}
					b.stop()
					if got := n.open(); got != 0 {
						t.Errorf("%d sockets left open", got)
					}
				})
			})
		}
	}
}

// TestBlockWrap sends more than 65,535 blocks: the number after the last is 0.
func TestBlockWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		want := pattern(65536*8 + 12)
		b := serve(t, n, map[string][]byte{"big": want}, nil)
		pc := n.listen(phoneAddr)
		got, err := Get(t.Context(), pc, boxAddr, "big", Options{BlockSize: 8})
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
		}
		b.stop()
		if st := b.server.Stats(); st.Sent != 1 || st.Bytes != uint64(len(want)) || st.Active != 0 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

// TestRetransmit holds the server to its times when nobody answers.
func TestRetransmit(t *testing.T) {
	tests := []struct {
		name string
		opts []Option
		want []time.Duration
	}{
		{"backing off", nil, []time.Duration{0, 1 * time.Second, 3 * time.Second, 7 * time.Second, 11 * time.Second}},
		{"asked timeout", []Option{{"timeout", "6"}}, []time.Duration{0, 6 * time.Second, 12 * time.Second, 18 * time.Second, 24 * time.Second}},
		{"asked timeout too long", []Option{{"timeout", "25"}}, []time.Duration{0, 25 * time.Second, 50 * time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newMemNet(1)
				var got []time.Duration
				start := time.Now()
				n.onSend = func(from, to netip.AddrPort, _ []byte) {
					if to == phoneAddr {
						got = append(got, time.Since(start))
					}
				}
				b := serve(t, n, map[string][]byte{"f": pattern(9)}, nil)
				p := rawPhone{t, n.listen(phoneAddr)}
				p.read("f", tt.opts...)
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("sent at (-want +got)\n%s", diff)
				}
				b.stop()
				if st := b.server.Stats(); st.Failed != 1 || st.Sent != 0 {
					t.Errorf("Stats = %+v, want one failed", st)
				}
				if e := b.events[len(b.events)-1]; e.Kind != Failed || !errors.Is(e.Err, ErrNoAnswer) {
					t.Errorf("last event %v", e)
				}
			})
		})
	}
}

// TestSorcerersApprentice doubles an acknowledgement: it must not double a block.
func TestSorcerersApprentice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(1500)
		b := serve(t, n, map[string][]byte{"f": data}, nil)
		p := rawPhone{t, n.listen(phoneAddr)}
		p.read("f")
		tid := p.wantData(1, data[:512])
		p.send(tid, AppendAck(nil, 1))
		p.send(tid, AppendAck(nil, 1))
		p.send(tid, AppendAck(nil, 0))
		p.wantData(2, data[512:1024])
		p.send(tid, AppendAck(nil, 1))
		p.wantNothing(900 * time.Millisecond)
		p.send(tid, AppendAck(nil, 2))
		p.wantData(3, data[1024:])
		p.send(tid, AppendAck(nil, 3))
		p.wantNothing(time.Minute)
		b.stop()
	})
}

// TestWrongTID has a stranger meddle with a transfer.
func TestWrongTID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(600)
		b := serve(t, n, map[string][]byte{"f": data}, nil)
		p := rawPhone{t, n.listen(phoneAddr)}
		stranger := rawPhone{t, n.listen(otherAddr)}
		p.read("f")
		tid := p.wantData(1, data[:512])
		for range 2 * maxStrays {
			stranger.send(tid, AppendAck(nil, 1))
		}
		for range maxStrays {
			stranger.wantError(CodeUnknownTID)
		}
		stranger.wantNothing(time.Millisecond)
		p.wantNothing(time.Millisecond)
		p.send(tid, AppendAck(nil, 1))
		p.wantData(2, data[512:])
		p.send(tid, AppendAck(nil, 2))
		b.stop()
		if st := b.server.Stats(); st.Sent != 1 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

// TestOptionsExchange holds the server to the order of RFC 2347: OACK, ACK 0, DATA.
func TestOptionsExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(100)
		b := serve(t, n, map[string][]byte{"f": data}, nil)
		p := rawPhone{t, n.listen(phoneAddr)}
		p.read("f", Option{"tsize", "0"}, Option{"blksize", "64"}, Option{"windowsize", "4"})
		got, tid := p.recv(time.Millisecond)
		if want := "\x00\x06tsize\x00100\x00blksize\x0064\x00"; string(got) != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		p.wantNothing(time.Millisecond)
		p.send(tid, AppendAck(nil, 0))
		p.wantData(1, data[:64])
		p.send(tid, AppendAck(nil, 1))
		p.wantData(2, data[64:])
		p.send(tid, AppendAck(nil, 2))

		p.read("f", Option{"blksize", "64"})
		_, tid = p.recv(time.Millisecond)
		p.send(tid, (&Error{CodeOptionsDeny, "no"}).AppendTo(nil))
		p.wantNothing(time.Minute)
		b.stop()
		if st := b.server.Stats(); st.Sent != 1 || st.Failed != 1 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

// TestRefusals holds the answers to what is not served.
func TestRefusals(t *testing.T) {
	silent := Code(0xffff)
	opened := 0
	open := func(_ context.Context, _, _ netip.AddrPort, name string) (File, error) {
		opened++
		return File{}, map[string]error{
			"missing": fmt.Errorf("test: %w", fs.ErrNotExist),
			"denied":  fs.ErrPermission,
			"broken":  errors.New("secret detail"),
			"far":     fmt.Errorf("test: %w", ErrNoAnswer),
			"custom":  &Error{CodeNoUser, "x"},
		}[name]
	}
	tests := []struct {
		name    string
		packet  string
		code    Code
		reaches bool // Open
	}{
		{"missing file", "\x00\x01missing\x00octet\x00", CodeNotFound, true},
		{"denied", "\x00\x01denied\x00octet\x00", CodeAccess, true},
		{"broken", "\x00\x01broken\x00octet\x00", CodeUndefined, true},
		{"out of reach", "\x00\x01far\x00octet\x00", silent, true},
		{"code of the upstream server", "\x00\x01custom\x00octet\x00", CodeNoUser, true},
		{"write", "\x00\x02missing\x00octet\x00", CodeAccess, false},
		{"mail", "\x00\x01missing\x00mail\x00", CodeIllegal, false},
		{"malformed", "\x00\x01missing", CodeIllegal, false},
		{"parent", "\x00\x01../x\x00octet\x00", CodeAccess, false},
		{"absolute", "\x00\x01/x\x00octet\x00", CodeAccess, false},
		{"backslash", "\x00\x01a\\..\\..\\x\x00octet\x00", CodeAccess, false},
		{"no name", "\x00\x01\x00octet\x00", CodeAccess, false},
		{"stray ack", "\x00\x04\x00\x01", silent, false},
		{"stray data", "\x00\x03\x00\x01", silent, false},
		{"unknown", "\x00\x63\x00\x01", silent, false},
		{"short", "\x00", silent, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opened = 0
				n := newMemNet(1)
				b := serve(t, n, nil, func(s *Server) { s.Open = open })
				p := rawPhone{t, n.listen(phoneAddr)}
				p.send(boxAddr, []byte(tt.packet))
				if tt.code == silent {
					p.wantNothing(time.Minute)
				} else {
					got, from := p.recv(time.Millisecond)
					e, err := ParseError(got)
					if err != nil || e.Code != tt.code || from != boxAddr || bytes.Contains(got, []byte("secret")) {
						t.Errorf("got %q from %v; want error %d", got, from, tt.code)
					}
					p.wantNothing(time.Minute)
				}
				b.stop()
				if (opened == 1) != tt.reaches {
					t.Errorf("Open was called %d times", opened)
				}
			})
		})
	}
}

// TestRepeatedRequest has the phone ask again while its file is being fetched,
// and while it is being sent.
func TestRepeatedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(600)
		opened := 0
		b := serve(t, n, nil, func(s *Server) {
			s.Open = func(ctx context.Context, _, _ netip.AddrPort, _ string) (File, error) {
				opened++
				time.Sleep(2 * time.Second)
				return Bytes(data), nil
			}
		})
		p := rawPhone{t, n.listen(phoneAddr)}
		p.read("f")
		p.wantNothing(500 * time.Millisecond)
		p.read("f")
		p.wantNothing(time.Second)
		p.read("f")
		time.Sleep(600 * time.Millisecond)
		tid := p.wantData(1, data[:512])
		p.read("f") // crosses with block 1
		p.wantNothing(100 * time.Millisecond)
		p.send(tid, AppendAck(nil, 1))
		p.wantData(2, data[512:])
		if opened != 1 {
			t.Errorf("opened %d times, want once", opened)
		}
		p.send(tid, AppendAck(nil, 2))
		b.stop()
		want := []EventKind{Requested, Repeated, Repeated, Repeated, Sent}
		if diff := cmp.Diff(want, b.kinds()); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// TestLateRequest has a repeated request arrive long after the first and just
// after the answer to it was acknowledged.
func TestLateRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		data := pattern(600)
		b := serve(t, n, map[string][]byte{"f": data}, nil)
		p := rawPhone{t, n.listen(phoneAddr)}
		p.read("f")
		time.Sleep(3 * time.Second)
		tid := p.wantData(1, data[:512])
		p.wantData(1, data[:512])
		p.wantData(1, data[:512])
		p.send(tid, AppendAck(nil, 1))
		p.wantData(2, data[512:])
		p.read("f")
		p.wantNothing(900 * time.Millisecond)
		p.send(tid, AppendAck(nil, 2))
		b.stop()
		if diff := cmp.Diff([]EventKind{Requested, Repeated, Sent}, b.kinds()); diff != "" {
			t.Errorf("events (-want +got)\n%s", diff)
		}
	})
}

// TestFreshRequest has the phone give up a transfer and ask from the same port.
func TestFreshRequest(t *testing.T) {
	for _, single := range []bool{false, true} {
		for _, name := range []string{"same", "other"} {
			t.Run(fmt.Sprintf("single=%v/%s", single, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					n := newMemNet(1)
					data := pattern(1300)
					b := serve(t, n, map[string][]byte{"same": data, "other": data[1:]}, func(s *Server) { s.SinglePort = single })
					p := rawPhone{t, n.listen(phoneAddr)}
					p.read("same")
					tid := p.wantData(1, data[:512])
					if single != (tid == boxAddr) {
						t.Errorf("data came from %v", tid)
					}
					p.send(tid, AppendAck(nil, 1))
					p.wantData(2, data[512:1024])
					p.wantNothing(500 * time.Millisecond)
					time.Sleep(400 * time.Millisecond)
					if name == "same" {
						time.Sleep(200 * time.Millisecond) // past repeatAge
						p.wantData(2, data[512:1024])
					}
					want := data
					if name == "other" {
						want = data[1:]
					}
					p.read(name)
					tid2 := p.wantData(1, want[:512])
					if !single && tid2 == tid {
						t.Errorf("the new transfer has the old port %v", tid)
					}
					p.send(tid2, AppendAck(nil, 1))
					p.wantData(2, want[512:1024])
					p.send(tid2, AppendAck(nil, 2))
					p.wantData(3, want[1024:])
					p.send(tid2, AppendAck(nil, 3))
					p.wantNothing(time.Minute)
					b.stop()
					if st := b.server.Stats(); st.Sent != 1 || st.Failed != 1 || st.Active != 0 {
						t.Errorf("Stats = %+v", st)
					}
					if got := n.open(); got != 1 {
						t.Errorf("%d sockets open, want the phone's", got)
					}
				})
			})
		}
	}
}

// TestStreaming checks that a file is not read ahead of its client and that
// its Body is closed when the client goes away.
func TestStreaming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		body := &watchedBody{data: pattern(1 << 20)}
		b := serve(t, n, nil, func(s *Server) {
			s.Open = func(context.Context, netip.AddrPort, netip.AddrPort, string) (File, error) {
				return File{body, -1}, nil
			}
		})
		p := rawPhone{t, n.listen(phoneAddr)}
		p.read("firmware", Option{"tsize", "0"})
		tid := p.wantData(1, body.data[:512])
		p.send(tid, AppendAck(nil, 1))
		p.wantData(2, body.data[512:1024])
		if body.off != 1024 || body.closed {
			t.Errorf("read %d bytes, closed %v; want 1024 and open", body.off, body.closed)
		}
		p.send(tid, (&Error{CodeUndefined, "bye"}).AppendTo(nil))
		synctest.Wait()
		if !body.closed {
			t.Error("the body is open after the client went away")
		}
		b.stop()
	})
}

// TestBodyFails has the file end in an error on the way.
func TestBodyFails(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
	}{{errors.New("secret"), int(CodeUndefined)}, {fmt.Errorf("x: %w", ErrNoAnswer), -1}} {
		synctest.Test(t, func(t *testing.T) {
			n := newMemNet(1)
			b := serve(t, n, nil, func(s *Server) {
				s.Open = func(context.Context, netip.AddrPort, netip.AddrPort, string) (File, error) {
					r := io.MultiReader(bytes.NewReader(pattern(512)), failingReader{tt.err})
					return File{io.NopCloser(r), -1}, nil
				}
			})
			p := rawPhone{t, n.listen(phoneAddr)}
			p.read("f")
			tid := p.wantData(1, pattern(512))
			p.send(tid, AppendAck(nil, 1))
			if tt.code >= 0 {
				p.wantError(Code(tt.code))
			} else {
				p.wantNothing(time.Minute)
			}
			b.stop()
			if st := b.server.Stats(); st.Failed != 1 {
				t.Errorf("Stats = %+v", st)
			}
		})
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

type watchedBody struct {
	data   []byte
	off    int
	closed bool
}

func (w *watchedBody) Read(p []byte) (int, error) {
	n := copy(p, w.data[w.off:])
	w.off += n
	return n, nil
}

func (w *watchedBody) Close() error { w.closed = true; return nil }

// TestServeEnds checks that Serve waits for its transfers and ends them.
func TestServeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newMemNet(1)
		b := serve(t, n, map[string][]byte{"f": pattern(600)}, func(s *Server) {
			open := s.Open
			s.Open = func(ctx context.Context, from, to netip.AddrPort, name string) (File, error) {
				if name == "hang" {
					<-ctx.Done()
					return File{}, ctx.Err()
				}
				return open(ctx, from, to, name)
			}
		})
		rawPhone{t, n.listen(phoneAddr)}.read("f")
		rawPhone{t, n.listen(otherAddr)}.read("hang")
		synctest.Wait()
		start := time.Now()
		b.stop()
		if took := time.Since(start); took != 0 {
			t.Errorf("Serve took %v to end", took)
		}
		if st := b.server.Stats(); st.Active != 0 || st.Failed != 1 || st.Refused != 1 {
			t.Errorf("Stats = %+v", st)
		}
	})
}

func TestServePortFails(t *testing.T) {
	n := newMemNet(1)
	pc := n.listen(boxAddr)
	pc.Close()
	if err := new(Server).Serve(t.Context(), pc, boxAddr); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve on a closed port: %v, want %v", err, net.ErrClosed)
	}
}

func TestEventString(t *testing.T) {
	e := Event{From: phoneAddr, To: boxAddr, Name: "Ringlist.xml", Bytes: 7, Err: errName}
	for kind, want := range map[EventKind]string{
		Requested: `198.51.100.7/1024 requesting "Ringlist.xml"`,
		Repeated:  `198.51.100.7/1024 retransmitting request for "Ringlist.xml"`,
		Refused:   `198.51.100.7/1024 refused "Ringlist.xml": name refused`,
		Sent:      `198.51.100.7/1024 received "Ringlist.xml", 7 bytes`,
		Failed:    `198.51.100.7/1024 lost "Ringlist.xml" after 7 bytes: name refused`,
	} {
		if e.Kind = kind; e.String() != want {
			t.Errorf("Event = %q, want %q", e, want)
		}
	}
}
