package image_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The disk boots by BIOS and by UEFI, on the buses that hypervisors have; takes a
// first configuration from its drive; makes its flash as large as the disk; keeps
// the configuration; and ends in order when the power button is pressed.
func TestBootFirmware(t *testing.T) {
	imageDir(t)
	for _, tt := range []struct {
		firmware, bus, format string
		more                  func(t *testing.T, dir, text string) []string
	}{
		{"bios", "virtio", "raw", func(t *testing.T, dir, text string) []string { return drive(t, dir, "day0-config", text) }},
		{"uefi", "nvme", "raw", textDisk},
		{"bios", "ide", "qcow2", firmwareConfig},
	} {
		t.Run(tt.firmware+" "+tt.bus, func(t *testing.T) {
			if tt.firmware == "uefi" {
				if _, err := os.Stat("/usr/share/OVMF/OVMF_CODE_4M.fd"); err != nil {
					t.Skip("needs /usr/share/OVMF/OVMF_CODE_4M.fd, of the Debian package ovmf")
				}
			}
			tmp := shortDir(t)
			s := newSite(t, tmp)
			o := machineOptions{firmware: tt.firmware, bus: tt.bus, format: tt.format, cables: s.cables[:],
				more: tt.more(t, tmp, siteConfig(t, s.CA))}
			if tt.format == "raw" {
				o.disk = newDisk(t, tmp, 1024)
			} else {
				o.disk = filepath.Join(tmp, "disk.qcow2")
				copyFile(t, filepath.Join(imageDir(t), "patchbay.qcow2"), o.disk)
			}
			m := boot(t, o)
			s.awaitTFTP(t)
			fmt.Printf("%s, %s disk: power-on to \"answers TFTP\", keys made: %s\n", tt.firmware, tt.bus, m.took())
			m.privileged()
			log := m.typed("show logging")
			if !regexp.MustCompile(`slot a, flash \w+, 3 interfaces`).MatchString(log) {
				t.Errorf("the log does not tell of slot a and the flash:\n%s", log)
			}
			if out := m.typed("dir disk0:"); !sizeAtLeast(out, o.disk) {
				t.Errorf("dir disk0: as large as the disk; got:\n%s", out)
			}
			if out := m.typed("show startup-config | include ^hostname"); !strings.HasPrefix(out, "hostname ") {
				t.Errorf("the startup configuration: %s", out)
			}
			m.powerOff()

			o.more = nil
			m = boot(t, o)
			s.awaitTFTP(t)
			fmt.Printf("%s, %s disk: power-on to \"answers TFTP\": %s\n", tt.firmware, tt.bus, m.took())
			m.powerOff()
		})
	}
}

// powerOff presses the button, and QEMU must end.
func (m *machine) powerOff() {
	m.t.Helper()
	if err := m.qmp("system_powerdown", nil); err != nil {
		m.t.Fatal(err)
	}
	m.await("power button: shutting down|machine: is off")
	m.ended()
}

var freeBytes = regexp.MustCompile(`(\d+) bytes total \((\d+) bytes free\)`)

// sizeAtLeast reports whether "dir" says that the flash has most of the disk.
func sizeAtLeast(dir, disk string) bool {
	m := freeBytes.FindStringSubmatch(dir)
	info, err := os.Stat(disk)
	if m == nil || err != nil {
		return false
	}
	var total int64
	fmt.Sscan(m[1], &total)
	want := info.Size()
	if strings.HasSuffix(disk, ".qcow2") {
		want = 1 << 30
	}
	return total > want*3/4
}

// textDisk is a second disk that is nothing but the text of a configuration.
func textDisk(t *testing.T, dir, text string) []string {
	t.Helper()
	name := filepath.Join(dir, "text.img")
	b := append([]byte(text), make([]byte, 1<<20-len(text)%(1<<20))...)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-drive", "file=" + name + ",format=raw,if=virtio,readonly=on"}
}

// firmwareConfig is a configuration that QEMU itself gives the machine.
func firmwareConfig(t *testing.T, dir, text string) []string {
	t.Helper()
	name := filepath.Join(dir, "day0")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"-fw_cfg", "name=opt/patchbay/day0-config,file=" + name}
}
