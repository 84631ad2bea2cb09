package config

import (
	"encoding/binary"
	"net/netip"

	"patchbay/appliance/cli"
)

// objectGlobals begin objects. (reference/asa-cli.md, section 4.)
func objectGlobals() []command {
	return []command{
		cmd("object network <name>", each.opens(inObject), func(p *parser, a cli.Args) {
			i, ok := p.objects[a.Get("name")]
			if !ok {
				i = len(p.run.Objects)
				p.objects[a.Get("name")] = i
				p.run.Objects = append(p.run.Objects, Object{Line: p.line, Name: a.Get("name")})
			}
			p.enter(inObject, i)
		}),
	}
}

func objectCommands() []command {
	list := []command{
		cmd("host <addr>", by("address"), parseObjectAddress),
		cmd("subnet <net:addr> <mask>", by("address"), parseObjectAddress),
		cmd("range <from:addr> <to:addr>", by("address"), parseObjectAddress),
		cmd("fqdn [v4] <dns:fqdn>", by("address"), parseObjectAddress),
		cmd("description <text:line>", one, func(p *parser, a cli.Args) { p.object().Description = a.Get("text") }),
	}
	list = append(list, objectNATCommands()...)
	return append(list, notYet("this of an object", "fqdn v6 <name:word>", "no <rest:line>")...)
}

// object returns the object that the mode is about.
func (p *parser) object() *Object { return &p.run.Objects[p.item] }

func parseObjectAddress(p *parser, a cli.Args) {
	o := p.object()
	o.Line = p.line
	o.From, o.To, o.Subnet, o.FQDN = netip.Addr{}, netip.Addr{}, netip.Prefix{}, ""
	switch {
	case a.Has("host"):
		o.From, _ = p.addr(a.Get("addr"))
		o.To, o.Subnet = o.From, netip.PrefixFrom(o.From, 32)
	case a.Has("subnet"):
		if prefix, ok := p.prefix(a.Token("net"), a.Token("mask")); ok {
			o.From, o.To, o.Subnet = prefix.Addr(), lastAddr(prefix), prefix
		}
	case a.Has("range"):
		from, _ := p.addr(a.Get("from"))
		to, _ := p.addr(a.Get("to"))
		if to.Less(from) {
			p.refuse(a.Token("to"), "", "the range ends before it begins: %v is below %v", to, from)
			return
		}
		o.From, o.To = from, to
	default:
		o.FQDN = a.Get("dns")
	}
}

// span is how many addresses there are from a to b.
func span(a, b netip.Addr) int64 { return toInt(b) - toInt(a) + 1 }

func toInt(a netip.Addr) int64 {
	b := a.As4()
	return int64(binary.BigEndian.Uint32(b[:]))
}

// advance returns the address n after a, false if there is none.
func advance(a netip.Addr, n int64) (netip.Addr, bool) {
	if !a.IsValid() {
		return netip.Addr{}, false
	}
	v := toInt(a) + n
	if v > 1<<32-1 {
		return netip.Addr{}, false
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(v))
	return netip.AddrFrom4(b), true
}
