package pcaps

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/stack"
)

// maxRepeat bounds the packets of one line.
const maxRepeat = 100_000

// execWords begin the commands of EXEC mode that a step may do.
var execWords = []string{"show", "clear", "capture", "no", "copy", "packet-tracer"}

// A Step is one line of a packet list.
type Step struct {
	At      time.Duration // from the beginning of the list
	In      string        // nameif the packets arrive on; "" for the steps below
	Packets [][]byte      // whole IP packets, at the same time
	Quiet   bool          // not for the dump

	Exec string // a command of EXEC mode, whose output goes into the dump; "" with no packets: only time passes

	host *hostLine // what a host does; the packets follow from what it has heard
}

// ParseSteps reads a packet list: one step on each line, or several with
// "repeat". What follows a # outside quotes is a comment. Times are in seconds
// and do not go back. files are those that @NAME may name; nil: none.
//
//	0.0  inside  udp 10.20.0.50:5000 > 192.0.2.5:53 "query"
//	0.1  inside  tcp 10.20.0.50:4000 > 192.0.2.5:80 S seq 1 mss 1460
//	0.2  outside icmp 192.0.2.5 > 203.0.113.2 echo-reply id 7 seq 1 hex:0102
//	0.3  outside icmp 192.0.2.1 > 203.0.113.2 type 3 code 4 mtu 1400 about udp 203.0.113.2:5000 > 192.0.2.5:53
//	0.4  inside  proto 47 10.20.0.50 > 192.0.2.5 zero 100
//	0.5  inside  raw 60000000
//	9.0  tick
//	9.0  show conn detail
//	9.0  packet-tracer input inside udp 10.20.0.50 5000 192.0.2.5 53
//
// A payload is "quoted as in Go", hex:…, zero N or @FILE, a file of the case:
// its line ends become CRLF, and "Content-Length: auto" becomes the number.
// These change a packet:
//
//	ttl N   id N   df   option     IP header; option adds four bytes of no-operation
//	length N                       total length in the IP header
//	badsum   badipsum              a wrong checksum of the transport or IP header
//	cut N                          fragments of N bytes each
//	order 3,1,2                    those fragments only, in that order
//	repeat N every SECONDS         the same packet N times
//	ports N every SECONDS          the same with N source ports, counting up
//	quiet                          not for the dump
//
// A segment to a conversation that the box ends itself needs no ack: it gets that
// of all the box has sent.
//
// Conversations are between hosts, which know what has come to them, do by
// themselves what TCP owes, and are written by name:
//
//	0.0  host a inside  udp  10.20.0.50:5060         a SIP phone
//	0.0  host b outside tcp  192.0.2.5:5060          one over TCP
//	0.0  host p inside  sccp 10.20.0.60:50000 v17    a Skinny phone, or a call manager
//	1.0  a INVITE > b@192.0.2.5 sdp 20000            a request to somebody
//	1.1  b 183 sdp 30000                             the answer to the last that came
//	1.2  b 200 INVITE                                the answer to the last INVITE
//	1.3  a ACK                                       in the dialog
//	1.4  a rtp                                       media to where the other end said
//	1.4  a rtcp
//	1.5  a send "text" > 192.0.2.5:5060              other bytes
//	1.6  a again                                     the last bytes once more
//	2.0  p connect 192.0.2.11:2000
//	2.1  p sccp OpenReceiveChannelAck party=2 addr=10.20.0.60:24000
//	2.2  p close
//	2.3  p reset
//
// A SIP message has these:
//
//	call ID                   Call-ID; without it "1"
//	sdp [ADDR:]PORT           a session description: media there
//	c ADDR   rtcp [ADDR:]PORT   line "a=sendonly"     in it
//	with "Name: value"        in place of the field of that name
//	add "Name: value"         besides it
//	less NAME                 without it
//	body "text"   tag TAG
//
// {ID.target}, {ID.id}, {ID.local} and {ID.remote} in these and in the address
// are the URI and the tags of the sender's dialog ID. Over UDP the words that
// change a packet hold; over TCP these do:
//
//	cut N   at 10,20          segments of N bytes each, or that end there
//	order 3,1,2   overlap N   those only, in that order; each begins N bytes early
//	cuts                      the message once for each place to cut it in two
//	first N                   its first bytes only
//	join                      it goes with what is said next
//	repeat N every SECONDS    the message N times
//	on N                      the host's Nth connection; without it, that of the call or the last
//	quiet
func ParseSteps(r io.Reader, files fs.FS) ([]Step, error) {
	var all []Step
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	last := time.Duration(0)
	hosts := make(map[string]kind)
	for n := 1; sc.Scan(); n++ {
		words, err := split(sc.Text())
		if err == nil && len(words) == 0 {
			continue
		}
		var steps []Step
		if err == nil {
			steps, err = parseLine(&lineParser{words: words, files: files, hosts: hosts})
		}
		if err == nil && steps[0].At < last {
			err = fmt.Errorf("%v is before the step above", steps[0].At)
		}
		if err != nil {
			return nil, fmt.Errorf("pcaps: line %d: %w", n, err)
		}
		last = steps[0].At
		all = append(all, steps...)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("pcaps: reading a packet list: %w", err)
	}
	return all, nil
}

