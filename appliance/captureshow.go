package appliance

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/link"
)

// A shownCapture is one of "show capture".
type shownCapture struct {
	Name         string           `json:"name"`
	Type         string           `json:"type"`                  // "raw-data" or "asp-drop"
	Reason       string           `json:"drop_reason,omitempty"` // of asp-drop; none: all
	List         string           `json:"access_list,omitempty"`
	Buffer       int              `json:"buffer_bytes"`
	PacketLength int              `json:"packet_length"` // bytes kept of each
	Circular     bool             `json:"circular_buffer"`
	Interfaces   cli.List[string] `json:"interfaces"` // none: all
	Full         bool             `json:"full"`       // it takes no more
	Packets      int              `json:"packets"`
	Bytes        int              `json:"bytes"`
	Matches      cli.List[string] `json:"matches"`
}

type shownCaptures struct {
	Captures cli.List[shownCapture] `json:"captures"`
}

func showCaptures(x *execution, _ cli.Args) (s shownCaptures, _ error) {
	for _, c := range x.captures.list() {
		o := shownCapture{Name: c.name, Type: "raw-data", Buffer: c.buffer, PacketLength: c.length, Circular: c.circular, Interfaces: c.on}
		if c.drops {
			o.Type = "asp-drop"
		}
		if c.one {
			o.Reason = c.drop.String()
		}
		if c.list != nil {
			o.List = c.list.Name
		}
		o.Packets, o.Bytes = c.ring.Len()
		o.Full = c.ring.Full() && !c.circular
		for _, m := range c.matches {
			o.Matches = append(o.Matches, m.text)
		}
		s.Captures = append(s.Captures, o)
	}
	return s, nil
}

func (s shownCaptures) Text(w *bufio.Writer) {
	for _, c := range s.Captures {
		fmt.Fprintf(w, "capture %s type %s", c.Name, c.Type)
		if c.Type == "asp-drop" {
			fmt.Fprintf(w, " %s", cmp.Or(c.Reason, "all"))
		}
		if c.List != "" {
			fmt.Fprintf(w, " access-list %s", c.List)
		}
		if c.Buffer != captureBuffer {
			fmt.Fprintf(w, " buffer %d", c.Buffer)
		}
		if c.PacketLength != captureLength {
			fmt.Fprintf(w, " packet-length %d", c.PacketLength)
		}
		if c.Circular {
			w.WriteString(" circular-buffer")
		}
		for _, name := range c.Interfaces {
			fmt.Fprintf(w, " interface %s", name)
		}
		state := "Capturing"
		if c.Full {
			state = "Buffer Full"
		}
		fmt.Fprintf(w, " [%s - %d bytes]\n", state, c.Bytes)
		for _, m := range c.Matches {
			fmt.Fprintf(w, "  %s\n", m)
		}
	}
}

// A shownPacket is one that was captured.
type shownPacket struct {
	Number  int        `json:"number"`
	Time    time.Time  `json:"time"`
	Length  int        `json:"length"`             // bytes, as it was
	Proto   string     `json:"protocol,omitempty"` // of IPv4, as what follows
	Src     netip.Addr `json:"source,omitzero"`
	Dst     netip.Addr `json:"destination,omitzero"`
	SrcPort *uint16    `json:"source_port,omitempty"`
	DstPort *uint16    `json:"destination_port,omitempty"`
	Summary string     `json:"text"`
	Drop    *aspReason `json:"drop,omitempty"`
	Data    string     `json:"data,omitempty"` // of dump: hexadecimal
	data    []byte
}

// An aspReason is why a packet was dropped.
type aspReason struct {
	Reason string `json:"reason"`
	Text   string `json:"text"`
}

// shownPackets are those of a capture, or some of them.
type shownPackets struct {
	Captured int                   `json:"captured"`
	Packets  cli.List[shownPacket] `json:"packets"`
}

func showCapture(x *execution, args cli.Args) (s shownPackets, _ error) {
	c := x.capture(args.Get("name"))
	if c == nil {
		return s, noCapture(args.Get("name"))
	}
	s.Captured, _ = c.ring.Len()
	first, count, n := args.Int("first", 1), args.Int("number", s.Captured), 0
	c.ring.Each(func(r link.Record) bool {
		if n++; n < first {
			return true
		}
		if len(s.Packets) == count {
			return false
		}
		p := shownPacket{Number: n, Time: r.Time.UTC(), Length: r.Len, Summary: string(appendCaptured(nil, r, args.Has("detail")))}
		p.address(r.Data)
		if r.Tag&tagDrop != 0 {
			v := stack.Verdict(r.Tag >> tagShift)
			p.Drop = &aspReason{v.String(), v.Text()}
		}
		if args.Has("dump") {
			p.data = bytes.Clone(r.Data)
			p.Data = hex.EncodeToString(p.data)
		}
		s.Packets = append(s.Packets, p)
		return true
	})
	return s, nil
}

