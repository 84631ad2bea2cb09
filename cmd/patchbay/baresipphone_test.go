//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"patchbay/appliance/lab"
)

// wavLength is how long a phone can speak, in seconds. A call is shorter.
const wavLength = 60

// A baresip is the program of that name as a phone, steered by its module
// ctrl_tcp: JSON in netstrings.
type baresip struct {
	Number    string
	Registrar string     // host[:port] of its URI
	Addr      netip.Addr // what it takes for its own
	SIPPort   uint16     // 0: it listens at any
	RTPPort   uint16     // every call has this port, and the next for RTCP
	Tone      int        // Hz, what it speaks
	MAC       string     // of a phone's certificate
	Secure    bool       // TLS and mandatory SRTP
	Trust     []byte     // PEM: the CAs it believes

	Dir, Modules string
	ControlPort  uint16
	RTPEnd       uint16

	cmd     *exec.Cmd
	exited  chan struct{}
	control net.Conn

	mu      sync.Mutex
	said    bytes.Buffer
	events  []baresipEvent
	answers []baresipEvent
	at      int // events that await has passed
}

// A baresipEvent is a message of ctrl_tcp, an event or an answer to a command.
type baresipEvent struct {
	Event    bool
	Type     string
	Param    string
	Response bool
	OK       bool
	Data     string
}

// baresipModules returns where baresip's modules are.
func baresipModules(t testing.TB) string {
	t.Helper()
	for _, pattern := range []string{"/usr/lib/baresip/modules", "/usr/lib/*/baresip/modules", "/usr/local/lib/baresip/modules"} {
		if dirs, err := filepath.Glob(pattern); err == nil && len(dirs) > 0 {
			return dirs[0]
		}
	}
	t.Skip("needs the modules of baresip-core")
	return ""
}

// startBaresip starts b in the namespace ns. id is its identity, or nil.
func (n *testNet) startBaresip(t testing.TB, ns string, b *baresip, id *lab.Identity) {
	t.Helper()
	b.Dir, b.Modules, b.RTPEnd = t.TempDir(), baresipModules(t), b.RTPPort+1
	b.ControlPort = b.RTPPort + 8 // any that is its own
	for _, name := range []string{"config", "accounts"} {
		tmpl, err := template.ParseFiles(filepath.Join("testdata/baresip", name))
		must(t, err)
		f, err := os.Create(filepath.Join(b.Dir, name))
		must(t, err)
		must(t, tmpl.Execute(f, b))
		must(t, f.Close())
	}
	must(t, os.WriteFile(filepath.Join(b.Dir, "tone.wav"), toneWAV(b.Tone), 0o600))
	if id != nil {
		must(t, os.WriteFile(filepath.Join(b.Dir, "trust.pem"), b.Trust, 0o600))
		must(t, os.WriteFile(filepath.Join(b.Dir, "phone.pem"), append(
			pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: id.Cert.Raw}),
			pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(id.Key)})...), 0o600))
	}
	openssl, err := filepath.Abs("testdata/baresip/openssl.cnf")
	must(t, err)
	b.cmd = n.command(context.Background(), ns, "baresip", "-f", b.Dir, "-s", "-v")
	b.cmd.Env = append(os.Environ(), "HOME="+b.Dir, "OPENSSL_CONF="+openssl)
	b.cmd.Stdout, b.cmd.Stderr = b, b
	b.exited = make(chan struct{})
	must(t, startDying(b.cmd, func(error) { close(b.exited) }))
	t.Cleanup(func() {
		b.stop()
		if t.Failed() {
			t.Logf("baresip %s:\n%s", b.Number, tail(b.text(), 6000))
		}
	})
	loopback := n.host(t, ns, netip.MustParseAddr("127.0.0.1"))
	eventually(t, "baresip "+b.Number+" listens on its control port", func() bool {
		select {
		case <-b.exited:
			t.Fatalf("baresip %s ended", b.Number)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		// Refused until it is up.
		conn, err := loopback.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(loopback.Addr(), b.ControlPort))
		b.control = conn
		return err == nil
	})
	go b.listen()
}

// stop ends the phone, which takes its registration back, and leaves what it
// has said complete.
func (b *baresip) stop() {
	select {
	case <-b.exited:
		return
	default:
	}
	if b.control != nil {
		b.control.Close()
	}
	b.cmd.Process.Signal(syscall.SIGTERM) // an error: it has ended
	select {
	case <-b.exited:
	case <-time.After(orderly):
		b.cmd.Process.Kill()
		<-b.exited
	}
}

// Write takes what baresip prints.
func (b *baresip) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.Write(p)
}

// text returns what baresip has printed. It is complete after stop only.
func (b *baresip) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.said.String()
}

// listen takes what comes on the control connection: "12:{...}," each.
func (b *baresip) listen() {
	r := bufio.NewReader(b.control)
	for {
		length, err := r.ReadString(':')
		if err != nil {
			return
		}
		k, err := strconv.Atoi(strings.TrimSuffix(length, ":"))
		if err != nil || k > 1<<20 {
			return
		}
		msg := make([]byte, k+1)
		if _, err := io.ReadFull(r, msg); err != nil {
			return
		}
		var e baresipEvent
		if json.Unmarshal(msg[:k], &e) != nil {
			return
		}
		b.mu.Lock()
		if e.Response {
			b.answers = append(b.answers, e)
		} else {
			b.events = append(b.events, e)
		}
		b.mu.Unlock()
	}
}

