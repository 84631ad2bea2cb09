// Package replay is a box on the captures' clock: packets that were recorded, or
// made, arrive at the box of a configuration, and what it does is written down.
//
// What a reader may get wrong: nothing here waits, and nothing is simulated but
// the hosts. The box is an appliance.Appliance, driven by hand; in place of its
// netstack, which keeps a time of its own, stands a TCP that has none.
package replay

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// defaultMTU is the MTU of an interface whose configuration names none, in bytes.
const defaultMTU = 1500

// Options are what a Box is made from, beside a configuration.
type Options struct {
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

// A Box is a box without a network: packets are handed to it one by one,
// with the time at which they arrive, and it has no other clock, no chance but
// its seed, and no goroutine that touches a packet. The same packets give the
// same bytes. One goroutine uses it.
//
// A TCP conversation that plain inspection ends is replayed by messages through
// both its halves; see tcpHost. What the box would end otherwise (a phone's TLS,
// whose keys are the phone's; a file over TFTP) is admitted and goes no further:
// the host behind it keeps its own time.
type Box struct {
	app   *appliance.Appliance
	opt   Options
	text  *bufio.Writer
	mute  bool
	now   time.Time
	begun bool  // now is that of a packet
	sec   int64 // Unix time up to which idle things were ended
	count Count

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

// clockStart is the clock before the first packet: certificates that a
// configuration wants are made then.
var clockStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// New makes the box that r describes. r must have passed Validate.
func New(r *config.Running, opt Options) (*Box, error) {
	b := &Box{opt: opt, now: clockStart, arrived: stack.NewPacket(stack.MaxPacket)}
	if opt.Text != nil {
		b.text = bufio.NewWriter(opt.Text)
	}
	self := &wire{b, defaultMTU}
	links := make(map[string]stack.Link)
	for _, i := range r.Interfaces {
		if i.Name == "" || i.Down || !i.Addr.IsValid() {
			continue
		}
		mtu := i.MTU
		if mtu == 0 {
			mtu = defaultMTU
		}
		links[i.Name] = &wire{b, mtu}
		self.mtu = min(self.mtu, mtu) // so that what the box says leaves by any of them whole
	}
	var log *slog.Logger
	if opt.Log != nil {
		log = slog.New(timedLog{opt.Log, b})
	}
	a, err := appliance.New(r, appliance.Options{
		Links: links, Self: self, Store: opt.Store, Log: log,
		Now:    func() time.Time { return b.now },
		Rand:   rand.NewChaCha8(sha256.Sum256([]byte(opt.Seed))),
		OnDrop: func(_ *stack.Packet, v stack.Verdict) { b.dropped = v },
	})
	if err != nil {
		return nil, err
	}
	b.app = a
	b.own = stack.NewPacket(stack.MaxPacket)
	b.tcp = newTCPHost()
	b.tcp.mtu, b.tcp.send = self.mtu, b.send
	b.tcp.serve = b.serve
	// Chance of its own, so that the box's is the same with and without.
	b.tcp.rand = rand.NewChaCha8(sha256.Sum256([]byte("tcp " + opt.Seed)))
	return b, nil
}

// Interface returns the interface of a nameif, or nil.
func (b *Box) Interface(name string) *stack.Interface {
	all := b.app.Interfaces()
	if i := slices.IndexFunc(all, func(i *stack.Interface) bool { return i.Name == name }); i >= 0 {
		return all[i]
	}
	return nil
}

// Appliance returns the box itself, to be asked and told: its commands,
// interfaces, drops. Its packets and its clock are the Box's.
func (b *Box) Appliance() *appliance.Appliance { return b.app }

// Count returns what went through so far.
func (b *Box) Count() Count { return b.count }

// Advance sets the clock, which never goes back, and ends what has been idle
// for too long.
func (b *Box) Advance(now time.Time) {
	if now.After(b.now) || !b.begun {
		b.now, b.begun = now, true // captures may be older than certificates
	}
	if b.now.Unix() == b.sec {
		return
	}
	b.sec = b.now.Unix()
	// What leaves now is no answer to a packet.
	b.begin()
	for b.app.Expire(b.now) {
	}
	b.tcp.expire(b.now)
	b.serveAll()
	b.tell()
}

// begin forgets what left before.
func (b *Box) begin() {
	for _, q := range b.left {
		b.spare = append(b.spare, q.Packet)
	}
	b.left = b.left[:0]
	b.arrived.Reset()
	b.arrived.Parse()
	b.dropped = stack.Forward
}

// Handle has p arrive on p.In at p.Time, or now if that is past. p is the
// caller's again when it returns, and may have changed.
func (b *Box) Handle(p *stack.Packet) {
	b.Advance(p.Time)
	p.Time = b.now
	b.begin()
	if len(b.tcp.halves) > 0 && p.Parse() == stack.Forward && p.Flow().Proto == stack.TCP {
		b.tcp.rebase(p)
	}
	a := b.arrived
	a.SetData(p.Data())
	a.Time, a.In, a.ChecksumVouched = p.Time, p.In, p.ChecksumVouched
	a.Parse()

	b.app.Handle(p)

	v := b.dropped
	if v == stack.Forward && len(b.left) == 0 {
		v = stack.Consumed
	}
	b.count.In++
	if v.Dropped() {
		b.count.Dropped++
	}
	b.showArrival(a, v)
	b.serveAll()
	b.tell()
}

// maxTurns bounds what one packet may have the box say to itself.
const maxTurns = 4096

// serveAll has the box take what is for it, also what its own answers bring.
func (b *Box) serveAll() {
	for i := 0; i < len(b.left) && i < maxTurns; i++ {
		if q := b.left[i]; q.Out.IsIdentity() {
			b.left[i].served = b.tcp.take(q.Packet)
		}
	}
}

// send has the box send a segment of its own.
func (b *Box) send(f stack.Flow, h stack.TCPHeader, payload []byte) {
	p := b.own
	p.Reset()
	p.SetLen(len(stack.AppendTCP(p.Buffer()[:0], f, h, payload)))
	p.Time = b.now
	b.dropped = stack.Forward
	b.count.Own++
	b.app.Say(p)
	if b.dropped.Dropped() {
		p.Parse()
		b.showArrival(p, b.dropped)
	}
}

// tell counts and shows what has left.
func (b *Box) tell() {
	for _, q := range b.left {
		switch {
		case q.served:
			b.count.Served++
			b.count.Terminated++
		case q.Out.IsIdentity():
			b.count.Terminated++
		default:
			b.count.Out++
		}
		b.showDeparture(q)
	}
}

// leaves takes a copy of p on its way out.
func (b *Box) leaves(p *stack.Packet) {
	var q *stack.Packet
	if n := len(b.spare); n > 0 && len(b.spare[n-1].Buffer()) >= p.Len() {
		q, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		q = stack.NewPacket(max(p.Len(), defaultMTU))
	}
	q.Reset()
	q.SetData(p.Data())
	q.Parse()
	q.Time, q.In, q.Out, q.NextHop = b.now, p.In, p.Out, p.NextHop
	b.left = append(b.left, departure{Packet: q})
}

// showArrival tells of p whoever wants to know.
func (b *Box) showArrival(p *stack.Packet, v stack.Verdict) {
	if b.opt.Seen != nil {
		b.opt.Seen(p, link.In, v)
	}
	if b.text != nil && !b.mute {
		b.line = append(appendArrival(b.line[:0], p, v), '\n')
		b.text.Write(b.line) // bufio keeps the error for Flush
	}
}

// showDeparture tells of q whoever wants to know.
func (b *Box) showDeparture(q departure) {
	if b.opt.Seen != nil {
		b.opt.Seen(q.Packet, link.Out, stack.Forward)
	}
	if b.text != nil && !b.mute {
		b.line = append(b.appendDeparture(b.line[:0], q), '\n')
		b.text.Write(b.line)
	}
}

// Mute leaves what follows out of the text dump, or no longer.
func (b *Box) Mute(on bool) { b.mute = on }

// Note writes a line of the caller's own into the text dump.
func (b *Box) Note(s string) {
	if b.text != nil {
		b.text.WriteString(s)
		b.text.WriteByte('\n')
	}
}

// Close ends the box, and returns what went wrong in writing the text.
func (b *Box) Close() error {
	b.app.Close()
	if b.text == nil {
		return nil
	}
	if err := b.text.Flush(); err != nil {
		return fmt.Errorf("replay: text dump: %w", err)
	}
	return nil
}

// A wire is the network on one interface of a Box: it takes what leaves.
type wire struct {
	box *Box
	mtu int
}

func (l *wire) Read([]*stack.Packet) (int, error) { return 0, net.ErrClosed }
func (l *wire) MTU() int                          { return l.mtu }
func (l *wire) Close() error                      { return nil }

func (l *wire) Write(batch []*stack.Packet) error {
	for _, p := range batch {
		l.box.leaves(p)
	}
	return nil
}
