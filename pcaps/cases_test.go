package pcaps_test

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"patchbay/pcaps"
	"patchbay/stack"
	"patchbay/stack/link"
)

// leaky are the cases in which a message may hold an address of the side that
// it came from, and why.
var leaky = map[string]string{
	"sip-tcp-not-inspected": "nothing is inspected",
	"skinny-not-inspected":  "nothing is inspected",
	"sip-not-inspected":     "nothing is inspected",
	"sip-other-port":        "what is on another port is not inspected",
	"sip-interface-policy":  "what is on another port is not inspected",
	"sip-instant-messages":  "an address in the text of a message stays",
	"sip-torture":           "an address in the text of a message stays",
	"sip-torture-bad":       "what does not begin as SIP is none",
}

// What leaves the box on one side names no address of the other, as text or
// in four bytes.
func TestNoLeak(t *testing.T) {
	inside, mapped := netip.MustParsePrefix("10.20.0.0/24"), netip.MustParsePrefix("203.0.113.0/24")
	found := make(map[string]bool)
	for _, dir := range cases(t) {
		res, err := pcaps.Run(dir, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		check := func(nameif string, leaves func(stack.Flow) bool, text string, bin []byte) {
			eachPacket(t, res.Captures[nameif], func(p *stack.Packet) {
				f, b := p.Flow(), p.Payload()
				if f.Proto != stack.UDP && f.Proto != stack.TCP || !leaves(f) ||
					!bytes.Contains(b, []byte(text)) && !bytes.Contains(b, bin) {
					return
				}
				found[dir] = true
				if leaky[dir] == "" {
					t.Errorf("%s: %s holds an address that begins %s", dir, p, text)
				}
			})
		}
		check("outside", func(f stack.Flow) bool { return mapped.Contains(f.Src.Addr()) }, "10.20.0.", []byte{10, 20, 0})
		check("inside", func(f stack.Flow) bool { return !inside.Contains(f.Src.Addr()) }, "203.0.113.", []byte{203, 0, 113})
	}
	for dir, why := range leaky {
		if !found[dir] {
			t.Errorf("%s no longer holds an address: %s?", dir, why)
		}
	}
}

// eachPacket calls f with each packet of a capture that parses.
func eachPacket(t *testing.T, capture []byte, f func(*stack.Packet)) {
	t.Helper()
	if capture == nil {
		return
	}
	r, err := link.NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	p := stack.NewPacket(stack.MaxPacket)
	for {
		_, err := r.Next(p)
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if p.Parse() == stack.Forward {
			f(p)
		}
	}
}

// Each case of signaling that the suite promises is there, and its notes name
// where it is written that this must come of it.
func TestCases(t *testing.T) {
	dirs := cases(t)
	for _, want := range []string{
		"sip-call", "sip-call-in", "sip-register", "sip-early-media", "sip-hold", "sip-media-moves", "sip-cancel",
		"sip-refused", "sip-transfer", "sip-delayed-offer", "sip-prack-update", "sip-retransmissions",
		"sip-out-of-order", "sip-a-rtcp", "sip-forking", "sip-two-calls", "sip-torture", "sip-fragmented",
		"timeout-sip-invite", "timeout-sip-disconnect", "timeout-sip-media", "timeout-sip", "timeout-sip-provisional-media",
		"sip-tcp-call", "sip-tcp-cut-each", "sip-tcp-cut-everywhere", "sip-tcp-joined", "sip-tcp-segments",
		"sip-tcp-two-calls", "sip-tcp-reset", "sip-tcp-reassembly",
		"skinny-v4", "skinny-v11", "skinny-v15", "skinny-v17", "skinny-v20", "skinny-v22", "skinny-hold", "skinny-transfer",
		"skinny-cut-each", "skinny-joined", "skinny-map-registration", "skinny-map-message-id", "skinny-map-prefix", "skinny-timeouts",
		"tftp-read", "tftp-write", "default-inspection-interface", "sip-policy-precedence", "rtp-conformance",
	} {
		if !slices.Contains(dirs, want) {
			t.Errorf("there is no case %s", want)
		}
	}
	for _, dir := range dirs {
		if kind, _, _ := strings.Cut(dir, "-"); kind != "sip" && kind != "skinny" && kind != "tftp" && kind != "rtp" {
			continue
		}
		notes, err := os.ReadFile(filepath.Join(dir, "notes.md"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(notes, []byte("RFC")) && !bytes.Contains(notes, []byte("reference/")) {
			t.Errorf("the notes of %s name no source", dir)
		}
	}
}
