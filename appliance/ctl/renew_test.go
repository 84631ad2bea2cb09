package ctl

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"patchbay/appliance/pki"
)

// list builds the next CTL file of the instance "c" with n tokens; before is the
// last one.
func list(t *testing.T, s *pki.Store, n int, before *File, now time.Time) (f *File, follow bool) {
	t.Helper()
	set, err := Tokens(s, "c", n, "", now)
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewRecord(CCMTFTP, set.Internal.Cert, "", netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	signer, follow := set.Signer(before)
	data, err := Build(Params{SASTs: set.Certs(), Records: []Record{r}, Signer: signer, Time: now})
	if err != nil {
		t.Fatal(err)
	}
	if f, err = Parse(data); err != nil {
		t.Fatal(err)
	}
	return f, follow
}

// TestRenew: every list is signed by a token of the list before it.
func TestRenew(t *testing.T) {
	dir, when := t.TempDir(), now
	s := store(t, dir)
	before, _ := list(t, s, 2, nil, when)
	for i, step := range []func() error{
		func() error { return nil },
		func() error { return Renew(s, "c", 0, 2, when) },
		func() error { return Renew(s, "c", 1, 2, when) }, // all are new now, and both old ones are remembered
		func() error { _, err := Forget(s, "c"); return err },
		func() error { return Renew(s, "c", 1, 2, when) },
		func() error { _, err := Forget(s, "c"); return err },
		func() error { return Renew(s, "c", 1, 2, when) }, // its key pair has the other label by now
		func() error { s = store(t, dir); return nil },    // a restart
	} {
		when = when.AddDate(0, 0, 1)
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		next, follow := list(t, s, 2, before, when)
		if err := next.VerifyBy(before); err != nil || !follow {
			t.Errorf("step %d: phones do not follow: %v, %v", i, err, follow)
		}
		before = next
	}
	if err := Renew(s, "c", 1, 2, when); !errors.Is(err, pki.ErrExists) {
		t.Errorf("renewed again with the old token there: %v, want ErrExists", err)
	}
	for _, bad := range []struct{ n, of int }{{-1, 2}, {2, 2}, {0, 5}} {
		if err := Renew(s, "c", bad.n, bad.of, when); err == nil {
			t.Errorf("token %d of %d was renewed", bad.n, bad.of)
		}
	}
	if _, err := Tokens(s, "c", 5, "", when); err == nil {
		t.Error("five tokens and a former one were accepted")
	}
}

// TestSigner: who signs when something is lost, and whether phones follow.
func TestSigner(t *testing.T) {
	lose := func(files ...string) func(string) {
		return func(dir string) {
			for _, f := range files {
				if err := os.Remove(filepath.Join(dir, f)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	const key, tp = "key-_internal_PP_c_SAST_", "trustpoint-_internal_PP_c_SAST_"
	for _, tt := range []struct {
		name      string
		lose      func(dir string)
		forgotten bool // the last list is lost too
		signer    string
		follow    bool
	}{
		{"nothing lost", lose(), false, "CN=_internal_PP_c_SAST_0", true},
		{"first key", lose(key + "0.pem"), false, "CN=_internal_PP_c_SAST_1", true},
		{"second key", lose(key + "1.pem"), false, "CN=_internal_PP_c_SAST_0", true},
		{"first token", lose(key+"0.pem", tp+"0.pem"), false, "CN=_internal_PP_c_SAST_1", true},
		{"first token and the list", lose(key+"0.pem", tp+"0.pem"), true, "CN=_internal_PP_c_SAST_1", true},
		{"both tokens", lose(key+"0.pem", tp+"0.pem", key+"1.pem", tp+"1.pem"), false, "CN=_internal_PP_c_SAST_0", false},
	} {
		dir := t.TempDir()
		before, _ := list(t, store(t, dir), 2, nil, now)
		tt.lose(dir)
		last := before
		if tt.forgotten {
			last = nil
		}
		next, follow := list(t, storeFrom(t, dir, 3), 2, last, now.AddDate(0, 0, 1))
		if next.Header.SignerName != tt.signer || follow != tt.follow || (next.VerifyBy(before) == nil) != tt.follow {
			t.Errorf("%s: %s signs, follow %v, %v; want %s, %v", tt.name, next.Header.SignerName, follow, next.VerifyBy(before), tt.signer, tt.follow)
		}
	}
	dir := t.TempDir()
	list(t, store(t, dir), 1, nil, now)
	lose(key + "0.pem")(dir)
	if _, err := Tokens(store(t, dir), "c", 1, "", now); !errors.Is(err, pki.ErrNotFound) {
		t.Errorf("no token can sign: %v, want ErrNotFound", err)
	}
}

// FuzzCluster builds on any CTL file that is consistent: the result is one too,
// or there is an error.
func FuzzCluster(f *testing.F) {
	s := store(f, f.TempDir())
	set, err := Tokens(s, "c", 1, "", now)
	if err != nil {
		f.Fatal(err)
	}
	signer, _ := set.Signer(nil)
	for _, role := range []Role{CCM, CAPF, AppServer} {
		r, err := NewRecord(role, set.Internal.Cert, "ucm.example.com", netip.MustParseAddr("203.0.113.10"))
		if err != nil {
			f.Fatal(err)
		}
		data, err := Build(Params{SASTs: set.Certs(), Records: []Record{r}, Signer: signer, Time: now})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		cluster, err := Parse(data)
		if err != nil {
			return
		}
		entry := Entry{Role: CCMTFTP, Cert: set.Internal.Cert, Addr: netip.MustParseAddr("203.0.113.11")}
		records, err := Assemble([]Entry{entry}, cluster, set.Internal)
		if err != nil {
			return
		}
		for i := range records {
			if records[i].Role == SAST {
				t.Fatal("a foreign token was taken over")
			}
		}
		Build(Params{SASTs: set.Certs(), Records: records, Signer: signer, Time: now})
	})
}