// split cuts a line into words. One in quotes keeps its first quote as a mark.
func split(line string) ([]string, error) {
	var words []string
	for {
		line = strings.TrimLeft(line, " \t")
		if line == "" || line[0] == '#' {
			return words, nil
		}
		if line[0] != '"' {
			n := strings.IndexAny(line, " \t")
			if n < 0 {
				n = len(line)
			}
			words, line = append(words, line[:n]), line[n:]
			continue
		}
		q, err := strconv.QuotedPrefix(line)
		if err != nil {
			return nil, fmt.Errorf("quotes in %s: %w", line, err)
		}
		s, err := strconv.Unquote(q)
		if err != nil {
			return nil, fmt.Errorf("quotes in %s: %w", line, err)
		}
		words, line = append(words, `"`+s), line[len(q):]
	}
}

// A lineParser takes the words of a line one by one. Its first error stays.
type lineParser struct {
	words []string
	files fs.FS
	hosts map[string]kind // declared so far
	err   error
}

func (l *lineParser) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

func (l *lineParser) peek() string {
	if len(l.words) == 0 {
		return ""
	}
	return l.words[0]
}

func (l *lineParser) next() string {
	w := l.peek()
	if w == "" {
		l.fail("the line ends too early")
		return ""
	}
	l.words = l.words[1:]
	return w
}

// take takes the next word if it is w.
func (l *lineParser) take(w string) bool {
	if l.peek() != w {
		return false
	}
	l.words = l.words[1:]
	return true
}

func (l *lineParser) want(w string) {
	if got := l.next(); got != w {
		l.fail("%q where %q belongs", got, w)
	}
}

func (l *lineParser) number(most uint64) uint64 {
	w := l.next()
	n, err := strconv.ParseUint(w, 10, 64)
	if err != nil || n > most {
		l.fail("%q is no number up to %d", w, most)
		return 0
	}
	return n
}

func (l *lineParser) seconds() time.Duration {
	w := l.next()
	f, err := strconv.ParseFloat(w, 64)
	if err != nil || !(f >= 0 && f < 1e8) {
		l.fail("%q is no time in seconds", w)
		return 0
	}
	return time.Duration(f*1e6+0.5) * time.Microsecond
}

// end reads an address, with a port if ports.
func (l *lineParser) end(ports bool) netip.AddrPort {
	w := l.next()
	if ports {
		a, err := netip.ParseAddrPort(w)
		if err != nil || !a.Addr().Is4() {
			l.fail("%q is no IPv4 address and port", w)
		}
		return a
	}
	a, err := netip.ParseAddr(w)
	if err != nil || !a.Is4() {
		l.fail("%q is no IPv4 address", w)
	}
	return netip.AddrPortFrom(a, 0)
}

// flow reads "SRC > DST".
func (l *lineParser) flow(proto stack.Proto) stack.Flow {
	ports := proto == stack.TCP || proto == stack.UDP
	f := stack.Flow{Proto: proto, Src: l.end(ports)}
	l.want(">")
	f.Dst = l.end(ports)
	return f
}

// parseLine makes the steps of a line.
func parseLine(l *lineParser) ([]Step, error) {
	s := Step{At: l.seconds()}
	switch {
	case l.take("host"):
		s.host = l.declare()
	case l.hosts[l.peek()] != "":
		s.host = l.hostLine()
	case l.take("tick"):
	case slices.Contains(execWords, l.peek()):
		s.Exec, l.words = strings.Join(l.words, " "), nil
	default:
		return l.packets(s)
	}
	if len(l.words) > 0 {
		l.fail("%q after the end of the step", l.words[0])
	}
	return []Step{s}, l.err
}

// packets reads a packet and makes its steps.
func (l *lineParser) packets(s Step) ([]Step, error) {
	s.In = l.next()
	if l.take("raw") {
		b, err := hex.DecodeString(l.next())
		if err != nil {
			l.fail("raw: %v", err)
		}
		s.Packets = [][]byte{b}
		if len(l.words) > 0 {
			l.fail("%q after the packet", l.words[0])
		}
		return []Step{s}, l.err
	}
	r := recipe{kind: l.next(), ttl: -1, id: -1, length: -1, repeat: 1}
	switch r.kind {
	case "udp":
		r.flow = l.flow(stack.UDP)
	case "tcp":
		r.flow = l.flow(stack.TCP)
		l.tcpFlags(&r)
	case "icmp":
		r.flow = l.flow(stack.ICMP)
		l.icmp(&r)
	case "proto":
		n := l.number(255)
		r.flow = l.flow(0) // without ports, whatever the protocol
		r.flow.Proto = stack.Proto(n)
	default:
		l.fail("%q: want udp, tcp, icmp, proto, raw, tick or show", r.kind)
	}
	for l.err == nil && len(l.words) > 0 {
		l.option(&r)
	}
	if l.err != nil {
		return nil, l.err
	}
	return r.steps(s)
}

