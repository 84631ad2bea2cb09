package disk

import (
	"archive/tar"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// readBundle reads a bundle whole.
func readBundle(b []byte) (map[string]string, *Bundle, error) {
	got := make(map[string]string)
	found, err := ReadBundle(bytes.NewReader(b), func(name string, size int64, r io.Reader) error {
		data, err := io.ReadAll(r)
		got[name] = string(data)
		return err
	})
	return got, found, err
}

// testKey is a key of a number.
func testKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// testSystem is a system whose files fill no block of a tar archive.
var testSystem = System{Kernel: bytes.Repeat([]byte("kernel"), 1000), Initrd: bytes.Repeat([]byte("initrd"), 1000), Version: "1.2, kernel 6.1"}

func bundleOf(t testing.TB, s System, key ed25519.PrivateKey) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteBundle(&b, s, key); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBundle(t *testing.T) {
	unnamed := System{Kernel: testSystem.Kernel, Initrd: testSystem.Initrd}
	for _, s := range []System{testSystem, unnamed} {
		for _, key := range []ed25519.PrivateKey{nil, testKey(1)} {
			b := bundleOf(t, s, key)
			if !bytes.Equal(b, bundleOf(t, s, key)) {
				t.Error("two bundles of one system differ")
			}
			got, found, err := readBundle(b)
			if want := map[string]string{KernelFile: string(s.Kernel), InitrdFile: string(s.Initrd)}; err != nil || cmp.Diff(want, got) != "" {
				t.Fatalf("ReadBundle: %v, %d files", err, len(got))
			}
			if found.ID != s.ID() || found.Version != s.Version {
				t.Errorf("%+v, want %s, %q", found, s.ID(), s.Version)
			}
			if err := found.Authentic(Keys{publicOf(testKey(2)), publicOf(testKey(1))}); (err == nil) != (key != nil) {
				t.Errorf("signed %v: %v", key != nil, err)
			}
			if got := readAsBefore(t, b); got != [2]string{string(s.Kernel), string(s.Initrd)} {
				t.Error("a Patchbay from before there were signatures does not read it")
			}
		}
	}
	if unnamed.ID() == testSystem.ID() {
		t.Error("systems of two versions have one ID")
	}
	for _, bad := range []string{"a\nb", "\x1b[2J", strings.Repeat("a", maxVersion+1), "ä"} {
		if err := WriteBundle(io.Discard, System{Version: bad}, nil); err == nil {
			t.Errorf("version %q: no error", bad)
		}
	}
}

// readAsBefore reads a bundle as Patchbays did that knew no signatures: a list of
// sums whose names do not matter, then two files, then nothing.
func readAsBefore(t *testing.T, b []byte) (got [2]string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(b))
	h, err := r.Next()
	if err != nil || h.Name != "SHA256SUMS" || h.Size > 4096 {
		t.Fatalf("%+v, %v", h, err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for n, name := range []string{"vmlinuz", "initrd"} {
		h, err := r.Next()
		if err != nil || h.Name != name {
			t.Fatalf("%+v, %v; want %s", h, err, name)
		}
		data, err := io.ReadAll(r)
		if err != nil || !strings.Contains(string(text), fmt.Sprintf("%x  %s\n", sha256.Sum256(data), name)) {
			t.Fatalf("%s: %v, or its sum is not there:\n%s", name, err, text)
		}
		got[n] = string(data)
	}
	return got
}

// What was changed after it was signed is found, whatever it is: by ReadBundle if
// it does not fit together, by Authentic if it does.
func TestBundleChanged(t *testing.T) {
	trusted := Keys{publicOf(testKey(1)), publicOf(testKey(2))}
	whole := bundleOf(t, testSystem, testKey(1))
	another := testSystem
	another.Version = "1.1, kernel 6.1"
	// part is the signature's header and data of a bundle, up to its end.
	part := func(b []byte) []byte { return b[len(b)-tarTrailer-2*tarBlock:] }
	with := func(s System, signature []byte) []byte {
		b := bundleOf(t, s, nil)
		return append(b[:len(b)-tarTrailer:len(b)-tarTrailer], signature...)
	}
	changed := func(f func(*System)) []byte {
		s := testSystem
		f(&s)
		return with(s, part(whole))
	}
	replaced := func(old, by string) []byte {
		if !bytes.Contains(whole, []byte(old)) {
			t.Fatalf("there is no %q", old)
		}
		return bytes.Replace(whole, []byte(old), []byte(by), 1)
	}
	id := KeyID(publicOf(testKey(1)))
	for _, tt := range []struct {
		name  string
		data  []byte
		fault string // "": none
	}{
		{"whole", whole, ""},
		{"by the other key", bundleOf(t, testSystem, testKey(2)), ""},
		{"by a stranger", bundleOf(t, testSystem, testKey(3)), "signed by the key " + KeyID(publicOf(testKey(3))) + ", which is not trusted here"},
		{"not signed", bundleOf(t, testSystem, nil), "it is not signed"},
		{"not signed, as before", bundleOf(t, System{Kernel: []byte("k"), Initrd: []byte("i")}, nil), "it is not signed"},
		{"another kernel, sums made new", changed(func(s *System) { s.Kernel = []byte("k") }), "not that of the key " + id},
		{"another initramfs and so keys, sums made new", changed(func(s *System) { s.Initrd = []byte("i") }), "not that of the key " + id},
		{"another version, sums made new", changed(func(s *System) { s.Version = "1.3, kernel 6.1" }), "not that of the key " + id},
		{"no version, sums made new", changed(func(s *System) { s.Version = "" }), "not that of the key " + id},
		{"the signature of another version", with(testSystem, part(bundleOf(t, another, testKey(1)))), "not that of the key " + id},
		{"a stranger's signature under a name that is trusted", with(testSystem, bytes.Replace(part(bundleOf(t, testSystem, testKey(3))), []byte(KeyID(publicOf(testKey(3)))), []byte(id), 1)), "not that of the key " + id},
		{"a version that was changed", replaced("1.2, kernel", "1.3, kernel"), "VERSION is damaged"},
		{"a kernel that was changed", replaced("kernelkernel", "kerne1kernel"), "vmlinuz is damaged"},
		{"an initramfs that was changed", replaced("initrdinitrd", "initrdinitrD"), "initrd is damaged"},
		{"an algorithm that is not known", replaced("ed25519 ", "ed448   "), "signature is damaged, or of a kind that is not known"},
		{"something at its end", append(bytes.Clone(whole), 0), "added to its end"},
		{"another archive at its end", append(bytes.Clone(whole), whole...), "added to its end"},
		{"a file at its end", append(bytes.Clone(whole[:len(whole)-tarTrailer]), part(whole)...), "added to its end"},
		{"without the end of the archive", whole[:len(whole)-tarTrailer], "cut short"},
		{"cut in the end", whole[:len(whole)-1], "cut short"},
		{"cut in the signature", whole[:len(whole)-tarTrailer-tarBlock+20], "not whole"},
		{"cut in front of the signature", whole[:len(whole)-tarTrailer-2*tarBlock], "cut short"},
		{"cut in the initramfs", whole[:len(whole)/2], "EOF"},
		{"empty", nil, "no image of Patchbay's"},
		{"something else", bytes.Repeat([]byte("x"), 5000), "no image of Patchbay's"},
	} {
		_, found, err := readBundle(tt.data)
		if err == nil {
			err = found.Authentic(trusted)
		}
		if tt.fault == "" && err != nil || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("%s: %v; want %q", tt.name, err, tt.fault)
		}
	}
	if _, found, err := readBundle(whole); err != nil || found.Authentic(nil) == nil {
		t.Errorf("%v, or without keys it is authentic", err)
	}
}

// A bit anywhere is found, or it is in what fills up a block of the archive, and an
// end anywhere.
func TestBundleDamaged(t *testing.T) {
	trusted := Keys{publicOf(testKey(1))}
	s := System{Kernel: []byte("kernel"), Initrd: []byte("initrd"), Version: "1"}
	whole := bundleOf(t, s, testKey(1))
	for at := range whole {
		if _, _, err := readBundle(whole[:at]); err == nil {
			t.Errorf("%d of %d bytes are taken for a bundle", at, len(whole))
		}
		for bit := range 8 {
			bad := bytes.Clone(whole)
			bad[at] ^= 1 << bit
			got, found, err := readBundle(bad)
			if err == nil {
				err = found.Authentic(trusted)
			}
			if err == nil && (got[KernelFile] != "kernel" || got[InitrdFile] != "initrd" || found.Version != "1" || found.ID != s.ID()) {
				t.Errorf("bit %d of byte %d is not found", bit, at)
			}
		}
	}
}

func FuzzBundle(f *testing.F) {
	s := System{Kernel: []byte("k"), Initrd: []byte("i"), Version: "1"}
	for _, key := range []ed25519.PrivateKey{nil, testKey(1), testKey(2)} {
		f.Add(bundleOf(f, s, key))
		f.Add(bundleOf(f, System{Kernel: s.Kernel, Initrd: s.Initrd}, key))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, found, err := readBundle(b)
		if err != nil {
			return
		}
		is := System{Kernel: []byte(got[KernelFile]), Initrd: []byte(got[InitrdFile]), Version: found.Version}
		if found.ID != is.ID() {
			t.Errorf("ID %s, want %s", found.ID, is.ID())
		}
		if found.Authentic(Keys{publicOf(testKey(1))}) == nil && is.ID() != s.ID() && is.ID() != (System{Kernel: s.Kernel, Initrd: s.Initrd}).ID() {
			t.Errorf("%+v is taken for authentic", is)
		}
	})
}

func FuzzSignature(f *testing.F) {
	f.Add([]byte(sign(testKey(1), "sums\n").text()))
	f.Add([]byte("ed25519 0123456789abcdef AAAA\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := parseSignature(b); err == nil && !bytes.Equal(s.text(), b) {
			t.Errorf("%q reads as %q", b, s.text())
		}
	})
}
