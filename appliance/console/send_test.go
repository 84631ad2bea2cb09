package console

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"patchbay/appliance/config"
	"patchbay/inspect/tftp"
	"patchbay/stack"
	"patchbay/stack/host"
	"patchbay/stack/link"
)

var backupAddr = netip.MustParseAddr("10.20.0.60")

// A backup is a TFTP server, at backupAddr on the inside, that takes files, one named
// "old" without options, refuses one named "locked" and does not answer for one named "silent".
type backup struct {
	host  *host.Stack
	asked chan struct{} // for "silent"

	mu    sync.Mutex
	files map[string][]byte
	from  []netip.Addr // who sent them
}

// newBackupBox returns a box that runs, with a server to copy to.
func newBackupBox(t testing.TB, text string) (*testBox, *backup) {
	t.Helper()
	h, err := host.New(host.Config{Addrs: []netip.Prefix{netip.PrefixFrom(backupAddr, 24)}})
	if err != nil {
		t.Fatal(err)
	}
	s := &backup{host: h, asked: make(chan struct{}, 1), files: make(map[string][]byte)}
	pc, err := h.ListenPacket(netip.AddrPortFrom(backupAddr, tftp.Port))
	if err != nil {
		t.Fatal(err)
	}
	b := newTestBoxOn(t, text, func(i *config.Interface) (stack.Link, error) {
		if i.Name == "inside" {
			return h.Link(), nil
		}
		a, _ := link.Pair(1500)
		return a, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	served, ran := make(chan struct{}), make(chan error)
	go func() { defer close(served); s.serve(t, pc) }()
	go func() { ran <- b.opt.App.Run(ctx) }()
	t.Cleanup(func() {
		pc.Close()
		<-served
		cancel()
		if err := <-ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		h.Close()
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // until it runs
		if _, err := b.opt.App.Send(ctx, "tftp://10.20.0.60/up", strings.NewReader(""), 0); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.from = nil
	return b, s
}

// serve takes one file after the other until pc is closed.
func (s *backup) serve(t testing.TB, pc net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, client, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		req, err := tftp.ParseRequest(buf[:n])
		if err != nil || req.Op != tftp.OpWrite {
			t.Errorf("the server is asked % x: %v", buf[:n], err)
			return
		}
		switch req.Name {
		case "locked":
			pc.WriteTo((&tftp.Error{Code: tftp.CodeAccess, Msg: "Access \x1b[2Jviolation"}).AppendTo(nil), client)
		case "silent":
			select {
			case s.asked <- struct{}{}:
			default: // again
			}
		default:
			s.take(t, req, client)
		}
	}
}

func (s *backup) take(t testing.TB, req tftp.Request, client net.Addr) {
	pc, err := s.host.ListenPacket(netip.AddrPortFrom(backupAddr, 0))
	if err != nil {
		t.Error(err)
		return
	}
	defer pc.Close()
	block := 512
	for _, o := range req.Options {
		if o.Name == "blksize" {
			block, _ = strconv.Atoi(o.Value)
		}
	}
	if req.Name == "old" && len(req.Options) > 0 {
		pc.WriteTo((&tftp.Error{Code: tftp.CodeOptionsDeny, Msg: "No options"}).AppendTo(nil), client)
		return
	}
	var file []byte
	buf := make([]byte, 2048)
	answer, next := tftp.AppendOptions(nil, req.Options), uint16(1)
	if len(req.Options) == 0 {
		answer = tftp.AppendAck(nil, 0)
	}
	for {
		pc.WriteTo(answer, client)
		pc.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, _, err := pc.ReadFrom(buf)
		if err != nil {
			return
		}
		got, data, err := tftp.ParseData(buf[:n])
		if err != nil || got != next {
			continue
		}
		file = append(file, data...)
		answer, next = tftp.AppendAck(nil, got), next+1
		if len(data) < block {
			s.mu.Lock()
			s.files[req.Name] = file
			s.from = append(s.from, client.(*net.UDPAddr).AddrPort().Addr())
			s.mu.Unlock()
			pc.WriteTo(answer, client)
			return
		}
	}
}

func (s *backup) file(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[name]
}

// Ctrl-C ends a copy to a server that does not answer.
func TestSendInterrupted(t *testing.T) {
	b, s := newBackupBox(t, "")
	y := sit(t, b.Box, Who{From: fromConsole, Level: maxPrivilege}, true, 0)
	y.press("")
	y.push("copy running-config tftp://10.20.0.60/silent\r")
	select {
	case <-s.asked:
	case <-time.After(time.Minute):
		t.Fatal("the server is not asked")
	}
	y.push("\x03show curpriv\r")
	if got := plain(y.pause()); strings.Contains(got, "ERROR") || !strings.Contains(got, "pb# show curpriv\nUsername : enable_15\n") {
		t.Errorf("after Ctrl-C:\n%s", got)
	}
}

// TestSend copies everything there is to a server, and what is private not.
func TestSend(t *testing.T) {
	b, s := newBackupBox(t, "")
	dir := b.opt.Store.Dir()
	system := bytes.Repeat([]byte("system"), 300_000)
	for name, data := range map[string][]byte{"patchbay.bin": system, "startup-config": []byte("hostname b\n"), "ssh_host_ed25519_key": []byte("secret"), "key-x.pem": []byte("secret")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text := b.Text().String()
	out := b.exec(t, "capture cap interface inside", "write memory",
		"copy running-config tftp://10.20.0.60/a/running", "copy startup-config tftp://10.20.0.60/startup", "copy /noconfirm running-config tftp://10.20.0.60",
		"copy disk0:/patchbay.bin tftp://10.20.0.60/patchbay.bin;int=outside", "copy capture:cap tftp://10.20.0.60/cap.txt", "copy /noconfirm /pcap capture:cap tftp://10.20.0.60",
		"write net 10.20.0.60:net", "copy running-config tftp://10.20.0.60/old", "copy disk0:/key-x.pem tftp://10.20.0.60/secret1", "copy flash:ssh_host_ed25519_key tftp://10.20.0.60/secret2",
		"copy disk0:/startup-config tftp://10.20.0.60/secret3", "copy flash:/ssh_host_ed25519_key.new tftp://10.20.0.60/secret4")
	for _, name := range []string{"a/running", "startup", "running-config", "net", "old"} {
		if got := s.file(name); string(got) != text {
			t.Errorf("%s is %d bytes of the configuration's %d:\n%s", name, len(got), len(text), out)
		}
	}
	if got := s.file("patchbay.bin"); !bytes.Equal(got, system) {
		t.Errorf("patchbay.bin is %d bytes of %d", len(got), len(system))
	}
	if got := string(s.file("cap.txt")); !strings.Contains(got, " packets captured\n") || !strings.Contains(got, "10.20.0.1.") || !strings.Contains(got, "10.20.0.60.69: udp ") {
		t.Errorf("the capture is\n%s", got)
	}
	packets := 0
	if r, err := link.NewReader(bytes.NewReader(s.file("cap.pcap"))); err != nil {
		t.Error(err)
	} else {
		for _, err := r.Next(stack.NewPacket(2048)); err == nil; _, err = r.Next(stack.NewPacket(2048)) {
			packets++
		}
	}
	if packets < 10 {
		t.Errorf("%d packets in the capture", packets)
	}
	outside := netip.MustParseAddr("203.0.113.2")
	for k, from := range s.from {
		if want := k == 3; (from == outside) != want {
			t.Errorf("file %d came from %v", k, from)
		}
	}
	if n := strings.Count(out, " bytes copied in 0.001 secs ("); n != 8 {
		t.Errorf("%d files are copied, want 8:\n%s", n, out)
	}
	for _, want := range []string{"\n!\n1224 bytes copied in", "\n!!!!!!!\n1800000 bytes copied in", "that is the box's own file", "holds keys or certificates"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	for name, data := range s.files {
		if strings.HasPrefix(name, "secret") || strings.Contains(string(data), "secret\x00") {
			t.Errorf("%s has left", name)
		}
	}
}

// FuzzSendURL reads anything as where a file goes. HOST:FILE is that file of that host.
func FuzzSendURL(f *testing.F) {
	for _, s := range []string{"tftp:", "tftp://", "tftp://10.20.0.60", "tftp://h/dir/", "tftp:///a", "10.20.0.60:/a b%2f", "h:c:\\a?b#c;int=inside", ":", "capture:/a", "CAPTURE:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, word string) {
		tftpURL(word)
		if name, err := captureName(word); err == nil && name == "" {
			t.Errorf("captureName(%q) is empty", word)
		}
		to, err := netURL(word)
		if err != nil {
			return
		}
		u, err := tftpURL(to)
		host, file, _ := strings.Cut(word, ":")
		if err == nil && (u.Hostname() != host && u.Host != host || u.Path != "/"+strings.TrimPrefix(file, "/") || u.RawQuery != "" || u.Fragment != "") {
			t.Errorf("netURL(%q) = %q: host %q, file %q", word, to, u.Host, u.Path)
		}
	})
}
