package appliance

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// replayMTU is the MTU of an interface whose configuration names none, in bytes.
const replayMTU = 1500

// ReplayOptions are what a Replay is made from, beside a configuration.
type ReplayOptions struct {
	Store *pki.Store // key pairs and trustpoints; nil if the configuration has none
	Seed  string     // every choice by chance follows from it: ports, hashes
	Log   slog.Handler

	// Text gets a line for each packet that arrives and for each that leaves;
	// nil: none is made.
	Text io.Writer

	// Seen sees each packet that arrives, parsed, once its fate is known, and
	// then each that left because of it; nil: nobody does. Of one that
	// arrives v is Forward, Consumed or a drop; of one that leaves it is
	// Forward. The packet is borrowed.
	Seen func(p *stack.Packet, dir link.Direction, v stack.Verdict)
}

// A Replay is a box without a network: packets are handed to it one by one,
// with the time at which they arrive, and it has no other clock, no chance but
// its seed, and no goroutine that touches a packet. The same packets give the
// same bytes. One goroutine uses it.
//
// A TCP conversation that plain inspection ends is replayed by messages through
// both its halves; see tcpHost. What the box would end otherwise (a phone's TLS,
// whose keys are the phone's; a file over TFTP) is admitted and goes no further:
// the host behind it keeps its own time.
type Replay struct {
	box   *Appliance
	opt   ReplayOptions
	text  *bufio.Writer
	mute  bool
	now   time.Time
	begun bool  // now is that of a packet
	sec   int64 // Unix time up to which idle things were ended
	count ReplayCount

	tcp *tcpHost      // the box's own TCP
	own *stack.Packet // room for what it sends

	arrived *stack.Packet   // a copy of the packet being handled, parsed
	left    []departure     // what left because of it, copies
	spare   []*stack.Packet // room for left
	dropped stack.Verdict   // its drop; Forward: none
	line    []byte
}

// A departure is a packet that left, also for the box itself.
type departure struct {
	*stack.Packet
	served bool // the box took it: its conversation is replayed
}

// A ReplayCount is what went through a Replay, in packets.
type ReplayCount struct {
	In, Out    uint64
	Dropped    uint64
	Terminated uint64 // for the box itself
	Served     uint64 // of those, in conversations that are replayed
	Own        uint64 // segments that the box sent of its own; counted as Out, too

	// Of captures only.
	NotIP     uint64 // frames passed over
	Truncated uint64 // packets of which the capture holds a part
	PickedUp  uint64 // segments of handshakes made up; counted as In, too
	Local     uint64 // with a Split: passed over, both ends are on one side
}

// replayStart is the clock before the first packet: certificates that a
// configuration wants are made then.
var replayStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// NewReplay makes the box that r describes. r must have passed Validate.
func NewReplay(r *config.Running, opt ReplayOptions) (*Replay, error) {
	q := &Replay{opt: opt, now: replayStart, arrived: stack.NewPacket(stack.MaxPacket)}
	if opt.Text != nil {
		q.text = bufio.NewWriter(opt.Text)
	}
	self := &replayLink{q, replayMTU}
	links := make(map[string]stack.Link)
	for _, i := range r.Interfaces {
		if i.Name == "" || i.Down || !i.Addr.IsValid() {
			continue
		}
		mtu := i.MTU
		if mtu == 0 {
			mtu = replayMTU
		}
		links[i.Name] = &replayLink{q, mtu}
		self.mtu = min(self.mtu, mtu) // so that what the box says leaves by any of them whole
	}
	var log *slog.Logger
	if opt.Log != nil {
		log = slog.New(replayLog{opt.Log, q})
	}
	a, err := New(r, Options{
		Links: links, Self: self, Store: opt.Store, Log: log,
		Now:    func() time.Time { return q.now },
		Rand:   rand.NewChaCha8(sha256.Sum256([]byte(opt.Seed))),
		OnDrop: func(_ *stack.Packet, v stack.Verdict) { q.dropped = v },
	})
	if err != nil {
		return nil, err
	}
	q.box = a
	q.own = stack.NewPacket(stack.MaxPacket)
	q.tcp = newTCPHost()
	q.tcp.mtu, q.tcp.send = self.mtu, q.send
	q.tcp.serve = q.serve
	// Chance of its own, so that the box's is the same with and without.
	q.tcp.rand = rand.NewChaCha8(sha256.Sum256([]byte("tcp " + opt.Seed)))
	return q, nil
}

