package guest

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCards(t *testing.T) {
	var c cards
	for _, tt := range []struct {
		bus  string
		want int
	}{
		{"0000:00:03.0", 0}, {"0000:00:04.0", 1}, {"0000:00:05.0", 2},
		{"0000:00:04.0", 1}, // it keeps its name
		{"0000:00:02.0", 3}, // it came late, and what has a name keeps it
	} {
		if got := c.number(tt.bus); got != tt.want {
			t.Errorf("number(%s) = %d, want %d", tt.bus, got, tt.want)
		}
	}
	for i := range 20 {
		c.number("0000:01:" + string(rune('a'+i)))
	}
	if got := c.number("0000:02:00.0"); got != -1 {
		t.Errorf("the card that is too much is number %d", got)
	}
	if device(0) != "mgmt0" || device(1) != "gi0" || hardware[1] != "GigabitEthernet0/0" {
		t.Errorf("devices %s, %s", device(0), device(1))
	}
}

func TestBusAddress(t *testing.T) {
	for dev, want := range map[string]string{
		"/sys/devices/pci0000:00/0000:00:03.0/virtio0":              "0000:00:03.0",
		"/sys/devices/pci0000:00/0000:00:1c.0/0000:02:00.0":         "0000:02:00.0",
		"/sys/devices/LNXSYSTM:00/device:00/PNP0A08:00/VMBUS:01/ab": "~/sys/devices/LNXSYSTM:00/device:00/PNP0A08:00/VMBUS:01/ab",
	} {
		if got := busAddress(dev); got != want {
			t.Errorf("busAddress(%s) = %s, want %s", dev, got, want)
		}
	}
}

func TestBootSystem(t *testing.T) {
	for _, tt := range []struct {
		config, want string
		bad          bool
	}{
		{"hostname a\nboot system disk0:/new.bin\nboot system disk0:/old.bin\n", "new.bin", false},
		{"boot system flash:x.bin\n", "x.bin", false},
		{"hostname a\n boot system disk0:/x\n", "", false},
		{"boot system tftp://10.0.0.1/x\n", "", true},
		{"boot system disk0:/../x\n", "", true},
		{"boot system disk0:/\n", "", true},
		{"", "", false},
	} {
		got, err := bootSystem(tt.config)
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("bootSystem(%q) = %q, %v; want %q", tt.config, got, err, tt.want)
		}
	}
}

