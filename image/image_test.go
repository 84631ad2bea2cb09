package image

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/image/disk"
)

func TestLock(t *testing.T) {
	l, err := parseLock(kernelLock)
	if err != nil || !strings.HasPrefix(l.pkg, "linux-image-") || !strings.HasSuffix(l.pkg, "-cloud-amd64") {
		t.Errorf("kernel.lock: %+v, %v", l, err)
	}
	if again, err := parseLock(l.String()); err != nil || again != l {
		t.Errorf("what a build prints reads as %+v, %v; want %+v", again, err, l)
	}
	for _, bad := range []string{"", "package a\nversion 1\n", "package a\nversion 1\nsha256 00\n", "package\n", "color red\n"} {
		if _, err := parseLock(bad); err == nil {
			t.Errorf("parseLock(%q): no error", bad)
		}
	}
}

func TestOrder(t *testing.T) {
	all := map[string]*module{
		"a": {name: "a", deps: []string{"b", "c"}}, "b": {name: "b", deps: []string{"c"}}, "c": {name: "c"}, "d": {name: "d"},
		"x": {name: "x", deps: []string{"y"}}, "y": {name: "y", deps: []string{"x"}}, "z": {name: "z", deps: []string{"none"}},
	}
	list, err := order(all, []string{"a", "d", "c"})
	var names []string
	for _, m := range list {
		names = append(names, m.name)
	}
	if diff := cmp.Diff([]string{"c", "b", "a", "d"}, names); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"x", "z", "none"} {
		if _, err := order(all, []string{bad}); err == nil {
			t.Errorf("order of %s: no error", bad)
		}
	}
}

func FuzzModule(f *testing.F) {
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) { parseModule("a.ko", b) })
}

// A cpioEntry is one file of an archive, as read here from its format.
type cpioEntry struct {
	name string
	mode int
	data string
}

func readCPIO(t *testing.T, b []byte) (list []cpioEntry) {
	t.Helper()
	for {
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header: %.20q", b)
		}
		field := func(n int) int {
			var v int
			for _, c := range b[6+8*n : 14+8*n] {
				v = v<<4 | strings.IndexByte("0123456789abcdef", c)
			}
			return v
		}
		size, nameLen := field(6), field(11)
		name := string(b[110 : 110+nameLen-1])
		start := (110 + nameLen + 3) &^ 3
		if name == "TRAILER!!!" {
			return list
		}
		list = append(list, cpioEntry{name, field(1), string(b[start : start+size])})
		b = b[(start+size+3)&^3:]
	}
}

