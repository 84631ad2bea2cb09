package sip

import (
	"net/netip"

	"patchbay/inspect"
	"patchbay/nat"
)

// Rewrite appends to dst what msg, one whole message, becomes when f replaces
// each address in it that an Engine with NAT would translate. It knows of no
// conversation: that an answer gets back the Via of its request is f's to say.
func Rewrite(dst, msg []byte, f inspect.AddrFunc) ([]byte, error) {
	e := Engine{NAT: true, EveryMedia: true, MaxCalls: 1}
	return e.NewSession(rewriter{f}).Inspect(dst, msg, nat.Client)
}

// A rewriter is a Binder that knows nothing but addresses.
type rewriter struct{ f inspect.AddrFunc }

func (r rewriter) Self(nat.End) netip.AddrPort { return netip.AddrPort{} }

func (r rewriter) Signal(a netip.AddrPort, _ nat.End) netip.AddrPort {
	return r.f(a, inspect.ForSignaling)
}

func (r rewriter) Media(m inspect.Media, _ nat.End) (inspect.Media, error) {
	if m.Addr.IsValid() {
		m.Addr = r.f(m.Addr, inspect.ForRTP)
	}
	if m.RTCP.IsValid() {
		m.RTCP = r.f(m.RTCP, inspect.ForRTCP)
	}
	return m, nil
}

func (r rewriter) Release(string, string) {}
func (r rewriter) Seen(string) error      { return nil }
