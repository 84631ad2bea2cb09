package image_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"patchbay/image"
	"patchbay/image/disk"
)

// maxImage is what the compressed disk may have, in bytes.
const maxImage = 40e6

// Two builds of the same sources are the same bytes, in every format; no larger than
// they should be; and the tools of others find them sound.
func TestReproducible(t *testing.T) {
	first := imageDir(t)
	second := t.TempDir()
	key := filepath.Join(t.TempDir(), "key.pem")
	if err := writeKey(key, signingKey(1)); err != nil {
		t.Fatal(err)
	}
	res, err := image.Build(ctx, image.Spec{Out: second, Formats: image.Formats, Sign: key, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	sums := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(dir, "SHA256SUMS"))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if a, b := sums(first), sums(second); a != b || strings.Count(a, "\n") != 8 {
		t.Errorf("two builds differ:\n%s\n%s", a, b)
	}
	for _, f := range res.Files {
		fmt.Printf("%-16s %6.1f MB\n", f.Name, float64(f.Size)/1e6)
		if f.Name != "patchbay.raw" && f.Size > maxImage {
			t.Errorf("%s has %d bytes, want at most %.0f", f.Name, f.Size, maxImage)
		}
	}
	check := func(args ...string) {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = second
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	id := disk.KeyID(signingKey(1).Public().(ed25519.PublicKey))
	if res.Signer != id || res.Trusts.String() != id {
		t.Errorf("signed by %s, trusts %s; want %s", res.Signer, res.Trusts, id)
	}
	check("sha256sum", "-c", "--quiet", "SHA256SUMS")
	check("qemu-img", "check", "-q", "patchbay.qcow2")
	for _, format := range []string{"qcow2", "vmdk"} {
		check("qemu-img", "compare", "-q", "-f", "raw", "-F", format, "patchbay.raw", "patchbay."+format)
	}
	at, size := flashOf(t, filepath.Join(second, "patchbay.raw"))
	flash := filepath.Join(second, "flash")
	check("dd", "if=patchbay.raw", "of=flash", "bs=1M", fmt.Sprintf("skip=%d", at>>20), fmt.Sprintf("count=%d", size>>20), "conv=sparse", "status=none")
	if _, err := exec.LookPath("/sbin/e2fsck"); err == nil {
		check("/sbin/e2fsck", "-fn", flash)
	}
	notices, err := os.ReadFile(filepath.Join(second, "NOTICES.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Public License, version 2", "snapshot.debian.org", "gvisor.dev/gvisor", "the Go runtime"} {
		if !bytes.Contains(notices, []byte(text)) {
			t.Errorf("NOTICES.txt has no %q", text)
		}
	}
}

// A configuration that would be refused does not get into an image.
func TestBuildRefuses(t *testing.T) {
	if missing := image.Missing(nil); len(missing) > 0 {
		t.Skipf("needs the Debian packages %s", strings.Join(missing, " "))
	}
	bad := filepath.Join(t.TempDir(), "bad.cfg")
	if err := os.WriteFile(bad, []byte("hostname a\nroute nowhere 10.0.0.0 255.0.0.0 10.1.1.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(name string, key ed25519.PrivateKey) string {
		t.Helper()
		name = filepath.Join(filepath.Dir(bad), name)
		if err := writeKey(name, key); err != nil {
			t.Fatal(err)
		}
		return name
	}
	private := write("private.pem", signingKey(1))
	public := filepath.Join(filepath.Dir(bad), "public.pem")
	if err := os.WriteFile(public, disk.Keys{}.With(signingKey(2).Public().(ed25519.PublicKey)).PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		spec image.Spec
		want string
	}{
		{image.Spec{Sign: bad}, "bad.cfg: this is no PEM"},
		{image.Spec{Sign: public}, "public.pem: a PEM block"},
		{image.Spec{Sign: private, Trust: []string{private}}, "private.pem: a PEM block"},
		{image.Spec{Sign: private, Trust: []string{public, bad + ".none"}}, "no such file"},
		{image.Spec{Trust: []string{public}}, "must be signed itself"},
		{image.Spec{Version: "a\nb"}, "printable"},
		{image.Spec{Config: bad}, "bad.cfg:2"},
		{image.Spec{Config: bad + ".none"}, "no such file"},
		{image.Spec{Formats: []string{"vdi"}}, `format "vdi": want raw, qcow2, vmdk, ova`},
		{image.Spec{DiskSize: 1 << 20}, "at least"},
	} {
		tt.spec.Out = filepath.Join(t.TempDir(), "out")
		if _, err := image.Build(ctx, tt.spec); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Build(%+v): %v; want %q in it", tt.spec, err, tt.want)
		}
		if _, err := os.Stat(tt.spec.Out); err == nil {
			t.Errorf("Build(%+v) left its directory", tt.spec)
		}
	}
}
