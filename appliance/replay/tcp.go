package replay

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
)

const (
	tcpRoom    = 65535     // bytes, the window that each end of a replayed conversation shows
	tcpWaiting = 256 << 10 // bytes that wait for an end to take them, as in host.Stack
	defaultMSS = 536       // bytes, of a peer that names none (RFC 9293, section 3.7.1)

	ipTCPHeader = 40 // bytes, without options

	lastWait = time.Minute // for the FIN of a peer that we have sent ours
)

// A tcpService says what the box does with a TCP conversation that it ends.
type tcpService struct {
	engine   inspect.Engine
	binder   inspect.Binder
	from, to netip.AddrPort // of the box's own connection to the server
	in, out  *stack.Interface
	limits   inspect.Limits
	answer   time.Duration     // how long the server may take to answer
	count    *inspect.Counters // or nil
	log      *slog.Logger
	begun    func(*tcpTalk) // or nil
	over     func() bool    // the client's connection has gone without its TCP; or nil
	close    func()         // ends what the binder holds; called once
}

// A tcpHost is the box's own TCP in a Box. It stands where host.Stack does,
// which keeps a time of its own: it has no goroutine, no timer, and answers
// what it gets before take returns.
//
// Each conversation is two halves, the box's connection with the client and
// that with the server, with whole messages between them. The other end of each
// half is an end in a capture, which spoke with somebody else: it goes on as it
// did whatever the box sends. Its own sequence numbers stand, and what it
// acknowledges is taken for all that the box has sent, in a window without
// end; see rebase. So nothing is ever lost on the way to it, and nothing sent
// again. The server is called at the client's SYN, and the client answered when
// the server has, whichever side is the less trusted one: nobody forges a capture.
type tcpHost struct {
	serve func(p *stack.Packet) *tcpService                     // who takes a SYN; nil: nobody
	send  func(f stack.Flow, h stack.TCPHeader, payload []byte) // both borrowed
	wrap  func(t *tcpTalk) inspect.Session                      // or nil
	rand  io.Reader                                             // initial sequence numbers
	mtu   int                                                   // bytes

	halves map[stack.Flow]*half // by the flow that comes
	talks  []*tcpTalk           // in order of age
}

// A tcpTalk is one conversation.
type tcpTalk struct {
	host    *tcpHost
	svc     *tcpService
	engine  inspect.Session // of svc.engine
	session inspect.Session // the same, with what wrap puts before it
	ends    [2]*half
	buf     [2][]byte    // of each end, what waits for the rest of its message
	began   [2]time.Time // and since when
	heard   time.Time    // the last byte of either
	over    time.Time    // since when it has ended; zero: it goes on
}

// A half is the box's connection with one end.
type half struct {
	talk *tcpTalk
	end  nat.End
	flow stack.Flow // that we send

	greeted bool   // our SYN-ACK was sent to the client
	opened  bool   // its handshake is complete
	next    uint32 // that comes next from the peer
	sent    uint32 // that we send next
	edge    uint32 // the first that we may not send
	mss     int    // bytes

	early  []piece // that came before its turn, by sequence number
	queue  []byte  // to be sent
	queued time.Time

	closing, finSent, finAcked, finGot, gone bool
}

// A piece is what one segment holds of the stream.
type piece struct {
	seq  uint32
	data []byte
	fin  bool
}

func newTCPHost() *tcpHost { return &tcpHost{halves: make(map[stack.Flow]*half)} }

// rebase makes a segment of a captured end one to the box's half: its
// acknowledgement, which counts bytes of somebody else, that of all that the
// box has sent it, and its window the largest, for how much room it had left
// for what it never got is not known.
func (h *tcpHost) rebase(p *stack.Packet) {
	x := h.halves[p.Flow()]
	if x == nil || p.TCPFlags()&stack.FlagACK == 0 {
		return
	}
	p.SetTCPAck(x.sent, tcpRoom)
}

// take answers p, a packet that the policy let through to the box. It reports
// whether p is of a conversation that it ends.
func (h *tcpHost) take(p *stack.Packet) bool {
	if p.Flow().Proto != stack.TCP {
		return false
	}
	const synAck = stack.FlagSYN | stack.FlagACK
	x := h.halves[p.Flow()]
	flags := p.TCPFlags()
	if flags&synAck == stack.FlagSYN && (x == nil || x.end == nat.Client && x.next != p.TCPSeq()+1) {
		return h.begin(p, x)
	}
	if x == nil {
		return false
	}
	switch {
	case flags&stack.FlagRST != 0:
		x.remove()
		x.talk.end(p.Time, fmt.Errorf("%v reset its connection", x.end))
	case flags&stack.FlagSYN != 0:
		x.greet(p)
	case flags&stack.FlagACK == 0 || !x.opened && !x.greeted:
		// nothing that a peer sends yet
	default:
		x.hear(p)
	}
	return true
}

