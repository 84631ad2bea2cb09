package appliance

import "patchbay/stack"

// serve says what the box does with a TCP conversation whose SYN came to it;
// nil if it ends otherwise than by plain inspection.
func (r *Replay) serve(p *stack.Packet) *tcpService { return nil }
