package appliance

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/nat"
)

var showACLCommands = []cli.Rule[execFunc]{
	{Syntax: "show access-list [<name:acl>]", Help: "Access lists, what they expand to, and hit counts", Do: show(showAccessList)},
}

// textHash is what "show access-list" and the log tell lists and entries apart
// by: the same on every box and after every start.
func textHash(text string) uint32 { return crc32.ChecksumIEEE([]byte(text)) }

// A hash is a textHash as it is written.
type hash uint32

func (h hash) String() string { return fmt.Sprintf("0x%08x", uint32(h)) }

// MarshalText implements encoding.TextMarshaler.
func (h hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// A shownList is an access list as it is compiled into the plan.
type shownList struct {
	Name     string               `json:"name"`
	Elements uint64               `json:"elements"`
	Hash     hash                 `json:"hash"`
	Entries  cli.List[shownEntry] `json:"entries"`
}

// A shownEntry is a line of an access list: a remark, or what it expands to.
type shownEntry struct {
	Line     int                    `json:"line"`
	Remark   string                 `json:"remark,omitempty"`
	Words    string                 `json:"text,omitempty"` // after the name and line
	Inactive bool                   `json:"inactive,omitempty"`
	Hits     uint64                 `json:"hits"`
	Hash     hash                   `json:"hash,omitempty"`
	Elements cli.List[shownElement] `json:"elements,omitempty"`
	expand   bool                   // Text lists the elements
}

// A shownElement is what packets are compared with. One entry of too many elements,
// which are not counted apart, stands for all of them.
type shownElement struct {
	Words    string               `json:"text"`
	Action   string               `json:"action"` // "permit" or "deny"
	Proto    string               `json:"protocol"`
	Src      string               `json:"source,omitempty"` // "any", an address, a prefix, or first-last
	Dst      string               `json:"destination,omitempty"`
	SrcPorts cli.List[shownPorts] `json:"source_ports,omitempty"` // none: any
	DstPorts cli.List[shownPorts] `json:"destination_ports,omitempty"`
	ICMPType *int                 `json:"icmp_type,omitempty"`
	ICMPCode *int                 `json:"icmp_code,omitempty"`
	Stands   uint64               `json:"stands_for,omitempty"` // how many elements, if it is not one
	Hits     uint64               `json:"hits"`
	Hash     hash                 `json:"hash"`
}

// shownPorts are ports from one to another, or all but these.
type shownPorts struct {
	From uint16 `json:"from"`
	To   uint16 `json:"to"`
	Not  bool   `json:"not,omitempty"`
}

type shownLists struct {
	Lists cli.List[shownList] `json:"access_lists"`
	all   bool
}

// showAccessList finds access lists; those that are on no interface never count a
// hit.
func showAccessList(x *execution, args cli.Args) (s shownLists, _ error) {
	only := args.Get("name")
	s.all = only == ""
	for i := range x.running.AccessLists {
		l := &x.running.AccessLists[i]
		if only == "" || only == l.Name {
			s.Lists = append(s.Lists, x.oneList(l, x.plan.lists[l.Name]))
		}
	}
	return s, nil
}

// Text is in the layout of reference/asa-cli-show-debug.md, section 2.8.
func (s shownLists) Text(w *bufio.Writer) {
	if s.all {
		w.WriteString("access-list cached ACL log flows: total 0, denied 0 (deny-flow-max 4096)\n            alert-interval 300\n")
	}
	for i := range s.Lists {
		s.Lists[i].text(w)
	}
}

func (l *shownList) text(w *bufio.Writer) {
	fmt.Fprintf(w, "access-list %s; %d elements; name hash: %v\n", l.Name, l.Elements, l.Hash)
	for k := range l.Entries {
		e := &l.Entries[k]
		line := lineText(l.Name, e.Line)
		if e.Words == "" {
			fmt.Fprintf(w, "%s remark %s\n", line, e.Remark)
			continue
		}
		idle := ""
		if e.Inactive {
			idle = " (inactive)"
		}
		fmt.Fprintf(w, "%s %s (hitcnt=%d)%s %v\n", line, e.Words, e.Hits, idle, e.Hash)
		if !e.expand {
			continue
		}
		for j := range e.Elements {
			o := &e.Elements[j]
			fmt.Fprintf(w, "  %s %s (hitcnt=%d)%s %v\n", line, o.Words, o.Hits, idle, o.Hash)
		}
	}
}

// lineText is how a line of an access list is named, from 1.
func lineText(list string, n int) string { return fmt.Sprintf("access-list %s line %d", list, n) }

// oneList says what l is, whose entries made those of compiled, in order.
func (x *execution) oneList(l *config.AccessList, compiled *nat.AccessList) shownList {
	s := shownList{Name: l.Name, Hash: hash(textHash(l.Name))}
	var entries []*nat.Entry
	if compiled != nil {
		entries = compiled.Entries
	}
	for i := range l.Entries {
		ace := &l.Entries[i]
		o := shownEntry{Line: i + 1, Remark: ace.Remark}
		if ace.IsRemark() {
			s.Entries = append(s.Entries, o)
			continue
		}
		own := entries[:min(len(entries), entriesOf(ace))]
		entries = entries[len(own):]
		line := lineText(l.Name, o.Line)
		o.Words, o.Inactive, o.expand = aceWords(ace), !ace.Active(x.opt.Now().UTC()), len(own) > 1
		o.Hash = hash(textHash(line + " " + o.Words))
		for k, e := range own {
			n := elementsOf(&ace.Services[k], e)
			s.Elements += n
			o.Hits += e.Hits()
			o.expand = o.expand || n > 1 || byName(e.Src) || byName(e.Dst)
			o.Elements = appendElements(o.Elements, line, ace, ace.Services[k], e)
		}
		if !o.expand && len(o.Elements) == 1 { // it is the entry, as it was written
			o.Elements[0].Words, o.Elements[0].Hash = o.Words, o.Hash
		}
		s.Entries = append(s.Entries, o)
	}
	return s
}

// entriesOf returns how many entries compileList makes of an ACE.
func entriesOf(a *config.ACE) int {
	if a.IsRemark() || len(a.Srcs) == 0 || len(a.Dsts) == 0 {
		return 0
	}
	return len(a.Services)
}

// elementsOf is how many elements are listed of the entry that a service of an
// ACE was compiled to; "neq" is one.
func elementsOf(s *config.Service, e *nat.Entry) uint64 {
	if !e.Counted() {
		return 1
	}
	n := uint64(max(len(e.Src), 1)) * uint64(max(len(e.Dst), 1))
	if len(e.SrcPorts) > 0 {
		n *= uint64(len(s.SrcPorts))
	}
	if len(e.DstPorts) > 0 {
		n *= uint64(len(s.DstPorts))
	}
	return n
}

// byName reports whether addresses are written as the name of an object.
func byName(list []nat.Object) bool { return len(list) > 0 && list[0].Name != "" }

// aceWords returns what an ACE says after its name and line.
func aceWords(a *config.ACE) string {
	words := strings.Fields(a.Text)
	words = words[min(2, len(words)):] // access-list NAME
	if len(words) > 2 && words[0] == "line" {
		words = words[2:]
	}
	if len(words) > 0 && words[0] != "extended" {
		words = append([]string{"extended"}, words...)
	}
	return strings.Join(words, " ")
}

// appendElements appends what an entry expands to.
func appendElements(list []shownElement, line string, a *config.ACE, s config.Service, e *nat.Entry) []shownElement {
	add := func(o shownElement, words string, srcPorts, dstPorts []config.PortSpec, hits uint64) {
		o.Words, o.Hits, o.Hash = words, hits, hash(textHash(line+" "+words))
		o.Action, o.Proto = actionWord(a.Permit), config.ProtoName(s.Proto)
		o.SrcPorts, o.DstPorts = portsOf(srcPorts), portsOf(dstPorts)
		if s.ICMPType >= 0 {
			o.ICMPType = &s.ICMPType
			if s.ICMPCode >= 0 {
				o.ICMPCode = &s.ICMPCode
			}
		}
		list = append(list, o)
	}
	if !e.Counted() {
		words := aceElement(a, s, nil, nil, s.SrcPorts, s.DstPorts)
		add(shownElement{Stands: e.Elements()}, words+fmt.Sprintf(" [%d elements]", e.Elements()), s.SrcPorts, s.DstPorts, e.Hits())
		return list
	}
	srcs, dsts := e.Src, e.Dst
	for i := range max(len(srcs), 1) {
		for j := range max(len(dsts), 1) {
			src, dst := objectAt(srcs, i), objectAt(dsts, j)
			eachPort(s.SrcPorts, len(e.SrcPorts), func(sp []config.PortSpec, sFrom, sTo int) {
				eachPort(s.DstPorts, len(e.DstPorts), func(dp []config.PortSpec, dFrom, dTo int) {
					hits := uint64(0)
					for si := sFrom; si < sTo; si++ {
						for di := dFrom; di < dTo; di++ {
							hits += e.ElementHits(nat.Element{Src: i, Dst: j, SrcPorts: si, DstPorts: di})
						}
					}
					add(shownElement{Src: objectText(src), Dst: objectText(dst)}, aceElement(a, s, src, dst, sp, dp), sp, dp, hits)
				})
			})
		}
	}
	return list
}

func actionWord(permit bool) string {
	if permit {
		return "permit"
	}
	return "deny"
}

// objectText writes the addresses of an object, of which nil is any.
func objectText(o *nat.Object) string {
	if o == nil {
		return "any"
	}
	p := *o
	p.Name = ""
	return p.String()
}

func portsOf(specs []config.PortSpec) (list []shownPorts) {
	for _, p := range specs {
		if !p.IsAny() {
			list = append(list, shownPorts{p.From, p.To, p.Not})
		}
	}
	return list
}

func objectAt(list []nat.Object, i int) *nat.Object {
	if len(list) == 0 {
		return nil
	}
	return &list[i]
}

// eachPort calls f with each of specs and the places from and to of the ranges
// it was compiled to: "neq" is two, and no specs one. compiled is how many
// ranges there are in all.
func eachPort(specs []config.PortSpec, compiled int, f func(spec []config.PortSpec, from, to int)) {
	if compiled == 0 {
		f(nil, 0, 1)
		return
	}
	at := 0
	for i := range specs {
		n := len(ports(specs[i : i+1]))
		f(specs[i:i+1], at, at+n)
		at += n
	}
}

// aceElement writes one element of an ACE. A nil object is any.
func aceElement(a *config.ACE, s config.Service, src, dst *nat.Object, srcPorts, dstPorts []config.PortSpec) string {
	var b strings.Builder
	b.WriteString("extended " + actionWord(a.Permit) + " " + config.ProtoName(s.Proto))
	end := func(o *nat.Object, ports []config.PortSpec) {
		b.WriteString(" " + objectWords(o))
		for _, p := range ports {
			b.WriteString(" " + portWords(s.Proto, p))
		}
	}
	end(src, srcPorts)
	end(dst, dstPorts)
	if s.ICMPType >= 0 {
		b.WriteString(" " + config.ICMPTypeName(s.ICMPType))
		if s.ICMPCode >= 0 {
			fmt.Fprintf(&b, " %d", s.ICMPCode)
		}
	}
	if a.Log {
		fmt.Fprintf(&b, " log %s interval %d", config.LevelName(a.LogLevel), a.LogInterval)
	}
	if a.TimeRange != "" {
		b.WriteString(" time-range " + a.TimeRange)
	}
	if a.Inactive {
		b.WriteString(" inactive")
	}
	return b.String()
}

// objectWords writes addresses as an access list does.
func objectWords(o *nat.Object) string {
	switch {
	case o == nil || o.IsAny():
		return "any"
	case o.From == o.To:
		return "host " + o.From.String()
	}
	if p, ok := o.Prefix(); ok {
		addr, mask := prefixText(p)
		return addr + " " + mask
	}
	return "range " + o.From.String() + " " + o.To.String()
}

// portWords writes ports as an access list does.
func portWords(proto uint8, p config.PortSpec) string {
	name := func(n uint16) string { return config.PortName(proto, n) }
	switch {
	case p.IsAny():
		return "any"
	case p.Not && p.From == p.To:
		return "neq " + name(p.From)
	case p.From == p.To:
		return "eq " + name(p.From)
	case p.From == 0:
		return "lt " + name(p.To+1)
	case p.To == 65535:
		return "gt " + name(p.From-1)
	}
	return "range " + name(p.From) + " " + name(p.To)
}
