package appliance

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/stack"
	"patchbay/stack/host"
)

const (
	pingRepeat  = 5
	pingSize    = 100    // bytes, of the packet with its headers
	pingTimeout = 2      // seconds
	pingData    = 0xabcd // what an echo is filled with

	echoHeaders = 28 // bytes: IPv4 and ICMP
)

var pingCommands = []cli.Rule[execFunc]{
	{Syntax: "ping [<if>] <host> [repeat <count:1-2147483647>|size <bytes:28-65535>|timeout <seconds:0-3600>|validate|data <pattern>]...",
		Help: "Send echo messages", Do: ping},
	{Syntax: "traceroute <host> [source <from:source>|numeric|timeout <seconds:1-3600>|probe <probes:1-255>|ttl <first:1-255> <last:1-255>|port <base:1-65535>|use-icmp]...",
		Help: "Trace the route to a host", Do: traceroute},
}

// pingPattern reads two bytes: abcd or 0xabcd.
func pingPattern(word string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.ToLower(word), "0x"), 16, 16)
	if err != nil {
		return 0, fmt.Errorf("%.80s is no pattern of 16 bits, as 0xabcd is", word)
	}
	return uint16(n), nil
}

// eachOnce refuses a command in which a word is twice.
func eachOnce(args cli.Args, words ...string) error {
	for _, w := range words {
		if n := len(args.All(w)); n > 1 {
			return refuse("%% There are %d \"%s\" in one command", n, w)
		}
	}
	return nil
}

// target returns the address of a host.
func (x *execution) target(word string) (netip.Addr, error) {
	if addr, err := x.execAddr(word); err == nil {
		return addr, nil
	}
	addrs, err := x.lookup(x.ctx, word)
	if err != nil {
		return netip.Addr{}, noName(word, err)
	}
	return addrs[0], nil
}

// probing calls f with a probe toward to, from an address of the box: that of the
// interface in, or else of the one that faces to. It ends with the command's
// context and with the box.
func (x *execution) probing(to, from netip.Addr, f func(ctx context.Context, p *host.Probe) error) error {
	out := x.plan.facing(to)
	if own := x.plan.ownedBy(to); own != nil {
		out = own
	}
	if out == nil {
		return refuse("%% No route to host %v", to)
	}
	if !from.IsValid() {
		from = out.Addr.Addr()
	}
	err := refuse("%% The box does not run")
	x.during(func(run *life) {
		ctx, cancel := context.WithCancel(x.ctx)
		defer cancel()
		defer context.AfterFunc(run.ctx, cancel)()
		var p *host.Probe
		if p, err = x.host.OpenProbe(from); err != nil {
			return
		}
		defer p.Close()
		err = f(ctx, p)
	})
	return err
}

// show writes as fmt.Printf does, at once.
func (x *execution) show(format string, args ...any) error {
	x.printf(format, args...)
	return x.Flush()
}

// await returns the answer for which is is true, within wait; false if there is
// none.
func await(ctx context.Context, p *host.Probe, wait time.Duration, is func(host.Answer) bool) (host.Answer, bool, error) {
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case a := <-p.Answers():
			if is(a) {
				return a, true, nil
			}
		case <-t.C:
			return host.Answer{}, false, nil
		case <-ctx.Done():
			return host.Answer{}, false, ctx.Err()
		}
	}
}

// A pinging is one "ping" and how it goes.
type pinging struct {
	to       netip.Addr
	count    int
	timeout  time.Duration
	data     []byte
	validate bool

	sent, good    int
	min, max, sum time.Duration
	err           error // that ended it early
}

// ping sends one echo after the other and writes a mark for each: "!" for the
// reply, "." for none, "U" for unreachable, "Q" for source quench, "M" for a
// packet too long, "?" for anything else.
func ping(x *execution, args cli.Args) error {
	if err := eachOnce(args, "repeat", "size", "timeout", "validate", "data"); err != nil {
		return err
	}
	g := pinging{
		count: args.Int("count", pingRepeat), timeout: time.Duration(args.Int("seconds", pingTimeout)) * time.Second,
		validate: args.Has("validate"),
	}
	pattern := uint16(pingData)
	if args.Has("pattern") {
		pattern, _ = pingPattern(args.Get("pattern"))
	}
	size := args.Int("bytes", pingSize)
	g.data = bytes.Repeat(binary.BigEndian.AppendUint16(nil, pattern), (size-echoHeaders+1)/2)[:size-echoHeaders]
	var from netip.Addr
	if args.Has("if") {
		from = x.plan.named(args.Get("if")).Addr.Addr()
	}
	var err error
	if g.to, err = x.target(args.Get("host")); err != nil {
		return err
	}
	return x.probing(g.to, from, func(ctx context.Context, p *host.Probe) error {
		if err := x.show("Type escape sequence to abort.\nSending %d, %d-byte ICMP Echos to %v, timeout is %d seconds:\n",
			g.count, size, g.to, int(g.timeout/time.Second)); err != nil {
			return err
		}
		for g.sent < g.count && g.err == nil {
			mark := g.one(ctx, p)
			if mark != 0 {
				if err := x.show("%c", mark); err != nil {
					return err // nobody looks any more
				}
			}
		}
		x.printf("\nSuccess rate is %d percent (%d/%d)", 100*g.good/max(1, g.sent), g.good, g.sent)
		if g.good > 0 {
			avg := g.sum / time.Duration(g.good)
			x.printf(", round-trip min/avg/max = %d/%d/%d ms", msec(g.min), msec(avg), msec(g.max))
		}
		x.printf("\n")
		if errors.Is(g.err, context.Canceled) {
			return nil // it was to stop
		}
		return g.err
	})
}

// msec rounds up to milliseconds: what takes time takes one at least.
func msec(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

// one sends one echo and returns the mark for it; 0 if it was to stop.
func (g *pinging) one(ctx context.Context, p *host.Probe) rune {
	seq := uint16(g.sent)
	begin := time.Now()
	if g.err = ctx.Err(); g.err != nil {
		return 0
	}
	if g.err = p.Echo(g.to, seq, 0, g.data); g.err != nil {
		return 0
	}
	a, ok, err := await(ctx, p, g.timeout, func(a host.Answer) bool { return a.Seq == seq && a.Port == 0 })
	if err != nil {
		g.err = err
		return 0
	}
	g.sent++
	took := time.Since(begin)
	switch {
	case !ok:
		return '.'
	case a.Type == stack.ICMPEchoReply && a.From == g.to:
		if g.validate && !bytes.Equal(a.Data, g.data) {
			return '?'
		}
		if g.good == 0 {
			g.min = took
		}
		g.min, g.max, g.sum = min(g.min, took), max(g.max, took), g.sum+took
		g.good++
		return '!'
	case a.Type == stack.ICMPUnreachable && a.Code == stack.CodeFragNeeded:
		return 'M'
	case a.Type == stack.ICMPUnreachable:
		return 'U'
	case a.Type == stack.ICMPSourceQuench:
		return 'Q'
	}
	return '?'
}
