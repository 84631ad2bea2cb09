package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack"
	"patchbay/stack/host"
)

// DialTimeout is how long a server may take to answer a client whose
// conversation is inspected. The client's handshake waits for it, so that it
// meets a server that is not there as it would without the box.
const DialTimeout = 20 * time.Second

// A termination is a TCP conversation that the box ends on both sides, to pass
// its messages through an engine. The client knows the box by the server's
// address, and the server by what NAT shows of the client.
type termination struct {
	inspect *inspection
	in, out *stack.Interface
	client  stack.Flow     // that the client sends, as it arrives
	mapped  netip.AddrPort // what the server sees of the client
	server  netip.AddrPort // real

	ends *terminations

	// life ends with the client's connection, and end ends it; nil if that came
	// by a pinhole.
	life context.Context
	end  context.CancelFunc
}

// terminations finds the conversations whose first packet has come, by that
// packet's flow, until its connection ends.
type terminations struct{ byFlow sync.Map } // stack.Flow to *termination

// terminate readies a conversation. What is returned sees the client's packets.
func (d *Dataplane) terminate(x *decision) *termination {
	t := &termination{
		inspect: x.inspect, in: x.in, out: x.out,
		client: x.flow, mapped: x.source.Mapped, server: x.real.Dst, ends: &d.ended,
	}
	t.life, t.end = context.WithCancel(context.Background())
	return t
}

// enter has t found by its first packet while c, its client's connection, lasts.
func (t *termination) enter(c *nat.Conn) {
	t.ends.byFlow.Store(t.client, t)
	if c.Closed() { // meanwhile
		t.ConnClosed(c)
	}
}

// HandlePacket lets every packet pass. See nat.Handler.
func (t *termination) HandlePacket(*stack.Packet, *nat.Conn, nat.End) stack.Verdict {
	return stack.Forward
}

// ConnClosed forgets the conversation's first packet, and ends what is left of
// the conversation: of a connection that timed out or was cleared the box's own
// TCP learns nothing. See nat.Closer.
func (t *termination) ConnClosed(*nat.Conn) {
	t.ends.byFlow.CompareAndDelete(t.client, t)
	t.end()
}

// termination returns the conversation of a connection that has come to the box
// as local from remote; nil if it is to be ended for no inspection.
func (d *Dataplane) termination(local, remote netip.AddrPort) *termination {
	f := stack.Flow{Proto: stack.TCP, Src: remote, Dst: local}
	if t, ok := d.ended.byFlow.Load(f); ok {
		return t.(*termination)
	}
	return d.contact(f)
}

// contact returns the conversation of a connection that came through a pinhole
// to an address that signaling named.
func (d *Dataplane) contact(f stack.Flow) *termination {
	pl := d.plan.Load()
	in, _, ok := pl.routes.Lookup(f.Src.Addr())
	if !ok {
		return nil
	}
	real, behind, ok := d.nat.Contact(in, stack.TCP, f.Dst)
	if !ok {
		return nil
	}
	rf := stack.Flow{Proto: stack.TCP, Src: f.Src, Dst: real}
	here := rf
	if pl.mapped {
		here = f
	}
	insp := pl.inspection(in, behind, &nat.Query{Flow: here}, &nat.Query{Flow: rf})
	if insp == nil || insp.engine == nil {
		// It listens where no class looks; whoever named the address is
		// inspected, and so is this.
		if insp = pl.engineOf("sip"); insp == nil {
			return nil
		}
	}
	src, v := pl.rules.Translate(in, behind, rf, nil, nil)
	if v != stack.Forward {
		src.Mapped = f.Src
	}
	return &termination{inspect: insp, in: in, out: behind, client: f, mapped: src.Mapped, server: real, ends: &d.ended}
}

// engineOf returns the first plain inspection of a protocol.
func (p *plan) engineOf(protocol string) *inspection {
	for _, x := range p.inspections {
		if x.protocol == protocol && !x.phoneProxy {
			return x
		}
	}
	return nil
}

// conversation returns the addresses of t as an engine's Binder wants them.
func (t *termination) conversation() inspect.Conversation {
	return inspect.Conversation{
		In: t.in, Out: t.out, Client: t.client,
		Server: stack.Flow{Proto: stack.TCP, Src: t.mapped, Dst: t.server},
	}
}

// logOf is the log of a conversation.
func (a *Appliance) logOf(t *termination) *slog.Logger {
	return a.opt.Log.With("inspect", t.inspect.protocol, "interface", t.in.Name, "client", t.client.Src, "server", t.server)
}

// converse is one conversation from the client's SYN to its end.
//
// Toward a server on a less trusted side, or as trusted, the server is called
// first, and the client's handshake completed when it answers: one that is not
// there is not there through the box either. A client from a less trusted side
// completes its handshake first: a stranger's SYN, whose source may be forged,
// must not open connections to a server that the box protects.
func (a *Appliance) converse(t *termination, accept func() (net.Conn, error)) {
	log := a.logOf(t)
	var client, server net.Conn
	meet := func() (ok bool) {
		var err error
		if client, err = accept(); err != nil {
			log.Info("client does not complete its handshake", "reason", err)
		}
		return err == nil
	}
	call := func() bool {
		var err error
		a.during(func(run *life) { server, err = a.call(run.ctx, t) })
		if err != nil {
			log.Info("server does not answer", "as", t.mapped, "reason", err)
		}
		return server != nil
	}
	if t.in.Level < t.out.Level {
		if !meet() {
			return
		}
		if !call() {
			abort(client)
			return
		}
	} else {
		if !call() {
			return // accept was not called: a reset
		}
		if !meet() {
			server.Close()
			return
		}
	}
	a.during(func(run *life) { a.pass(run.ctx, t, client, server, log) }, client, server)
}

// abort closes c with a reset, where it can.
func abort(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		_ = l.SetLinger(0)
	}
	c.Close()
}

// pass passes the messages of a conversation, until it ends, and closes both
// halves.
func (a *Appliance) pass(ctx context.Context, t *termination, client, server net.Conn, log *slog.Logger) {
	if t.life != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(t.life, cancel)()
	}
	t.mapped = addrPort(server.LocalAddr())
	k := a.talk(t)
	defer k.Close()
	s := &inspect.Stream{
		Client: client, Server: server, Engine: k.Engine, Binder: k.Binder,
		Limits: k.Limits, Log: log, Count: k.Count,
		Watch: func(msg []byte, from nat.End, err error) { a.data.watch(t.inspect, t.client.Src, msg, from, err) },
	}
	k.Begin(s)
	if err := s.Run(ctx); err != nil {
		level := slog.LevelInfo
		if errors.Is(err, context.Canceled) {
			level = slog.LevelDebug
		}
		log.Log(ctx, level, "conversation ended", "reason", err)
	}
}

// call connects to the server of t as NAT shows the client. If that port is
// still taken by a connection that died, another serves as well where the
// client keeps its own address.
func (a *Appliance) call(ctx context.Context, t *termination) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	c, err := a.host.DialTCP(ctx, t.mapped, t.server)
	if errors.Is(err, host.ErrInUse) && t.mapped == t.client.Src {
		c, err = a.host.DialTCP(ctx, netip.AddrPortFrom(t.mapped.Addr(), 0), t.server)
	}
	if err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	return c, nil
}
