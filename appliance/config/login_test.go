package config_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patchbay/appliance/config"
)

const loginText = `hostname pb
enable password abcdefghijklmnop encrypted
enable password $sha512$5000$AAAA$BBBB level 5 pbkdf2
passwd 2KFQnbNIdI.2KYOU encrypted
interface GigabitEthernet0/0
 nameif inside
 security-level 100
 ip address 10.20.0.1 255.255.255.0
pager lines 0
banner motd one
banner motd two
aaa authentication ssh console LOCAL
aaa authentication enable console LOCAL
aaa authorization exec LOCAL auto-enable
aaa local authentication attempts max-fail 3
username ann password $sha512$5000$AAAA$BBBB pbkdf2 privilege 15
username ann attributes
 ssh authentication publickey AAAAC3NzaC1lZDI1NTE5AAAA
 ssh authentication publickey 01:02 hashed
username bob nopassword
username eve password nthash== nt-encrypted
ssh 10.20.0.0 255.255.255.0 inside
ssh timeout 30
console timeout 10
`

func TestLogin(t *testing.T) {
	r, found := config.Check("pb.cfg", strings.NewReader(loginText))
	if len(found) > 0 {
		t.Fatalf("findings: %v", found)
	}
	hash := config.Password{Text: "$sha512$5000$AAAA$BBBB", Kind: config.PBKDF2}
	want := config.Login{
		Enable: [16]config.Password{5: hash, 15: {Text: "abcdefghijklmnop", Kind: config.Encrypted}},
		Passwd: config.Password{Text: "2KFQnbNIdI.2KYOU", Kind: config.Encrypted},
		Users: []config.User{
			{Line: 16, Name: "ann", Password: hash, Privilege: 15, PublicKeys: []config.PublicKey{{Text: "AAAAC3NzaC1lZDI1NTE5AAAA"}, {Text: "01:02", Hashed: true}}},
			{Line: 20, Name: "bob", Empty: true, Privilege: 2},
			{Line: 21, Name: "eve", Privilege: 2},
		},
		SSH:     []config.SSHSource{{Line: 22, From: netip.MustParsePrefix("10.20.0.0/24"), Interface: "inside"}},
		SSHIdle: 30 * time.Minute, ConsoleIdle: 10 * time.Minute,
		SSHLocal: true, EnableLocal: true, AuthorizeExec: true, AutoEnable: true, MaxFail: 3,
		Banner: [4][]string{config.BannerMOTD: {"one", "two"}},
	}
	if diff := cmp.Diff(want, r.Login, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("Login (-want +got):\n%s", diff)
	}

	text, _ := config.Load("pb.cfg", strings.NewReader(loginText), false)
	again, found := config.Load("again", strings.NewReader(text.String()), false)
	if len(found) > 0 || !again.Equal(text) {
		t.Errorf("rendered and loaded again it is another text: %v\n%s", found, text)
	}
}

func TestLoginRefuses(t *testing.T) {
	text, _ := config.Load("pb.cfg", strings.NewReader(loginText), false)
	for _, tt := range []struct{ line, want string }{
		{"ssh 10.20.0.1 255.255.255.0 inside", "10.20.0.1 is not a network: with this mask it would be 10.20.0.0"},
		{"ssh 10.20.0.0 255.255.255.0 wan", "no interface is named wan yet"},
		{"ssh timeout 61", "Invalid input"},
		{"username zoe attributes", "there is no user zoe yet"},
		{"aaa authentication ssh console RADIUS", "AAA servers: not supported yet by this version; write LOCAL"},
		{"enable password a level 3 level 4", "level stands here twice"},
		{"aaa local authentication attempts max-fail 17", "Invalid input"},
	} {
		e := text.Enter(config.Place{}, tt.line)
		if config.Errors(e.Findings) == 0 || !strings.Contains(e.Findings[0].Msg, tt.want) || !e.Text.Equal(text) {
			t.Errorf("Enter(%q) = %v, want %q", tt.line, e.Findings, tt.want)
		}
	}
	for _, tt := range []struct{ line, gone string }{
		{"no username ann", "username ann"},
		{"no ssh 10.20.0.0 255.255.255.0 inside", "ssh 10."},
		{"no enable password level 5", "level 5"},
		{"no aaa authentication ssh console LOCAL", "aaa authentication ssh"},
	} {
		e := text.Enter(config.Place{}, tt.line)
		if config.Errors(e.Findings) > 0 || strings.Contains(e.Text.String(), tt.gone) {
			t.Errorf("Enter(%q): %v; left is\n%s", tt.line, e.Findings, e.Text)
		}
	}
}

// 0 is 0.0.0.0, as address and as mask, and is kept as that.
func TestZero(t *testing.T) {
	text, _ := config.Load("pb.cfg", strings.NewReader(loginText), false)
	for _, tt := range []struct{ line, want string }{
		{"route inside 0 0 10.20.0.254", "route inside 0.0.0.0 0.0.0.0 10.20.0.254 1\n"},
		{"ssh 0 0 inside", "ssh 0.0.0.0 0.0.0.0 inside\n"},
	} {
		e := text.Enter(config.Place{}, tt.line)
		if len(e.Findings) > 0 || !strings.Contains(e.Text.String(), tt.want) {
			t.Errorf("Enter(%q): %v; want %q in\n%s", tt.line, e.Findings, tt.want, e.Text)
		}
	}
}
