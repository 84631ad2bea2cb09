package replay

import (
	"patchbay/appliance"
	"patchbay/stack"
)

// serve says what the box does with a TCP conversation whose SYN came to it;
// nil if it ends otherwise than by plain inspection. See Appliance.Accept.
func (b *Box) serve(p *stack.Packet) *tcpService {
	t := b.app.Accept(p.Flow())
	if t == nil {
		return nil
	}
	return &tcpService{
		engine: t.Engine, binder: t.Binder,
		from: t.Server.Src, to: t.Server.Dst, in: t.In, out: t.Out,
		limits: t.Limits, answer: appliance.DialTimeout, count: t.Count, log: t.Log,
		begun: func(x *tcpTalk) { t.Begin(x) }, over: t.Ended, close: t.Close,
	}
}
