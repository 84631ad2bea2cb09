package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"patchbay/appliance/lab"
	"patchbay/stack"
)

// readCapture reads the IP packets of a demo's capture.
func readCapture(t *testing.T, file string) []*stack.Packet {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []*stack.Packet
	for {
		data, _, err := r.ReadPacketData()
		if err != nil {
			return all
		}
		p := stack.NewPacket(len(data))
		p.SetData(data)
		if v := p.Parse(); v != stack.Forward {
			t.Errorf("%s: a packet does not parse: %v", filepath.Base(file), v)
			continue
		}
		all = append(all, p)
	}
}

// The whole main job in memory, and what it looked like on the wire: outside
// nothing but TFTP, TLS and SRTP at the box's outside addresses; inside plain
// signaling and RTP, and the phones under their own addresses.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := demo(ctx, &out, demoFlags{json: true, pcap: dir, protocol: "both", duration: 400 * time.Millisecond, level: "error"})
	if err != nil {
		t.Errorf("demo: %v", err)
	}
	steps, dec := 0, json.NewDecoder(&out)
	for dec.More() {
		var r lab.StepResult
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if steps++; !r.OK {
			t.Errorf("step %q: %s", r.Name, r.Err)
		}
	}
	if steps < 50 {
		t.Errorf("%d steps, want the calls both ways, between remote phones, with hold and resume", steps)
	}

	addr := netip.MustParseAddr
	ucmMapped, mtaOutside, mtaInside := addr("203.0.113.10"), addr("203.0.113.20"), addr("10.20.0.20")
	plain := make(map[string]bool) // the voice inside, by its bytes
	var rtp, sip, sccp int
	for _, p := range readCapture(t, filepath.Join(dir, "inside.pcap")) {
		f, pay := p.Flow(), p.Payload()
		for _, a := range []netip.Addr{f.Src.Addr(), f.Dst.Addr()} {
			if a == ucmMapped || a == mtaOutside || addr("192.168.1.50") == a {
				t.Errorf("inside: %v names an outside address", f)
			}
		}
		switch {
		case f.Proto == stack.TCP && (f.Dst.Port() == 5060 || f.Src.Port() == 5060) && len(pay) > 0:
			sip++
			if bytes.Contains(pay, []byte("a=crypto")) || bytes.Contains(pay, []byte("RTP/SAVP")) {
				t.Error("inside: SIP with a key")
			}
			for _, private := range []string{"192.168.1.5", "203.0.113.20", ";transport=tls"} {
				if i := bytes.Index(pay, []byte(private)); i >= 0 && !bytes.Contains(line(pay, i), []byte("Call-ID")) {
					t.Errorf("inside: %s in %q", private, line(pay, i))
				}
			}
		case f.Proto == stack.TCP && len(pay) > 0:
			sccp++
		case f.Proto == stack.UDP && (f.Src.Addr() == mtaInside || f.Dst.Addr() == mtaInside) && len(pay) == 172:
			rtp++
			plain[string(pay[12:])] = true
		}
	}
	if rtp < 500 || sip < 50 || sccp < 50 {
		t.Errorf("inside: %d RTP packets, %d SIP and %d SCCP segments", rtp, sip, sccp)
	}

	var srtp, tls int
	for _, p := range readCapture(t, filepath.Join(dir, "outside.pcap")) {
		f, pay := p.Flow(), p.Payload()
		box, port := f.Dst.Addr(), f.Dst.Port()
		if box != ucmMapped && box != mtaOutside {
			box, port = f.Src.Addr(), f.Src.Port()
		}
		switch {
		case f.Proto == stack.TCP && box == ucmMapped && (port == 2443 || port == 5061):
			tls++
			for _, clear := range []string{"SIP/2.0", "REGISTER sip:", "Name=SEP"} {
				if bytes.Contains(pay, []byte(clear)) {
					t.Errorf("outside: %q in the clear in %v", clear, f)
				}
			}
		case f.Proto == stack.UDP && box == ucmMapped: // TFTP
		case p.IsICMPError(): // a phone that has just closed its port
		case f.Proto == stack.UDP && box == mtaOutside:
			srtp++
			if len(pay) > 172 && plain[string(pay[12:172])] || len(pay) == 172 && plain[string(pay[12:])] {
				t.Fatalf("outside: voice in the clear in %v", f)
			}
			if port%2 == 0 && len(pay) != 172+4 {
				t.Errorf("outside: %v carries %d bytes, want 172 and a tag of 4", f, len(pay))
			}
		default:
			t.Errorf("outside: %v is neither TFTP nor TLS nor SRTP", f)
		}
	}
	if srtp < 1000 || tls < 100 {
		t.Errorf("outside: %d SRTP packets, %d TLS segments", srtp, tls)
	}
}

// line returns the line of b that i is in.
func line(b []byte, i int) []byte {
	start := bytes.LastIndexByte(b[:i], '\n') + 1
	end := bytes.IndexByte(b[i:], '\n')
	if end < 0 {
		return b[start:]
	}
	return b[start : i+end]
}
