package skinny_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

// stopMsg is Stop or Close with 8, 12 or 16 bytes of data.
func stopMsg(id uint32, conf, party uint32, size int, keep uint32) []byte {
	m := put(frame(id, 17, size), 0, conf, 4, party)
	if size > 8 {
		put(m, 8, uint32(70))
	}
	if size > 12 {
		put(m, 12, keep)
	}
	return m
}

func TestRelease(t *testing.T) {
	orc, smt := wideORC(17, 128).build(0x105, farAddr), wideSMT(17, 132).build(0x8a, farAddr)
	failed := put(orcAckForms[8].build(0x22, phoneAddr), 0, uint32(2))
	closed := func(keep uint32) []byte { return stopMsg(0x106, 7, 9, 16, keep) }
	stopped := func(keep uint32) []byte { return stopMsg(0x8b, 7, 9, 16, keep) }
	ask := put(frame(0x14b, 17, 24), 0, uint32(7), 4, uint32(70), 8, uint32(9), 20, uint32(1))
	unask := put(frame(0x14c, 17, 16), 0, uint32(7), 4, uint32(70), 8, uint32(9))
	type step struct {
		msg  []byte
		from nat.End
		n    int // releases so far
	}
	ucm, phone := nat.Server, nat.Client
	tests := []struct {
		name  string
		steps []step
	}{
		{"both directions", []step{{orc, ucm, 0}, {smt, ucm, 0}, {closed(0), ucm, 0}, {stopped(0), ucm, 1}, {stopped(0), ucm, 1}}},
		{"the other order", []step{{smt, ucm, 0}, {orc, ucm, 0}, {stopped(0), ucm, 0}, {closed(0), ucm, 1}}},
		{"only receiving", []step{{orc, ucm, 0}, {closed(0), ucm, 1}}},
		{"only transmitting", []step{{smt, ucm, 0}, {closed(0), ucm, 0}, {stopped(0), ucm, 1}}},
		{"kept sockets", []step{{orc, ucm, 0}, {smt, ucm, 0}, {closed(1), ucm, 0}, {stopped(1), ucm, 0}, {closed(0), ucm, 0}, {stopped(0), ucm, 1}}},
		{"kept, then opened again", []step{{orc, ucm, 0}, {closed(1), ucm, 0}, {orc, ucm, 0}, {closed(0), ucm, 1}}},
		{"CM 3", []step{{orc, ucm, 0}, {smt, ucm, 0}, {stopMsg(0x106, 7, 9, 8, 0), ucm, 0}, {stopMsg(0x8b, 7, 9, 12, 0), ucm, 1}}},
		{"another conference", []step{{orc, ucm, 0}, {stopMsg(0x106, 8, 9, 16, 0), ucm, 1}}},
		{"another party", []step{{orc, ucm, 0}, {stopMsg(0x106, 7, 10, 16, 0), ucm, 0}}},
		{"stop from the phone means nothing", []step{{orc, ucm, 0}, {closed(0), phone, 0}}},
		{"the phone opens nothing", []step{{orc, ucm, 0}, {failed, phone, 1}}},
		{"the phone opens nothing but sends", []step{{orc, ucm, 0}, {smt, ucm, 0}, {failed, phone, 0}, {stopped(0), ucm, 1}}},
		{"reserved port", []step{{ask, ucm, 0}, {orc, ucm, 0}, {closed(0), ucm, 0}, {unask, ucm, 1}}},
		{"port given back first", []step{{ask, ucm, 0}, {orc, ucm, 0}, {unask, ucm, 0}, {closed(0), ucm, 1}}},
		{"unregister refused", []step{{orc, ucm, 0}, {frame(0x27, 17, 0), phone, 0}, {put(frame(0x118, 17, 4), 0, uint32(2)), ucm, 0}}},
		{"unregister", []step{{orc, ucm, 0}, {frame(0x27, 17, 0), phone, 0}, {put(frame(0x118, 17, 4), 0, uint32(0)), ucm, 1}}},
		{"reset ends no call", []step{{orc, ucm, 0}, {put(frame(0x9f, 17, 4), 0, uint32(1)), ucm, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := &box{}
			s := skinny.Engine{}.NewSession(b)
			for i, step := range tt.steps {
				got := pass(t, s, step.msg, step.from)
				if id := skinny.ID(step.msg); id == 0x8b || id == 0x106 {
					compare(t, got, step.msg)
				}
				b.calls = slices.DeleteFunc(b.calls, func(c string) bool { return strings.HasPrefix(c, "signal ") })
				if len(b.calls) != step.n {
					t.Fatalf("after step %d: %q, want %d releases", i, b.calls, step.n)
				}
			}
			open := tt.steps[len(tt.steps)-1].n == 0
			s.Close()
			if open && (len(b.calls) != 1 || b.calls[0] != "release 7/") {
				t.Errorf("after Close: %q, want the call released", b.calls)
			}
			if !open && len(b.calls) != 1 {
				t.Errorf("after Close: %q, want no more", b.calls)
			}
			n := len(b.calls)
			s.Close()
			if len(b.calls) != n {
				t.Errorf("second Close released again: %q", b.calls[n:])
			}
		})
	}
}

func TestCloseReleasesEachCallOnce(t *testing.T) {
	b := &box{}
	s := skinny.Engine{}.NewSession(b)
	for i := range uint32(6) {
		pass(t, s, put(wideORC(17, 128).build(0x105, farAddr), 0, 100+i%3, 4, i), nat.Server)
	}
	s.Close()
	if diff := cmp.Diff([]string{"release 100/", "release 101/", "release 102/"}, b.calls); diff != "" {
		t.Error(diff)
	}
}

// TestTooManyStreams opens more than a conversation may hold: those whose
// socket is only kept go first, then the oldest.
func TestTooManyStreams(t *testing.T) {
	b := &box{}
	s := skinny.Engine{Log: slog.New(slog.DiscardHandler)}.NewSession(b)
	for i := range uint32(1000) {
		pass(t, s, put(wideORC(17, 128).build(0x105, farAddr), 0, i, 4, i), nat.Server)
		if i == 10 {
			pass(t, s, stopMsg(0x106, 10, 10, 16, 1), nat.Server)
		}
	}
	if len(b.calls) != 1000-64 || b.calls[0] != "release 10/10" || b.calls[1] != "release 0/0" {
		t.Errorf("%d releases, first %q", len(b.calls), b.calls[:2])
	}
	s.Close()
	if len(b.calls) != 1000 {
		t.Errorf("%d releases after Close", len(b.calls))
	}
}

// TestRecordedCall follows the ids of reference/skinny.md, section 7: a talk
// path and two forks to a recorder, in an order that is not the obvious one.
func TestRecordedCall(t *testing.T) {
	b := &box{}
	s := skinny.Engine{}.NewSession(b)
	smt := func(party, callRef uint32, far string) []byte {
		return put(wideSMT(20, 132).build(0x8a, netip.MustParseAddrPort(far)), 4, party, 56, callRef)
	}
	smtAck := func(party, callRef uint32, addr string) []byte {
		return put(smtAckForms[5].build(0x154, netip.MustParseAddrPort(addr)), 4, party, 8, callRef)
	}
	pass(t, s, smt(10, 75, "10.20.0.24:9399"), nat.Server) // fork
	pass(t, s, put(wideORC(20, 128).build(0x105, farAddr), 4, uint32(9)), nat.Server)
	pass(t, s, smt(9, 70, "10.20.0.77:32144"), nat.Server) // before the ack
	early := smtAck(9, 70, "198.51.100.7:17718")           // and acked first
	compare(t, pass(t, s, early, nat.Client), smtAckForms[5].put(clone(early), netip.MustParseAddrPort("10.20.0.1:1334")))
	ack := orcAckForms[9].build(0x22, netip.MustParseAddrPort("198.51.100.7:17720"))
	compare(t, pass(t, s, ack, nat.Client), orcAckForms[9].put(clone(ack), netip.MustParseAddrPort("10.20.0.1:1336")))
	pass(t, s, smt(11, 81, "10.20.0.24:9400"), nat.Server) // fork

	fork := smtAck(10, 75, "198.51.100.7:17726")
	compare(t, pass(t, s, fork, nat.Client), smtAckForms[5].put(clone(fork), netip.MustParseAddrPort("10.20.0.1:1342")))
	// Once known where the phone receives, the address it sends from is not
	// told to the Binder.
	n := len(b.media)
	late := smtAck(9, 70, "198.51.100.7:17718")
	compare(t, pass(t, s, late, nat.Client), smtAckForms[5].put(clone(late), netip.MustParseAddrPort("10.20.0.1:1336")))
	if len(b.media) != n {
		t.Errorf("Binder was asked %v", b.media[n:])
	}

	want := []inspect.Media{
		{Call: "7", Stream: "10", Addr: netip.MustParseAddrPort("10.20.0.24:9399")},
		{Call: "7", Stream: "9"},
		{Call: "7", Stream: "9", Addr: netip.MustParseAddrPort("10.20.0.77:32144")},
		{Call: "7", Stream: "9", Addr: netip.MustParseAddrPort("198.51.100.7:17718")},
		{Call: "7", Stream: "9", Addr: netip.MustParseAddrPort("198.51.100.7:17720")},
		{Call: "7", Stream: "11", Addr: netip.MustParseAddrPort("10.20.0.24:9400")},
		{Call: "7", Stream: "10", Addr: netip.MustParseAddrPort("198.51.100.7:17726")},
	}
	if diff := cmp.Diff(want, b.media, comparer()); diff != "" {
		t.Error(diff)
	}
}

// TestAckQuirks has the acks that phones send with ids of their own.
// (reference/skinny.md, section 4.4.)
func TestAckQuirks(t *testing.T) {
	known := mapped(phoneAddr, nat.Client)
	other := netip.MustParseAddrPort("198.51.100.7:20010")
	tests := []struct {
		name              string
		conf, party, call uint32
		addr              netip.AddrPort
		size              int
		want              netip.AddrPort
		note              bool
	}{
		{"6901", 7, 0, 70, phoneAddr, 48, known, false},
		{"6911", 0, 0, 0, phoneAddr, 40, known, false},
		{"7941", 7, 0xfffffffc, 70, phoneAddr, 40, known, false},
		{"by call reference", 0, 0, 70, other, 40, known, false},
		{"by nothing", 0, 0, 0, other, 40, renamed(other), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			b := &box{}
			s := skinny.Engine{Log: slog.New(slog.NewTextHandler(&log, nil))}.NewSession(b)
			pass(t, s, wideORC(20, 128).build(0x105, farAddr), nat.Server)
			pass(t, s, orcAckForms[9].build(0x22, phoneAddr), nat.Client)
			w := smtAckForms[5]
			w.version, w.size = 20, tt.size
			msg := put(w.build(0x154, tt.addr), 0, tt.conf, 4, tt.party, 8, tt.call)
			compare(t, pass(t, s, msg, nat.Client), w.put(clone(msg), tt.want))
			if strings.Contains(log.String(), "answer to nothing") != tt.note {
				t.Errorf("log: %s", log.String())
			}

			// The same of OpenReceiveChannelAck, which has no other ids.
			ack := put(orcAckForms[9].build(0x22, tt.addr), 28, tt.party, 32, tt.call)
			want := tt.want
			if tt.addr == other {
				want = renamed(other)
			}
			compare(t, pass(t, s, ack, nat.Client), orcAckForms[9].put(clone(ack), want))
		})
	}
}

