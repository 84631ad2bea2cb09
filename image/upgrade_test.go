package image_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"patchbay/image/disk"
)

// serve has the administrator's host serve files over HTTP on the management
// network.
func (s *site) serve(t *testing.T, files map[string][]byte) {
	t.Helper()
	ln, err := s.admin.ListenTCP(netip.MustParseAddrPort("192.0.2.9:80"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
}

// copyFile copies a file of the administrator's to the machine's flash.
func (m *machine) copyFile(name string) {
	m.t.Helper()
	if out := m.typed("copy /noconfirm http://192.0.2.9/" + name + " disk0:/" + name); !strings.Contains(out, "bytes copied") {
		m.t.Fatalf("copy:\n%s", out)
	}
}

// bootSystem copies a system to the machine's flash and has it start from there.
func (m *machine) bootSystem(name string) {
	m.t.Helper()
	m.copyFile(name)
	m.bootFrom(name)
}

// bootFrom has the machine start from a system that is on its flash.
func (m *machine) bootFrom(name string) {
	m.t.Helper()
	m.typed("configure terminal")
	for line := range strings.Lines(m.typed("show running-config")) {
		if strings.HasPrefix(line, "boot system ") {
			m.typed("no " + strings.TrimSpace(line))
		}
	}
	m.typed("boot system disk0:/" + name)
	m.typed("end")
	if out := m.typed("write memory"); !strings.Contains(out, "[OK]") {
		m.t.Fatalf("write memory:\n%s", out)
	}
	m.in.Write([]byte("reload noconfirm\r"))
}

// logged waits until the log has a text.
func (m *machine) logged(text string) {
	m.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Second) {
		got := m.typed("show logging")
		if strings.Contains(got, text) {
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("the log has no %q:\n%s", text, got)
		}
	}
}

// fromESP deletes a file of the ESP of a raw disk.
func fromESP(t *testing.T, name, file string) {
	t.Helper()
	at, _ := partitionOf(t, name, disk.ESPName)
	if out, err := exec.Command("mdel", "-i", fmt.Sprintf("%s@@%d", name, at), "::"+file).CombinedOutput(); err != nil {
		t.Fatalf("mdel %s: %v: %s", file, err, out)
	}
}

// A new system comes as a file, is tried, and is kept when it is well; one that does
// not come up is left for the one before, and not tried again; one that is not
// signed as it must be is not even installed; and the power may be cut in the middle.
func TestBootUpgrade(t *testing.T) {
	dir := imageDir(t)
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	signed := func(name string, initrd []byte, key ed25519.PrivateKey) []byte {
		var b bytes.Buffer
		if err := disk.WriteBundle(&b, disk.System{Kernel: read("vmlinuz"), Initrd: initrd, Version: name}, key); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	bundle := func(name string, initrd []byte) []byte { return signed(name, initrd, signingKey(1)) }
	good := read("initrd")
	another := append(bytes.Clone(good), make([]byte, 512)...) // the kernel takes no note of zeros
	third := append(bytes.Clone(good), make([]byte, 1024)...)
	files := map[string][]byte{
		"new.bin":      bundle("new", another),
		"broken.bin":   bundle("broken", []byte("this is no initramfs")),
		"third.bin":    bundle("third", third),
		"stranger.bin": signed("stranger", third, signingKey(2)),
	}
	files["cut.bin"] = files["third.bin"][:len(files["third.bin"])-1<<20]

	tmp := shortDir(t)
	s := newSite(t, tmp)
	s.serve(t, files)
	o := machineOptions{firmware: "bios", disk: newDisk(t, tmp, 0), cables: s.cables[:], restarts: true,
		more: drive(t, tmp, "day0-config", siteConfig(t, s.CA))}
	m := boot(t, o)
	trust := s.awaitTFTP(t)
	m.privileged()

	t.Log("a new system")
	m.bootSystem("new.bin")
	m.await(`installing it in slot b: new, signed by the key ` + disk.KeyID(signingKey(1).Public().(ed25519.PublicKey)))
	m.await(`slot b, flash`)
	m.privileged()
	m.logged("the new system in slot b is well")
	m.kill()

	t.Log("it cannot be read: the other one starts, and installs it anew")
	fromESP(t, o.disk, "slots/b/vmlinuz")
	o.more = nil
	m = boot(t, o)
	m.await(`the system in slot b cannot be read: the one in slot a is started from now on`)
	m.await(`installing it in slot b`)
	m.await(`slot b, flash`)
	m.privileged()
	m.logged("the new system in slot b is well")

	t.Log("one that is damaged, and one that somebody else has signed")
	m.copyFile("cut.bin")
	if out := m.typed("verify disk0:/cut.bin"); !strings.Contains(out, "initrd is not whole") {
		t.Errorf("verify of a bundle that is cut short:\n%s", out)
	}
	if out := m.typed("verify disk0:/new.bin"); !strings.Contains(out, "Digital signature successfully validated") {
		t.Errorf("verify of what was installed:\n%s", out)
	}
	m.bootSystem("stranger.bin")
	m.await(`boot system disk0:/stranger.bin: it is signed by the key .*the box goes on with the system it has`)
	m.await(`slot b, flash`)
	m.privileged()
	m.logged("boot system disk0:/stranger.bin")

	t.Log("one that does not come up")
	m.bootSystem("broken.bin")
	m.await(`installing it in slot a`)
	m.await(`(?s)Patchbay, slot a.*Patchbay, slot a.*Patchbay, slot b`)
	m.await(`the system in slot a did not come up: the one before is back, in slot b`)
	m.await(`it did not come up, and is not tried again`)
	if got := s.awaitTFTP(t); !bytes.Equal(got, trust) {
		t.Error("the CTL file is another after the upgrades")
	}
	m.privileged()
	m.logged("it did not come up, and is not tried again")

	t.Log("the power is cut while one is installed")
	m.bootSystem("third.bin")
	m.await(`installing it in slot a`)
	time.Sleep(200 * time.Millisecond) // it takes longer
	m.kill()
	m = boot(t, o)
	m.await(`Patchbay, slot b`)
	m.await(`installing it in slot a`) // again, from the beginning
	m.await(`slot a, flash`)
	m.privileged()
	m.logged("the new system in slot a is well")
	m.powerOff()
}
