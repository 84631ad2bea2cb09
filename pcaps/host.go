package pcaps

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/replay"
	"patchbay/stack"
)

const (
	window    = 32_768 // bytes that a host's TCP offers
	segment   = 1460   // bytes of a host's longest segment
	firstSeq  = 1000   // of a host's first connection; the next begins as much higher
	maxEvents = 20_000 // packets that hosts send by themselves for one line
)

// A kind is what a host speaks.
type kind string

const (
	overUDP  kind = "udp"  // SIP
	overTCP  kind = "tcp"  // SIP
	overSCCP kind = "sccp" // SCCP, over TCP
)

// A host is a machine of a packet list. It sends what the list says, and by
// itself only what TCP owes: handshakes and acknowledgments.
type host struct {
	name    string
	nameif  string // of the interface it is behind
	kind    kind
	addr    netip.AddrPort
	version int // of SCCP

	conns   []*conn // of TCP, in order of age
	last    spoken  // what it said last, for "again"
	sent    [][]byte
	dialogs map[string]*dialog
	rtpSeq  uint16
}

// spoken is a message, and where it went: a place, or a connection.
type spoken struct {
	text []byte
	to   netip.AddrPort
	conn *conn
}

// A conn is one end of a TCP connection.
type conn struct {
	host     *host
	flow     stack.Flow // of what this end sends
	seq, ack uint32
	open     bool
	closing  bool   // a FIN was sent
	wait     []byte // goes with the next message
	early    []part // segments that came before their turn
	got      []byte // received, not yet a whole message
}

// A part is what one segment brings.
type part struct {
	seq  uint32
	data []byte
}

// A cast is the hosts of a packet list and what is on its way to them.
type cast struct {
	box    *box
	hosts  map[string]*host
	order  []*host
	inbox  []arrival
	now    time.Time
	packet *stack.Packet

	noted string // the last note
	times int    // that it came in a row
}

type arrival struct {
	host *host
	data []byte
}

func newCast(b *box) *cast {
	return &cast{box: b, hosts: make(map[string]*host), packet: stack.NewPacket(stack.MaxPacket)}
}

// deliver keeps p for the host it is addressed to.
func (c *cast) deliver(p *stack.Packet) {
	f := p.Flow()
	for _, h := range c.order {
		if p.Out.String() == h.nameif && f.Dst == h.addr && (f.Proto == stack.UDP) == (h.kind == overUDP) {
			c.inbox = append(c.inbox, arrival{h, bytes.Clone(p.Data())})
		}
	}
}

// send has one packet of h arrive at the box, and what the hosts answer to it.
func (c *cast) send(h *host, data []byte, quiet bool) error {
	c.inject(h, data, quiet)
	return c.settle()
}

func (c *cast) inject(h *host, data []byte, quiet bool) {
	p := c.packet
	p.Reset()
	p.SetData(data)
	p.Time, p.In = c.now, c.box.Interface(h.nameif)
	c.box.Mute(quiet)
	c.box.Handle(p)
	c.box.Mute(false)
}

// settle lets the hosts take what has come for them until nothing is on its
// way.
func (c *cast) settle() error {
	for n := 0; len(c.inbox) > 0; n++ {
		if n == maxEvents {
			return fmt.Errorf("hosts answer each other without end")
		}
		a := c.inbox[0]
		c.inbox = c.inbox[1:]
		p := stack.NewPacket(len(a.data))
		p.SetData(a.data)
		if v := p.Parse(); v != stack.Forward {
			continue // a fragment of a longer datagram, which no host puts together
		}
		if a.host.kind == overUDP {
			c.hear(a.host, nil, p.Flow().Src, bytes.Clone(p.Payload()))
			continue
		}
		c.segment(a.host, p)
	}
	return nil
}

// note writes a line of the dump; one that comes again is counted.
func (c *cast) note(text string) {
	if text == c.noted {
		c.times++
		return
	}
	c.flush()
	c.noted, c.times = text, 1
	c.box.Note("-- " + text)
}

// flush ends a row of the same notes.
func (c *cast) flush() {
	if c.times > 1 {
		c.box.Note(fmt.Sprintf("-- and %d times more the same", c.times-1))
	}
	c.noted, c.times = "", 0
}

// connect opens a connection of h.
func (c *cast) connect(h *host, to netip.AddrPort, quiet bool) (*conn, error) {
	x := &conn{
		host: h, flow: stack.Flow{Proto: stack.TCP, Src: h.addr, Dst: to},
		seq: firstSeq * uint32(len(h.conns)+1),
	}
	h.conns = append(h.conns, x)
	syn := stack.TCPHeader{Seq: x.seq, Flags: stack.FlagSYN, Window: window, MSS: segment}
	x.seq++
	return x, c.send(h, stack.AppendTCP(nil, x.flow, syn, nil), quiet)
}

// tell sends a segment of x.
func (c *cast) tell(x *conn, flags uint8, seq uint32, data []byte, quiet bool) {
	c.inject(x.host, stack.AppendTCP(nil, x.flow, stack.TCPHeader{
		Seq: seq, Ack: x.ack, Flags: flags, Window: window,
	}, data), quiet)
}

