package nat

import (
	"net/netip"
	"sync"

	"patchbay/stack"
)

// HostLimits are how many connections each host behind a rule may have at once,
// whoever opens them. Zero is no limit. The rules that one line makes share
// theirs; NewRules makes HostLimits ready, and after that they do not change.
// (ASA before 8.3: "[tcp] MAX [EMBRYONIC] udp MAX" of a static or nat line.)
type HostLimits struct {
	TCP, UDP  int
	Embryonic int // TCP connections whose handshake is not complete

	counts *limitCounts
}

// limitCounts is the connections of hosts, in shards so that those of different
// hosts seldom meet.
type limitCounts [16]struct {
	mu    sync.Mutex
	hosts map[netip.Addr]limitCount
}

type limitCount struct{ tcp, udp, embryonic int }

// A limited is a count that a connection has in HostLimits.
type limited struct {
	limits *HostLimits
	host   netip.Addr
}

// limitedBy returns where the connection of a client and server with real
// addresses counts: for the host behind the rule of either.
func limitedBy(src, un *Rule, client, server netip.Addr) (list [2]limited) {
	if src != nil && src.Limits != nil {
		list[Client] = limited{src.Limits, client}
	}
	if un != nil && un != src && un.Limits != nil {
		list[Server] = limited{un.Limits, server}
	}
	return list
}

// limited returns where a connection of the client's flow f counts.
func (o *Opening) limited(f stack.Flow) [2]limited {
	return limitedBy(o.Source.Rule, o.UnRule, f.Src.Addr(), o.Server.Dst.Addr())
}

// underLimits counts a new connection for the limits of its rules, or drops it.
func (o *Opening) underLimits(f stack.Flow) stack.Verdict {
	list := o.limited(f)
	for i, l := range list {
		if v := l.add(f.Proto); v != stack.Forward {
			if i > 0 {
				list[0].remove(f.Proto, f.Proto == stack.TCP)
			}
			return v
		}
	}
	return stack.Forward
}

// limited returns where c counts for the limits of its rules.
func (c *Conn) limited() [2]limited {
	return limitedBy(c.Rule, c.UnRule, c.Client().Src.Addr(), c.Server().Dst.Addr())
}

// change calls f with the count of the host and keeps what it leaves.
func (l limited) change(f func(n *limitCount)) {
	sh := &l.limits.counts[number(l.host)*0x9e3779b1>>28] // 2^32 / golden ratio
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.hosts[l.host]
	f(&n)
	if n == (limitCount{}) {
		delete(sh.hosts, l.host)
		return
	}
	if sh.hosts == nil {
		sh.hosts = make(map[netip.Addr]limitCount)
	}
	sh.hosts[l.host] = n
}

// add counts a new connection, or drops it if there are too many.
func (l limited) add(proto stack.Proto) (v stack.Verdict) {
	if l.limits == nil {
		return stack.Forward
	}
	l.change(func(n *limitCount) {
		switch v = l.room(n, proto); {
		case v != stack.Forward:
		case proto == stack.TCP:
			n.tcp++
			n.embryonic++
		case proto == stack.UDP:
			n.udp++
		}
	})
	return v
}

// room says whether the host may have one more connection than n.
func (l limited) room(n *limitCount, proto stack.Proto) stack.Verdict {
	over := func(n, limit int) bool { return limit > 0 && n >= limit }
	switch {
	case proto == stack.TCP && over(n.tcp, l.limits.TCP), proto == stack.UDP && over(n.udp, l.limits.UDP):
		return stack.DropLimit
	case proto == stack.TCP && over(n.embryonic, l.limits.Embryonic):
		return stack.DropEmbryonic
	}
	return stack.Forward
}

// foresee is add, which counts nothing.
func (l limited) foresee(proto stack.Proto) (v stack.Verdict) {
	if l.limits == nil {
		return stack.Forward
	}
	l.change(func(n *limitCount) { v = l.room(n, proto) })
	return v
}

// up counts a TCP connection as embryonic no more.
func (l limited) up() {
	if l.limits != nil {
		l.change(func(n *limitCount) { n.embryonic-- })
	}
}

// remove counts a connection no more; embryonic says that it was one.
func (l limited) remove(proto stack.Proto, embryonic bool) {
	if l.limits == nil {
		return
	}
	l.change(func(n *limitCount) {
		switch proto {
		case stack.TCP:
			n.tcp--
			if embryonic {
				n.embryonic--
			}
		case stack.UDP:
			n.udp--
		}
	})
}

// Conns returns how many connections count, and how many of them are half-open
// TCP ones.
func (l *HostLimits) Conns() (conns, embryonic int) {
	for i := range l.counts {
		sh := &l.counts[i]
		sh.mu.Lock()
		for _, n := range sh.hosts {
			conns += n.tcp + n.udp
			embryonic += n.embryonic
		}
		sh.mu.Unlock()
	}
	return conns, embryonic
}
