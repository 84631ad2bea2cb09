//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"patchbay/appliance/ctl"
)

// A tftpClient is a program that fetches and sends files.
type tftpClient struct {
	tool string // as needs takes it
	// get and put return the arguments to fetch the file name into local, or
	// to send it from there, with an address that is asked.
	get, put func(server, name, local string) []string
}

func (c tftpClient) String() string { return strings.Trim(c.tool[strings.Index(c.tool, "("):], "()") }

// tftpClients are real ones. Each asks in a way of its own.
var tftpClients = []tftpClient{
	{ // blocks of 512 bytes, no options
		"tftp-hpa (tftp)",
		func(server, name, local string) []string {
			return []string{"-m", "binary", server, "-c", "get", name, local}
		},
		func(server, name, local string) []string {
			return []string{"-m", "binary", server, "-c", "put", local, name}
		},
	},
	{
		"atftp (atftp)",
		func(server, name, local string) []string {
			return []string{"--option", "blksize 1428", "--option", "tsize 0", "--get", "--remote-file", name, "--local-file", local, server}
		},
		func(server, name, local string) []string {
			return []string{"--put", "--local-file", local, "--remote-file", name, server}
		},
	},
	{ // tsize, blksize and timeout, all at once
		"curl (curl)",
		func(server, name, local string) []string {
			return []string{"--silent", "--show-error", "--path-as-is", "--output", local, "tftp://" + server + "/" + name}
		},
		func(server, name, local string) []string {
			return []string{"--silent", "--show-error", "--upload-file", local, "tftp://" + server + "/" + name}
		},
	},
}

// fetch has a client fetch a file, and returns what it got and what it said.
func (n *testNet) fetch(t testing.TB, c tftpClient, name string, patience time.Duration) (data []byte, said string, err error) {
	t.Helper()
	local := filepath.Join(t.TempDir(), "got")
	said, err = n.run(patience, n.out, c.String(), c.get(ucmMapped.String(), name, local)...)
	data, _ = os.ReadFile(local) // none, if it was refused
	return data, said, err
}

// mustFetch is fetch for what must go well.
func (n *testNet) mustFetch(t testing.TB, c tftpClient, name string) []byte {
	t.Helper()
	data, said, err := n.fetch(t, c, name, patience)
	if err != nil || len(data) == 0 {
		t.Fatalf("%v: get %s: %d bytes, %v: %s", c, name, len(data), err, said)
	}
	return data
}

