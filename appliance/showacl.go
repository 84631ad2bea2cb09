package appliance

import (
	"fmt"
	"hash/crc32"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/nat"
)

var showACLCommands = []cli.Rule[execFunc]{
	{Syntax: "show access-list [<name:acl>]", Help: "Access lists, what they expand to, and hit counts", Do: showAccessList},
}

// textHash is what "show access-list" and the log tell lists and entries apart
// by: the same on every box and after every start.
func textHash(text string) uint32 { return crc32.ChecksumIEEE([]byte(text)) }

// showAccessList lists access lists as they are compiled into the plan; those
// that are on no interface never count a hit.
// (reference/asa-cli-show-debug.md, section 2.8.)
func showAccessList(x *execution, args cli.Args) error {
	only := args.Get("name")
	if only == "" {
		x.printf("access-list cached ACL log flows: total 0, denied 0 (deny-flow-max 4096)\n            alert-interval 300\n")
	}
	for i := range x.running.AccessLists {
		l := &x.running.AccessLists[i]
		if only == "" || only == l.Name {
			x.showOneList(l, x.plan.lists[l.Name])
		}
	}
	return nil
}

// showOneList lists l, whose entries made those of compiled, in order.
func (x *execution) showOneList(l *config.AccessList, compiled *nat.AccessList) {
	var entries []*nat.Entry
	if compiled != nil {
		entries = compiled.Entries
	}
	elements := uint64(0)
	for _, e := range entries {
		elements += countedElements(e)
	}
	x.printf("access-list %s; %d elements; name hash: 0x%08x\n", l.Name, elements, textHash(l.Name))
	for i := range l.Entries {
		ace := &l.Entries[i]
		words := aceWords(ace)
		line := fmt.Sprintf("access-list %s line %d", l.Name, i+1)
		if ace.IsRemark() {
			x.printf("%s remark %s\n", line, ace.Remark)
			continue
		}
		own := entries[:min(len(entries), entriesOf(ace))]
		entries = entries[len(own):]
		hits, several := uint64(0), len(own) > 1
		for _, e := range own {
			hits += e.Hits()
			several = several || e.Elements() > 1 || len(e.Src) == 1 && e.Src[0].Name != "" || len(e.Dst) == 1 && e.Dst[0].Name != ""
		}
		x.showElement("", line, words, hits, x.idleText(ace))
		if !several {
			continue
		}
		for k, e := range own {
			x.showElements(line, ace, ace.Services[k], e)
		}
	}
}

// entriesOf returns how many entries compileList makes of an ACE.
func entriesOf(a *config.ACE) int {
	if a.IsRemark() || len(a.Srcs) == 0 || len(a.Dsts) == 0 {
		return 0
	}
	return len(a.Services)
}

// countedElements is how many elements of an entry are listed.
func countedElements(e *nat.Entry) uint64 {
	if !e.Counted() {
		return 1
	}
	return e.Elements()
}

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

// idleText is what follows the hit count of an entry that matches nothing now.
func (x *execution) idleText(a *config.ACE) string {
	if a.Active(x.opt.Now().UTC()) {
		return ""
	}
	return " (inactive)"
}

func (x *execution) showElement(indent, line, words string, hits uint64, idle string) {
	x.printf("%s%s %s (hitcnt=%d)%s 0x%08x\n", indent, line, words, hits, idle, textHash(line+" "+words))
}

// showElements lists what an entry expands to. One of too many elements, which
// are not counted apart, stands for all of them.
func (x *execution) showElements(line string, a *config.ACE, s config.Service, e *nat.Entry) {
	idle := x.idleText(a)
	if !e.Counted() {
		words := aceElement(a, s, nil, nil, s.SrcPorts, s.DstPorts)
		x.showElement("  ", line, words+fmt.Sprintf(" [%d elements]", e.Elements()), e.Hits(), idle)
		return
	}
	srcs, dsts := e.Src, e.Dst
	for i := range max(len(srcs), 1) {
		for j := range max(len(dsts), 1) {
			eachPort(s.SrcPorts, len(e.SrcPorts), func(sp []config.PortSpec, sFrom, sTo int) {
				eachPort(s.DstPorts, len(e.DstPorts), func(dp []config.PortSpec, dFrom, dTo int) {
					hits := uint64(0)
					for si := sFrom; si < sTo; si++ {
						for di := dFrom; di < dTo; di++ {
							hits += e.ElementHits(nat.Element{Src: i, Dst: j, SrcPorts: si, DstPorts: di})
						}
					}
					x.showElement("  ", line, aceElement(a, s, objectAt(srcs, i), objectAt(dsts, j), sp, dp), hits, idle)
				})
			})
		}
	}
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
	b.WriteString("extended ")
	if a.Permit {
		b.WriteString("permit ")
	} else {
		b.WriteString("deny ")
	}
	b.WriteString(config.ProtoName(s.Proto))
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
