package appliance_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/appliance/replay"
	"patchbay/stack"
	"patchbay/stack/link"
)

// referenceConfigs are complete configurations that say in their comments how
// they behave. They are beside the project, not part of it.
const referenceConfigs = "../../shared/reference/configs"

// A visit is a first packet, and perhaps the answer to it.
type visit struct {
	name string
	in   string
	f    stack.Flow
	drop stack.Verdict // if it is dropped

	out  string // "identity": the box ends it
	as   stack.Flow
	back bool // the answer comes back as what f asked
}

// toward is a visit that arrives as f and leaves by out as as.
func toward(name, in string, proto stack.Proto, src, dst, out, asSrc, asDst string) visit {
	return visit{name: name, in: in, f: exchange(proto, src, dst), out: out, as: exchange(proto, asSrc, asDst), back: out != "identity"}
}

// endedHere is a visit that the box ends in the place of the server.
func endedHere(name, in string, proto stack.Proto, src, dst string) visit {
	return toward(name, in, proto, src, dst, "identity", src, dst)
}

func refused(name, in string, proto stack.Proto, src, dst string, v stack.Verdict) visit {
	return visit{name: name, in: in, f: exchange(proto, src, dst), drop: v}
}

// pinged is a visit to an address that answers itself.
func pinged(name, in, src, dst string) visit {
	return toward(name, in, stack.ICMP, src, dst+":0", in, dst+":0", src)
}

func exchange(proto stack.Proto, src, dst string) stack.Flow {
	return stack.Flow{Proto: proto, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

// TestReferenceConfigs has packets arrive at the boxes of configurations (c), (d)
// and (h), and sees that what becomes of them is what their comments say.
func TestReferenceConfigs(t *testing.T) {
	const phone, tcp, udp = "198.51.100.7:40000", stack.TCP, stack.UDP
	shared := func(port string) string { return "203.0.113.2:" + port }
	for file, visits := range map[string][]visit{
		// Two UCMs and two TFTP servers behind static PAT of one address.
		"c-static-pat.cfg": {
			endedHere("secure SCCP of the primary", "outside", tcp, phone, shared("2443")),
			endedHere("secure SCCP of the secondary, mapped port + 443", "outside", tcp, phone, shared("7443")),
			endedHere("secure SIP of the primary", "outside", tcp, phone, shared("5061")),
			endedHere("secure SIP of the secondary", "outside", tcp, phone, shared("7061")),
			toward("SCCP of the primary", "outside", tcp, phone, shared("2000"), "inside", phone, "10.20.0.11:2000"),
			toward("SCCP of the secondary", "outside", tcp, phone, shared("7000"), "inside", phone, "10.20.0.12:2000"),
			toward("SIP of the primary", "outside", tcp, phone, shared("5060"), "inside", phone, "10.20.0.11:5060"),
			toward("SIP of the secondary", "outside", tcp, phone, shared("7060"), "inside", phone, "10.20.0.12:5060"),
			toward("CAPF", "outside", tcp, phone, shared("3804"), "inside", phone, "10.20.0.11:3804"),
			endedHere("TFTP-1 on the shared address", "outside", udp, phone, shared("69")),
			endedHere("TFTP-2 on its own", "outside", udp, phone, "203.0.113.5:69"),
			refused("a port of nobody", "outside", tcp, phone, shared("7444"), stack.DropNoService),
			refused("another port of TFTP-2", "outside", tcp, phone, "203.0.113.5:2443", stack.DropACL),
			refused("a real address", "outside", tcp, phone, "10.20.0.11:2443", stack.DropNATReverse),
			toward("the secondary out, from its SIP port", "inside", tcp, "10.20.0.12:5060", "192.0.2.5:80", "outside", "203.0.113.2:7060", "192.0.2.5:80"),
			toward("TFTP-2 out", "inside", udp, "10.20.0.22:4000", "192.0.2.5:53", "outside", "203.0.113.5:4000", "192.0.2.5:53"),
			pinged("the media termination address", "outside", "198.51.100.7:9", "203.0.113.20"),
		},
		// A UCM with another mapped address on each interface of phones.
		"d-dmz-and-outside.cfg": {
			endedHere("secure SCCP from outside", "outside", tcp, phone, "203.0.113.10:2443"),
			endedHere("secure SIP from outside", "outside", tcp, phone, "203.0.113.10:5061"),
			endedHere("TFTP from outside", "outside", udp, phone, "203.0.113.10:69"),
			endedHere("secure SCCP from the dmz", "dmz", tcp, "192.168.1.60:40000", "192.168.1.10:2443"),
			endedHere("secure SIP from the dmz", "dmz", tcp, "192.168.1.60:40000", "192.168.1.10:5061"),
			endedHere("TFTP from the dmz", "dmz", udp, "192.168.1.60:40000", "192.168.1.10:69"),
			refused("plain SCCP from outside", "outside", tcp, phone, "203.0.113.10:2000", stack.DropACL),
			refused("the dmz's address from outside", "outside", tcp, phone, "192.168.1.10:2443", stack.DropACL),
			refused("the outside's address from the dmz", "dmz", tcp, "192.168.1.60:40001", "203.0.113.10:2443", stack.DropACL),
			refused("the real address from the dmz", "dmz", tcp, "192.168.1.60:40001", "10.20.0.11:2443", stack.DropNATReverse),
			toward("the UCM to the dmz", "inside", udp, "10.20.0.11:5060", "192.168.1.60:5060", "dmz", "192.168.1.10:5060", "192.168.1.60:5060"),
			toward("the UCM to outside", "inside", udp, "10.20.0.11:5060", "198.51.100.7:5060", "outside", "203.0.113.10:5060", "198.51.100.7:5060"),
			pinged("the outside's media termination address", "outside", "198.51.100.7:9", "203.0.113.20"),
			pinged("the dmz's", "dmz", "192.168.1.60:9", "192.168.1.20"),
			pinged("the inside's", "inside", "10.20.0.60:9", "10.20.0.20"),
			refused("the inside's from outside", "outside", stack.ICMP, "198.51.100.7:9", "10.20.0.20:0", stack.DropICMP),
		},
		// The form of 8.0: static, nat and global, lists on mapped addresses,
		// one media termination address inside the phone proxy.
		"h-legacy-8.0.cfg": {
			endedHere("secure SCCP by the mapped address", "outside", tcp, phone, "203.0.113.10:2443"),
			endedHere("secure SIP by the mapped address", "outside", tcp, phone, "203.0.113.10:5061"),
			endedHere("TFTP by the mapped address", "outside", udp, phone, "203.0.113.10:69"),
			refused("a port that the list has not", "outside", tcp, phone, "203.0.113.10:2000", stack.DropACL),
			refused("the real address is not what the list is about", "outside", tcp, phone, "10.20.0.11:2443", stack.DropACL),
			toward("the UCM out, by static", "inside", udp, "10.20.0.11:5060", "198.51.100.7:5060", "outside", "203.0.113.10:5060", "198.51.100.7:5060"),
			toward("others out, by nat and global", "inside", udp, "10.20.0.60:5060", "198.51.100.7:5060", "outside", "203.0.113.2:5060", "198.51.100.7:5060"),
			pinged("the media termination address", "outside", "198.51.100.7:9", "203.0.113.20"),
		},
	} {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(referenceConfigs, file))
			if err != nil {
				t.Skipf("needs the reference configurations: %v", err)
			}
			box := referenceBox(t, file, text)
			for _, v := range visits {
				box.pay(v)
			}
		})
	}
}

