package appliance

import "patchbay/stack"

// serve says what the box does with a TCP conversation whose SYN came to it;
// nil if it ends otherwise than by plain inspection. See Appliance.converse.
func (r *Replay) serve(p *stack.Packet) *tcpService {
	f := p.Flow()
	t := r.box.data.termination(f.Dst, f.Src)
	if t == nil {
		return nil
	}
	b := r.box.data.nat.Binder(t.conversation(), t.inspect.options)
	k := &talk{termination: t}
	return &tcpService{
		engine: t.inspect.engine, binder: b,
		from: t.mapped, to: t.server, in: t.in, out: t.out,
		limits: t.inspect.limits, count: t.inspect.count, log: r.box.logOf(t),
		begun: func(x *tcpTalk) {
			k.stream = x
			r.box.talks.enter(k)
		},
		over: func() bool { return t.life != nil && t.life.Err() != nil },
		close: func() {
			b.Close()
			r.box.talks.leave(k)
		},
	}
}
