package image_test

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/lab"
)

var ctx = context.Background()

// siteConfig is the demo's configuration, with a management interface and the CA of
// the phones.
func siteConfig(t *testing.T, ca *lab.CA) string {
	t.Helper()
	data, err := os.ReadFile("../cmd/patchbay/demo.cfg")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "interface GigabitEthernet0/0\n", `interface Management0/0
 nameif management
 security-level 90
 ip address 192.0.2.1 255.255.255.0
!
interface GigabitEthernet0/0
`, 1)
	text = strings.Replace(text, "icmp permit any outside\n", "icmp permit any outside\nicmp permit any management\n", 1)
	loaded, findings := config.Load("site.cfg", strings.NewReader(text), false)
	if config.Errors(findings) > 0 {
		t.Fatal(findings)
	}
	return loaded.WithCertificate("phone_ca", true, ca.Cert.Raw).String()
}

// newDisk copies the raw image, and makes it larger by so many MiB.
func newDisk(t *testing.T, dir string, more int64) string {
	t.Helper()
	name := filepath.Join(dir, "disk.raw")
	copyFile(t, filepath.Join(imageDir(t), "patchbay.raw"), name)
	info, err := os.Stat(name)
	if err == nil {
		err = os.Truncate(name, info.Size()+more<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// drive makes a FAT configuration drive and returns QEMU's arguments for it.
func drive(t *testing.T, dir, file, text string) []string {
	t.Helper()
	img, data := filepath.Join(dir, "drive.img"), filepath.Join(dir, "data")
	if err := os.WriteFile(data, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"mformat", "-i", img, "-C", "-v", "CIDATA", "-f", "2880", "::"},
		{"mcopy", "-i", img, data, "::" + file},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	return []string{"-drive", "file=" + img + ",format=raw,if=virtio,readonly=on"}
}

// awaitTFTP asks for a phone's CTL file until it gets it.
func (s *site) awaitTFTP(t *testing.T) []byte {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		c, cancel := context.WithTimeout(ctx, time.Second)
		got, err := lab.TFTPGet(c, s.client, netip.MustParseAddrPort("203.0.113.10:69"), "CTLSEP0200C6336407.tlv")
		cancel()
		if err == nil {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("no CTL file after %v: %v", patience, err)
		}
	}
}

// calls has phones boot, register and talk.
func (s *site) calls(t *testing.T) {
	t.Helper()
	c, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	for _, r := range lab.RunCalls(c, s.Lab, lab.CallOptions{NoHome: true, NoHold: true, Talk: time.Second}) {
		t.Log(r)
		if !r.OK {
			t.Errorf("%s: %s", r.Name, r.Err)
		}
	}
}

var readyLine = regexp.MustCompile(`is ready, ([0-9.]+) s after the kernel began`)

var memoryLine = regexp.MustCompile(`memory: (\d+) of (\d+) MB`)

// The main job in a machine: phones boot, register and talk through it, by SIP and
// by Skinny; the power is cut; and when it is back so are the phones, with the
// trust list they had.
func TestBootCalls(t *testing.T) {
	imageDir(t)
	tmp := shortDir(t)
	s := newSite(t, tmp)
	o := machineOptions{firmware: "direct", disk: newDisk(t, tmp, 0), cables: s.cables[:],
		more: drive(t, tmp, "user-data", siteConfig(t, s.CA))}
	m := boot(t, o)
	first := s.awaitTFTP(t)
	fmt.Printf("direct kernel: power-on to \"answers TFTP\", keys made: %s\n", m.took())
	m.privileged()
	if out := m.typed("show interface ip brief"); !strings.Contains(out, "Management0/0              192.0.2.1") {
		t.Errorf("show interface ip brief:\n%s", out)
	}
	s.calls(t)
	before := m.typed("show crypto key mypubkey rsa")
	m.kill()

	for _, p := range s.Phones { // which they do by themselves, in time
		if err := p.Reset(ctx); err != nil {
			t.Error(err)
		}
	}

	o.more = nil // the configuration is on flash
	m = boot(t, o)
	second := s.awaitTFTP(t)
	fmt.Printf("direct kernel: power-on to \"answers TFTP\": %s\n", m.took())
	if !bytes.Equal(first, second) {
		t.Errorf("the CTL file is another after the power was cut: %d bytes, and %d before", len(second), len(first))
	}
	m.privileged()
	if got := readyLine.FindStringSubmatch(m.typed("show logging")); got != nil {
		fmt.Printf("of it guest time from the kernel's start until the appliance is ready: %s s\n", got[1])
	} else {
		t.Error("the log does not tell when the appliance was ready")
	}
	if after := m.typed("show crypto key mypubkey rsa"); after != before || !strings.Contains(after, "Key name: ucm_keys") {
		t.Errorf("keys before the power was cut:\n%s\nand after:\n%s", before, after)
	}
	s.calls(t)
	for end := time.Now().Add(patience); ; time.Sleep(time.Second) {
		if got := memoryLine.FindString(m.typed("show logging")); got != "" {
			fmt.Printf("at rest after calls, %s; QEMU itself %d MB\n", got, m.hostMemory())
			break
		}
		if time.Now().After(end) {
			t.Error("the log does not tell how much memory is used")
			break
		}
	}
	if err := m.qmp("system_powerdown", nil); err != nil {
		t.Fatal(err)
	}
	m.await("machine: is off")
	m.ended()
}
