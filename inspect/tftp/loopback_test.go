package tftp_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"patchbay/inspect/tftp"
)

func Example() {
	// A server with one file, on a port of its own for each transfer.
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pc.Close()
	s := &tftp.Server{
		Open: func(_ context.Context, from, to netip.AddrPort, name string) (tftp.File, error) {
			if name != "Ringlist.xml" {
				return tftp.File{}, tftp.NotFound()
			}
			return tftp.Bytes([]byte("<CiscoIPPhoneRingList/>")), nil
		},
		NewTID: func(local, peer netip.AddrPort) (net.PacketConn, error) {
			return net.ListenUDP("udp", &net.UDPAddr{IP: local.Addr().AsSlice()})
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	go s.Serve(ctx, pc, at)

	// A client with a socket for each file.
	for _, name := range []string{"Ringlist.xml", "OS79XX.TXT"} {
		sock, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			fmt.Println(err)
			return
		}
		data, err := tftp.Get(ctx, sock, at, name, tftp.Options{BlockSize: 1468})
		sock.Close()
		fmt.Printf("%s: %s, not found: %v\n", name, data, tftp.IsNotFound(err))
	}
	// Output:
	// Ringlist.xml: <CiscoIPPhoneRingList/>, not found: false
	// OS79XX.TXT: , not found: true
}

// loopback is a Server on a kernel socket.
func loopback(t testing.TB, files map[string][]byte, single bool) netip.AddrPort {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &tftp.Server{
		Open: func(_ context.Context, _, _ netip.AddrPort, name string) (tftp.File, error) {
			data, ok := files[name]
			if !ok {
				return tftp.File{}, fs.ErrNotExist
			}
			return tftp.Bytes(data), nil
		},
		NewTID: func(local, _ netip.AddrPort) (net.PacketConn, error) {
			return net.ListenUDP("udp4", &net.UDPAddr{IP: local.Addr().AsSlice()})
		},
		SinglePort: single,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	go func() { done <- s.Serve(ctx, pc, at) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		pc.Close()
	})
	return at
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

// TestClients has clients that others wrote fetch from our Server.
func TestClients(t *testing.T) {
	files := map[string][]byte{
		"empty.bin":   {},
		"block.bin":   random(512),
		"blksize.bin": random(1428 * 3),
		"firmware":    random(300001),
	}
	clients := []struct {
		name    string
		command string
		args    func(host, port, name, out string) []string
	}{
		{"tftp-hpa", "tftp", func(h, p, n, o string) []string { return []string{"-m", "binary", h, p, "-c", "get", n, o} }},
		{"atftp", "atftp", func(h, p, n, o string) []string { return []string{"-g", "-r", n, "-l", o, h, p} }},
		{"atftp blksize tsize windowsize", "atftp", func(h, p, n, o string) []string {
			return []string{"--option", "blksize 1428", "--option", "tsize 0", "--option", "windowsize 8", "-g", "-r", n, "-l", o, h, p}
		}},
		{"atftp blksize over the MTU", "atftp", func(h, p, n, o string) []string {
			return []string{"--option", "blksize 8192", "-g", "-r", n, "-l", o, h, p}
		}},
		{"curl", "curl", func(h, p, n, o string) []string {
			return []string{"-sS", "-o", o, "--tftp-blksize", "1428", "tftp://" + h + ":" + p + "/" + n}
		}},
		{"curl without options", "curl", func(h, p, n, o string) []string {
			return []string{"-sS", "-o", o, "--tftp-no-options", "tftp://" + h + ":" + p + "/" + n}
		}},
	}
	for _, single := range []bool{false, true} {
		at := loopback(t, files, single)
		for _, c := range clients {
			t.Run(fmt.Sprintf("%s/single=%v", c.name, single), func(t *testing.T) {
				if _, err := exec.LookPath(c.command); err != nil {
					t.Skipf("no %s here", c.command)
				}
				for name, want := range files {
					if c.command == "curl" && len(want) == 0 {
						continue // curl leaves no file for no data
					}
					out := filepath.Join(t.TempDir(), "out")
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					msg, err := exec.CommandContext(ctx, c.command, c.args(at.Addr().String(), fmt.Sprint(at.Port()), name, out)...).CombinedOutput()
					cancel()
					got, rerr := os.ReadFile(out)
					if err != nil || rerr != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: got %d bytes of %d, %v, %v: %s", name, len(got), len(want), err, rerr, msg)
					}
				}
			})
		}
	}
}

// TestClientErrors has tftp-hpa ask for what is not there, and netascii.
func TestClientErrors(t *testing.T) {
	if _, err := exec.LookPath("tftp"); err != nil {
		t.Skip("no tftp here")
	}
	at := loopback(t, map[string][]byte{"text": []byte("one\ntwo\n")}, false)
	dir := t.TempDir()
	tests := []struct {
		name string
		args []string
		want string // in what tftp prints
	}{
		{"missing", []string{"-m", "binary", "HOST", "PORT", "-c", "get", "missing", filepath.Join(dir, "x")}, "Error code 1: File not found"},
		{"parent", []string{"-m", "binary", "HOST", "PORT", "-c", "get", "../text", filepath.Join(dir, "x")}, "Error code 2: Access violation"},
		{"write", []string{"-m", "binary", "HOST", "PORT", "-c", "put", os.Args[0], "text"}, "Error code 2: Access violation"},
		{"netascii", []string{"-m", "ascii", "HOST", "PORT", "-c", "get", "text", filepath.Join(dir, "text")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			r := strings.NewReplacer("HOST", at.Addr().String(), "PORT", strconv.Itoa(int(at.Port())))
			args := make([]string, len(tt.args))
			for i, a := range tt.args {
				args[i] = r.Replace(a)
			}
			out, _ := exec.CommandContext(ctx, "tftp", args...).CombinedOutput() // its exit status tells little
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("tftp %v printed %q, want %q", args, out, tt.want)
			}
		})
	}
	if got, err := os.ReadFile(filepath.Join(dir, "text")); string(got) != "one\ntwo\n" {
		t.Errorf("netascii brought %q, %v", got, err)
	}
}