// begin takes a client's SYN, and calls the server. old is what the flow was
// until now, or nil.
func (h *tcpHost) begin(p *stack.Packet, old *half) bool {
	if old != nil {
		old.remove()
		old.talk.end(p.Time, errors.New("the client began anew"))
	}
	svc := h.serve(p)
	if svc == nil {
		return false
	}
	t := &tcpTalk{host: h, svc: svc, heard: p.Time}
	t.engine = svc.engine.NewSession(svc.binder)
	t.session = t.engine
	if h.wrap != nil {
		t.session = h.wrap(t)
	}
	h.talks = append(h.talks, t)
	if svc.begun != nil {
		svc.begun(t)
	}
	client := t.half(nat.Client, p.Flow().Reverse())
	client.next, client.mss = p.TCPSeq()+1, h.segment(p)
	to := stack.Flow{Proto: stack.TCP, Src: svc.from, Dst: svc.to}
	if h.halves[to.Reverse()] != nil {
		t.ends[nat.Server] = &half{talk: t, end: nat.Server, flow: to, gone: true}
		t.end(p.Time, errors.New("address already in use"))
		return true
	}
	t.half(nat.Server, to).say(stack.FlagSYN, nil)
	return true
}

// segment returns the most that a segment to the sender of a SYN may hold.
func (h *tcpHost) segment(p *stack.Packet) int {
	mss, ok := stack.MSS(p.Transport())
	if !ok || mss == 0 {
		mss = defaultMSS
	}
	return max(1, min(int(mss), h.mtu-ipTCPHeader))
}

func (t *tcpTalk) half(end nat.End, f stack.Flow) *half {
	x := &half{talk: t, end: end, flow: f}
	var b [4]byte
	if _, err := io.ReadFull(t.host.rand, b[:]); err == nil {
		x.sent = binary.BigEndian.Uint32(b[:])
	}
	t.ends[end] = x
	t.host.halves[f.Reverse()] = x
	return x
}

// say sends one segment, and counts it as sent.
func (x *half) say(flags uint8, payload []byte) {
	h := stack.TCPHeader{Seq: x.sent, Flags: flags, Window: tcpRoom}
	if flags&stack.FlagACK != 0 {
		h.Ack = x.next
	}
	x.sent += uint32(len(payload))
	if flags&stack.FlagSYN != 0 {
		h.MSS = uint16(x.talk.host.mtu - ipTCPHeader)
		x.sent++
	}
	if flags&stack.FlagFIN != 0 {
		x.sent++
	}
	x.talk.host.send(x.flow, h, payload)
}

// again repeats a segment without payload that was sent already.
func (x *half) again(flags uint8, seq uint32) {
	was := x.sent
	x.sent = seq
	x.say(flags, nil)
	x.sent = was
}

// greet takes a SYN: the server's answer, or either end's again.
func (x *half) greet(p *stack.Packet) {
	answer := p.TCPFlags()&stack.FlagACK != 0
	switch {
	case x.end == nat.Client && !answer && x.greeted && !x.opened:
		x.again(stack.FlagSYN|stack.FlagACK, x.sent-1)
	case x.end == nat.Client && !answer && !x.greeted:
		server := x.talk.ends[nat.Server]
		server.again(stack.FlagSYN, server.sent-1)
	case x.end == nat.Server && answer && !x.opened:
		x.next, x.mss = p.TCPSeq()+1, x.talk.host.segment(p)
		x.opened, x.edge = true, x.sent+tcpRoom
		x.say(stack.FlagACK, nil)
		client := x.talk.ends[nat.Client]
		client.greeted = true
		client.say(stack.FlagSYN|stack.FlagACK, nil)
	case answer || x.opened:
		x.say(stack.FlagACK, nil)
	}
}

// hear takes a segment of an open half.
func (x *half) hear(p *stack.Packet) {
	x.opened, x.edge = true, x.sent+tcpRoom
	x.finAcked = x.finSent
	data := p.Payload()
	fin := p.TCPFlags()&stack.FlagFIN != 0
	if len(data) == 0 && !fin {
		x.flush(p.Time)
		x.settle()
		return
	}
	if len(data) > 0 && x.finSent && int32(p.TCPSeq()+uint32(len(data))-x.next) > 0 {
		x.say(stack.FlagRST|stack.FlagACK, nil) // we are closed, and nobody will read it
		x.remove()
		return
	}
	x.keep(piece{p.TCPSeq(), data, fin})
	data, fin = x.ready()
	mark := x.sent
	if x.talk.over.IsZero() {
		x.talk.hear(x.end, data, fin, p.Time)
	}
	x.flush(p.Time)
	if x.sent == mark && !x.gone {
		x.say(stack.FlagACK, nil)
	}
	x.settle()
}