// TestAckCallReference: two calls with one party id, and an ack without
// callReference that goes to the later.
func TestAckCallReference(t *testing.T) {
	b := &box{}
	s := skinny.Engine{}.NewSession(b)
	pass(t, s, put(wideORC(20, 128).build(0x105, farAddr), 0, uint32(1), 24, uint32(71)), nat.Server)
	pass(t, s, put(wideORC(20, 128).build(0x105, farAddr), 0, uint32(2), 24, uint32(72)), nat.Server)
	for callRef, call := range map[uint32]string{71: "1", 72: "2", 0: "2", 99: "2"} {
		pass(t, s, put(orcAckForms[9].build(0x22, phoneAddr), 32, callRef), nat.Client)
		asked(t, b, inspect.Media{Call: call, Stream: "9", Addr: phoneAddr}, nat.Client)
	}
}

func TestFailedTransmissionAck(t *testing.T) {
	b := &box{}
	s := skinny.Engine{}.NewSession(b)
	pass(t, s, wideSMT(17, 132).build(0x8a, farAddr), nat.Server)
	msg := put(smtAckForms[5].build(0x154, phoneAddr), 36, uint32(4))
	compare(t, pass(t, s, msg, nat.Client), smtAckForms[5].put(clone(msg), renamed(phoneAddr)))
	if len(b.media) != 1 || len(b.calls) != 1 || !strings.HasPrefix(b.calls[0], "signal ") {
		t.Errorf("Binder was asked %v, %q", b.media[1:], b.calls)
	}
}
