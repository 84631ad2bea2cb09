package config

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

// A Login is who may log in to the box, from where, and for how long. What is
// in a Login is obeyed by the consoles; packets ask for SSH only.
type Login struct {
	Enable [16]Password // enable password, by level
	Passwd Password     // passwd: of the users pix and asa before 8.4(2)
	Users  []User

	SSH         []SSHSource   // who may connect
	SSHIdle     time.Duration // ssh timeout; 5 minutes by default
	ConsoleIdle time.Duration // console timeout; 0 is never

	SSHLocal    bool // aaa authentication ssh console LOCAL
	SerialLocal bool // aaa authentication serial console LOCAL
	EnableLocal bool // aaa authentication enable console LOCAL
	AutoEnable  bool // aaa authorization exec {LOCAL|authentication-server} auto-enable
	MaxFail     int  // aaa local authentication attempts max-fail; 0: no limit set

	AuthorizeExec     bool        // aaa authorization exec: a user's service-type counts
	AuthorizeCommands bool        // aaa authorization command LOCAL: what shows needs all privileges too, but where Privileges says otherwise
	Privileges        []Privilege // the levels of commands

	Pager  int         // lines of a page; 0: no paging
	Banner [4][]string // by BannerKind, lines
}

// A BannerKind says when a banner is shown.
type BannerKind uint8

const (
	BannerMOTD BannerKind = iota
	BannerLogin
	BannerExec
	BannerASDM
)

var bannerKinds = []string{"motd", "login", "exec", "asdm"}

const (
	defaultSSHIdle = 5 * time.Minute
	defaultPager   = 24 // lines
)

// A PasswordKind says how a password stands in the text.
type PasswordKind uint8

const (
	NoPassword PasswordKind = iota // none is set
	Plain                          // as it is typed
	Encrypted                      // the ASA's MD5 of it, which is weak
	PBKDF2                         // $sha512$ROUNDS$SALT$KEY
)

// A Password is one that the text sets, or its hash.
type Password struct {
	Text string
	Kind PasswordKind
}

// A User is a local user.
type User struct {
	Line       int
	Name       string
	Password   Password
	Empty      bool // nopassword: any one will do
	Privilege  int  // 0 to 15, 2 by default
	Service    ServiceType
	PublicKeys []PublicKey
}

// A ServiceType is what a user may do, where AuthorizeExec is set.
type ServiceType uint8

const (
	ServiceAdmin  ServiceType = iota // everything
	ServicePrompt                    // nas-prompt: log in, and not enable where EnableLocal is set
	ServiceRemote                    // remote-access: not log in to the box
)

// A PublicKey is a key by which a user logs in: the base64 text of its SSH wire
// form, or the SHA-256 of that in hexadecimal pairs divided by colons.
type PublicKey struct {
	Text   string
	Hashed bool
}

// An SSHSource is who may connect by SSH to the box's address on an interface.
type SSHSource struct {
	Line      int
	From      netip.Prefix
	Interface string
}

// User returns the user of a name, nil if there is none.
func (l *Login) User(name string) *User {
	i := slices.IndexFunc(l.Users, func(u User) bool { return u.Name == name })
	if i < 0 {
		return nil
	}
	return &l.Users[i]
}

// Clean makes a line fit to print or to log: secrets become asterisks.
func Clean(line string) string { return clean(line) }

// loginCommands are of users and consoles. (The ASA's command reference, by the
// name of each.)
func loginCommands() []command {
	return []command{
		cmd("enable password <secret:word> [level <n:0-15>|encrypted|pbkdf2]...", by("enable password $n"), parseEnable),
		cmd("no enable password [level <n:0-15>]", by("enable password $n"), func(p *parser, a cli.Args) {
			p.run.Login.Enable[a.Int("n", 15)] = Password{}
		}),
		cmd("passwd <secret:word> [encrypted|pbkdf2]", one, func(p *parser, a cli.Args) { p.run.Login.Passwd = passwordOf(a) }),
		cmd("username <name:word> {nopassword|password <secret:word> [encrypted|pbkdf2|mschap|nt-encrypted]} [privilege <n:0-15>]",
			by("username $name"), parseUser),
		cmd("username <name:word> attributes", each.opens(inUser), func(p *parser, a cli.Args) {
			name := a.Token("name")
			if p.run.Login.User(name.Text) == nil {
				p.refuse(name, "", "there is no user %s yet; \"username %s password\" makes one", name.Text, name.Text)
				p.run.Login.Users = append(p.run.Login.Users, User{Line: p.line, Name: name.Text}) // what follows is hers
			}
			p.enter(inUser, slices.IndexFunc(p.run.Login.Users, func(u User) bool { return u.Name == name.Text }))
		}),
		cmd("aaa authentication {ssh|serial|enable} console <server:word> [LOCAL]", by("aaa authentication $3"), parseAuthentication),
		cmd("aaa authorization exec <server:word> [auto-enable]", one, func(p *parser, a cli.Args) {
			if s := a.Token("server"); s.Text != "LOCAL" && s.Text != "authentication-server" {
				p.refuse(s, "", "%s", notSupported("AAA servers; write LOCAL"))
				return
			}
			p.run.Login.AuthorizeExec, p.run.Login.AutoEnable = true, a.Has("auto-enable")
		}),
		cmd("aaa authorization command <server:word> [LOCAL]", one, func(p *parser, a cli.Args) {
			if p.local(a) {
				p.run.Login.AuthorizeCommands = true
			}
		}),
		cmd("aaa local authentication attempts max-fail <fails:1-16>", one, func(p *parser, a cli.Args) {
			p.run.Login.MaxFail = a.Int("fails", 0)
		}),
		cmd("ssh <addr> <mask> <if>", each, parseSSHSource),
		cmd("ssh timeout <minutes:1-60>", one, func(p *parser, a cli.Args) {
			p.run.Login.SSHIdle = time.Duration(a.Int("minutes", 5)) * time.Minute
		}),
		cmd("console timeout <minutes:0-60>", one, func(p *parser, a cli.Args) {
			p.run.Login.ConsoleIdle = time.Duration(a.Int("minutes", 0)) * time.Minute
		}),
		cmd("pager [lines] <n:0-2147483647>", one, func(p *parser, a cli.Args) { p.run.Login.Pager = a.Int("n", defaultPager) }),
		cmd("no pager", one, func(p *parser, a cli.Args) { p.run.Login.Pager = 0 }),
		cmd("banner {motd|login|exec|asdm} <text:line>", each, func(p *parser, a cli.Args) {
			for k, name := range bannerKinds {
				if a.Has(name) {
					p.run.Login.Banner[k] = append(p.run.Login.Banner[k], a.Get("text"))
				}
			}
			if a.Has("asdm") {
				p.noEffect("there is no web server for ASDM")
			}
		}),
	}
}