// tcpFlags reads letters as stack.AppendText writes them, "-" for none.
func (l *lineParser) tcpFlags(r *recipe) {
	w := l.next()
	if w == "-" {
		return
	}
	for _, c := range w {
		i := strings.IndexRune("FSRPAUEC", c)
		if i < 0 {
			l.fail("TCP flags %q: want letters of FSRPAUEC, or -", w)
			return
		}
		r.tcp.Flags |= 1 << i
	}
	r.tcp.Window = 8192
}

func (l *lineParser) icmp(r *recipe) {
	switch {
	case l.take("echo"):
		l.want("id")
		r.flow.Src = netip.AddrPortFrom(r.flow.Src.Addr(), uint16(l.number(65535)))
	case l.take("echo-reply"):
		l.want("id")
		r.flow.Dst = netip.AddrPortFrom(r.flow.Dst.Addr(), uint16(l.number(65535)))
	case l.take("type"):
		r.error, r.typ = true, uint8(l.number(255))
		l.want("code")
		r.code = uint8(l.number(255))
		if l.take("mtu") {
			r.rest = uint16(l.number(65535))
		}
		l.want("about")
		switch kind := l.next(); kind {
		case "udp":
			f := l.flow(stack.UDP)
			r.about = l.quote(func() []byte { return stack.AppendUDP(nil, f, nil) })
		case "tcp":
			f := l.flow(stack.TCP)
			r.about = l.quote(func() []byte { return stack.AppendTCP(nil, f, stack.TCPHeader{Flags: stack.FlagSYN}, nil) })
		case "icmp":
			f := l.flow(stack.ICMP)
			l.want("id")
			f.Src = netip.AddrPortFrom(f.Src.Addr(), uint16(l.number(65535)))
			r.about = l.quote(func() []byte { return stack.AppendICMPEcho(nil, f, 1, nil) })
		default:
			l.fail("about %q: want udp, tcp or icmp", kind)
		}
	default:
		l.fail("ICMP %q: want echo, echo-reply or type", l.peek())
	}
}

// quote makes a packet, if its addresses were read.
func (l *lineParser) quote(make func() []byte) []byte {
	if l.err != nil {
		return nil
	}
	return make()
}

// option reads one change or payload.
func (l *lineParser) option(r *recipe) {
	w := l.next()
	switch {
	case w[0] == '"':
		r.payload = []byte(w[1:])
		return
	case strings.HasPrefix(w, "hex:"):
		b, err := hex.DecodeString(w[4:])
		if err != nil {
			l.fail("%s: %v", w, err)
		}
		r.payload = b
		return
	case w[0] == '@':
		r.payload = l.file(w[1:])
		return
	}
	switch w {
	case "zero":
		r.payload = make([]byte, l.number(60000))
	case "ttl":
		r.ttl = int(l.number(255))
	case "id":
		r.id = int(l.number(65535))
	case "length":
		r.length = int(l.number(65535))
	case "df":
		r.df = true
	case "option":
		r.option = true
	case "quiet":
		r.quiet = true
	case "badsum":
		r.badSum = true
	case "badipsum":
		r.badHeader = true
	case "cut":
		r.cut = int(l.number(65535)) &^ 7
		if r.cut == 0 {
			l.fail("cut: fragments have at least 8 bytes")
		}
	case "order":
		for _, s := range strings.Split(l.next(), ",") {
			n, err := strconv.Atoi(s)
			if err != nil || n < 1 {
				l.fail("order: %q is no fragment's number", s)
			}
			r.order = append(r.order, n)
		}
	case "repeat":
		r.repeat = int(l.number(maxRepeat))
		l.want("every")
		r.every = l.seconds()
	case "ports":
		r.repeat = int(l.number(maxRepeat))
		r.ports = 1
		l.want("every")
		r.every = l.seconds()
	case "seq":
		if n := l.number(1<<32 - 1); r.kind == "icmp" {
			r.seq = uint16(n)
		} else {
			r.tcp.Seq = uint32(n)
		}
	case "ack":
		r.tcp.Ack = uint32(l.number(1<<32 - 1))
	case "win":
		r.tcp.Window = uint16(l.number(65535))
	case "mss":
		r.tcp.MSS = uint16(l.number(65535))
	default:
		l.fail("%q is nothing a packet can have", w)
	}
}