// segment has h take a TCP segment.
func (c *cast) segment(h *host, p *stack.Packet) {
	f, flags := p.Flow().Reverse(), p.TCPFlags()
	var x *conn
	for _, y := range h.conns {
		if y.flow == f {
			x = y
		}
	}
	switch {
	case flags&stack.FlagRST != 0:
		if x != nil {
			x.open = false
			c.note(h.name + ": the connection is reset")
		}
		return
	case flags&(stack.FlagSYN|stack.FlagACK) == stack.FlagSYN:
		x = &conn{host: h, flow: f, seq: firstSeq * uint32(len(h.conns)+1), ack: p.TCPSeq() + 1, open: true}
		h.conns = append(h.conns, x)
		c.note(fmt.Sprintf("%s: a connection from %v", h.name, f.Dst))
		c.inject(h, stack.AppendTCP(nil, f, stack.TCPHeader{
			Seq: x.seq, Ack: x.ack, Flags: stack.FlagSYN | stack.FlagACK, Window: window, MSS: segment,
		}, nil), false)
		x.seq++
		return
	case x == nil:
		return
	case flags&stack.FlagSYN != 0:
		if x.open {
			return
		}
		x.open, x.ack = true, p.TCPSeq()+1
		c.tell(x, stack.FlagACK, x.seq, nil, true)
		return
	}
	data, fin := p.Payload(), flags&stack.FlagFIN != 0
	if len(data) > 0 {
		x.take(p.TCPSeq(), data)
	}
	ended := fin && p.TCPSeq()+uint32(len(data)) == x.ack
	if ended {
		x.ack++
		x.open = false
	}
	if len(data) > 0 || fin {
		c.tell(x, stack.FlagACK, x.seq, nil, true)
	}
	c.messages(x)
	if ended {
		c.note(h.name + ": the other end closes the connection")
		if !x.closing {
			x.closing = true
			c.tell(x, stack.FlagFIN|stack.FlagACK, x.seq, nil, false)
			x.seq++
		}
	}
}

// take keeps what a segment brings, in the order of the stream.
func (x *conn) take(seq uint32, data []byte) {
	x.early = append(x.early, part{seq, bytes.Clone(data)})
	for i := 0; i < len(x.early); {
		p := x.early[i]
		old := int32(x.ack - p.seq) // bytes of it that are known
		if old < 0 {
			i++
			continue
		}
		x.early = slices.Delete(x.early, i, i+1)
		if int(old) < len(p.data) {
			x.got = append(x.got, p.data[old:]...)
			x.ack += uint32(len(p.data)) - uint32(old)
		}
		i = 0
	}
}

// messages has the host of x hear every whole message that came.
func (c *cast) messages(x *conn) {
	for {
		n := wholeMessage(x.host.kind, x.got)
		if n == 0 {
			return
		}
		msg := bytes.Clone(x.got[:n])
		x.got = x.got[n:]
		c.hear(x.host, x, x.flow.Dst, msg)
	}
}

// wholeMessage returns how long the first message of b is, 0 if it goes on.
func wholeMessage(k kind, b []byte) int {
	if k == overSCCP {
		if len(b) < 12 {
			return 0
		}
		if n := uint64(binary.LittleEndian.Uint32(b)) + 8; n <= uint64(len(b)) {
			return int(n)
		}
		return 0
	}
	if bytes.HasPrefix(b, []byte("\r\n")) {
		return 2 // a keepalive (RFC 5626, section 3.5.1)
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return 0
	}
	n, _ := strconv.Atoi(fieldOf(b[:end+2], "Content-Length"))
	if n += end + 4; n > len(b) {
		return 0
	}
	return n
}

// hear has h take a message.
func (c *cast) hear(h *host, x *conn, from netip.AddrPort, msg []byte) {
	switch {
	case h.kind == overSCCP:
		c.note(h.name + " gets " + sccpText(msg, h.version, c.original(h, msg)))
		return
	case h.kind == overTCP && len(bytes.TrimSpace(msg)) == 0:
		c.note(h.name + " gets an empty line")
		return
	}
	m, ok := readSIP(msg)
	if !ok {
		if h.kind == overTCP {
			c.note(fmt.Sprintf("%s gets %q", h.name, msg))
		}
		return
	}
	if h.kind == overTCP {
		c.note(h.name + " gets " + string(replay.AppendChange([]byte(m.start), c.original(h, msg), msg)))
	}
	h.hearSIP(m, from, x)
}

// original returns what another host sent that became msg, or nothing.
func (c *cast) original(h *host, msg []byte) []byte {
	for _, other := range c.order {
		if other == h || other.kind != h.kind {
			continue
		}
		for i := len(other.sent) - 1; i >= 0; i-- {
			if sameMessage(h.kind, other.sent[i], msg) {
				return other.sent[i]
			}
		}
	}
	return nil
}

// sameMessage reports whether b may be what a became.
func sameMessage(k kind, a, b []byte) bool {
	if k == overSCCP {
		return len(a) == len(b) && len(a) >= 12 && bytes.Equal(a[4:12], b[4:12]) && sccpSame(a, b)
	}
	m, ok := readSIP(a)
	n, ok2 := readSIP(b)
	return ok && ok2 && m.method == n.method && m.status == n.status &&
		m.field("Call-ID") == n.field("Call-ID") && m.field("CSeq") == n.field("CSeq")
}

// fieldOf returns the first value of a header field, or "".
func fieldOf(header []byte, name string) string {
	for _, line := range strings.Split(string(header), "\r\n") {
		n, v, ok := strings.Cut(line, ":")
		if ok && strings.EqualFold(strings.TrimSpace(n), name) {
			return strings.TrimSpace(v)
		}
	}
	return ""
}
