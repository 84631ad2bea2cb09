package appliance_test

import (
	"bytes"
	"strings"
	"testing"

	"patchbay/appliance/lab"
)

// A box that starts again on the same flash is the same box to a phone that
// holds its trust list; one on another flash is not.
func TestRestartKeepsTrust(t *testing.T) {
	first := start(t, setup{})
	p := first.up(lab.Remote, lab.SCCP)
	old := p.Trust().CTL()
	if old == nil {
		t.Fatal("the phone has no trust list")
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	t.Run("same flash", func(t *testing.T) {
		b := start(t, setup{flash: first.flash})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Trust().Install(old.Bytes))
		b.must(p.Boot(b.ctx))
		b.must(p.Register(b.ctx))
		now := p.Trust().CTL()
		if now.Signer.Subject != old.Signer.Subject || !bytes.Equal(now.Signer.Serial, old.Signer.Serial) {
			t.Errorf("signed by %q %x, want %q %x", now.Signer.Subject, now.Signer.Serial, old.Signer.Subject, old.Signer.Serial)
		}
		if !bytes.Equal(now.Bytes, old.Bytes) {
			t.Error("the CTL file says the same and is another, signed anew")
		}
		if len(now.Records) != len(old.Records) {
			t.Fatalf("%d records, want %d", len(now.Records), len(old.Records))
		}
		for i := range now.Records {
			if !bytes.Equal(now.Records[i].Cert.Raw, old.Records[i].Cert.Raw) {
				t.Errorf("record %d has another certificate", i)
			}
		}
	})
	t.Run("another flash", func(t *testing.T) {
		b := start(t, setup{keys: &keyRing{}})
		p := b.lab.Phone(lab.Remote, lab.SCCP)
		b.must(p.Trust().Install(old.Bytes))
		if err := p.Boot(b.ctx); err == nil || !strings.Contains(err.Error(), "sign") {
			t.Errorf("Boot with the trust list of another box: %v", err)
		}
	})
}