// hpa serves a directory with tftpd-hpa, until the test ends.
func hpa(t *testing.T, dir string, args ...string) netip.AddrPort {
	t.Helper()
	path := "/usr/sbin/in.tftpd"
	if _, err := os.Stat(path); err != nil {
		t.Skip("no tftpd-hpa here")
	}
	if os.Geteuid() != 0 {
		t.Skip("tftpd-hpa needs root to change its root directory")
	}
	probe, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := probe.LocalAddr().(*net.UDPAddr).AddrPort()
	probe.Close()
	cmd := exec.Command(path, append(args, "-L", "-4", "-a", at.String(), "-s", dir)...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() { cmd.Wait(); close(exited) }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-exited
	})
	for { // until it listens
		select {
		case <-exited:
			t.Skipf("tftpd-hpa does not start here: %v", cmd.ProcessState)
		default:
		}
		_, err := get(t, at, "no such file", tftp.Options{Timeout: 100 * time.Millisecond, Tries: 1})
		if tftp.IsNotFound(err) {
			return at
		}
	}
}

// socket is one for a transfer.
func socket(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return pc
}

func get(t *testing.T, at netip.AddrPort, name string, o tftp.Options) ([]byte, error) {
	t.Helper()
	return tftp.Get(t.Context(), socket(t), at, name, o)
}

// TestGetFromServer fetches from tftpd-hpa.
func TestGetFromServer(t *testing.T) {
	dir := t.TempDir()
	files := map[string][]byte{"SEP001122334455.cnf.xml": random(9000), "exact": random(1024), "empty": {}, "firmware": random(700000)}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	at := hpa(t, dir)
	for name, want := range files {
		for _, o := range []tftp.Options{{}, {BlockSize: 1428}, {BlockSize: 8192}} {
			got, err := get(t, at, name, o)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s with %+v: %d bytes of %d, %v", name, o, len(got), len(want), err)
			}
		}
	}
	if _, err := get(t, at, "missing", tftp.Options{}); !tftp.IsNotFound(err) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := get(t, at, "firmware", tftp.Options{MaxSize: 1000}); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("file over MaxSize: %v", err)
	}
}

// TestPutToServer sends to tftpd-hpa.
func TestPutToServer(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "theirs"), []byte("old"), 0o444); err != nil {
		t.Fatal(err)
	}
	at := hpa(t, dir, "-c", "-u", "root")
	put := func(name string, f tftp.File, o tftp.Options) (int64, error) {
		return tftp.Put(t.Context(), socket(t), at, name, f, o)
	}
	many := random(65537*8 + 1) // blocks of 8 bytes, whose numbers begin anew
	for name, want := range map[string][]byte{"asa.cfg": random(9000), "exact": random(1024), "empty": {}, "firmware": random(700000), "many": many} {
		for _, o := range []tftp.Options{{}, {BlockSize: 1428}, {BlockSize: 8192}, {BlockSize: 8}} {
			if len(want) != len(many) && o.BlockSize == 8 {
				continue
			}
			file := tftp.Bytes(want)
			if o.BlockSize == 0 {
				file.Size = -1
			}
			n, err := put(name, file, o)
			got, read := os.ReadFile(filepath.Join(dir, name))
			if err != nil || read != nil || n != int64(len(want)) || !bytes.Equal(got, want) {
				t.Errorf("%s with %+v: %d bytes, %v; the server has %d of %d, %v", name, o, n, err, len(got), len(want), read)
			}
		}
	}
	if _, err := put("theirs", tftp.Bytes(many), tftp.Options{}); err == nil || !strings.Contains(err.Error(), "error 2: ") {
		t.Errorf("a file that is not to be written: %v", err)
	}
	if _, err := put("no/such/folder", tftp.Bytes(many), tftp.Options{}); !tftp.IsNotFound(err) {
		t.Errorf("no folder: %v", err)
	}
}

func BenchmarkTransfer(b *testing.B) {
	data := random(1 << 20)
	at := loopback(b, map[string][]byte{"firmware": data}, false)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		got, err := tftp.Get(b.Context(), pc, at, "firmware", tftp.Options{BlockSize: 1468})
		if err != nil || len(got) != len(data) {
			b.Fatalf("%d bytes, %v", len(got), err)
		}
		pc.Close()
	}
}