// What is left of a configuration that has failed makes the box reachable, and
// nothing else.
func TestSafe(t *testing.T) {
	got := safe(`hostname pb
enable password ***** pbkdf2
interface GigabitEthernet0/0
 nameif outside
 ip address 203.0.113.2 255.255.255.0
interface Management0/0
 nameif management
 security-level 90
 ip address 192.0.2.1 255.255.255.0
object network ucm
 host 10.20.0.11
route outside 0.0.0.0 0.0.0.0 203.0.113.1 1
route management 10.9.0.0 255.255.0.0 192.0.2.254 1
ssh 192.0.2.0 255.255.255.0 management
ssh 0.0.0.0 0.0.0.0 outside
username admin password hash pbkdf2 privilege 15
phone-proxy home
 media-termination voice
`)
	want := `hostname pb
enable password ***** pbkdf2
interface Management0/0
 nameif management
 security-level 90
 ip address 192.0.2.1 255.255.255.0
username admin password hash pbkdf2 privilege 15
route management 10.9.0.0 255.255.0.0 192.0.2.254 1
ssh 192.0.2.0 255.255.255.0 management
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDay0Text(t *testing.T) {
	for _, tt := range []struct {
		name, data, want string
		bad              bool
	}{
		{"text", "hostname a\n", "hostname a\n", false},
		{"lines of Windows", "hostname a\r\nend\r\n", "hostname a\nend\n", false},
		{"a comment in front", "#!patchbay\n# mine\nhostname a\n", "hostname a\n", false},
		{"a disk", "hostname a\n" + strings.Repeat("\x00", 1000), "hostname a\n", false},
		{"cloud-config", "#cloud-config\nusers: []\n", "", true},
		{"empty", "", "", true},
		{"zeros", "\x00\x00", "", true},
		{"not text", "hostname \xff\xfe\n", "", true},
		{"a hole", "hostname a\n\x00\x00b", "", true},
	} {
		got, err := day0Text([]byte(tt.data))
		if got != tt.want || (err != nil) != tt.bad {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

// What is read of a drive is bounded by what the machine can check.
func TestReadDay0(t *testing.T) {
	for memory, want := range map[int64]int64{0: 1 << 20, 256 << 20: 1 << 20, 512 << 20: 2 << 20, 1 << 40: maxDay0} {
		if got := day0Limit(memory); got != want {
			t.Errorf("day0Limit(%d) = %d, want %d", memory, got, want)
		}
	}
	const text = "hostname a\n"
	disk := text + strings.Repeat("\x00", 100) + "\xff"
	for _, tt := range []struct {
		name  string
		r     io.Reader
		limit int64
		fault string
	}{
		{"as long as may be", strings.NewReader(text), int64(len(text)), ""},
		{"longer", strings.NewReader(text), int64(len(text)) - 1, "no configuration for a machine with this memory"},
		{"a disk", &untilZero{r: strings.NewReader(disk)}, 50, ""},
		{"a disk, in pieces", &untilZero{r: iotest.OneByteReader(strings.NewReader(disk))}, 50, ""},
		{"a disk without end", &untilZero{r: io.MultiReader(strings.NewReader(text), endless('x'))}, 1 << 20, "no configuration"},
		{"a disk that fails", &untilZero{r: iotest.ErrReader(io.ErrClosedPipe)}, 50, "closed pipe"},
	} {
		got, err := readDay0(tt.r, tt.limit)
		if tt.fault == "" && (got != text || err != nil) || tt.fault != "" && (err == nil || !strings.Contains(err.Error(), tt.fault)) {
			t.Errorf("%s: %.20q, %v; want %q", tt.name, got, err, tt.fault)
		}
	}
}

// An endless is a file without end.
type endless byte

func (e endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(e)
	}
	return len(b), nil
}

// A clock that is wrong is not made wrong by a file.
func TestLeastTime(t *testing.T) {
	late := time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		written []time.Time
		want    time.Time
	}{
		{nil, oldest}, {[]time.Time{time.Unix(0, 0)}, oldest},
		{[]time.Time{time.Unix(0, 0), late, oldest}, late},
		{[]time.Time{late, time.Unix(1<<34, 0)}, late},
	} {
		if got := leastTime(tt.written); !got.Equal(tt.want) {
			t.Errorf("leastTime(%v) = %v, want %v", tt.written, got, tt.want)
		}
	}
}

func TestLooksLikeConfig(t *testing.T) {
	for text, want := range map[string]bool{
		": Saved\n:\n": true, "ASA Version 9.1(7)\n": true, "hostname a\n": true, "! mine\n": true,
		"": false, "hostname a": false, "\x00\x00\n": false, "hostname \x01\n": false, "PK\x03\x04\n": false,
	} {
		if got := looksLikeConfig([]byte(text)); got != want {
			t.Errorf("looksLikeConfig(%q) = %v", text, got)
		}
	}
}

func TestFSKind(t *testing.T) {
	ext4 := make([]byte, 4096)
	ext4[1024+56], ext4[1024+57] = 0x53, 0xef
	copy(ext4[1024+120:], "disk0")
	iso := make([]byte, 18*2048)
	copy(iso[16*2048:], "\x01CD001")
	copy(iso[16*2048+40:], "cidata                          ")
	fat := make([]byte, 4096)
	fat[38], fat[510], fat[511] = 0x29, 0x55, 0xaa
	copy(fat[43:], "CIDATA     FAT12   ")
	fat32 := make([]byte, 4096)
	fat32[66], fat32[510], fat32[511] = 0x29, 0x55, 0xaa
	copy(fat32[71:], "ESP        FAT32   ")
	for _, tt := range []struct {
		data        []byte
		kind, label string
	}{
		{ext4, "ext4", "disk0"}, {iso, "iso9660", "cidata"}, {fat, "vfat", "CIDATA"}, {fat32, "vfat", "ESP"},
		{make([]byte, 65536), "", ""}, {nil, "", ""},
	} {
		if kind, label := fsKind(bytes.NewReader(tt.data)); kind != tt.kind || label != tt.label {
			t.Errorf("fsKind: %q %q, want %q %q", kind, label, tt.kind, tt.label)
		}
	}
}

func TestBackoff(t *testing.T) {
	var got []time.Duration
	for n := range 8 {
		got = append(got, backoff(n+1)/time.Second)
	}
	if diff := cmp.Diff([]time.Duration{1, 2, 4, 8, 16, 30, 30, 30}, got); diff != "" {
		t.Errorf("seconds (-want +got):\n%s", diff)
	}
}

func FuzzDay0(f *testing.F) {
	f.Add([]byte("hostname a\n"))
	f.Add([]byte("#a\n\xff\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		text, err := day0Text(b)
		if err != nil {
			return
		}
		if strings.ContainsRune(text, 0) || len(text) > len(b) {
			t.Errorf("%q becomes %q", b, text)
		}
		safe(text)
		bootSystem(text)
		looksLikeConfig(b)
		fsKind(bytes.NewReader(b))
	})
}

func TestFaults(t *testing.T) {
	if got := faults("hostname a\n"); len(got) > 0 {
		t.Errorf("faults of a good configuration: %q", got)
	}
	got := faults("hostname a\nroute nowhere 10.0.0.0 255.0.0.0 10.1.1.1\n")
	if len(got) != 1 || !strings.Contains(got[0], "day0-config:2: ERROR: no interface is named nowhere") {
		t.Errorf("faults: %q; want line 2", got)
	}
}

func TestDriver(t *testing.T) {
	for _, tt := range []struct {
		said, want string
		ok         bool
	}{{"", "packet", true}, {"auto", "auto", true}, {"xdp", "xdp", true}, {"tun", "packet", false}} {
		got, err := driver(commandLine("quiet patchbay.driver=" + tt.said))
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("driver(%q) = %q, %v; want %q", tt.said, got, err, tt.want)
		}
		if link := arguments(program, "", got); !slices.Contains(link, "GigabitEthernet0/0="+got+":gi0") {
			t.Errorf("arguments have no link of %s: %v", got, link)
		}
	}
}
