//go:build linux

package rig

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/lab/topology"
)

// on returns who is on a net.
func on(t *topology.Topology, net string) []topology.Attachment {
	var all []topology.Attachment
	for _, h := range t.Hosts {
		if h.Net == net {
			all = append(all, h.Attachment)
		}
	}
	for _, r := range t.Routers {
		for _, a := range r.Nets {
			if a.Net == net {
				all = append(all, a)
			}
		}
	}
	return all
}

// A hop is a net that can be reached, and the router on the way.
type hop struct {
	prefix netip.Prefix
	via    netip.Addr
}

// beyond returns the nets that can be reached from a net through its routers, not
// through the appliance, in the order in which they are found. Nobody reaches
// what is behind a router that masquerades from where it does.
func beyond(t *topology.Topology, from string) []hop {
	var hops []hop
	via := map[string]netip.Addr{from: {}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		net := queue[0]
		for _, r := range t.Routers {
			at := slices.IndexFunc(r.Nets, func(a topology.Attachment) bool { return a.Net == net })
			if at < 0 || r.Masquerade == net {
				continue
			}
			for _, a := range r.Nets {
				if _, known := via[a.Net]; known {
					continue
				}
				first := via[net]
				if net == from {
					first = r.Nets[at].Addrs[0]
				}
				via[a.Net] = first
				hops = append(hops, hop{t.Net(a.Net).Prefix, first})
				queue = append(queue, a.Net)
			}
		}
	}
	return hops
}

// Ruleset is what nft is to load into a router's namespace, "" if the router
// neither translates nor guards.
func Ruleset(r *topology.Router) string {
	if r.Masquerade == "" && r.Guard == "" {
		return ""
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("table ip lab {")
	if r.Masquerade != "" {
		line("\tchain dstnat {\n\t\ttype nat hook prerouting priority -100;")
		for _, f := range r.Forwards {
			line("\t\tiifname %q %s dport %v dnat to %v", r.Masquerade, f.Protocol, f.Ports, f.To)
		}
		line("\t}\n\tchain srcnat {\n\t\ttype nat hook postrouting priority 100;")
		line("\t\toifname %q masquerade\n\t}", r.Masquerade)
	}
	line("\tchain forward {\n\t\ttype filter hook forward priority 0; policy accept;")
	line("\t\tct state established,related accept")
	if r.Masquerade != "" {
		line("\t\tiifname %q ct status dnat accept", r.Masquerade)
		line("\t\tiifname %q drop", r.Masquerade)
	}
	if r.Guard != "" {
		for _, p := range r.Permits {
			line("\t\tiifname %q ip daddr %v %s dport %v accept", r.Guard, p.Addr, p.Protocol, p.Ports)
		}
		line("\t\tiifname %q drop", r.Guard)
	}
	line("\t}\n}")
	return b.String()
}
