package pcaps

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"patchbay/stack"
)

// play has a host do what a line says.
func (c *cast) play(s Step, at time.Time) error {
	c.now = at
	x := s.host
	if h := x.host; h != nil {
		if c.box.Interface(h.nameif) == nil {
			return fmt.Errorf("no interface %q", h.nameif)
		}
		twin := *h // a list may be played twice
		c.hosts[h.name] = &twin
		c.order = append(c.order, &twin)
		return nil
	}
	c.flush()
	h := c.hosts[x.name]
	switch x.verb {
	case "connect":
		_, err := c.connect(h, netip.MustParseAddrPort(x.to), x.how.quiet)
		return err
	case "close", "reset":
		return c.end(h, x)
	case "again":
		return c.deliverText(h, x, h.last.text, h.last.to, h.last.conn)
	case "send":
		to, _ := place(h.expand(x.to))
		return c.deliverText(h, x, x.message, to, nil)
	case "sccp":
		msg, err := makeSCCP(x.to, h.version, x.sip.with)
		if err != nil {
			return err
		}
		return c.deliverText(h, x, msg, netip.AddrPort{}, nil)
	case "rtp", "rtcp":
		return c.media(h, x)
	}
	wish := x.sip
	if wish.sdp != nil {
		sdp := *wish.sdp // the list stays as it is
		for _, a := range []*netip.AddrPort{&sdp.at, &sdp.rtcp} {
			if !a.Addr().IsValid() && a.Port() != 0 {
				*a = netip.AddrPortFrom(h.addr.Addr(), a.Port())
			}
		}
		wish.sdp = &sdp
	}
	text, to, err := h.say(&wish, x.call, x.to)
	if err != nil {
		return err
	}
	return c.deliverText(h, x, text, to, h.dialog(x.call).conn)
}

// end closes or resets a connection.
func (c *cast) end(h *host, x *hostLine) error {
	conn, err := h.connection(x.how.on)
	if err != nil {
		return err
	}
	if x.verb == "reset" {
		conn.open = false
		c.tell(conn, stack.FlagRST|stack.FlagACK, conn.seq, nil, x.how.quiet)
	} else {
		conn.closing = true
		c.tell(conn, stack.FlagFIN|stack.FlagACK, conn.seq, nil, x.how.quiet)
		conn.seq++
	}
	return c.settle()
}

// connection returns the Nth, or with 0 the last.
func (h *host) connection(n int) (*conn, error) {
	if n == 0 {
		n = len(h.conns)
	}
	if n < 1 || n > len(h.conns) {
		return nil, fmt.Errorf("%s has no connection %d", h.name, n)
	}
	return h.conns[n-1], nil
}

// media sends one packet from where the host receives to where the other end
// does. (RFC 3550, sections 5.1 and 6.4.2.)
func (c *cast) media(h *host, x *hostLine) error {
	d := h.dialog(x.call)
	f := stack.Flow{Proto: stack.UDP, Src: d.own, Dst: d.media}
	h.rtpSeq++
	payload := append([]byte{0x80, 0, byte(h.rtpSeq >> 8), byte(h.rtpSeq), 0, 0, 0, 0, 0, 0, 0, 1}, make([]byte, 20)...)
	if x.verb == "rtcp" {
		f.Src, f.Dst = d.ownRTCP, d.rtcp
		payload = []byte{0x80, 201, 0, 1, 0, 0, 0, 1}
	}
	if !f.Src.IsValid() || !f.Dst.IsValid() {
		return fmt.Errorf("%s of call %s: %s does not know the other end's address", x.verb, x.call, h.name)
	}
	if x.how.packet.payload == nil {
		x.how.packet.payload = payload
	}
	return c.datagram(h, x.how.packet, f)
}

// datagram sends the packets of one datagram.
func (c *cast) datagram(h *host, r recipe, f stack.Flow) error {
	r.flow = f
	steps, err := r.steps(Step{In: h.nameif})
	if err != nil {
		return err
	}
	begin := c.now
	for _, s := range steps {
		c.now = begin.Add(s.At)
		for _, data := range s.Packets {
			if err := c.send(h, data, s.Quiet); err != nil {
				return err
			}
		}
	}
	return nil
}

// deliverText sends a message.
func (c *cast) deliverText(h *host, x *hostLine, text []byte, to netip.AddrPort, conn *conn) error {
	if h.kind == overUDP {
		if !to.IsValid() {
			return fmt.Errorf("%s: no address to send to", h.name)
		}
		h.last = spoken{text: text, to: to}
		r := x.how.packet
		r.payload = text
		return c.datagram(h, r, stack.Flow{Proto: stack.UDP, Src: h.addr, Dst: to})
	}
	if conn == nil || x.how.on != 0 {
		var err error
		conn, err = h.connection(x.how.on)
		if err != nil && to.IsValid() && x.how.on == 0 {
			conn, err = c.connect(h, to, x.how.quiet)
		}
		if err != nil {
			return err
		}
	}
	h.last = spoken{text, to, conn}
	h.sent = append(h.sent, text)
	if n := x.how.first; n > 0 {
		text = text[:min(n, len(text))]
	}
	text = append(slices.Clone(conn.wait), text...)
	conn.wait = nil
	if x.how.join {
		conn.wait = text
		return nil
	}
	begin := c.now
	for i := range x.how.repeat {
		c.now = begin.Add(time.Duration(i) * x.how.every)
		places := x.how.places
		for n := 1; x.how.cuts && n < len(text)-1; n++ {
			if err := c.stream(conn, &x.how, text, []int{n}); err != nil {
				return err
			}
			places = []int{n + 1}
		}
		if err := c.stream(conn, &x.how, text, places); err != nil {
			return err
		}
	}
	return nil
}

// stream sends text in segments.
func (c *cast) stream(x *conn, how *delivery, text []byte, places []int) error {
	if !x.open {
		return fmt.Errorf("%s: the connection is not open", x.host.name)
	}
	size := segment
	if how.size > 0 {
		size = how.size
	}
	var ends []int
	for off := 0; off < len(text); off = ends[len(ends)-1] {
		end := min(off+size, len(text))
		for _, p := range places {
			if p > off && p < end {
				end = p
			}
		}
		ends = append(ends, end)
	}
	order := how.order
	if order == nil {
		for i := range ends {
			order = append(order, i+1)
		}
	}
	base := x.seq
	x.seq += uint32(len(text))
	for _, n := range order {
		if n > len(ends) {
			return fmt.Errorf("order: segment %d of %d", n, len(ends))
		}
		from := 0
		if n > 1 {
			from = max(ends[n-2]-how.overlap, 0)
		}
		c.tell(x, stack.FlagACK|stack.FlagPSH, base+uint32(from), text[from:ends[n-1]], how.quiet)
		if err := c.settle(); err != nil {
			return err
		}
	}
	return nil
}