// tftpServer serves a directory as the call manager's TFTP server, in the
// namespace inside, with tftpd-hpa and more arguments for it.
func (n *testNet) tftpServer(t testing.TB, dir string, more ...string) (stop func()) {
	t.Helper()
	args := append([]string{"--listen", "--foreground", "--user", "root", "--address", ucmReal.String() + ":69", "--secure"}, more...)
	c := n.command(context.Background(), n.in, "in.tftpd", append(args, dir)...)
	var said bytes.Buffer
	c.Stdout, c.Stderr = &said, &said
	exited := make(chan struct{})
	must(t, startDying(c, func(error) { close(exited) }))
	stop = func() {
		c.Process.Signal(syscall.SIGTERM) // an error: it has ended
		<-exited
	}
	t.Cleanup(stop)
	h := n.host(t, n.in, deskAddr)
	eventually(t, "in.tftpd serves", func() bool {
		select {
		case <-exited:
			t.Fatalf("in.tftpd ended: %s", said.String())
		default:
		}
		u, err := h.ListenUDP(netip.AddrPort{})
		must(t, err)
		defer u.Close()
		buf := make([]byte, 600)
		_, err = u.WriteTo([]byte("\x00\x01nothing\x00octet\x00"), udpAddr(ucmReal, 69))
		must(t, err)
		must(t, u.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		k, _, err := u.ReadFrom(buf)
		return err == nil && k > 0
	})
	return stop
}

// randomBytes are the same for the same seed.
func randomBytes(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

const (
	confName = "SEP001122334455.cnf.xml"
	ctlName  = "CTLSEP001122334455.tlv"
)

// TestRealTFTPClients has tftp-hpa, atftp and curl boot as a phone does from a
// call manager whose TFTP server is tftpd-hpa.
func TestRealTFTPClients(t *testing.T) {
	needs(t, "tftpd-hpa (in.tftpd)")
	n := newTestNet(t, overPacket)
	conf, err := os.ReadFile("testdata/" + confName)
	must(t, err)
	dir := t.TempDir()
	files := map[string][]byte{
		confName:             conf,
		"Ringlist.xml":       []byte("<CiscoIPPhoneRingList><Ring><DisplayName>Old</DisplayName><FileName>Old.raw</FileName></Ring></CiscoIPPhoneRingList>\n"),
		"SIP41.8-5-3S.loads": append([]byte("\x01\x00\x02\x01\x30\x02\x00\x02"), randomBytes(1, 700)...), // signed by its maker
		"jar41sip.8-5-3.sbn": randomBytes(2, 3<<20),
		"blocks.bin":         randomBytes(3, 4*512), // ends with an empty block
	}
	for name, data := range files {
		must(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	must(t, os.WriteFile(filepath.Join(filepath.Dir(dir), "secret"), []byte("secret"), 0o644))
	n.tftpServer(t, dir)
	b := n.start(t, startOptions{})

	list := make(map[string][]byte)
	for _, c := range tftpClients {
		t.Run(c.String(), func(t *testing.T) {
			needs(t, c.tool)
			list[c.String()] = checkBoot(t, n, c, files)
			checkRefusals(t, n, c)
		})
	}
	var first []byte
	for c, data := range list {
		if first == nil {
			first = data
		}
		if !bytes.Equal(data, first) {
			t.Errorf("%s got another CTL file than the others", c)
		}
	}
	for _, tried := range []string{"../secret", `etc\\\\passwd`, "write of", "nothing.raw"} {
		b.await(t, tried)
	}
}

// TestCopyToServer backs a box up to tftpd-hpa.
func TestCopyToServer(t *testing.T) {
	needs(t, "tftpd-hpa (in.tftpd)")
	n := newTestNet(t, overPacket)
	dir, flash := t.TempDir(), t.TempDir()
	n.tftpServer(t, dir, "--create")
	system := randomBytes(4, 3<<20)
	must(t, os.WriteFile(filepath.Join(flash, "patchbay.bin"), system, 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "theirs"), []byte("old"), 0o444))
	n.start(t, startOptions{flash: flash})
	do := func(line string) (string, error) {
		return patchbay(t, append([]string{"exec", "--flash", flash}, strings.Fields(line)...)...)
	}
	text, err := do("show running-config")
	must(t, err)
	for _, line := range []string{"capture cap interface inside", "copy running-config tftp://10.20.0.11/asa.cfg", "copy disk0:/patchbay.bin tftp://10.20.0.11/patchbay.bin",
		"copy /noconfirm /pcap capture:cap tftp://10.20.0.11"} {
		if out, err := do(line); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	got, err := os.ReadFile(filepath.Join(dir, "asa.cfg"))
	if err != nil || string(got) != text {
		t.Errorf("asa.cfg: %v, %d bytes of %d", err, len(got), len(text))
	}
	if got, err := os.ReadFile(filepath.Join(dir, "patchbay.bin")); err != nil || !bytes.Equal(got, system) {
		t.Errorf("patchbay.bin: %v, %d bytes of %d", err, len(got), len(system))
	}
	if got, err := os.ReadFile(filepath.Join(dir, "cap.pcap")); err != nil || !bytes.Contains(got, system[100_000:100_100]) {
		t.Errorf("cap.pcap: %v, %d bytes, which are not those of the packets with patchbay.bin", err, len(got))
	}
	if out, err := do("copy running-config tftp://10.20.0.11/no/such/folder"); err == nil || !strings.Contains(out, "error 1: ") {
		t.Errorf("a folder that is not there: %v: %s", err, out)
	}
}

// checkBoot fetches what phones fetch, and returns the CTL file.
func checkBoot(t *testing.T, n *testNet, c tftpClient, files map[string][]byte) []byte {
	list := n.mustFetch(t, c, ctlName)
	dir := t.TempDir()
	ctlFile := filepath.Join(dir, "CTL.tlv")
	must(t, os.WriteFile(ctlFile, list, 0o600))
	mustPatchbay(t, "ctl", "verify", ctlFile)
	printed := mustPatchbay(t, "ctl", "print", ctlFile)
	// The record entry and the box itself, and two SASTs.
	for want, times := range map[string]int{
		"CN=ucm_server": 2, "203.0.113.10": 2, "CCM+TFTP": 2, "System Administrator Security Token": 2, "was used to sign": 1,
	} {
		if got := strings.Count(printed, want); got != times {
			t.Errorf("ctl print has %q %d times, want %d:\n%s", want, got, times, printed)
		}
	}
	if got := n.mustFetch(t, c, "CTLFile.tlv"); !bytes.Equal(got, list) {
		t.Errorf("CTLFile.tlv differs from %s", ctlName)
	}

	for _, name := range []string{confName + ".sgn", strings.ToLower(confName) + ".sgn"} {
		payload := checkSigned(t, ctlFile, name, n.mustFetch(t, c, name))
		if diff := cmp.Diff(secured(files[confName]), string(payload)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if payload := checkSigned(t, ctlFile, "Ringlist.xml.sgn", n.mustFetch(t, c, "Ringlist.xml.sgn")); !bytes.Equal(payload, files["Ringlist.xml"]) {
		t.Errorf("Ringlist.xml.sgn holds %q", payload)
	}
	for _, name := range []string{"Ringlist.xml", "SIP41.8-5-3S.loads", "jar41sip.8-5-3.sbn", "blocks.bin"} {
		if got := n.mustFetch(t, c, name); !bytes.Equal(got, files[name]) {
			t.Errorf("%s: %d bytes, want %d, the same as the server's", name, len(got), len(files[name]))
		}
	}
	return list
}

// checkSigned has the program verify a signed file, and returns what it holds.
func checkSigned(t *testing.T, list, name string, data []byte) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "signed")
	must(t, os.WriteFile(file, data, 0o600))
	mustPatchbay(t, "sgn", "verify", "--ctl", list, "--name", name, file)
	data[len(data)/2] ^= 1
	must(t, os.WriteFile(file, data, 0o600))
	if out, err := patchbay(t, "sgn", "verify", "--ctl", list, "--name", name, file); err == nil {
		t.Errorf("%s with a bit changed: %s", name, out)
	}
	data[len(data)/2] ^= 1
	s, err := ctl.ParseSigned(data)
	must(t, err)
	return s.Payload
}

// secured is the configuration as a phone outside must get it.
// (reference/phone-config-xml.md, section 3.)
func secured(conf []byte) string {
	return strings.NewReplacer(
		"<processNodeName>10.20.0.11<", "<processNodeName>203.0.113.10<",
		"<srstOption>Enable<", "<srstOption>Disable<",
		"<ipAddr1>10.20.0.1<", "<ipAddr1><",
		"<pcPort>0<", "<pcPort>1<",
		"<garp>0<", "<garp>1<",
		"<voiceVlanAccess>0<", "<voiceVlanAccess>1<",
		"<webAccess>0<", "<webAccess>1<",
		"<spanToPCPort>0<", "<spanToPCPort>1<",
		"<loadServer>10.20.0.12<", "<loadServer><",
		"<deviceSecurityMode>1<", "<deviceSecurityMode>3<",
		"<transportLayerProtocol>2<", "<transportLayerProtocol>3<",
		"<certHash>2b4c<", "<certHash><",
		"<encrConfig>true<", "<encrConfig>false<",
	).Replace(string(conf))
}

// checkRefusals asks for what nobody gets.
func checkRefusals(t *testing.T, n *testNet, c tftpClient) {
	in := n.capture(t, n.in, "pbin")
	out := n.capture(t, n.out, "pbout")
	for _, tt := range []struct {
		name string
		code int // of the TFTP error (RFC 1350, section 5); 0: 1 or 2
	}{
		{"SEP00DEADBEEF00.cnf.xml.sgn", 1},
		{"nothing.raw", 1},
		{"ITLSEP001122334455.tlv", 1},
		{confName, 1}, // not without a signature
		{"../secret", 0},
		{"../../../../etc/passwd", 0},
		{`..\..\etc\passwd`, 0},
		{"Desktops/../" + confName, 0},
		{"/etc/passwd", 0},
	} {
		before := len(out.all())
		start := time.Now()
		data, said, _ := n.fetch(t, c, tt.name, patience) // tftp-hpa exits with 0
		if took := time.Since(start); len(data) > 0 || took > time.Second {
			t.Errorf("get %s: %q after %v, want nothing within a second: %s", tt.name, data, took, said)
		}
		errs := tftpErrors(out, before)
		if len(errs) != 1 || errs[0] != tt.code && (tt.code != 0 || errs[0] != 1 && errs[0] != 2) {
			t.Errorf("get %s: errors %v, want %d", tt.name, errs, tt.code)
		}
	}
	local := filepath.Join(t.TempDir(), "put")
	must(t, os.WriteFile(local, []byte("mine now"), 0o600))
	before := len(out.all())
	n.run(patience, n.out, c.String(), c.put(ucmMapped.String(), "Ringlist.xml", local)...)
	if errs := tftpErrors(out, before); len(errs) == 0 || errs[0] != 2 {
		t.Errorf("put: errors %v, want 2", errs)
	}
	for _, p := range in.packets(nil) {
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		if ok && u.DstPort == 69 && (bytes.Contains(u.Payload, []byte("..")) || bytes.Contains(u.Payload, []byte("passwd")) || u.Payload[1] != 1) {
			t.Errorf("the call manager was asked %q", u.Payload)
		}
	}
}

// tftpErrors returns the codes of the errors that the box sent to a client
// outside, each once for each client's port, since the frame number from.
func tftpErrors(c *capture, from int) (codes []int) {
	seen := make(map[layers.UDPPort]bool)
	for _, p := range c.packets(nil)[from:] {
		u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP)
		src, _ := ends(p)
		if ok && src == ucmMapped && len(u.Payload) >= 4 && u.Payload[0] == 0 && u.Payload[1] == 5 && !seen[u.DstPort] {
			seen[u.DstPort] = true
			codes = append(codes, int(u.Payload[2])<<8|int(u.Payload[3]))
		}
	}
	return codes
}

// TestTFTPServerDown asks for a file of a call manager that does not answer.
// The phone must not be told that there is no such file: it would go on
// without its configuration.
func TestTFTPServerDown(t *testing.T) {
	t.Parallel()
	needs(t, "curl (curl)")
	n := newTestNet(t, overPacket)
	b := n.start(t, startOptions{})
	out := n.capture(t, n.out, "pbout")
	in := n.capture(t, n.in, "pbin")
	local := filepath.Join(t.TempDir(), "got")
	said, err := n.run(patience, n.out, "curl", "--silent", "--show-error", "--max-time", "3", "--output", local,
		fmt.Sprintf("tftp://%v/%s.sgn", ucmMapped, confName))
	const timedOut = 28 // CURLE_OPERATION_TIMEDOUT
	if exit := exitCode(err); exit != timedOut {
		t.Errorf("curl: exit code %d, want %d: %s", exit, timedOut, said)
	}
	if errs := tftpErrors(out, 0); len(errs) > 0 {
		t.Errorf("the phone was told errors %v", errs)
	}
	b.await(t, "level=WARN msg=\"TFTP: 198.51.100.7/")
	// The kernel inside answered the box that nobody is there.
	if got := in.packets(func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeICMPv4) != nil }); len(got) == 0 {
		t.Error("the call manager's kernel sent no port unreachable")
	}
}

// exitCode is that of a program's end, 0 for none.
func exitCode(err error) int {
	if e, ok := err.(*exec.ExitError); ok {
		return e.ExitCode()
	}
	return 0
}

// TestRestartKeepsKeys starts the box twice on the same flash directory. A
// phone that trusts the CTL file of the first trusts that of the second.
func TestRestartKeepsKeys(t *testing.T) {
	needs(t, "curl (curl)")
	curl := tftpClients[2]
	n := newTestNet(t, overPacket)
	flash := newFlash(t, newCA(t))
	dir := t.TempDir()
	var lists [2]string
	var flashes [2]map[string]string
	for i := range lists {
		b := n.start(t, startOptions{flash: flash})
		lists[i] = filepath.Join(dir, fmt.Sprint("CTL", i))
		must(t, os.WriteFile(lists[i], n.mustFetch(t, curl, ctlName), 0o600))
		b.stop(t)
		flashes[i] = tree(t, flash)
		delete(flashes[i], "/CTLFile.tlv") // as it was served: signed anew, looked into below
	}
	if out := mustPatchbay(t, "ctl", "verify", "--installed", lists[0], lists[1]); !strings.Contains(out, "valid") {
		t.Errorf("ctl verify --installed: %s", out)
	}
	var records [2]*ctl.File
	for i, l := range lists {
		var err error
		records[i], err = readCTL(l)
		must(t, err)
	}
	if a, b := records[0].Header, records[1].Header; a.SignerName != b.SignerName || !bytes.Equal(a.Serial, b.Serial) {
		t.Errorf("signed by %s, then by %s", a.SignerName, b.SignerName)
	}
	if a, b := len(records[0].Records), len(records[1].Records); a != b {
		t.Fatalf("%d records, then %d", a, b)
	}
	for i, a := range records[0].Records {
		if b := records[1].Records[i]; a.Role != b.Role || !bytes.Equal(a.Serial, b.Serial) {
			t.Errorf("record %d: %v, then %v", i+1, a, b)
		}
	}
	if diff := cmp.Diff(flashes[0], flashes[1]); diff != "" {
		t.Errorf("the flash directory changed (-first +second):\n%s", diff)
	}
	// And another box is another.
	b := n.start(t, startOptions{})
	other := filepath.Join(dir, "other")
	must(t, os.WriteFile(other, n.mustFetch(t, curl, ctlName), 0o600))
	b.stop(t)
	if out, err := patchbay(t, "ctl", "verify", "--installed", lists[0], other); err == nil {
		t.Errorf("a box with other keys is trusted: %s", out)
	}
}

// tree returns the files of a directory. None may be read by others.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	must(t, filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || info.IsDir() {
			return err
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		data, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(data)
		return err
	}))
	return files
}