// keep puts a piece among those whose turn has not come, if it is within the
// window. Of two that overlap the one that begins first counts, and of two that
// begin together the one that came first.
func (x *half) keep(n piece) {
	end := n.seq + uint32(len(n.data))
	if int32(end-x.next) > tcpRoom || int32(end-x.next) < 0 || len(x.early) >= maxEarly {
		return
	}
	room := 2 * tcpRoom
	for _, e := range x.early {
		room -= len(e.data)
	}
	if len(n.data) > room {
		return
	}
	if at := int32(x.next - n.seq); at > 0 {
		n.data, n.seq = n.data[at:], x.next
	}
	n.data = slices.Clone(n.data)
	i, _ := slices.BinarySearchFunc(x.early, n, func(a, b piece) int {
		return cmp.Or(int(int32(a.seq-b.seq)), -1) // behind those at the same place
	})
	x.early = slices.Insert(x.early, i, n)
}

// maxEarly is how many pieces wait for one that is missing.
const maxEarly = 1024

// ready takes what is in its turn now, and whether the peer's FIN is.
func (x *half) ready() (data []byte, fin bool) {
	n := 0
	for _, e := range x.early {
		gap := int32(e.seq - x.next)
		if gap > 0 {
			break
		}
		n++
		if at := int(-gap); at < len(e.data) {
			data = append(data, e.data[at:]...)
			x.next += uint32(len(e.data) - at)
		} else if at > len(e.data) {
			continue
		}
		if e.fin && !x.finGot {
			fin, x.finGot = true, true
			x.next++
		}
	}
	x.early = slices.Delete(x.early, 0, n)
	return data, fin
}

// flush sends what may be sent, and reports whether something was.
func (x *half) flush(now time.Time) bool {
	sent := false
	for x.opened && !x.gone && len(x.queue) > 0 {
		n := min(len(x.queue), x.mss, int(int32(x.edge-x.sent)))
		if n <= 0 {
			return sent
		}
		flags := uint8(stack.FlagACK)
		if n == len(x.queue) {
			flags |= stack.FlagPSH
		}
		x.say(flags, x.queue[:n])
		x.queue, x.queued, sent = x.queue[n:], now, true
	}
	if x.closing && x.opened && !x.gone && !x.finSent && len(x.queue) == 0 {
		x.finSent = true
		x.say(stack.FlagFIN|stack.FlagACK, nil)
		sent = true
	}
	return sent
}

// settle forgets a half that both ends have closed.
func (x *half) settle() {
	if x.finAcked && x.finGot {
		x.remove()
	}
}

func (x *half) remove() {
	x.gone = true
	x.early, x.queue = nil, nil
	if in := x.flow.Reverse(); x.talk.host.halves[in] == x {
		delete(x.talk.host.halves, in)
	}
}

// hear passes on what end sent.
func (t *tcpTalk) hear(end nat.End, data []byte, eof bool, now time.Time) {
	if len(data) == 0 && !eof {
		return
	}
	t.heard = now
	if len(t.buf[end]) == 0 {
		t.began[end] = now
	}
	t.buf[end] = append(t.buf[end], data...)
	used, out, err := inspect.Pass(t.svc.engine, t.session, nil, t.buf[end], end, eof, func(msg []byte, err error) {
		t.svc.count.Note(err)
		if errors.Is(err, inspect.ErrDrop) && !errors.Is(err, inspect.ErrRule) {
			t.svc.log.Warn("message dropped", "from", end.String(), "bytes", len(msg), "err", err)
		}
	})
	if used > 0 {
		t.began[end] = now
	}
	t.buf[end] = slices.Delete(t.buf[end], 0, used)
	to := t.ends[end.Other()]
	if len(to.queue) == 0 {
		to.queued = now
	}
	to.queue = append(to.queue, out...)
	to.flush(now)
	limit := cmp.Or(t.svc.limits.Message, inspect.DefaultMessage)
	switch {
	case err != nil:
	case eof && len(t.buf[end]) > 0:
		err = fmt.Errorf("%v ended after %d bytes of a message: %w", end, len(t.buf[end]), io.ErrUnexpectedEOF)
	case len(t.buf[end]) >= limit:
		err = fmt.Errorf("message from %v is longer than %d bytes", end, limit)
	case len(to.queue) > tcpWaiting:
		err = fmt.Errorf("%v does not take what it is sent", end.Other())
	case !eof:
		return
	}
	t.end(now, err)
}