// address fills in between whom the IPv4 packet d went. It takes any bytes.
func (p *shownPacket) address(d []byte) {
	const header, portBytes = 20, 4
	if len(d) < header || d[0]>>4 != 4 {
		return
	}
	proto := stack.Proto(d[9])
	p.Proto, p.Src, p.Dst = proto.String(), netip.AddrFrom4([4]byte(d[12:16])), netip.AddrFrom4([4]byte(d[16:20]))
	be := binary.BigEndian
	if at := int(d[0]&15) * 4; (proto == stack.TCP || proto == stack.UDP) && be.Uint16(d[6:])&0x1fff == 0 && at >= header && len(d) >= at+portBytes {
		p.SrcPort, p.DstPort = new(be.Uint16(d[at:])), new(be.Uint16(d[at+2:]))
	}
}

func (s shownPackets) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "\n%d packets captured\n\n", s.Captured)
	for _, p := range s.Packets {
		fmt.Fprintf(w, "%4d: %s %s", p.Number, p.Time.Format("15:04:05.000000"), p.Summary)
		if p.Drop != nil {
			fmt.Fprintf(w, " Drop-reason: (%s) %s", p.Drop.Reason, p.Drop.Text)
		}
		w.WriteString("\n")
		hexDump(w, p.data)
	}
	fmt.Fprintf(w, "%d packets shown\n", len(s.Packets))
}

// appendCaptured appends a packet as the ASA writes it, after tcpdump:
//
//	10.20.0.50.4000 > 192.0.2.5.80: S 100:100(0) win 8192 <mss 1460>
//	10.20.0.50.5000 > 192.0.2.5.53: udp 5
//	10.20.0.50 > 192.0.2.5 icmp: echo request
//
// It takes any bytes.
func appendCaptured(dst []byte, r link.Record, detail bool) []byte {
	const header = 20
	d := r.Data
	if len(d) < header || d[0]>>4 != 4 || int(d[0]&15)*4 < header || int(d[0]&15)*4 > len(d) {
		return fmt.Appendf(dst, "malformed packet of %d bytes", r.Len)
	}
	be := binary.BigEndian
	ihl, total := int(d[0]&15)*4, int(be.Uint16(d[2:]))
	src, to := netip.AddrFrom4([4]byte(d[12:16])), netip.AddrFrom4([4]byte(d[16:20]))
	frag := be.Uint16(d[6:])
	seg := d[ihl:]
	payload := max(0, min(total, r.Len)-ihl) // of IP, in bytes
	ends := func(dst []byte) []byte {
		return fmt.Appendf(dst, "%v.%d > %v.%d: ", src, be.Uint16(seg), to, be.Uint16(seg[2:]))
	}
	switch proto := stack.Proto(d[9]); {
	case frag&0x1fff != 0:
		dst = fmt.Appendf(dst, "%v > %v: (frag %d:%d@%d", src, to, be.Uint16(d[4:]), payload, int(frag&0x1fff)*8)
		if frag&0x2000 != 0 {
			dst = append(dst, '+')
		}
		dst = append(dst, ')')
	case proto == stack.TCP && len(seg) >= 20:
		dst = appendTCP(ends(dst), seg, payload)
	case proto == stack.UDP && len(seg) >= 8:
		dst = fmt.Appendf(ends(dst), "udp %d", max(0, payload-8))
	case proto == stack.ICMP && len(seg) >= 2:
		dst = fmt.Appendf(dst, "%v > %v icmp: %s", src, to, icmpText(seg[0], seg[1]))
	default:
		dst = fmt.Appendf(dst, "%v > %v ip-proto-%d, length %d", src, to, d[9], payload)
	}
	if frag&0x3fff == 0x2000 {
		dst = fmt.Appendf(dst, " (frag %d:%d@0+)", be.Uint16(d[4:]), payload)
	}
	if detail {
		if frag&0x4000 != 0 {
			dst = append(dst, " (DF)"...)
		}
		if d[1] != 0 {
			dst = fmt.Appendf(dst, " [tos 0x%x]", d[1])
		}
		dst = fmt.Appendf(dst, " (ttl %d, id %d)", d[8], be.Uint16(d[4:]))
	}
	return dst
}