func TestInitramfs(t *testing.T) {
	modules := []module{{name: "virtio", data: []byte("v")}, {name: "virtio_net", data: []byte("net")}}
	b := initramfs([]byte("program"), modules, []byte("keys"))
	if !bytes.Equal(b, initramfs([]byte("program"), modules, []byte("keys"))) {
		t.Error("two of the same differ")
	}
	want := []cpioEntry{
		{"dev", 0o040755, ""}, {"proc", 0o040755, ""}, {"sys", 0o040755, ""}, {"run", 0o040755, ""},
		{"boot", 0o040755, ""}, {"disk0", 0o040755, ""}, {"modules", 0o040755, ""},
		{"dev/console", 0o020600, ""}, {"patchbay", 0o100755, "program"}, {"init", 0o120777, "patchbay"},
		{"trusted.pem", 0o100444, "keys"},
		{"modules/virtio.ko", 0o100644, "v"}, {"modules/virtio_net.ko", 0o100644, "net"},
		{"modules/modules.order", 0o100644, "virtio.ko\nvirtio_net.ko\n"},
	}
	if diff := cmp.Diff(want, readCPIO(t, b), cmp.AllowUnexported(cpioEntry{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if bytes.Contains(initramfs([]byte("program"), modules, nil), []byte("trusted.pem")) {
		t.Error("an image that is not signed has a file of keys")
	}
}

// An image trusts the key that signs it, and those it is told of, each once; and so
// installs what the next key signs.
func TestSpecKeys(t *testing.T) {
	dir := t.TempDir()
	var trust []string
	var public []ed25519.PublicKey
	for n := range byte(3) {
		key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
		public = append(public, key.Public().(ed25519.PublicKey))
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write := func(name string, data []byte) string {
			t.Helper()
			name = filepath.Join(dir, fmt.Sprint(n, name))
			if err := os.WriteFile(name, data, 0o600); err != nil {
				t.Fatal(err)
			}
			return name
		}
		write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		trust = append(trust, write("pub.pem", disk.Keys{public[n]}.PEM()))
	}
	s := Spec{Sign: filepath.Join(dir, "0key.pem"), Trust: []string{trust[1], trust[0], trust[2]}}
	key, trusted, err := s.keys()
	if want := (disk.Keys{public[0], public[1], public[2]}); err != nil || trusted.String() != want.String() || !key.Public().(ed25519.PublicKey).Equal(public[0]) {
		t.Fatalf("trusts %s, %v; want %s", trusted, err, want)
	}
	if key, trusted, err := (&Spec{}).keys(); key != nil || trusted != nil || err != nil {
		t.Errorf("without a key: %v, %v", trusted, err)
	}
	next := Spec{Sign: filepath.Join(dir, "2key.pem")}
	if key, _, err = next.keys(); err != nil {
		t.Fatal(err)
	}
	var bundle bytes.Buffer
	if err := disk.WriteBundle(&bundle, disk.System{Kernel: []byte("k"), Initrd: []byte("i")}, key); err != nil {
		t.Fatal(err)
	}
	found, err := disk.ReadBundle(&bundle, func(string, int64, io.Reader) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := found.Authentic(trusted); err != nil {
		t.Error(err)
	}
}

// GRUB's own parser takes its configuration.
func TestGRUBConfig(t *testing.T) {
	if _, err := exec.LookPath("grub-script-check"); err != nil {
		t.Skip("needs grub-script-check, of the Debian package grub-common")
	}
	for name, text := range map[string]string{"grub.cfg": string(grubConfig), "early.cfg": earlyConfig} {
		c := exec.Command("grub-script-check")
		c.Stdin = strings.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	}
}

// The description of the machine is well-formed, and its manifest has the sums of
// what is packed.
func TestOVA(t *testing.T) {
	tmp := t.TempDir()
	vmdk := []byte("a disk")
	if err := os.WriteFile(filepath.Join(tmp, "patchbay.vmdk"), vmdk, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &builder{tmp: tmp, spec: Spec{DiskSize: 1 << 30}}
	if err := b.packed(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(tmp, "patchbay.ova"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := make(map[string]string)
	var names []string
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		var data bytes.Buffer
		data.ReadFrom(r)
		files[h.Name] = data.String()
		names = append(names, h.Name)
	}
	if diff := cmp.Diff([]string{"patchbay.ovf", "patchbay.mf", "patchbay.vmdk"}, names); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, name := range []string{"patchbay.ovf", "patchbay.vmdk"} {
		if want := "SHA256(" + name + ")= " + sumOf([]byte(files[name])) + "\n"; !strings.Contains(files["patchbay.mf"], want) {
			t.Errorf("the manifest has no %q:\n%s", want, files["patchbay.mf"])
		}
	}
	if err := wellFormed(files["patchbay.ovf"]); err != nil || !strings.Contains(files["patchbay.ovf"], `ovf:size="6"`) || !strings.Contains(files["patchbay.ovf"], `ovf:capacity="1073741824"`) {
		t.Errorf("%v in:\n%s", err, files["patchbay.ovf"])
	}
}

// The only thing that is random in a VMDK is not, in ours, of whatever length it is.
func TestSteadyVMDK(t *testing.T) {
	name := filepath.Join(t.TempDir(), "patchbay.vmdk")
	for _, tt := range []struct{ cid, fault string }{
		{"0badcafe", ""}, {"badcafe", ""}, {"1", ""}, {"", "has no CID"}, {"badcafe\x00", "has no CID"},
	} {
		head := make([]byte, 128<<10)
		copy(head, "KDMV")
		binary.LittleEndian.PutUint32(head[4:], 3)
		copy(head[512:], "# Disk DescriptorFile\nversion=1\nCID="+tt.cid+"\nparentCID=ffffffff\n")
		want := bytes.Clone(head)
		copy(want[512:], "# Disk DescriptorFile\nversion=1\nCID=50425a49\nparentCID=ffffffff\n")
		if err := os.WriteFile(name, head, 0o600); err != nil {
			t.Fatal(err)
		}
		err := steadyVMDK(name)
		if tt.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("%q: %v, want %q", tt.cid, err, tt.fault)
			}
			continue
		}
		if got, _ := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %v, descriptor %q", tt.cid, err, bytes.TrimRight(got[512:640], "\x00"))
		}
	}
	full := bytes.Repeat([]byte("x"), 128<<10)
	copy(full[512:], "\nCID=1\n")
	if err := os.WriteFile(name, full, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := steadyVMDK(name); err == nil {
		t.Error("a descriptor without room is written over")
	}
}

func wellFormed(text string) error {
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
