package appliance_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/stack"
	"patchbay/stack/link"
)

// causeOf is the likely cause that a diagnosis names.
func causeOf(text string) string {
	_, s, _ := strings.Cut(text, "\nLikely cause: ")
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// diagnosed checks that diagnosis comes to a cause, gives a remedy, and says each
// of the words. What it rests on may come in a moment.
func (b *box) diagnosed(who, cause string, says ...string) {
	b.t.Helper()
	text := b.exec("diagnose phone " + who)
	for end := time.Now().Add(10 * time.Second); causeOf(text) != cause; text = b.exec("diagnose phone " + who) {
		if time.Now().After(end) {
			b.t.Fatalf("diagnose phone %s names %q, want %q:\n%s", who, causeOf(text), cause, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, s := range append(says, "\nRemedy: ") {
		if !strings.Contains(text, s) {
			b.t.Errorf("diagnose phone %s does not say %q:\n%s", who, s, text)
		}
	}
}

func (b *box) mustFail(what string, err error) {
	b.t.Helper()
	if err == nil {
		b.t.Fatalf("%s: no error", what)
	}
}

// within is a context for what will not come to an end by itself.
func (b *box) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(b.ctx, d)
	b.t.Cleanup(cancel)
	return ctx
}

// stranger is one more phone, whose configuration the UCM has.
func (b *box) stranger(id *lab.Identity) *lab.Phone {
	b.t.Helper()
	b.lab.Manager.TFTP().Put("SEP"+strangerMAC+".cnf.xml", cnf("SCCP"))
	return b.phone(strangerAddr, lab.PhoneConfig{Protocol: lab.SCCP, MAC: strangerMAC, Line: "4999", Identity: id, ExtraFiles: []string{}})
}

const strangerName = "SEP" + strangerMAC

func TestDiagnose(t *testing.T) {
	const remote = "SEP0200C6336407" // the lab's Skinny phone, at 198.51.100.7

	t.Run("nothing is wrong", func(t *testing.T) {
		b := start(t, setup{})
		p, q := b.up(lab.Remote, lab.SCCP), b.up(lab.Inside, lab.SCCP)
		b.call(p, q)
		for _, who := range []string{remote, "198.51.100.7"} {
			if got := b.exec("diagnose phone " + who); causeOf(got) != "none found" || strings.Contains(got, "FAULT") {
				t.Errorf("diagnose phone %s:\n%s", who, got)
			}
		}
		b.diagnosed(strangerName, "the phone does not reach the box", "203.0.113.10")
	})
	t.Run("CTL missing on the phone", func(t *testing.T) {
		b := start(t, setup{})
		p := b.stranger(nil) // without an identity it asks for no CTL file
		b.mustFail("Boot without CTL file", p.Boot(b.ctx))
		b.diagnosed(strangerName, "the phone holds no CTL file", "SEP"+strangerMAC+".cnf.xml")
	})
	t.Run("stranger's certificate", func(t *testing.T) {
		b := start(t, setup{})
		p := b.stranger(identity(t, newCA("Other CA"), strangerMAC))
		b.must(p.Boot(b.ctx))
		b.mustFail("Register", p.Register(b.ctx))
		b.diagnosed(strangerName, "no trustpoint vouches for the phone's certificate", "issuer CN=Other CA", "CN=CP-7962G-"+strangerName)
		b.diagnosed(strangerAddr, "no trustpoint vouches for the phone's certificate")
	})
	t.Run("expired certificate", func(t *testing.T) {
		old, err := lab.NewCA("Old CA", 1024, x509.SHA1WithRSA, nil, func() time.Time { return time.Date(2005, 5, 1, 0, 0, 0, 0, time.UTC) })
		if err != nil {
			t.Fatal(err)
		}
		b := start(t, setup{
			config: []string{" ctl-file trust\n!\nclass-map", " ctl-file trust\n phone-certificate expired deny\n!\nclass-map"},
			opt: func(o *appliance.Options) {
				if _, err := o.Store.Authenticate("old_ca", old.Cert.Raw); err != nil {
					t.Fatal(err)
				}
			},
		})
		p := b.stranger(identity(t, old, strangerMAC))
		b.must(p.Boot(b.ctx))
		b.mustFail("Register", p.Register(b.ctx))
		b.diagnosed(strangerName, "the phone's certificate has expired", "phone-certificate expired permit", "Old CA")
	})
	t.Run("wrong signer held", func(t *testing.T) {
		first := start(t, setup{})
		p := first.up(lab.Remote, lab.SCCP)
		old := p.Trust().CTL().Bytes
		first.must(first.stop())
		b := start(t, setup{keys: &keyRing{}})
		p = b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Trust().Install(old))
		for range 2 { // it tries again and again
			b.mustFail("Boot with the trust list of another box", p.Boot(b.ctx))
		}
		b.diagnosed(remote, "the phone holds another signer's CTL file", "Erase the phone's CTL file")
	})
	t.Run("wrong signer held, configuration kept", func(t *testing.T) {
		first := start(t, setup{})
		old := first.up(lab.Remote, lab.SCCP).Trust().CTL().Bytes
		first.must(first.stop())
		b := start(t, setup{keys: &keyRing{}})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Boot(b.ctx))
		p.Trust().Erase()
		b.must(p.Trust().Install(old)) // it knows where to go, and whom to believe there
		b.mustFail("Register", p.Register(b.ctx))
		b.diagnosed(remote, "the phone holds another signer's CTL file", "the phone refused")
	})
	t.Run("TFTP server down", func(t *testing.T) {
		b := start(t, setup{})
		b.lab.Manager.TFTP().Close()
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.mustFail("Boot", p.Boot(b.within(8*time.Second)))
		b.diagnosed(remote, "the TFTP server does not answer", ".cnf.xml.sgn")
	})
	t.Run("UCM port closed", func(t *testing.T) {
		b := start(t, setup{})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Boot(b.ctx))
		b.lab.Manager.Close()
		b.mustFail("Register", p.Register(b.ctx))
		b.diagnosed(remote, "the call manager's port is closed", "10.20.0.11:2000")
	})
	t.Run("NAT rule missing", func(t *testing.T) {
		b := start(t, setup{config: []string{"object network ucm\n nat (inside,outside) static 203.0.113.10\n", ""}})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.mustFail("Boot", p.Boot(b.within(2*time.Second)))
		for _, who := range []string{remote, "198.51.100.7"} {
			b.diagnosed(who, "a NAT rule is missing", "static 203.0.113.10")
		}
	})
	t.Run("ACL deny", func(t *testing.T) {
		b := start(t, setup{config: []string{"extended permit tcp any host 10.20.0.11 eq 2443", "extended deny tcp any host 10.20.0.11 eq 2443"}})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Boot(b.ctx))
		ctx := b.within(time.Second)
		b.mustFail("Register", p.Register(ctx))
		b.diagnosed(remote, "an access list denies the phone's packets", "access-list outside_in", "deny tcp any host 10.20.0.11 eq 2443")
		q := b.up(lab.Remote, lab.SIP) // whose port is open
		if got := b.exec("diagnose phone " + q.Name()); causeOf(got) != "none found" {
			t.Errorf("diagnose phone %s:\n%s", q.Name(), got)
		}
	})
	t.Run("MTA address in use elsewhere", func(t *testing.T) {
		b := start(t, setup{opt: func(o *appliance.Options) { o.Links["outside"] = rogueSegment(t, o.Links["outside"]) }})
		p := b.up(lab.Remote, lab.SCCP)
		b.diagnosed(p.Name(), "another host uses the media termination address", "203.0.113.20", "0200.0000.00ee")
	})
	t.Run("media one way", func(t *testing.T) {
		b := start(t, setup{lab: lab.Options{OutsideFilter: func(p []byte) bool {
			return !(p[9] == byte(stack.UDP) && netip.AddrFrom4([4]byte(p[16:20])).String() == "203.0.113.20")
		}}})
		p, q := b.up(lab.Remote, lab.SCCP), b.up(lab.Inside, lab.SCCP)
		b.must(p.Dial(b.ctx, q.Line()))
		b.must(q.Wait(b.ctx, lab.Connected))
		b.diagnosed(p.Name(), "media is one way: nothing comes from the phone", "203.0.113.20/", "the box would take it")
		b.must(p.HangUp(b.ctx))
		b.idle()
		b.diagnosed(p.Name(), "media is one way: nothing comes from the phone") // and when it is over
	})
	t.Run("media one way, the far end's", func(t *testing.T) {
		b := start(t, setup{lab: lab.Options{InsideFilter: func(p []byte) bool {
			return !(p[9] == byte(stack.UDP) && netip.AddrFrom4([4]byte(p[16:20])).String() == "10.20.0.20")
		}}})
		p, q := b.up(lab.Remote, lab.SIP), b.up(lab.Inside, lab.SIP)
		b.must(p.Dial(b.ctx, q.Line()))
		b.must(q.Wait(b.ctx, lab.Connected))
		b.diagnosed(p.Name(), "media is one way: nothing comes from the far end", "10.20.0.20/")
	})
}