// appendTCP appends flags, sequence numbers and options of a segment of n bytes.
func appendTCP(dst, seg []byte, n int) []byte {
	be := binary.BigEndian
	flags, length := seg[13], n-int(seg[12]>>4)*4
	at := len(dst)
	for i, c := range "FSRP" {
		if flags&(1<<i) != 0 {
			dst = append(dst, byte(c))
		}
	}
	if len(dst) == at {
		dst = append(dst, '.')
	}
	seq := be.Uint32(seg[4:])
	if length = max(0, length); length > 0 || flags&(stack.FlagSYN|stack.FlagFIN|stack.FlagRST) != 0 {
		dst = fmt.Appendf(dst, " %d:%d(%d)", seq, seq+uint32(length), length)
	}
	if flags&stack.FlagACK != 0 {
		dst = fmt.Appendf(dst, " ack %d", be.Uint32(seg[8:]))
	}
	dst = fmt.Appendf(dst, " win %d", be.Uint16(seg[14:]))
	if mss, ok := stack.MSS(seg); ok {
		dst = fmt.Appendf(dst, " <mss %d>", mss)
	}
	return dst
}

func icmpText(typ, code uint8) string {
	switch typ {
	case stack.ICMPEcho:
		return "echo request"
	case stack.ICMPEchoReply:
		return "echo reply"
	case stack.ICMPTimeExceeded:
		return "time exceeded in-transit"
	case stack.ICMPUnreachable:
		switch code {
		case 0:
			return "net unreachable"
		case 1:
			return "host unreachable"
		case 2:
			return "protocol unreachable"
		case 3:
			return "port unreachable"
		case stack.CodeFragNeeded:
			return "unreachable - need to frag"
		}
	}
	return "type " + strconv.Itoa(int(typ)) + ", code " + strconv.Itoa(int(code))
}

// hexDump writes bytes as the ASA does, 16 a line.
func hexDump(w *bufio.Writer, d []byte) {
	for at := 0; at < len(d); at += 16 {
		row := d[at:min(at+16, len(d))]
		var hex, text strings.Builder
		for i, b := range row {
			fmt.Fprintf(&hex, "%02x", b)
			if i%2 == 1 {
				hex.WriteByte(' ')
			}
			if b < ' ' || b > '~' {
				b = '.'
			}
			text.WriteByte(b)
		}
		fmt.Fprintf(w, "0x%04x\t %-40s\t%s\n", at, hex.String(), text.String())
	}
}

// flashSuffix is how the name of a capture on flash ends. It keeps captures
// apart from keys and certificates, which do not.
const flashSuffix = ".pcap"

// copyCapture writes a capture to flash: "copy /pcap capture:NAME
// disk0:/FILE.pcap". A capture of that name that is there is replaced.
func copyCapture(x *execution, args cli.Args) error {
	name, ok := strings.CutPrefix(args.Get("from"), "capture:")
	if !ok {
		return refuse("%% %.80s: the source must be capture:NAME", args.Get("from"))
	}
	c := x.capture(strings.TrimPrefix(name, "/"))
	if c == nil {
		return noCapture(name)
	}
	file, err := flashName(args.Get("to"))
	if err != nil {
		return err
	}
	if x.opt.Store == nil {
		return refuse("%%Error opening disk0:/%s (there is no flash)", file)
	}
	n, err := writeFlash(x.opt.Store.Dir(), file, c.ring)
	if err != nil {
		return err
	}
	x.printf("!\n%d packets copied\n", n)
	return nil
}

// WriteCapture writes the packets of a capture as a pcap file, and returns how many
// there are. That there is no such capture is a *Refusal.
func (a *Appliance) WriteCapture(w io.Writer, name string) (packets int, err error) {
	c := a.capture(name)
	if c == nil {
		return 0, noCapture(name)
	}
	return c.ring.WritePCAP(w)
}

// flashName returns the name of a file that "disk0:/NAME" means. It is a plain
// name, so that it names nothing outside the flash directory.
func flashName(to string) (string, error) {
	name, ok := strings.CutPrefix(to, "disk0:")
	if !ok {
		if name, ok = strings.CutPrefix(to, "flash:"); !ok {
			return "", refuse("%% %.80s: the destination must be disk0:/NAME%s", to, flashSuffix)
		}
	}
	name = strings.TrimPrefix(name, "/")
	base, ok := strings.CutSuffix(name, flashSuffix)
	plain := strings.Trim(strings.ToLower(base), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
	if !ok || base == "" || !plain || base[0] == '.' || len(name) > maxCaptureName {
		return "", refuse("%%Error opening disk0:/%.80s (Invalid file name: letters, digits, - and _, and %s at the end)", name, flashSuffix)
	}
	return name, nil
}

// writeFlash writes what r keeps to the file name in dir, whole or not at all,
// and returns how many packets there were.
func writeFlash(dir, name string, r *link.Ring) (n int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, fmt.Errorf("appliance: flash: %w", err)
	}
	defer root.Close()
	temp := name + ".new"
	f, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, fmt.Errorf("appliance: flash: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("appliance: flash: %s: %w", name, errors.Join(err, root.Remove(temp)))
		}
	}()
	n, err = r.WritePCAP(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, err
	}
	return n, root.Rename(temp, name)
}
