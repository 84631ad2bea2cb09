package stack

import (
	"net/netip"
	"testing"
)

func TestMakeEchoReply(t *testing.T) {
	f := Flow{ICMP, netip.MustParseAddrPort("198.51.100.7:77"), netip.MustParseAddrPort("203.0.113.20:0")}
	p := NewPacket(1500)
	p.SetData(AppendICMPEcho(nil, f, 3, []byte("odd")))
	if v := p.Parse(); v != Forward {
		t.Fatal(v)
	}
	if !p.MakeEchoReply() {
		t.Fatal("a request was not answered")
	}
	q := NewPacket(1500)
	q.SetData(p.Data())
	if v := q.Parse(); v != Forward || q.Flow() != f.Reverse() || p.Flow() != f.Reverse() {
		t.Errorf("reply parses as %v %v; want %v", v, q.Flow(), f.Reverse())
	}
	if typ, code := q.ICMPType(); typ != ICMPEchoReply || code != 0 {
		t.Errorf("reply has type %d, code %d", typ, code)
	}
	if q.MakeEchoReply() {
		t.Error("a reply was answered")
	}
}