// userCommands are of one user.
func userCommands() []command {
	return append([]command{
		cmd("ssh authentication publickey <key:word> [hashed]", each, func(p *parser, a cli.Args) {
			u := &p.run.Login.Users[p.item]
			k := PublicKey{Text: a.Get("key"), Hashed: a.Has("hashed")}
			if !slices.Contains(u.PublicKeys, k) {
				u.PublicKeys = append(u.PublicKeys, k)
			}
		}),
		cmd("service-type {admin|nas-prompt|remote-access}", by("service-type"), func(p *parser, a cli.Args) {
			for i, name := range []string{"admin", "nas-prompt", "remote-access"} {
				if a.Has(name) {
					p.run.Login.Users[p.item].Service = ServiceType(i)
				}
			}
		}),
		idleStanza(noVPN, helpVPN, "webvpn", inUserWebVPN),
	}, settings(noVPN, helpVPN, groupPolicySettings...)...)
}

// passwordOf reads a password and how it stands there.
func passwordOf(a cli.Args) Password {
	x := Password{Text: a.Get("secret"), Kind: Plain}
	switch {
	case a.Has("pbkdf2"):
		x.Kind = PBKDF2
	case a.Has("encrypted"):
		x.Kind = Encrypted
	}
	return x
}

func parseEnable(p *parser, a cli.Args) {
	for _, name := range []string{"level", "encrypted", "pbkdf2"} {
		if all := a.All(name); len(all) > 1 {
			p.refuse(all[1], "", "%s stands here twice", name)
			return
		}
	}
	p.run.Login.Enable[a.Int("n", 15)] = passwordOf(a)
}

func parseUser(p *parser, a cli.Args) {
	l := &p.run.Login
	name := a.Get("name")
	i := findOrAdd(&l.Users, func(u *User) bool { return u.Name == name }, func() User { return User{Line: p.line, Name: name} })
	u := &l.Users[i]
	u.Privilege, u.Empty, u.Password = a.Int("n", 2), a.Has("nopassword"), Password{}
	switch {
	case a.Has("mschap") || a.Has("nt-encrypted"):
		p.noEffect("this hash is for VPN by MS-CHAP: nobody logs in to the box with it")
	case !u.Empty:
		u.Password = passwordOf(a)
	}
}

// local reports whether the users of this configuration are asked, at least
// where a server does not answer; else it refuses the line.
func (p *parser) local(a cli.Args) bool {
	switch server := a.Token("server"); {
	case server.Text == "LOCAL":
	case a.Has("local"):
		p.warn(server, "", "no AAA server is asked in this version: it is as if %s did not answer, and LOCAL holds", server.Text)
	default:
		p.refuse(server, "", "%s", notSupported("AAA servers; write LOCAL"))
		return false
	}
	return true
}

func parseAuthentication(p *parser, a cli.Args) {
	l := &p.run.Login
	if !p.local(a) {
		return
	}
	for name, where := range map[string]*bool{"ssh": &l.SSHLocal, "serial": &l.SerialLocal, "enable": &l.EnableLocal} {
		if a.Has(name) {
			*where = true
		}
	}
}

func parseSSHSource(p *parser, a cli.Args) {
	addr, err := p.addr(a.Get("addr"))
	ones, err2 := parseMask(a.Get("mask"))
	if err != nil || err2 != nil {
		return // the grammar has said it
	}
	from := netip.PrefixFrom(addr, ones)
	if from != from.Masked() {
		p.refuse(a.Token("addr"), "", "%v is not a network: with this mask it would be %v", addr, from.Masked().Addr())
		return
	}
	if i := p.namedInterface(a.Token("if")); i != nil {
		p.run.Login.SSH = append(p.run.Login.SSH, SSHSource{p.line, from, i.Name})
	}
}

// loginDefaults are what holds without a line.
func loginDefaults() Login { return Login{SSHIdle: defaultSSHIdle, Pager: defaultPager} }

// DefaultUsers reports whether the users pix and asa log in with the password
// of passwd: a version before 8.4 is stated. (The ASA's release notes, 8.4(2).)
func (r *Running) DefaultUsers() bool {
	major, minor, ok := versionOf(r.Version)
	return ok && strings.TrimSpace(r.Version) != "" && (major < 8 || major == 8 && minor < 4)
}