// ask gives baresip a command and returns its answer.
func (b *baresip) ask(t testing.TB, command, params string) baresipEvent {
	t.Helper()
	msg, err := json.Marshal(map[string]string{"command": command, "params": params})
	must(t, err)
	b.mu.Lock()
	before := len(b.answers)
	b.mu.Unlock()
	_, err = fmt.Fprintf(b.control, "%d:%s,", len(msg), msg)
	must(t, err)
	var answer baresipEvent
	eventually(t, "baresip "+b.Number+" answers "+command, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.answers) == before {
			return false
		}
		answer = b.answers[before]
		return true
	})
	return answer
}

// do is ask for a command that must be obeyed.
func (b *baresip) do(t testing.TB, command, params string) {
	t.Helper()
	if a := b.ask(t, command, params); !a.OK {
		t.Fatalf("baresip %s: %s %s: %s", b.Number, command, params, a.Data)
	}
}

// await waits for an event of a type, behind those it has waited for before,
// and returns its parameter.
func (b *baresip) await(t testing.TB, kind string) (param string) {
	t.Helper()
	eventually(t, "baresip "+b.Number+": "+kind, func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		for i := b.at; i < len(b.events); i++ {
			if b.events[i].Type == kind {
				param, b.at = b.events[i].Param, i+1
				return true
			}
		}
		return false
	})
	return param
}

// awaitRegistered waits until the phone is registered, or is refused.
func (b *baresip) awaitRegistered(t testing.TB, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("baresip %s: registered: %t", b.Number, want), func() bool {
		info := b.ask(t, "reginfo", "").Data
		switch ok, failed := strings.Contains(info, "OK"), strings.Contains(info, "ERR"); {
		case ok != want && (ok || failed):
			t.Fatalf("baresip %s: registered: %t, want %t: %s", b.Number, ok, want, info)
		case ok || failed:
			return true
		}
		return false
	})
}

// recorded returns what the phone heard in each of its calls, as 16-bit
// samples. They are complete after stop.
func (b *baresip) recorded(t testing.TB) (calls [][]float64) {
	t.Helper()
	const header = 44                                                   // bytes, of a WAV file with one format and one data chunk
	files, err := filepath.Glob(filepath.Join(b.Dir, "dump-*-dec.wav")) // by time
	must(t, err)
	for _, file := range files {
		data, err := os.ReadFile(file)
		must(t, err)
		var x []float64
		for at := header; at+2 <= len(data); at += 2 {
			x = append(x, float64(int16(binary.LittleEndian.Uint16(data[at:]))))
		}
		calls = append(calls, x)
	}
	return calls
}

// toneWAV is a sine of hz for wavLength: mono, 8 kHz, 16 bits.
func toneWAV(hz int) []byte {
	const samples = wavLength * sampleRate
	b := []byte("RIFF")
	b = binary.LittleEndian.AppendUint32(b, 36+2*samples)
	b = append(b, "WAVEfmt "...)
	b = binary.LittleEndian.AppendUint32(b, 16) // bytes of the format
	b = binary.LittleEndian.AppendUint16(b, 1)  // PCM
	b = binary.LittleEndian.AppendUint16(b, 1)  // channel
	b = binary.LittleEndian.AppendUint32(b, sampleRate)
	b = binary.LittleEndian.AppendUint32(b, 2*sampleRate) // bytes a second
	b = binary.LittleEndian.AppendUint16(b, 2)            // bytes a sample
	b = binary.LittleEndian.AppendUint16(b, 16)           // bits a sample
	b = append(b, "data"...)
	b = binary.LittleEndian.AppendUint32(b, 2*samples)
	for i := range samples {
		b = binary.LittleEndian.AppendUint16(b, uint16(int16(8000*math.Sin(2*math.Pi*float64(hz)*float64(i)/sampleRate))))
	}
	return b
}

// startKamailio starts the registrar in the call manager's place, and returns
// when it listens.
func (n *testNet) startKamailio(t testing.TB) {
	t.Helper()
	dir := t.TempDir()
	var said bytes.Buffer
	// Its children would outlive it, but not the end of their PID namespace.
	kamailio, err := lookPath("kamailio")
	must(t, err)
	c := n.command(context.Background(), n.in, "unshare", "--pid", "--kill-child", kamailio,
		"-DD", "-E", "-f", "testdata/kamailio/kamailio.cfg", "-w", dir, "-Y", dir)
	c.Stdout, c.Stderr = &said, &said
	exited := make(chan struct{})
	must(t, startDying(c, func(error) { close(exited) }))
	t.Cleanup(func() {
		c.Process.Kill() // an error: it has ended
		<-exited
		if t.Failed() {
			t.Logf("kamailio:\n%s", tail(said.String(), 3000))
		}
	})
	h := n.host(t, n.in, deskAddr)
	eventually(t, "kamailio listens", func() bool {
		select {
		case <-exited:
			t.Fatalf("kamailio ended: %s", said.String())
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn, err := h.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(ucmReal, 5060))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}
