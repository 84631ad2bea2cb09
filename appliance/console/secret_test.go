package console

import (
	"bytes"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

func TestOldHash(t *testing.T) {
	for _, tt := range []struct{ user, password, want string }{
		{"", "", "8Ry2YjIyt7RRXU24"}, // in very many configurations
		{"", "cisco", "2KFQnbNIdI.2KYOU"},
		{"john", "cisco", "hN7LzeyYjw12FSIU"},
		{"jack", "cisco", "7DrfeZ7cyOj/PslD"},
	} {
		if got := oldHash(tt.user, tt.password); got != tt.want {
			t.Errorf("oldHash(%q, %q) = %s, want %s", tt.user, tt.password, got, tt.want)
		}
	}
}

func TestMatches(t *testing.T) {
	hash, err := hashPassword(bytes.NewReader(make([]byte, 16)), "s3cret", 1000)
	if err != nil || !strings.HasPrefix(hash, "$sha512$1000$AAAAAAAAAAAAAAAAAAAAAA==$") {
		t.Fatalf("hashPassword = %s, %v", hash, err)
	}
	for _, tt := range []struct {
		p        config.Password
		password string
		want     bool
	}{
		{config.Password{Text: hash, Kind: config.PBKDF2}, "s3cret", true},
		{config.Password{Text: hash, Kind: config.PBKDF2}, "s3cres", false},
		{config.Password{Text: hash, Kind: config.PBKDF2}, "", false},
		{config.Password{Text: "7DrfeZ7cyOj/PslD", Kind: config.Encrypted}, "cisco", true},
		{config.Password{Text: "7DrfeZ7cyOj/PslD", Kind: config.Encrypted}, "Cisco", false},
		{config.Password{Text: "plain", Kind: config.Plain}, "plain", true},
		{config.Password{Text: "plain", Kind: config.Plain}, "plai", false},
		{config.Password{}, "", false},
		{config.Password{Text: "", Kind: config.PBKDF2}, "", false},
		{config.Password{Text: "$sha512$0$AAAA$AAAA", Kind: config.PBKDF2}, "", false},
		{config.Password{Text: "$sha512$2000000$AAAAAAAAAAAAAAAAAAAAAA==$AAAAAAAAAAAAAAAAAAAAAA==", Kind: config.PBKDF2}, "", false},
		{config.Password{Text: "$sha512$1$AAAA$", Kind: config.PBKDF2}, "", false},
		{config.Password{Text: "<removed>", Kind: config.Encrypted}, "", false},
		{nobody, "", false},
	} {
		if got := matches(tt.p, "jack", tt.password); got != tt.want {
			t.Errorf("matches(%v, %q) = %v, want %v", tt.p, tt.password, got, tt.want)
		}
	}
}
