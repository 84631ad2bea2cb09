package replay

import (
	"fmt"
	"net/netip"
	"strings"

	"patchbay/inspect/sip"
	"patchbay/stack"
)

// A SplitPrefix says that packets from Prefix arrive on In.
type SplitPrefix struct {
	Prefix netip.Prefix
	In     *stack.Interface
}

// ParseSplit reads what "--split" takes, NAMEIF=PREFIX of an IPv4 prefix each.
func (b *Box) ParseSplit(words []string) ([]SplitPrefix, error) {
	var all []SplitPrefix
	for _, w := range words {
		name, prefix, ok := strings.Cut(w, "=")
		p, err := netip.ParsePrefix(prefix)
		if !ok || err != nil || !p.Addr().Is4() {
			return nil, fmt.Errorf("replay: split %q: want NAMEIF=PREFIX, such as inside=10.0.0.0/8", w)
		}
		i := b.Interface(name)
		if i == nil {
			return nil, fmt.Errorf("replay: split %q: the configuration has no interface %q", w, name)
		}
		all = append(all, SplitPrefix{p.Masked(), i})
	}
	return all, nil
}

// A splitter makes a capture that holds both directions of a conversation into
// what the box would have got from its two sides. The conversation was
// recorded without the box, so each end addresses the other by its real
// address. By watching what leaves, the splitter learns under which address
// the other side would have known it, and puts that in the answers.
type splitter struct {
	box      *Box
	prefixes []SplitPrefix
	frags    stack.Reassembler // addresses go into whole packets only

	other *stack.Interface // of those that no prefix has

	pickUp bool
	begun  *stack.Packet // a segment of a handshake that the capture lacks
	whole  *stack.Packet // room for a packet put together, and what it may become

	flows map[flowOn]stack.Flow    // as captured, to as it must arrive
	ends  map[endOn]netip.AddrPort // a real end, to how that side knows it
	words dictionary               // the same, of what messages say
	out   stack.Reassembler        // of what left
	said  []byte                   // the message at hand
}

// A flowOn is a flow as the capture has it, and the interface it arrives on.
type flowOn struct {
	in *stack.Interface
	f  stack.Flow
}

type endOn struct {
	in    *stack.Interface
	proto stack.Proto
	real  netip.AddrPort
}

// newSplitter returns the splitter of those prefixes, nil if there are none.
func newSplitter(b *Box, c Captures) *splitter {
	if len(c.Split) == 0 {
		return nil
	}
	s := &splitter{
		box: b, prefixes: c.Split, pickUp: c.PickUp, whole: stack.NewPacket(stack.MaxPacket),
		flows: make(map[flowOn]stack.Flow), ends: make(map[endOn]netip.AddrPort),
	}
	s.words = dictionary{
		side:  func(a netip.Addr) *stack.Interface { return s.side(a, s.other) },
		rules: b.app.Rules, told: make(map[endOn]netip.AddrPort), ends: s.ends,
	}
	b.tcp.wrap = s.words.translate
	return s
}

// side returns the interface that packets from a arrive on: that of the longest
// prefix, or else.
func (s *splitter) side(a netip.Addr, other *stack.Interface) *stack.Interface {
	longest := -1
	for _, p := range s.prefixes {
		if p.Prefix.Contains(a) && p.Prefix.Bits() > longest {
			longest, other = p.Prefix.Bits(), p.In
		}
	}
	return other
}

// handle has p, as it is in the capture, arrive where its source is, under the
// addresses that it would have had there. p.In is where it arrives if no
// prefix says so.
func (s *splitter) handle(p *stack.Packet) {
	other := p.In
	s.other = other
	v := p.Parse()
	if v == stack.DropFragment {
		p.In = s.side(p.Flow().Src.Addr(), other)
		whole, got := s.frags.Add(p)
		if got == stack.Consumed {
			return // waits for the rest
		}
		if v = got; whole != nil {
			s.whole.Reset()
			s.whole.SetData(whole.Data())
			s.whole.Time, s.whole.In, s.whole.ChecksumVouched = whole.Time, whole.In, p.ChecksumVouched
			p = s.whole
			v = p.Parse()
		}
	}
	if v != stack.Forward {
		if src := p.Flow().Src.Addr(); src.IsValid() {
			p.In = s.side(src, other)
		}
		s.box.Handle(p)
		return
	}
	f := p.Flow()
	p.In = s.side(f.Src.Addr(), other)
	to := s.side(f.Dst.Addr(), other)
	if p.In == to && !f.Dst.Addr().IsMulticast() {
		s.box.count.Local++
		return
	}
	if s.pickUp && f.Proto == stack.TCP && p.TCPFlags()&(stack.FlagSYN|stack.FlagRST) == 0 {
		s.begin(p, f, to)
	}
	s.carry(p, f, to)
}

