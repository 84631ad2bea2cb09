package pcaps

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
	"patchbay/stack"
)

// A Message is one of SIP, SCCP or TFTP that left the box.
type Message struct {
	Protocol string // "sip", "sccp", "tftp"
	Flow     stack.Flow
	Key      string // what it is: "INVITE 1 a84b4c76e66710", "0x008a", "RRQ"
	Raw      []byte
}

// A reader finds the messages in what passes one interface one way, in the
// order in which they are complete.
type reader struct {
	room     *stack.Packet
	frags    stack.Reassembler
	streams  map[stack.Flow]*stream
	clients  map[netip.AddrPort]bool // of TFTP, as they are known there
	messages []Message
}

// see notes who asks for files, of packets both ways.
func (r *reader) see(p *stack.Packet) {
	if f := p.Flow(); f.Proto == stack.UDP && f.Dst.Port() == tftpPort {
		if r.clients == nil {
			r.clients = make(map[netip.AddrPort]bool)
		}
		r.clients[f.Src] = true
	}
}

// A stream is one direction of a TCP connection.
type stream struct {
	protocol string
	next     uint32
	early    []part
	buf      []byte
	dead     bool // it is nothing that we read
}

// The engines that split; the second for datagrams.
var (
	splitSIP      = &sip.Engine{}
	splitDatagram = &sip.Engine{Client: sip.UDP, Server: sip.UDP}
	splitSkinny   = skinny.Engine{}
)

const (
	maxEarly   = 256 // segments of a stream that wait for one that is missing
	skinnyPort = 2000
	tftpPort   = 69
)

// read takes a packet. It is borrowed, and stays as it is.
func (r *reader) read(borrowed *stack.Packet) {
	if r.room == nil {
		r.room = stack.NewPacket(stack.MaxPacket)
	}
	p := r.room
	p.Reset()
	p.SetData(borrowed.Data())
	p.Time, p.In, p.ChecksumVouched = borrowed.Time, borrowed.In, true
	if p.Parse() == stack.DropFragment {
		if p, _ = r.frags.Add(p); p == nil {
			return
		}
	}
	f := p.Flow()
	switch f.Proto {
	case stack.UDP:
		r.datagram(f, p.Payload())
	case stack.TCP:
		r.segment(f, p)
	}
}

func (r *reader) datagram(f stack.Flow, data []byte) {
	if r.clients[f.Src] || r.clients[f.Dst] {
		if len(data) < 4 {
			return
		}
		names := [...]string{"?", "RRQ", "WRQ", "DATA", "ACK", "ERROR", "OACK"}
		op, key := binary.BigEndian.Uint16(data), ""
		switch {
		case int(op) >= len(names):
			return
		case op == 3 || op == 4:
			key = fmt.Sprintf("%s %d", names[op], binary.BigEndian.Uint16(data[2:]))
		default:
			key = names[op]
		}
		r.add("tftp", f, key, data)
		return
	}
	if len(data) == 0 || data[0] < 'A' || data[0] > 'z' {
		return
	}
	if _, msg, err := splitDatagram.Split(data, true); err == nil {
		r.add("sip", f, sipKey(msg), data)
	}
}

func (r *reader) segment(f stack.Flow, p *stack.Packet) {
	s := r.streams[f]
	if p.TCPFlags()&stack.FlagSYN != 0 || s == nil {
		if r.streams == nil {
			r.streams = make(map[stack.Flow]*stream)
		}
		s = &stream{next: p.TCPSeq(), protocol: "sip"}
		if p.TCPFlags()&stack.FlagSYN != 0 {
			s.next++
		}
		if f.Src.Port() == skinnyPort || f.Dst.Port() == skinnyPort {
			s.protocol = "sccp"
		}
		r.streams[f] = s
	}
	if len(s.early) > maxEarly { // one of them was never captured
		s.dead, s.early, s.buf = true, nil, nil
	}
	if s.dead {
		return
	}
	if data := p.Payload(); len(data) > 0 {
		s.early = append(s.early, part{p.TCPSeq(), bytes.Clone(data)})
	}
	for i := 0; i < len(s.early); i++ {
		e := s.early[i]
		at := int(int32(s.next - e.seq))
		if at < 0 {
			continue
		}
		if at < len(e.data) {
			s.buf = append(s.buf, e.data[at:]...)
			s.next += uint32(len(e.data) - at)
		}
		s.early = slices.Delete(s.early, i, i+1)
		i = -1 // those that waited for it
	}
	for len(s.buf) > 0 {
		split := splitSIP.Split
		if s.protocol == "sccp" {
			split = splitSkinny.Split
		}
		n, msg, err := split(s.buf, false)
		if err != nil {
			s.dead = true
			return
		}
		if n == 0 {
			return
		}
		switch {
		case s.protocol == "sccp":
			r.add("sccp", f, fmt.Sprintf("%#06x", skinny.ID(msg)), msg)
		case len(bytes.TrimSpace(msg)) > 0: // not a keepalive
			r.add("sip", f, sipKey(msg), msg)
		}
		s.buf = s.buf[n:]
	}
}

func (r *reader) add(protocol string, f stack.Flow, key string, raw []byte) {
	r.messages = append(r.messages, Message{protocol, f, key, bytes.Clone(raw)})
}

// sipKey returns method or status, CSeq and Call-ID.
func sipKey(msg []byte) string {
	head, _, _ := strings.Cut(string(msg), "\r\n\r\n")
	lines := strings.Split(strings.ReplaceAll(head, "\r\n", "\n"), "\n")
	what, rest, _ := strings.Cut(lines[0], " ")
	if strings.HasPrefix(what, "SIP/") {
		what, _, _ = strings.Cut(rest, " ")
	}
	var cseq, call string
	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "cseq":
			cseq = strings.TrimSpace(value)
		case "call-id", "i":
			call = strings.TrimSpace(value)
		}
	}
	return SIPKey(what, cseq, call)
}

// SIPKey is the Key of a message of SIP: a method or status, a CSeq, a Call-ID.
func SIPKey(what, cseq, callID string) string {
	return what + " " + strings.Join(strings.Fields(cseq), " ") + " " + callID
}
