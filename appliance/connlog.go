package appliance

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/logging"
	"patchbay/nat"
	"patchbay/stack"
)

// The messages about connections and packets: number and severity. They are
// made off the fast path, of first packets and ends, and only if somebody wants
// them. (reference/asa-cli-show-debug.md, section 5; the texts that it does not
// have are those of the ASA's syslog guide as remembered.)
var (
	msgTCPDenied      = event{106001, 2}
	msgUDPDenied      = event{106006, 2}
	msgProtocolDenied = event{106010, 3}
	msgICMPDenied     = event{106014, 3}
	msgNoConnection   = event{106015, 6}
	msgReversePath    = event{106021, 1}
	msgACLDenied      = event{106023, 4}
	msgNoRoute        = event{110002, 6}
	msgTCPBuilt       = event{302013, 6}
	msgTCPTeardown    = event{302014, 6}
	msgUDPBuilt       = event{302015, 6}
	msgUDPTeardown    = event{302016, 6}
	msgICMPBuilt      = event{302020, 6}
	msgICMPTeardown   = event{302021, 6}
	msgNoTranslation  = event{305005, 3}
	msgXlateBuilt     = event{305011, 6}
	msgXlateTeardown  = event{305012, 6}
	msgNATReverse     = event{305013, 5}
	msgICMPRule       = event{313001, 3}
	msgICMPNoSession  = event{313004, 4}
	msgDiscarded      = event{710005, 7}
)

// An event is a message with its default severity.
type event struct{ number, level int }

// A reporter tells the log of connections. It says nothing about those that
// carry the log itself to its hosts.
type reporter struct {
	log      *logging.Log
	identity *stack.Interface
	now      func() time.Time
}

func (r *reporter) wants(e event) bool { return r.log.Wants(e.number, e.level) }

func (r *reporter) say(e event, format string, args ...any) {
	r.log.Message(e.number, e.level, fmt.Sprintf(format, args...))
}

// own reports whether c carries messages to a syslog host.
func (r *reporter) own(c *nat.Conn) bool {
	return c.In == r.identity && r.log.IsHost(c.Client().Dst, c.Proto() == stack.TCP)
}

// opened is nat.TableConfig.Opened.
func (r *reporter) opened(c *nat.Conn) {
	e, ok := eventOf(c, msgTCPBuilt, msgUDPBuilt, msgICMPBuilt)
	if !ok || !r.wants(e) || r.own(c) {
		return
	}
	way := "outbound"
	if c.In.Level < c.Out.Level {
		way = "inbound"
	}
	ends := sides(c.In, c.Out, c.Client(), c.Server())
	if c.Proto() == stack.ICMP {
		r.say(e, "Built %s ICMP connection for %s", way, icmpEnds(ends))
		return
	}
	r.say(e, "Built %s %s connection %d for %s to %s", way, protoWord(c.Proto()), c.ID, ends[0].long(), ends[1].long())
}

// eventOf returns the event of the protocol of c, if it has one.
func eventOf(c *nat.Conn, tcp, udp, icmp event) (event, bool) {
	switch c.Proto() {
	case stack.TCP:
		return tcp, true
	case stack.UDP:
		return udp, true
	case stack.ICMP:
		return icmp, true
	}
	return event{}, false
}

// closed is nat.TableConfig.Closed.
func (r *reporter) closed(c *nat.Conn, reason string) {
	e, ok := eventOf(c, msgTCPTeardown, msgUDPTeardown, msgICMPTeardown)
	if !ok || !r.wants(e) || r.own(c) {
		return
	}
	ends := sides(c.In, c.Out, c.Client(), c.Server())
	if c.Proto() == stack.ICMP {
		r.say(e, "Teardown ICMP connection for %s", icmpEnds(ends))
		return
	}
	_, sent := c.Counters(nat.Client)
	_, got := c.Counters(nat.Server)
	if c.Proto() == stack.TCP {
		reason = " " + reason
	} else {
		reason = ""
	}
	r.say(e, "Teardown %s connection %d for %s to %s duration %s bytes %d%s", protoWord(c.Proto()), c.ID,
		ends[0].at(), ends[1].at(), clockTime(max(0, r.now().Sub(c.Opened))), sent+got, reason)
}