// carry has p arrive, whose flow in the capture is f, on its way to a host
// behind to, and learns from what leaves.
func (s *splitter) carry(p *stack.Packet, f stack.Flow, to *stack.Interface) {
	in := p.In
	s.address(p, f, to)
	speak := s.speak(p, to)
	isError := p.IsICMPError()
	s.box.Handle(p)
	if isError {
		return
	}
	for _, d := range s.box.left {
		q := d.Packet
		if q.Out == in || q.Out.IsIdentity() {
			continue
		}
		if q.Parse() == stack.DropFragment {
			out := q.Out
			if q, _ = s.out.Add(q); q == nil {
				continue
			}
			q.Out = out
		}
		l := q.Flow()
		if l.Proto != f.Proto {
			continue
		}
		s.learn(q.Out, f, l)
		if msg := sipMessage(q.Payload()); speak != nil && q.Out == to && msg != nil {
			s.words.learn(s.said, msg, speak)
		}
	}
}

// speak has p say what its sender would have said, if it is SIP over UDP, and
// returns in whose words; nil if it is something else. What follows the message
// in its datagram is left out, for it is nothing. (RFC 3261, section 18.3.)
func (s *splitter) speak(p *stack.Packet, to *stack.Interface) *speech {
	if p.Flow().Proto != stack.UDP {
		return nil
	}
	msg := sipMessage(p.Payload())
	if msg == nil {
		return nil
	}
	sp := &speech{rewrite: sip.Rewrite, proto: stack.UDP, from: p.In, to: to}
	if s.said = s.words.say(s.said[:0], msg, sp); string(s.said) != string(msg) {
		p.SetPayload(s.said)
	}
	return sp
}

// begin makes up the handshake of a TCP conversation whose beginning the capture
// lacks: p, of the flow f, is the first that is seen of it. The end with the
// lower port is taken for the server.
func (s *splitter) begin(p *stack.Packet, f stack.Flow, to *stack.Interface) {
	if _, ok := s.flows[flowOn{p.In, f}]; ok {
		return
	}
	type end struct {
		in   *stack.Interface
		flow stack.Flow
		seq  uint32 // of its SYN
	}
	client, server := end{p.In, f, p.TCPSeq() - 1}, end{to, f.Reverse(), p.TCPAck() - 1}
	if f.Src.Port() < f.Dst.Port() {
		client, server = server, client
	}
	window := max(p.TCPWindow(), pickUpWindow)
	if s.begun == nil {
		s.begun = stack.NewPacket(defaultMTU)
	}
	segment := func(e, other end, h stack.TCPHeader) {
		q := s.begun
		q.Reset()
		h.Window = window
		q.SetData(stack.AppendTCP(nil, e.flow, h, nil))
		q.Parse()
		q.Time, q.In = p.Time, e.in
		s.box.count.PickedUp++
		s.carry(q, e.flow, other.in)
	}
	segment(client, server, stack.TCPHeader{Seq: client.seq, Flags: stack.FlagSYN})
	segment(server, client, stack.TCPHeader{Seq: server.seq, Ack: client.seq + 1, Flags: stack.FlagSYN | stack.FlagACK})
	segment(client, server, stack.TCPHeader{Seq: client.seq + 1, Ack: server.seq + 1, Flags: stack.FlagACK})
}

// pickUpWindow is the least window of a handshake that is made up, in bytes:
// what was negotiated is not known.
const pickUpWindow = 65535

// learn notes that the flow f of the capture left by out as l.
func (s *splitter) learn(out *stack.Interface, f, l stack.Flow) {
	s.flows[flowOn{out, f.Reverse()}] = l.Reverse()
	if l.Src != f.Src {
		s.ends[endOn{out, f.Proto, f.Src}] = l.Src
	}
}

// address gives p, which has the flow f in the capture and goes to a host
// behind to, the addresses it would have had on p.In. In order: an answer
// to what left; the pinhole that waits for it; a static rule; the address that
// its destination has shown itself under.
func (s *splitter) address(p *stack.Packet, f stack.Flow, to *stack.Interface) {
	if p.IsICMPError() {
		s.addressError(p)
		return
	}
	as, ok := s.flows[flowOn{p.In, f}]
	if !ok {
		as = f
		if dst, ok := s.box.app.Pinhole(p.In, f); ok {
			as.Dst = dst
		} else if m, ok := s.box.app.Rules().MappedOf(f.Dst, to, p.In, f.Proto); ok && m != f.Dst {
			as.Dst = m
		} else if m, ok := s.ends[endOn{p.In, f.Proto, f.Dst}]; ok {
			as.Dst = m
		}
		s.flows[flowOn{p.In, f}] = as
	}
	if as != f {
		p.SetFlow(as)
	}
}

// addressError has an ICMP error quote what was seen on its side.
func (s *splitter) addressError(p *stack.Packet) {
	f, ok := p.Quoted()
	if !ok {
		return
	}
	back, ok := s.flows[flowOn{p.In, f.Reverse()}]
	if !ok {
		return
	}
	sent := back.Reverse()
	p.SetQuoted(sent)
	outer := p.Flow()
	outer.Dst = netip.AddrPortFrom(sent.Src.Addr(), 0)
	p.SetFlow(outer)
}