// rogueSegment puts an Ethernet segment between a lab's network and the box, on
// which the router, 203.0.113.1, says that it is 203.0.113.20 as well.
func rogueSegment(t *testing.T, inner stack.Link) stack.Link {
	box, far := link.FramePair(1500, link.MAC{2, 0, 0, 0, 0, 1}, link.MAC{2, 0, 0, 0, 0, 0xee}, nil)
	gateway := link.NewEthernet(far, link.Options{})
	gateway.SetAddrs(netip.MustParsePrefix("203.0.113.1/24"), func(a netip.Addr) bool { return a.String() == "203.0.113.20" })
	e := link.NewEthernet(box, link.Options{})
	var wg sync.WaitGroup
	carry := func(from, to stack.Link, hop netip.Addr) {
		batch := []*stack.Packet{stack.NewPacket(1500)}
		for {
			n, err := from.Read(batch)
			if err != nil {
				return
			}
			for _, p := range batch[:n] {
				p.NextHop = hop
			}
			if to.Write(batch[:n]) != nil {
				return
			}
		}
	}
	wg.Go(func() { carry(inner, gateway, netip.MustParseAddr("203.0.113.2")) })
	wg.Go(func() { carry(gateway, inner, netip.Addr{}) })
	t.Cleanup(func() {
		inner.Close()
		gateway.Close()
		wg.Wait()
	})
	return e
}

// On the reference configurations nothing is in the way of a phone outside that
// has not been heard of yet.
func TestDiagnoseReferenceConfigs(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(referenceConfigs, "*.cfg"))
	if len(files) == 0 {
		t.Skip("needs the reference configurations")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, findings := config.Check(file, bytes.NewReader(text)); config.Errors(findings) > 0 {
				t.Skip("a configuration that is refused")
			}
			b := referenceBox(t, filepath.Base(file), text)
			for _, who := range []string{"198.51.100.7", "SEP001122334455"} {
				var out bytes.Buffer
				if err := b.Appliance().Exec(&out, "diagnose phone "+who); err != nil {
					t.Fatal(err)
				}
				if causeOf(out.String()) != "the phone does not reach the box" {
					t.Errorf("diagnose phone %s:\n%s", who, &out)
				}
			}
		})
	}
}
