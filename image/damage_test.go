package image_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"patchbay/image/disk"
)

// flashOf returns where in a raw disk its flash begins, in bytes, and how long it
// is.
func flashOf(t *testing.T, name string) (at, size int64) {
	t.Helper()
	return partitionOf(t, name, disk.FlashName)
}

// partitionOf is flashOf for any partition.
func partitionOf(t *testing.T, name, part string) (at, size int64) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, err := disk.ReadTable(f, uint64(info.Size()/disk.SectorSize))
	if err != nil {
		t.Fatal(err)
	}
	p := table.Partitions[table.Find(part)]
	return int64(p.First) * disk.SectorSize, int64(p.Sectors()) * disk.SectorSize
}

// putOnFlash writes files to the flash of a raw disk.
func putOnFlash(t *testing.T, name string, files map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	for file, data := range files {
		from := filepath.Join(dir, file)
		if err := os.WriteFile(from, data, 0o600); err != nil {
			t.Fatal(err)
		}
		debugfs(t, name, fmt.Sprintf("write %s %s", from, file))
	}
}

// debugfs does a command of debugfs(8) on the flash of a raw disk.
func debugfs(t *testing.T, name, command string) string {
	t.Helper()
	program := "debugfs"
	if _, err := os.Stat("/sbin/debugfs"); err == nil {
		program = "/sbin/debugfs"
	}
	at, _ := flashOf(t, name)
	out, err := exec.Command(program, "-w", "-R", command, fmt.Sprintf("%s?offset=%d", name, at)).CombinedOutput()
	if err != nil || strings.Contains(string(out), "not allocate") {
		t.Fatalf("debugfs %s: %v: %s", command, err, out)
	}
	return string(out)
}

// reachable has the administrator ping the box's management address.
func (s *site) reachable(t *testing.T, m *machine) {
	t.Helper()
	if out := m.typed("ping 192.0.2.9"); !strings.Contains(out, "!") {
		t.Errorf("the management network is not reached:\n%s", out)
	}
}