// translated is told of by nat.PAT; see SetNotice.
func (r *reporter) translated(x nat.Translation, ended bool) {
	e, verb, rest := msgXlateBuilt, "Built", ""
	if ended {
		e, verb = msgXlateTeardown, "Teardown"
	}
	if !r.wants(e) {
		return
	}
	if ended {
		rest = " duration " + clockTime(max(0, x.Lasted))
	}
	what, real, mapped := " "+protoWord(x.Proto), slashed(x.Real), slashed(x.Mapped)
	if x.Proto == 0 { // a whole address
		what, real, mapped = "", x.Real.Addr().String(), x.Mapped.Addr().String()
	}
	r.say(e, "%s dynamic%s translation from %s:%s to %s:%s%s", verb, what, anyIf(x.From), real, anyIf(x.To), mapped, rest)
}

// icmpEnds is "faddr 192.0.2.5/0 gaddr 203.0.113.2/7 laddr 10.20.0.50/7".
func icmpEnds(ends [2]connSide) string {
	return fmt.Sprintf("faddr %s gaddr %s laddr %s", slashed(ends[0].real), slashed(ends[1].mapped), slashed(ends[1].real))
}

// at is "inside:10.20.0.50/5000".
func (s connSide) at() string { return s.name() + ":" + slashed(s.real) }

// protoWord is the protocol as messages about connections write it.
func protoWord(p stack.Proto) string { return strings.ToUpper(p.String()) }

// denied tells of p, the first packet of what would be a connection, that v
// drops. x is what was decided.
func (r *reporter) denied(p *stack.Packet, x *decision, v stack.Verdict, pl *plan) {
	f, in := x.flow, p.In
	switch v {
	case stack.DropACL:
		r.deniedByList(p, x, pl)
	case stack.DropSecurityLevel:
		switch {
		case f.Proto == stack.TCP && r.wants(msgTCPDenied):
			r.say(msgTCPDenied, "Inbound TCP connection denied from %s to %s flags %s on interface %s", slashed(f.Src), slashed(f.Dst), flagWords(p), in)
		case f.Proto == stack.UDP && r.wants(msgUDPDenied):
			r.say(msgUDPDenied, "Deny inbound UDP from %s to %s on interface %s", slashed(f.Src), slashed(f.Dst), in)
		case f.Proto == stack.ICMP && r.wants(msgICMPDenied):
			typ, code := p.ICMPType()
			r.say(msgICMPDenied, "Deny inbound icmp src %s:%v dst %s:%v (type %d, code %d)", in, f.Src.Addr(), x.toward(), x.real.Dst.Addr(), typ, code)
		case f.Proto != stack.TCP && f.Proto != stack.UDP && f.Proto != stack.ICMP && r.wants(msgProtocolDenied):
			r.say(msgProtocolDenied, "Deny inbound protocol %d src %s:%v dst %s:%v", f.Proto, in, f.Src.Addr(), x.toward(), x.real.Dst.Addr())
		}
	case stack.DropTCPNotSYN:
		if r.wants(msgNoConnection) {
			r.say(msgNoConnection, "Deny TCP (no connection) from %s to %s flags %s on interface %s", slashed(f.Src), slashed(f.Dst), flagWords(p), in)
		}
	case stack.DropReversePath:
		if r.wants(msgReversePath) {
			r.say(msgReversePath, "Deny %s reverse path check from %v to %v on interface %s", protoWord(f.Proto), f.Src.Addr(), f.Dst.Addr(), in)
		}
	case stack.DropNoRoute:
		if r.wants(msgNoRoute) {
			r.say(msgNoRoute, "Failed to locate egress interface for %s from %s:%s to %s", protoWord(f.Proto), in, slashed(f.Src), slashed(f.Dst))
		}
	case stack.DropNoTranslation, stack.DropNATReverse:
		e, text := msgNoTranslation, "No translation group found for %v src %s:%s dst %s:%s"
		if v == stack.DropNATReverse {
			e, text = msgNATReverse, "Asymmetric NAT rules matched for forward and reverse flows; Connection for %v src %s:%s dst %s:%s denied due to NAT reverse path failure"
		}
		if r.wants(e) {
			r.say(e, text, f.Proto, in, slashed(f.Src), x.toward(), slashed(f.Dst))
		}
	case stack.DropICMP:
		typ, code := p.ICMPType()
		switch {
		case x.out == nil && typ == stack.ICMPEcho && r.wants(msgICMPRule): // to the box
			r.say(msgICMPRule, "Denied ICMP type=%d, code=%d from %v on interface %s", typ, code, f.Src.Addr(), in)
		case (x.out != nil || typ != stack.ICMPEcho) && r.wants(msgICMPNoSession):
			r.say(msgICMPNoSession, "Denied ICMP type=%d, from %v on interface %s to %v:no matching session", typ, f.Src.Addr(), in, f.Dst.Addr())
		}
	case stack.DropNoService:
		if r.wants(msgDiscarded) {
			r.say(msgDiscarded, "%s request discarded from %s to %s:%s", protoWord(f.Proto), slashed(f.Src), in, slashed(f.Dst))
		}
	}
}

