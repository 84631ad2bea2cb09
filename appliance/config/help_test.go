package config_test

import (
	"slices"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

// TestVocabulary walks the whole table: each word has its help.
func TestVocabulary(t *testing.T) {
	for _, miss := range config.WithoutHelp() {
		t.Errorf("no help: %s", miss)
	}
}

func TestHelp(t *testing.T) {
	c := load(t, strings.Join(base(t), "\n"))
	inPP := c.Enter(config.Place{}, "phone-proxy pp").At
	inIf := c.Enter(config.Place{}, "interface g0/1").At
	tests := []struct {
		at   config.Place
		line string
		want string // words
	}{
		{config.Place{}, "ro", "route"},
		{config.Place{}, "route ", "inside outside"},
		{config.Place{}, "route outside ", "A.B.C.D"},
		{config.Place{}, "route outside 0.0.0.0 0.0.0.0 203.0.113.1 ", "<1-255> track tunneled <cr>"},
		{config.Place{}, "no ro", "route"},
		{config.Place{}, "no route outside ", "A.B.C.D <cr>"},
		{config.Place{}, "access-list a extended per", "permit"},
		{config.Place{}, "access-list a extended permit tcp any eq 69 any ", "eq gt inactive log lt neq object-group range time-range WORD <cr>"},
		{config.Place{}, "crypto key ", "generate zeroize"},
		{config.Place{}, "clear ", "configure"},
		{inPP, "t", "tftp tftp-server timeout tls-proxy"},
		{inPP, "hostn", "hostname"},
		{inIf, "", "authentication channel-group clear cts delay description duplex end exit flowcontrol hello-interval hold-time igmp ip ipv6 lacp management-only member-interface multicast nameif no ospf pim policy propagate quit rip security-level shutdown speed split-horizon summary-address switchport vlan"},
		{inIf, "security-level ", "<0-100>"},
		{config.Place{}, "frobnicate ", "!% Invalid input detected at '^' marker."},
		{config.Place{}, "route outside x ", "!% Invalid input detected at '^' marker. x is neither an IPv4 address nor a label from a name line"},
	}
	for _, tt := range tests {
		list, f := c.Help(tt.at, tt.line)
		var words []string
		for _, l := range list {
			words = append(words, l.Word)
			if l.Text == "" && l.Word != "<cr>" {
				t.Errorf("Help(%q): %s has no text", tt.line, l.Word)
			}
		}
		got := strings.Join(words, " ")
		if f != nil {
			got = "!" + f.Msg
		}
		if got != tt.want {
			t.Errorf("Help(%q) = %s\nwant %s", tt.line, got, tt.want)
		}
	}
}

func TestComplete(t *testing.T) {
	c := load(t, strings.Join(base(t), "\n"))
	for _, tt := range []struct {
		line, want string
		words      []string
	}{
		{"ro", "route ", []string{"route"}},
		{"no ro", "no route ", []string{"route"}},
		{"route ins", "route inside ", []string{"inside"}},
		{"logging b", "logging b", []string{"buffer-size", "buffered"}},
		{"hostname ", "hostname ", nil},
		{"xyzzy", "xyzzy", nil},
	} {
		line, words := c.Complete(config.Place{}, tt.line)
		if line != tt.want || !slices.Equal(words, tt.words) {
			t.Errorf("Complete(%q) = %q, %q; want %q, %q", tt.line, line, words, tt.want, tt.words)
		}
	}
}