// A refBox is the box of a configuration.
type refBox struct {
	*replay.Box
	t       *testing.T
	now     time.Time
	verdict stack.Verdict
	out     string
	left    stack.Flow
}

func referenceBox(t *testing.T, file string, text []byte) *refBox {
	r, findings := config.Check(file, bytes.NewReader(text))
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	keys := boxKeys()
	if len(r.KeyPairs) > 0 && r.KeyPairs[0].Modulus == 1024 {
		keys = new(keyRing)
	}
	store, err := pki.Open(t.TempDir(), pki.Options{NewKey: keys.maker()})
	if err != nil {
		t.Fatal(err)
	}
	for _, tp := range r.Trustpoints { // the certificates that are pasted in
		if tp.Enrollment == "terminal" {
			if _, err := store.Authenticate(tp.Name, phoneCA().Cert.Raw); err != nil {
				t.Fatal(err)
			}
		}
	}
	b := &refBox{t: t, now: time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)}
	b.Box, err = replay.New(r, replay.Options{Store: store, Seed: file, Seen: func(p *stack.Packet, dir link.Direction, v stack.Verdict) {
		if dir == link.In {
			b.verdict = v
			return
		}
		b.out, b.left = p.Out.Name, p.Flow()
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// arrive has a packet of f arrive.
func (b *refBox) arrive(in string, f stack.Flow, flags uint8) {
	var raw []byte
	switch f.Proto {
	case stack.TCP:
		raw = stack.AppendTCP(nil, f, stack.TCPHeader{Seq: 1, Ack: 2, Flags: flags, Window: 4096}, nil)
	case stack.UDP:
		raw = stack.AppendUDP(nil, f, []byte("x"))
	default:
		raw = stack.AppendICMPEcho(nil, f, 1, nil)
	}
	p := stack.NewPacket(len(raw))
	p.SetData(raw)
	p.Time, p.In = b.now, b.Interface(in)
	b.out, b.left = "", stack.Flow{}
	b.Handle(p)
}

// pay has the packet of v arrive, and the answer to it.
func (b *refBox) pay(v visit) {
	b.t.Helper()
	b.arrive(v.in, v.f, stack.FlagSYN)
	if v.drop != 0 {
		if b.verdict != v.drop {
			b.t.Errorf("%s: %v from %s: %v, want %v", v.name, v.f, v.in, b.verdict, v.drop)
		}
		return
	}
	if b.verdict != stack.Forward || b.out != v.out || b.left != v.as {
		b.t.Errorf("%s: %v from %s: %v by %s as %v, want by %s as %v", v.name, v.f, v.in, b.verdict, b.out, b.left, v.out, v.as)
		return
	}
	if !v.back || v.f.Proto == stack.ICMP {
		return
	}
	b.arrive(v.out, v.as.Reverse(), stack.FlagSYN|stack.FlagACK)
	if b.verdict != stack.Forward || b.out != v.in || b.left != v.f.Reverse() {
		b.t.Errorf("%s: the answer %v: %v by %s as %v, want by %s as %v", v.name, v.as.Reverse(), b.verdict, b.out, b.left, v.in, v.f.Reverse())
	}
}

// The comments of configuration (h) say more than packets show.
func TestLegacyMediaTermination(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(referenceConfigs, "h-legacy-8.0.cfg"))
	if err != nil {
		t.Skipf("needs the reference configurations: %v", err)
	}
	r, findings := config.Check("h.cfg", bytes.NewReader(text))
	if len(findings) > 0 {
		t.Errorf("findings: %v", findings)
	}
	if !r.MappedACL || len(r.MediaTerminations) != 1 || !r.MediaTerminations[0].Within || fmt.Sprint(r.MediaTerminations[0].Addrs[0].Addr) != "203.0.113.20" {
		t.Errorf("mapped lists %v, media termination %+v", r.MappedACL, r.MediaTerminations)
	}
}
