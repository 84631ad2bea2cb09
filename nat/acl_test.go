package nat_test

import (
	"net/netip"
	"testing"

	"patchbay/nat"
	"patchbay/stack"
)

func TestObject(t *testing.T) {
	net := nat.Subnet(netip.MustParsePrefix("10.20.0.77/24"))
	odd := nat.Range(addr("10.20.0.5"), addr("10.20.0.9"))
	tests := []struct {
		o    nat.Object
		s    string
		size uint64
		in   []string
		out  []string
	}{
		{nat.Object{}, "any", 1 << 32, []string{"0.0.0.0", "255.255.255.255"}, nil},
		{nat.Subnet(netip.MustParsePrefix("0.0.0.0/0")), "any", 1 << 32, []string{"10.20.0.1"}, nil},
		{nat.Host(addr("10.20.0.11")), "10.20.0.11", 1, []string{"10.20.0.11"}, []string{"10.20.0.10", "10.20.0.12"}},
		{net, "10.20.0.0/24", 256, []string{"10.20.0.0", "10.20.0.255"}, []string{"10.19.255.255", "10.20.1.0"}},
		{odd, "10.20.0.5-10.20.0.9", 5, []string{"10.20.0.5", "10.20.0.9"}, []string{"10.20.0.4", "10.20.0.10"}},
		{nat.Object{Name: "ucm", From: addr("10.20.0.11"), To: addr("10.20.0.11")}, "ucm", 1, nil, nil},
		{nat.Subnet(netip.MustParsePrefix("255.255.255.255/32")), "255.255.255.255", 1, []string{"255.255.255.255"}, []string{"0.0.0.0"}},
	}
	for _, tt := range tests {
		if got := tt.o.String(); got != tt.s {
			t.Errorf("String() = %q, want %q", got, tt.s)
		}
		if got := tt.o.Size(); got != tt.size {
			t.Errorf("%v: Size() = %d, want %d", tt.o, got, tt.size)
		}
		for _, a := range tt.in {
			if !tt.o.Contains(addr(a)) {
				t.Errorf("%v: Contains(%v) = false", tt.o, a)
			}
		}
		for _, a := range tt.out {
			if tt.o.Contains(addr(a)) {
				t.Errorf("%v: Contains(%v) = true", tt.o, a)
			}
		}
	}
	if !net.Overlaps(odd) || !odd.Overlaps(nat.Object{}) || odd.Overlaps(nat.Host(addr("10.20.0.4"))) {
		t.Error("Overlaps is wrong")
	}
}

// outsideIn is the access list of reference configs/a-nonsecure-single.cfg.
func outsideIn() *nat.AccessList {
	ucm := []nat.Object{nat.Host(addr("10.20.0.11"))}
	port := func(p uint16) []nat.PortRange { return []nat.PortRange{{From: p, To: p}} }
	return &nat.AccessList{Name: "outside_in", Entries: []*nat.Entry{
		{Permit: true, Proto: stack.UDP, Dst: ucm, DstPorts: port(69), Text: "tftp"},
		{Permit: true, Proto: stack.TCP, Dst: ucm, DstPorts: port(2443), Text: "2443"},
		{Permit: true, Proto: stack.TCP, Dst: ucm, DstPorts: port(5061), Text: "5061"},
		{Log: true, Text: "deny"},
	}}
}

func TestAccessList(t *testing.T) {
	echo := uint8(8)
	full := outsideIn()
	mixed := &nat.AccessList{Name: "mixed", Entries: []*nat.Entry{
		{Permit: true, Text: "inactive", Inactive: true},
		{Proto: stack.UDP, Src: []nat.Object{nat.Host(addr("198.51.100.9"))}, Text: "one phone"},
		{Permit: true, Proto: stack.UDP, SrcPorts: []nat.PortRange{{From: 1024, To: 65535}},
			DstPorts: []nat.PortRange{{From: 69, To: 69}, {From: 5060, To: 5061}}, Text: "ranges"},
		{Permit: true, Proto: stack.ICMP, ICMPType: &echo, Text: "echo"},
		{Permit: true, Proto: 47, Text: "gre"},
	}}
	tests := []struct {
		l      *nat.AccessList
		f      stack.Flow
		typ    uint8
		permit bool
		text   string // "" is the implicit deny
	}{
		{full, flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:69"), 0, true, "tftp"},
		{full, flow(stack.TCP, "198.51.100.7:5000", "10.20.0.11:2443"), 0, true, "2443"},
		{full, flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:2443"), 0, false, "deny"},
		{full, flow(stack.TCP, "198.51.100.7:5000", "10.20.0.12:5061"), 0, false, "deny"},
		{mixed, flow(stack.UDP, "198.51.100.9:5000", "10.20.0.11:69"), 0, false, "one phone"},
		{mixed, flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:5061"), 0, true, "ranges"},
		{mixed, flow(stack.UDP, "198.51.100.7:1023", "10.20.0.11:5061"), 0, false, ""},
		{mixed, flow(stack.UDP, "198.51.100.7:5000", "10.20.0.11:5062"), 0, false, ""},
		{mixed, flow(stack.ICMP, "198.51.100.7:9", "10.20.0.11:0"), 8, true, "echo"},
		{mixed, flow(stack.ICMP, "198.51.100.7:9", "10.20.0.11:0"), 13, false, ""},
		{mixed, flow(47, "198.51.100.7:0", "10.20.0.11:0"), 0, true, "gre"},
		{&nat.AccessList{}, flow(stack.TCP, "198.51.100.7:1", "10.20.0.11:1"), 0, false, ""},
	}
	for _, tt := range tests {
		var before uint64
		if e := tt.l.Match(tt.f, tt.typ); e != nil {
			before = e.Hits()
		}
		permit, e := tt.l.Permit(tt.f, tt.typ)
		text := ""
		if e != nil {
			text = e.Text
			if e.Hits() != before+1 {
				t.Errorf("%s: %v: entry %q has %d hits, want %d", tt.l.Name, tt.f, text, e.Hits(), before+1)
			}
		}
		if permit != tt.permit || text != tt.text {
			t.Errorf("%s: Permit(%v, %d) = %v, %q; want %v, %q", tt.l.Name, tt.f, tt.typ, permit, text, tt.permit, tt.text)
		}
	}
	full.Entries[0].ClearHits()
	if n := full.Entries[0].Hits(); n != 0 {
		t.Errorf("after ClearHits: %d hits", n)
	}
}

func TestLevels(t *testing.T) {
	twin := &stack.Interface{Name: "twin", Level: 100}
	tests := []struct {
		l       nat.Levels
		in, out *stack.Interface
		want    stack.Verdict
	}{
		{nat.Levels{}, inside, outside, stack.Forward},
		{nat.Levels{}, dmz, outside, stack.Forward},
		{nat.Levels{Inter: true, Intra: true}, outside, inside, stack.DropSecurityLevel},
		{nat.Levels{Inter: true, Intra: true}, outside, dmz, stack.DropSecurityLevel},
		{nat.Levels{Intra: true}, inside, twin, stack.DropSecurityLevel},
		{nat.Levels{Inter: true}, inside, twin, stack.Forward},
		{nat.Levels{Inter: true}, inside, inside, stack.DropSecurityLevel},
		{nat.Levels{Intra: true}, inside, inside, stack.Forward},
	}
	for _, tt := range tests {
		if got := tt.l.Permit(tt.in, tt.out); got != tt.want {
			t.Errorf("%+v.Permit(%v, %v) = %v, want %v", tt.l, tt.in, tt.out, got, tt.want)
		}
	}
}
