package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newTFTP(t *testing.T) *TFTPServer {
	s, err := ServeTFTP(loopback(t, 1), 40069)
	must(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestTFTP(t *testing.T) {
	ctx := testContext(t)
	s := newTFTP(t)
	files := map[string][]byte{
		"empty": {}, "short": []byte("hello"), "511": make([]byte, 511), "512": make([]byte, 512),
		"513": make([]byte, 513), "long": bytes.Repeat([]byte("0123456789"), 20000),
	}
	for name, b := range files {
		s.Put(name, b)
		got, err := TFTPGet(ctx, loopback(t, 2), s.Addr(), strings.ToUpper(name))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(b))
		}
	}
	_, err := TFTPGet(ctx, loopback(t, 2), s.Addr(), "none")
	var refused *TFTPError
	if !errors.As(err, &refused) || refused.Code != tftpNotFound {
		t.Errorf("missing file: %v", err)
	}
	last := s.Requests()[len(files)]
	if last.Name != "none" || !last.Err || last.From.Addr() != netip.MustParseAddr("127.0.41.2") {
		t.Errorf("request %+v", last)
	}
}

func TestTFTPGetEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	h := loopback(t, 2)
	silent, err := h.ListenUDP(netip.AddrPort{})
	must(t, err)
	defer silent.Close()
	if _, err := TFTPGet(ctx, h, addrPort(silent.LocalAddr()), "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silent server: %v", err)
	}
}

// ask sends one packet to the server and returns the answer and its sender.
func ask(t *testing.T, c net.PacketConn, to netip.AddrPort, b []byte) ([]byte, netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteTo(b, net.UDPAddrFromAddrPort(to)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	n, from, err := c.ReadFrom(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n], addrPort(from)
}

func TestTFTPServer(t *testing.T) {
	s := newTFTP(t)
	s.Put("file", bytes.Repeat([]byte{7}, 1500))
	tests := []struct {
		name, request, want string // want: the beginning of the answer
	}{
		{"plain", "\x00\x01FILE\x00octet\x00", "\x00\x03\x00\x01\x07"},
		{"extra NUL", "\x00\x01file\x00octet\x00\x00", "\x00\x03\x00\x01\x07"},
		{"options", "\x00\x01file\x00octet\x00tsize\x000\x00blksize\x001000\x00windowsize\x004\x00", "\x00\x06blksize\x001000\x00tsize\x001500\x00"},
		{"write", "\x00\x02file\x00octet\x00", "\x00\x05\x00\x02"},
		{"mode", "\x00\x01file\x00mail\x00", "\x00\x05\x00\x04"},
		{"no end", "\x00\x01file", "\x00\x05\x00\x04"},
		{"missing", "\x00\x01nofile\x00octet\x00", "\x00\x05\x00\x01"},
	}
	for _, tt := range tests {
		c, err := loopback(t, 3).ListenUDP(netip.AddrPort{})
		must(t, err)
		got, from := ask(t, c, s.Addr(), []byte(tt.request))
		if !bytes.HasPrefix(got, []byte(tt.want)) || from.Port() == s.Addr().Port() {
			t.Errorf("%s: answer %q from %v, want %q from another port", tt.name, got[:min(len(got), 40)], from, tt.want)
		}
		if tt.name == "options" {
			b, _ := ask(t, c, from, []byte{0, opAck, 0, 0})
			if len(b) != 1004 || binary.BigEndian.Uint16(b[2:]) != 1 {
				t.Errorf("first block of %d bytes after the OACK", len(b))
			}
			// A duplicate ACK brings nothing at once. (RFC 1123, 4.2.3.1.)
			c.WriteTo([]byte{0, opAck, 0, 0}, net.UDPAddrFromAddrPort(from))
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			if n, _, err := c.ReadFrom(make([]byte, 2048)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("duplicate ACK brings %d bytes, %v", n, err)
			}
			b, _ = ask(t, c, from, []byte{0, opAck, 0, 1})
			if len(b) != 504 || binary.BigEndian.Uint16(b[2:]) != 2 {
				t.Errorf("second block of %d bytes", len(b))
			}
		}
		c.Close()
	}
}

func FuzzParseTFTPRequest(f *testing.F) {
	f.Add([]byte("\x00\x01file\x00octet\x00blksize\x001000\x00"))
	f.Add([]byte("\x00\x02\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		name, options, refusal := parseTFTPRequest(b)
		if refusal == nil && name == "" {
			t.Error("request without a name")
		}
		if size, oack := acceptOptions(options, 1000); size < 8 || size > tftpMaxBlock || len(oack) > 512 {
			t.Errorf("block size %d, OACK of %d bytes", size, len(oack))
		}
	})
}

func TestDeviceConfig(t *testing.T) {
	v := configValues{CTI: 100, SCCPPort: 2000, SIPPort: 5060, Protocol: "SIP", UUID: "u",
		Manager: "10.20.0.11", Line: "4102", Contact: "c-1", Load: "SIP41"}
	got, err := ParseDeviceConfig(v.file())
	must(t, err)
	want := &DeviceConfig{
		Protocol: "SIP", SecurityMode: 1, Transport: 1, CAPF: "10.20.0.11", SRST: "Disable", ServicesURL: "http://10.20.0.11:8080/ccmcip/getservicesmenu.jsp", Line: "4102", Contact: "c-1",
		Managers: []DeviceManager{{Node: "10.20.0.11", SCCP: 2000, SIP: 5060, SecureSIP: 5061}},
		Vendor: map[string]string{"disableSpeaker": "false", "pcPort": "0", "settingsAccess": "1", "garp": "0",
			"voiceVlanAccess": "0", "videoCapability": "0", "webAccess": "0", "spanToPCPort": "0", "loadServer": ""},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	v.Protocol = "SCCP"
	got, err = ParseDeviceConfig(v.file())
	must(t, err)
	if got.Protocol != "SCCP" || got.Transport != 0 || got.Line != "" {
		t.Errorf("SCCP configuration: %+v", got)
	}

	latin := "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><device><n>\xe9</n><deviceSecurityMode> 3 </deviceSecurityMode></device>"
	if got, err := ParseDeviceConfig([]byte(latin)); err != nil || got.SecurityMode != 3 {
		t.Errorf("Latin-1: %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"mode":    "<device><deviceSecurityMode>three</deviceSecurityMode></device>",
		"nesting": "<device><a></device></a>",
		"end":     "<device><a></a>",
		"no XML":  "<device",
		"long":    "<a>" + strings.Repeat("x", maxConfigFile) + "</a>",
	} {
		if _, err := ParseDeviceConfig([]byte(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	def, err := ParseDeviceConfig(defaultConfigFile("10.20.0.11", 2000))
	if err != nil || len(def.Managers) != 1 || def.Managers[0].Node != "10.20.0.11" {
		t.Errorf("XMLDefault: %+v, %v", def, err)
	}
}

func FuzzParseDeviceConfig(f *testing.F) {
	f.Add(configValues{Protocol: "SIP", Manager: "10.20.0.11"}.file())
	f.Add(defaultConfigFile("10.20.0.11", 2000))
	f.Add([]byte("<?xml version=\"1.0\" encoding=\"iso-8859-1\"?><a>\xe9</a>"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseDeviceConfig(b)
		if (c == nil) == (err == nil) {
			t.Errorf("configuration %v and error %v", c, err)
		}
	})
}