// deniedByList tells of a deny by the last list asked, unless its entry has
// "log", which tells of it, or "log disable".
func (r *reporter) deniedByList(p *stack.Packet, x *decision, pl *plan) {
	if x.asks == 0 || !r.wants(msgACLDenied) {
		return
	}
	a := &x.asked[x.asks-1]
	note := pl.noteOf(a.entry)
	if a.entry != nil && a.entry.Log || note.silent {
		return
	}
	src, dst, more := slashed(a.flow.Src), slashed(a.flow.Dst), ""
	switch a.flow.Proto {
	case stack.TCP, stack.UDP:
	case stack.ICMP:
		typ, code := p.ICMPType()
		more = fmt.Sprintf(" (type %d, code %d)", typ, code)
		fallthrough
	default:
		src, dst = a.flow.Src.Addr().String(), a.flow.Dst.Addr().String()
	}
	r.say(msgACLDenied, "Deny %s src %s:%s dst %s:%s%s by access-group %q %s", a.flow.Proto, p.In, src, x.toward(), dst, more, a.list.Name, note.hashes())
}

// toward is the interface that a packet would leave by.
func (x *decision) toward() string {
	if x.out == nil {
		return stack.IdentityName
	}
	return x.out.Name
}

// flagWords are the TCP flags of p, "SYN ACK".
func flagWords(p *stack.Packet) string {
	var words []string
	for _, f := range []struct {
		bit  uint8
		word string
	}{{stack.FlagFIN, "FIN"}, {stack.FlagSYN, "SYN"}, {stack.FlagRST, "RST"}, {stack.FlagPSH, "PSH"}, {stack.FlagACK, "ACK"}, {stack.FlagURG, "URG"}} {
		if p.TCPFlags()&f.bit != 0 {
			words = append(words, f.word)
		}
	}
	return strings.Join(words, " ")
}

// An entryNote is what messages say of an entry of an access list.
type entryNote struct {
	hash   uint32 // as "show access-list" has it; 0: of the implicit deny
	silent bool   // log disable
}

func (n entryNote) hashes() string { return fmt.Sprintf("[0x%x, 0x0]", n.hash) }

// noteOf returns the note of an entry, which may be nil.
func (pl *plan) noteOf(e *nat.Entry) entryNote {
	if e == nil || pl.notes == nil {
		return entryNote{}
	}
	return pl.notes()[e]
}

// makeNotes returns the notes of all entries.
func (pl *plan) makeNotes() map[*nat.Entry]entryNote {
	notes := make(map[*nat.Entry]entryNote)
	for i := range pl.running.AccessLists {
		l := &pl.running.AccessLists[i]
		compiled := pl.lists[l.Name]
		if compiled == nil {
			continue
		}
		entries := compiled.Entries
		for k := range l.Entries {
			ace := &l.Entries[k]
			n := min(len(entries), entriesOf(ace))
			for _, e := range entries[:n] {
				notes[e] = entryNote{textHash(fmt.Sprintf("access-list %s line %d %s", l.Name, k+1, aceWords(ace))), ace.LogDisabled}
			}
			entries = entries[n:]
		}
	}
	return notes
}

// hit is the text of message 106100, with the addresses that the list was asked
// about. (The ASA's syslog guide as remembered.)
func hit(x *decision, p *stack.Packet, a *asked, note entryNote, hits uint64, first bool) string {
	verb, since := "denied", "first hit"
	if a.entry.Permit {
		verb = "permitted"
	}
	if !first {
		since = fmt.Sprintf("%d-second interval", a.entry.LogInterval/time.Second)
	}
	end := func(i *stack.Interface, a netip.AddrPort) string {
		return fmt.Sprintf("%s/%v(%d)", i, a.Addr(), a.Port())
	}
	return fmt.Sprintf("access-list %s %s %v %s -> %s/%v(%d) hit-cnt %d %s %s", a.list.Name, verb, a.flow.Proto,
		end(p.In, a.flow.Src), x.toward(), a.flow.Dst.Addr(), a.flow.Dst.Port(), hits, since, note.hashes())
}