// Whatever is wrong with the machine, the box comes up as far as it can, says so on
// the console and in its log, and is reached by its management interface.
func TestBootDamaged(t *testing.T) {
	imageDir(t)
	for _, tt := range []struct {
		name string
		// prepare damages the disk or what is plugged in.
		prepare func(t *testing.T, dir string, o *machineOptions, config string)
		console []string // what is said there, in this order
		log     []string
		tftp    bool // phones are served all the same
		then    func(t *testing.T, m *machine, s *site)
	}{
		{
			name: "a configuration drive with a bad line",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				o.more = drive(t, dir, "user-data", strings.Replace(config, "\nhostname patchbay\n", "\nhostname patchbay\nroute nowhere 10.0.0.0 255.0.0.0 10.1.1.1\n", 1))
			},
			console: []string{"no interface is named nowhere", "the box begins with what is left of it"},
			log:     []string{"no interface is named nowhere"},
			tftp:    true,
		},
		{
			name: "a configuration drive that is damaged",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				o.more = drive(t, dir, "user-data", "#cloud-config\nusers: []\n")
			},
			console: []string{"configuration drive vdb: user-data: .*#cloud-config", "Type help"},
		},
		{
			name: "a flash that is full",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				putOnFlash(t, o.disk, map[string][]byte{"startup-config": []byte(config)})
				full(t, o.disk)
				o.restarts = true
			},
			// The box cannot keep the keys that it must make.
			console: []string{"disk0: is full", "it gets only its management interface", "Type help"},
			then: func(t *testing.T, m *machine, s *site) {
				s.reachable(t, m)
				m.typed("delete /noconfirm disk0:/large.pcap")
				m.in.Write([]byte("reload noconfirm\r"))
				s.awaitTFTP(t)
				m.privileged()
			},
		},
		{
			name: "a flash that cannot be mounted",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				at, _ := flashOf(t, o.disk)
				f, err := os.OpenFile(o.disk, os.O_RDWR, 0)
				if err == nil {
					_, err = f.WriteAt(make([]byte, 8192), at)
				}
				if err != nil {
					t.Fatal(err)
				}
				f.Close()
				o.more = drive(t, dir, "day0-config", config)
			},
			console: []string{"disk0: cannot be used", "first configuration", "Type help"},
			log:     []string{"what the box writes is lost"},
			tftp:    true,
		},
		{
			name: "no disk",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				o.disk = ""
				o.more = firmwareConfig(t, dir, config)
			},
			console: []string{"disk0: cannot be used", "Type help"},
			log:     []string{"what the box writes is lost"},
			tftp:    true,
		},
		{
			name: "a card that goes and comes again",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				o.more = drive(t, dir, "day0-config", config)
			},
			console: []string{"Type help"},
			then: func(t *testing.T, m *machine, s *site) {
				s.awaitTFTP(t)
				if err := m.qmp("device_del", map[string]any{"id": "card1"}); err != nil {
					t.Fatal(err)
				}
				m.await(`GigabitEthernet0/0: its card is gone`)
				m.in.Write([]byte("\r"))
				m.await(prompt)
				m.logged("Line protocol on Interface GigabitEthernet0/0, changed state to down")
				if out := m.typed("show interface outside"); !strings.Contains(out, "line protocol is down") {
					t.Errorf("show interface outside:\n%s", out)
				}
				s.reachable(t, m)
				if err := m.qmp("device_add", map[string]any{"driver": "virtio-net-pci", "netdev": "n1", "id": "card1", "bus": "pci.0", "addr": "0x4", "romfile": "", "mac": "02:00:00:00:00:01"}); err != nil {
					t.Fatal(err)
				}
				s.awaitTFTP(t)
				m.logged("Line protocol on Interface GigabitEthernet0/0, changed state to up")
			},
		},
		{
			name: "a card that is not there yet",
			prepare: func(t *testing.T, dir string, o *machineOptions, config string) {
				o.more = isoDrive(t, dir, config)
				o.cables = o.cables[:2]
			},
			console: []string{"2 interfaces", "Type help"},
			log:     []string{"Line protocol on Interface GigabitEthernet0/1, changed state to down"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tmp := shortDir(t)
			s := newSite(t, tmp)
			o := machineOptions{firmware: "direct", disk: newDisk(t, tmp, 0), cables: s.cables[:]}
			tt.prepare(t, tmp, &o, siteConfig(t, s.CA))
			m := boot(t, o)
			for _, text := range tt.console {
				m.await(text)
			}
			m.privileged()
			for _, text := range tt.log {
				m.logged(text)
			}
			if tt.tftp {
				s.awaitTFTP(t)
			}
			if tt.then != nil {
				tt.then(t, m, s)
			} else if !strings.Contains(tt.name, "damaged") {
				s.reachable(t, m)
			}
			m.powerOff()
		})
	}
}

// isoDrive is a configuration drive as it is usually made: an ISO image in a CD drive.
func isoDrive(t *testing.T, dir, text string) []string {
	t.Helper()
	if _, err := exec.LookPath("xorriso"); err != nil {
		t.Skip("needs xorriso, the Debian package of that name")
	}
	iso, data := filepath.Join(dir, "drive.iso"), filepath.Join(dir, "user-data")
	if err := os.WriteFile(data, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-r", "-V", "cidata", "-o", iso, data).CombinedOutput(); err != nil {
		t.Fatalf("xorriso: %v: %s", err, out)
	}
	return []string{"-drive", "file=" + iso + ",if=ide,media=cdrom"}
}

// full leaves no more than a block free on the flash of a raw disk: large.pcap has
// the rest.
func full(t *testing.T, name string) {
	t.Helper()
	putOnFlash(t, name, map[string][]byte{"large.pcap": []byte("x")})
	free := regexp.MustCompile(`Free blocks: +(\d+)`).FindStringSubmatch(debugfs(t, name, "stats"))
	if free == nil {
		t.Fatal("debugfs does not tell what is free")
	}
	blocks, err := strconv.Atoi(free[1])
	if err != nil {
		t.Fatal(err)
	}
	debugfs(t, name, fmt.Sprintf("fallocate large.pcap 1 %d", blocks-2))
}
