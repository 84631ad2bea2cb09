package dns

import (
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// FuzzParse holds what a server says to what callers rely on.
func FuzzParse(f *testing.F) {
	const name, id = "ucm.example.com", 0x1234
	q, err := question(id, name)
	if err != nil {
		f.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(q); err != nil {
		f.Fatal(err)
	}
	add := func(answers ...dnsmessage.Resource) {
		m.Response, m.RecursionAvailable, m.Answers = true, true, answers
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	h := dnsmessage.ResourceHeader{Name: m.Questions[0].Name, Class: dnsmessage.ClassINET, TTL: 60}
	f.Add(q)
	add(dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: [4]byte{10, 20, 0, 11}}})
	add(dnsmessage.Resource{Header: h, Body: &dnsmessage.CNAMEResource{CNAME: h.Name}})
	m.Authorities = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.SOAResource{NS: h.Name, MBox: h.Name, MinTTL: 60}}}
	add()
	m.RCode = dnsmessage.RCodeNameError
	add()
	m.Authorities = nil
	add(dnsmessage.Resource{Header: h, Body: &dnsmessage.PTRResource{PTR: h.Name}})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if a, err := parse(msg, id, "9.2.0.192"+reverseZone); err == nil && !a.truncated && len(a.addrs) > 0 {
			t.Errorf("addresses %v of an address", a.addrs)
		}
		a, err := parse(msg, id, name)
		if err != nil {
			return
		}
		if a.truncated {
			return
		}
		if n := len(a.addrs); n > maxAddrs || (n > 0) == (a.negative != nil || a.alias != "") {
			t.Errorf("%d addresses, negative %v, alias %q", n, a.negative, a.alias)
		}
		if a.ttl < MinTTL || a.ttl > MaxTTL || a.hops > maxChain {
			t.Errorf("ttl %v, %d aliases", a.ttl, a.hops)
		}
		if a.alias != "" && !ValidName(a.alias) {
			t.Errorf("alias %q is no name", a.alias)
		}
		for _, addr := range a.addrs {
			if !isHost(addr) {
				t.Errorf("address %v", addr)
			}
		}
	})
}
