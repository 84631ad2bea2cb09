package appliance

import (
	"context"
	"net"
	"net/netip"

	"patchbay/stack"
)

const sshPort = 22

// HandleSSH has serve called, on a goroutine of its own, for each connection to
// port 22 of the box's own address on an interface where an "ssh" line permits
// its source. The context ends when the box shuts down. With nil, and before the
// first call, such connections are reset.
func (a *Appliance) HandleSSH(serve func(context.Context, net.Conn)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ssh = serve
}

// serveSSH serves a connection to the box's own address.
func (a *Appliance) serveSSH(accept func() (net.Conn, error)) {
	a.mu.Lock()
	serve := a.ssh
	a.mu.Unlock()
	if serve == nil {
		return
	}
	c, err := accept()
	if err != nil {
		return
	}
	a.during(func(run *life) { serve(run.ctx, c) }, c)
}

// permitsSSH reports whether f, which arrives on in, is for the box's own SSH
// and may come from there. (The ASA's command reference, ssh.)
func (pl *plan) permitsSSH(in *stack.Interface, f stack.Flow) bool {
	if f.Proto != stack.TCP || !pl.isSSH(f.Dst) || pl.ownedBy(f.Dst.Addr()) != in {
		return false
	}
	for _, s := range pl.running.Login.SSH {
		if s.Interface == in.Name && s.From.Contains(f.Src.Addr()) {
			return true
		}
	}
	return false
}

// isSSH reports whether ap is where the box itself listens for SSH.
func (pl *plan) isSSH(ap netip.AddrPort) bool {
	return ap.Port() == sshPort && pl.ownedBy(ap.Addr()) != nil
}