// Interface returns the interface of a nameif, or nil.
func (r *Replay) Interface(name string) *stack.Interface {
	all := r.box.Interfaces()
	if i := slices.IndexFunc(all, func(i *stack.Interface) bool { return i.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// Appliance returns the box itself, to be asked and told: its commands,
// interfaces, drops. Its packets and its clock are the Replay's.
func (r *Replay) Appliance() *Appliance { return r.box }

// Count returns what went through so far.
func (r *Replay) Count() ReplayCount { return r.count }

// Advance sets the clock, which never goes back, and ends what has been idle
// for too long.
func (r *Replay) Advance(now time.Time) {
	if now.After(r.now) || !r.begun {
		r.now, r.begun = now, true // captures may be older than certificates
	}
	if r.now.Unix() == r.sec {
		return
	}
	r.sec = r.now.Unix()
	// What leaves now is no answer to a packet.
	r.begin()
	for r.box.Expire(r.now) {
	}
	r.tcp.expire(r.now)
	r.serveAll()
	r.tell()
}

// begin forgets what left before.
func (r *Replay) begin() {
	for _, q := range r.left {
		r.spare = append(r.spare, q.Packet)
	}
	r.left = r.left[:0]
	r.arrived.Reset()
	r.arrived.Parse()
	r.dropped = stack.Forward
}

// Handle has p arrive on p.In at p.Time, or now if that is past. p is the
// caller's again when it returns, and may have changed.
func (r *Replay) Handle(p *stack.Packet) {
	r.Advance(p.Time)
	p.Time = r.now
	r.begin()
	if len(r.tcp.halves) > 0 && p.Parse() == stack.Forward && p.Flow().Proto == stack.TCP {
		r.tcp.rebase(p)
	}
	a := r.arrived
	a.SetData(p.Data())
	a.Time, a.In, a.ChecksumVouched = p.Time, p.In, p.ChecksumVouched
	a.Parse()

	r.box.Handle(p)

	v := r.dropped
	if v == stack.Forward && len(r.left) == 0 {
		v = stack.Consumed
	}
	r.count.In++
	if v.Dropped() {
		r.count.Dropped++
	}
	r.showArrival(a, v)
	r.serveAll()
	r.tell()
}

// maxTurns bounds what one packet may have the box say to itself.
const maxTurns = 4096

// serveAll has the box take what is for it, also what its own answers bring.
func (r *Replay) serveAll() {
	for i := 0; i < len(r.left) && i < maxTurns; i++ {
		if q := r.left[i]; q.Out.IsIdentity() {
			r.left[i].served = r.tcp.take(q.Packet)
		}
	}
}

// send has the box send a segment of its own.
func (r *Replay) send(f stack.Flow, h stack.TCPHeader, payload []byte) {
	p := r.own
	p.Reset()
	p.SetLen(len(stack.AppendTCP(p.Buffer()[:0], f, h, payload)))
	p.Time, p.In = r.now, nil
	r.dropped = stack.Forward
	r.count.Own++
	r.box.Handle(p)
	if r.dropped.Dropped() {
		p.Parse()
		r.showArrival(p, r.dropped)
	}
}

// tell counts and shows what has left.
func (r *Replay) tell() {
	for _, q := range r.left {
		switch {
		case q.served:
			r.count.Served++
			r.count.Terminated++
		case q.Out.IsIdentity():
			r.count.Terminated++
		default:
			r.count.Out++
		}
		r.showDeparture(q)
	}
}

// leaves takes a copy of p on its way out.
func (r *Replay) leaves(p *stack.Packet) {
	var q *stack.Packet
	if n := len(r.spare); n > 0 && len(r.spare[n-1].Buffer()) >= p.Len() {
		q, r.spare = r.spare[n-1], r.spare[:n-1]
	} else {
		q = stack.NewPacket(max(p.Len(), replayMTU))
	}
	q.Reset()
	q.SetData(p.Data())
	q.Parse()
	q.Time, q.In, q.Out, q.NextHop = r.now, p.In, p.Out, p.NextHop
	r.left = append(r.left, departure{Packet: q})
}

// showArrival tells of p whoever wants to know.
func (r *Replay) showArrival(p *stack.Packet, v stack.Verdict) {
	if r.opt.Seen != nil {
		r.opt.Seen(p, link.In, v)
	}
	if r.text != nil && !r.mute {
		r.line = append(appendArrival(r.line[:0], p, v), '\n')
		r.text.Write(r.line) // bufio keeps the error for Flush
	}
}

// showDeparture tells of q whoever wants to know.
func (r *Replay) showDeparture(q departure) {
	if r.opt.Seen != nil {
		r.opt.Seen(q.Packet, link.Out, stack.Forward)
	}
	if r.text != nil && !r.mute {
		r.line = append(r.appendDeparture(r.line[:0], q), '\n')
		r.text.Write(r.line)
	}
}

// appendArrival appends the line of the text dump about p, which arrived.
//
//	in  00:00:00.000000 inside udp 10.20.0.50:5000 > 192.0.2.5:53 len 5
//	in  00:00:01.000000 outside udp 192.0.2.9:53 > 203.0.113.2:5001 len 5 drop no-service
//	in  00:00:02.000000 inside udp 10.20.0.50:5060 > 192.0.2.5:5060 len 300 "OPTIONS sip:192.0.2.5 SIP/2.0"
func appendArrival(dst []byte, p *stack.Packet, v stack.Verdict) []byte {
	dst = stack.AppendText(append(dst, "in  "...), p)
	if f := p.Flow(); f.Src.Port() != 0 {
		dst = appendTitle(dst, p.Payload())
	}
	switch {
	case v.Dropped():
		dst = append(append(dst, " drop "...), v.String()...)
	case v == stack.Consumed:
		dst = append(dst, " consumed"...)
	}
	return dst
}

// appendDeparture appends the line about q, which left. It is below what it
// came from, with its TTL, and with what was changed in its payload.
//
//	out 00:00:00.000000 inside>outside udp 203.0.113.2:5000 > 192.0.2.5:53 len 5 ttl 63
//	out 00:00:02.000000 inside>outside udp 203.0.113.2:5060 > 192.0.2.5:5060 len 301 ttl 63
//	   - Via: SIP/2.0/UDP 10.20.0.50;branch=z9hG4bK1
//	   + Via: SIP/2.0/UDP 203.0.113.2;branch=z9hG4bK1
func (r *Replay) appendDeparture(dst []byte, q departure) []byte {
	p := q.Packet
	dst = stack.AppendText(append(dst, "out "...), p)
	switch {
	case q.served:
		return append(dst, " for the box itself"...)
	case p.Out.IsIdentity():
		return append(dst, " for the box itself, not replayed"...)
	}
	if p.Len() >= ipHeader {
		dst = strconv.AppendUint(append(dst, " ttl "...), uint64(p.TTL()), 10)
	}
	f, came := p.Flow(), r.arrived.Flow().Proto // 0 of a fragment
	if came != 0 && f.Proto != came && !p.In.IsIdentity() || f.Proto != stack.UDP && f.Proto != stack.TCP || f.Src.Port() == 0 {
		return dst // not a rewrite of what arrived; or a fragment
	}
	if p.TCPFlags()&stack.FlagSYN != 0 {
		if mss, ok := stack.MSS(p.Transport()); ok {
			dst = strconv.AppendUint(append(dst, " mss "...), uint64(mss), 10)
		}
	}
	switch pay := p.Payload(); {
	case p.In.IsIdentity():
		dst = appendContent(dst, pay)
	case string(pay) != string(r.arrived.Payload()):
		dst = appendPayload(dst, r.arrived.Payload(), pay)
	}
	return dst
}

const ipHeader = 20 // bytes, without options

// Mute leaves what follows out of the text dump, or no longer.
func (r *Replay) Mute(on bool) { r.mute = on }

// Note writes a line of the caller's own into the text dump.
func (r *Replay) Note(s string) {
	if r.text != nil {
		r.text.WriteString(s)
		r.text.WriteByte('\n')
	}
}

// Close ends the box, and returns what went wrong in writing the text.
func (r *Replay) Close() error {
	r.box.Close()
	if r.text == nil {
		return nil
	}
	if err := r.text.Flush(); err != nil {
		return fmt.Errorf("appliance: replay: text dump: %w", err)
	}
	return nil
}

// A replayLink is the network on one interface of a Replay: it takes what
// leaves.
type replayLink struct {
	r   *Replay
	mtu int
}

func (l *replayLink) Read([]*stack.Packet) (int, error) { return 0, net.ErrClosed }
func (l *replayLink) MTU() int                          { return l.mtu }
func (l *replayLink) Close() error                      { return nil }

func (l *replayLink) Write(batch []*stack.Packet) error {
	for _, p := range batch {
		l.r.leaves(p)
	}
	return nil
}
