package appliance

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/host"
)

const (
	traceTimeout = 3 // seconds
	traceProbes  = 3 // at each hop
	traceTTL     = 30
	tracePort    = 33434 // of the first datagram; the next goes to the next port
	traceData    = 32    // bytes of a datagram or echo
)

// A tracing is one "traceroute".
type tracing struct {
	to      netip.Addr
	port    int
	icmp    bool
	timeout time.Duration
	n       int // probes sent
}

// traceroute writes the hops on the way to a host, as the ASA does: for each probe
// its time, or "*" for no answer, "!N", "!H", "!P" and "!A" for a network, host or
// protocol that is unreachable or prohibited, "?" for anything else. A host has its
// label of a "name" line or its name in the DNS, if there is one and numeric does
// not forbid it. (The ASA's command reference, traceroute.)
func traceroute(x *execution, args cli.Args) error {
	if err := eachOnce(args, "source", "numeric", "timeout", "probe", "ttl", "port", "use-icmp"); err != nil {
		return err
	}
	first, last := args.Int("first", 1), args.Int("last", traceTTL)
	if last < first {
		return refuse("%% The ttl runs from %d down to %d", first, last)
	}
	t := tracing{icmp: args.Has("use-icmp"), port: args.Int("base", tracePort),
		timeout: time.Duration(args.Int("seconds", traceTimeout)) * time.Second}
	probes := args.Int("probes", traceProbes)
	var from netip.Addr
	if args.Has("source") {
		if from = x.ownAddr(args.Get("from")); !from.IsValid() {
			return refuse("%% %s is no interface and no address of one", args.Get("from"))
		}
	}
	word := args.Get("host")
	var err error
	if t.to, err = x.target(word); err != nil {
		return err
	}
	numeric := args.Has("numeric")
	return x.probing(t.to, from, func(ctx context.Context, p *host.Probe) error {
		if word == t.to.String() {
			word = x.hopName(ctx, t.to, numeric)
		} else if word += " (" + t.to.String() + ")"; numeric {
			word = t.to.String()
		}
		if err := x.show("Type escape sequence to abort.\nTracing the route to %s\n\n", word); err != nil {
			return err
		}
		for ttl := first; ttl <= last; ttl++ {
			reached, err := x.hop(ctx, p, &t, ttl, probes, numeric)
			if errors.Is(err, context.Canceled) {
				x.printf("\n")
				return nil // it was to stop
			}
			if err != nil || reached {
				return err
			}
		}
		return nil
	})
}

// hop writes the line of one hop, and reports whether it is the last.
func (x *execution) hop(ctx context.Context, p *host.Probe, t *tracing, ttl, probes int, numeric bool) (reached bool, err error) {
	if err := x.show("%2d ", ttl); err != nil {
		return false, err
	}
	var at netip.Addr
	for range probes {
		a, took, ok, err := t.probe(ctx, p, uint8(ttl))
		if err != nil {
			return false, err
		}
		if !ok {
			if err := x.show(" *"); err != nil {
				return false, err
			}
			continue
		}
		if a.From != at {
			at = a.From
			x.printf(" %s", x.hopName(ctx, at, numeric))
		}
		mark, end := hopMark(t, &a)
		if mark == "" {
			mark = " %d msec"
			err = x.show(mark, msec(took))
		} else {
			err = x.show(" %s", mark)
		}
		if err != nil {
			return false, err
		}
		reached = reached || end
	}
	return reached, x.show("\n")
}

// hopMark returns what stands in place of a time, or "", and whether an answer
// ends the way.
func hopMark(t *tracing, a *host.Answer) (string, bool) {
	switch a.Type {
	case stack.ICMPTimeExceeded:
		return "", false
	case stack.ICMPEchoReply:
		return "", true
	case stack.ICMPUnreachable:
	default:
		return "?", false
	}
	switch a.Code {
	case stack.CodePortUnreachable:
		if a.From == t.to {
			return "", true
		}
		return "?", true
	case stack.CodeNetUnreachable:
		return "!N", true
	case stack.CodeHostUnreachable:
		return "!H", true
	case codeProtocolUnreachable:
		return "!P", true
	case codeNetProhibited, codeHostProhibited, stack.CodeProhibited:
		return "!A", true
	}
	return "?", true
}

// More codes of ICMP destination unreachable. (RFC 792; RFC 1122, section 3.2.2.1.)
const (
	codeProtocolUnreachable = 2
	codeNetProhibited       = 9
	codeHostProhibited      = 10
)

// probe sends one probe and waits for what comes of it. Those of one trace differ
// in their port or number.
func (t *tracing) probe(ctx context.Context, p *host.Probe, ttl uint8) (host.Answer, time.Duration, bool, error) {
	const ports = 1 << 16
	begin := time.Now()
	data := make([]byte, traceData)
	seq, port := uint16(0), uint16(0)
	var err error
	if t.icmp {
		seq = uint16(t.n)
		err = p.Echo(t.to, seq, ttl, data)
	} else {
		port = uint16(1 + (t.port-1+t.n)%(ports-1))
		err = p.Datagram(netip.AddrPortFrom(t.to, port), ttl, data)
	}
	t.n++
	if err != nil {
		return host.Answer{}, 0, false, err
	}
	a, ok, err := await(ctx, p, t.timeout, func(a host.Answer) bool { return a.Seq == seq && a.Port == port })
	return a, time.Since(begin), ok, err
}

// ownAddr returns the address of an interface of the box, given by its name or
// itself.
func (x *execution) ownAddr(word string) netip.Addr {
	if i := x.plan.named(word); i != nil {
		return i.Addr.Addr()
	}
	addr, _ := x.execAddr(word)
	if !addr.IsValid() || x.plan.ownedBy(addr) == nil {
		return netip.Addr{}
	}
	return addr
}

// nameWait is how long a line of a trace waits for a name.
const nameWait = 2 * time.Second

// hopName writes an address, with its label or name if it has one.
func (x *execution) hopName(ctx context.Context, addr netip.Addr, numeric bool) string {
	if !numeric {
		labels := slices.SortedFunc(maps.Keys(x.running.Names), cmp.Compare[string])
		for _, label := range labels {
			if x.running.Names[label] == addr {
				return label + " (" + addr.String() + ")"
			}
		}
		ctx, cancel := context.WithTimeout(ctx, nameWait)
		defer cancel()
		if found, err := x.names.LookupAddr(ctx, addr); err == nil {
			return found.Names[0] + " (" + addr.String() + ")"
		}
	}
	return addr.String()
}
