package console

import (
	"bytes"
	"crypto/ed25519"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patchbay/image/disk"
)

// TestVerify shows what files are, and whether the machine would install them.
func TestVerify(t *testing.T) {
	b := newTestBox(t, "hostname pb\n")
	dir := b.opt.Store.Dir()
	key := func(n byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	}
	public := func(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }
	bundle := func(by ed25519.PrivateKey) []byte {
		var out bytes.Buffer
		if err := disk.WriteBundle(&out, disk.System{Kernel: []byte("k"), Initrd: []byte("i"), Version: "1.2, kernel 6.1"}, by); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	files := map[string][]byte{
		"good.bin": bundle(key(1)), "unsigned.bin": bundle(nil), "stranger.bin": bundle(key(2)),
		"cut.bin": bundle(key(1))[:1000], "a.cfg": []byte("hostname a\n"), "ssh_host_ed25519_key": []byte("secret"), "empty": nil,
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys := filepath.Join(t.TempDir(), disk.KeysFile)
	write := func(data []byte) {
		t.Helper()
		if err := os.WriteFile(keys, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const validated = "Digital signature successfully validated"
	sum := func(name string) string { return fmt.Sprintf("%x", sha512.Sum512(files[name])) }
	check := func(line string, wants ...string) {
		t.Helper()
		out := b.exec(t, line)
		for _, want := range wants {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", line, want, out)
			}
		}
		if wants[len(wants)-1] != validated && strings.Contains(out, validated) {
			t.Errorf("%s: it is validated:\n%s", line, out)
		}
	}
	check("verify disk0:/good.bin", "this box does not install systems")
	b.opt.Keys = keys
	check("verify disk0:/good.bin", "bundles are not authenticated")
	write([]byte("damaged"))
	check("verify disk0:/good.bin", "the keys that are trusted cannot be read")
	write(disk.Keys{public(1)}.PEM())

	id := disk.KeyID(public(1))
	check("verify disk0:/good.bin", "Verifying file integrity of disk0:/good.bin\nComputed Hash   SHA2: "+sum("good.bin")[:32]+"\n                      "+sum("good.bin")[32:64],
		"Computed Hash SHA256: "+fmt.Sprintf("%x", sha256.Sum256(files["good.bin"]))[:32], "Version: 1.2, kernel 6.1\n", "Signed by the key: "+id, validated)
	check("verify /signature flash:/good.bin", "Signed by the key: "+id, validated)
	check("verify disk0:/unsigned.bin", "%ERROR: Signature of disk0:/unsigned.bin not validated: it is not signed; it must be by "+id)
	check("verify disk0:/stranger.bin", "signed by the key "+disk.KeyID(public(2))+", which is not trusted here")
	check("verify disk0:/cut.bin", sum("cut.bin")[96:], "not whole")
	check("verify disk0:/a.cfg", sum("a.cfg")[96:], "no image of Patchbay's")
	check("verify disk0:/empty", sum("empty")[96:], "no image of Patchbay's")
	check("verify disk0:/none", "No such file or directory")
	check("verify disk0:/ssh_host_ed25519_key", "the box's own file")
	check("verify /md5 disk0:/a.cfg", fmt.Sprintf("verify /md5 (disk0:/a.cfg) = %x\n", md5.Sum(files["a.cfg"])))
	check("verify /sha-512 disk0:/a.cfg "+strings.ToUpper(sum("a.cfg")), "Verified (disk0:/a.cfg) = "+sum("a.cfg"))
	check("verify /sha-512 disk0:/a.cfg 00", "%Error verifying disk0:/a.cfg\nComputed signature  = "+sum("a.cfg")+"\nSubmitted signature = 00\n")
	check("verify disk0:/a.cfg 00", "A sum is compared by")

	var out bytes.Buffer
	var doc shownSums
	err := b.Exec(t.Context(), &out, "verify disk0:/good.bin | json")
	if err == nil {
		err = json.Unmarshal(out.Bytes(), &doc)
	}
	if err != nil || !doc.Trusted || doc.Signer != id || doc.SHA512 != sum("good.bin") || doc.Bytes != int64(len(files["good.bin"])) {
		t.Errorf("%v: %s", err, out.String())
	}
}
