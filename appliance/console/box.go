package console

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
)

// Options are what a Box is made from.
type Options struct {
	App     *appliance.Appliance
	Text    config.Text // that App goes by
	Startup *Startup
	Store   *pki.Store                  // App's; nil: certificates do not become part of the text
	Space   func() (total, free uint64) // bytes of flash; 0, or nil: not known
	Keys    string                      // file with the keys whose systems the machine installs; "": it installs none
	Reload  func()                      // restarts the box; it returns at once. nil: reload is refused

	Now    func() time.Time // nil: time.Now
	Rand   io.Reader        // salts and keys; nil: crypto/rand
	Log    *slog.Logger     // nil: nothing is logged
	Rounds int              // of password hashes; 0 is what a box has
}

// A Box is an appliance with its configuration as text: what all sessions share.
// Any number of goroutines may use it; changes are made one at a time.
type Box struct {
	opt      Options
	keeper   keeper
	grammars grammarCache
	started  time.Time

	changing sync.Mutex // one change at a time

	mu       sync.Mutex
	text     config.Text
	sessions map[*Session]struct{}
	reload   *reloading // to come, or nil
}

// A reloading is a "reload in".
type reloading struct {
	at    time.Time
	why   string
	timer *time.Timer
}

// NewBox returns the Box of an appliance. Passwords in the text become their
// hashes.
func NewBox(opt Options) (*Box, error) {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Rand == nil {
		opt.Rand = rand.Reader
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Rounds == 0 {
		opt.Rounds = rounds
	}
	b := &Box{opt: opt, started: opt.Now(), sessions: make(map[*Session]struct{})}
	b.keeper.now = opt.Now
	b.grammars.rules = execRules
	var err error
	b.text, err = b.conceal(opt.Text)
	if err != nil {
		return nil, err
	}
	for _, u := range b.login().Users {
		if u.Password.Kind == config.Encrypted && u.Password.Text != "" {
			opt.Log.Warn("the hash of a user's password is an old one, which is soon guessed: set it again", "user", u.Name)
		}
	}
	for _, p := range unknownPrivileges(b.running()) {
		opt.Log.Warn(unknownText(p), "line", b.running().Lines[p.Line-1].Text)
	}
	if err := b.certify(""); err != nil { // what was imported while the box did not run
		opt.Log.Warn("the certificates on flash are not in the configuration", "reason", err)
	}
	return b, nil
}

// Text returns the configuration.
func (b *Box) Text() config.Text {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text
}

// running is what the configuration says.
func (b *Box) running() *config.Running {
	r, _ := b.Text().Running()
	return r
}

func (b *Box) login() *config.Login { return &b.running().Login }

// Enter obeys one line of configuration typed at a place: at once, or not at
// all and the findings say why. See config.Text.Enter.
func (b *Box) Enter(at config.Place, line string) config.Entered {
	b.changing.Lock()
	defer b.changing.Unlock()
	old := b.Text()
	e := old.Enter(at, line)
	if b.opt.Store != nil {
		e.Findings = config.WithKeyPairs(e.Findings, b.opt.Store.HasKey)
	}
	if config.Errors(e.Findings) > 0 || e.Text == old {
		return e
	}
	text, err := b.install(e.Text)
	if err != nil {
		e.Text, e.Done, e.Action = old, false, nil
		if at.Prompt() != "" { // else it was a certificate, which is over
			e.At = at
		}
		e.Findings = append(e.Findings, config.Finding{Line: 1, Severity: config.Error, Text: config.Clean(line), Msg: err.Error()})
		return e
	}
	e.Text = text
	before, _ := old.Running()
	for _, p := range unknownPrivileges(b.running()) {
		if !slices.ContainsFunc(before.Login.Privileges, func(o config.Privilege) bool { o.Line = p.Line; return o == p }) {
			e.Findings = append(e.Findings, config.Finding{Line: 1, Severity: config.Warning, Text: config.Clean(line), Msg: unknownText(p)})
		}
	}
	return e
}

// Replace makes text the configuration, whole or not at all.
func (b *Box) Replace(text config.Text) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	_, err := b.install(text)
	return err
}

// Merge enters the lines of text one after the other, all or none.
func (b *Box) Merge(text config.Text) error {
	b.changing.Lock()
	defer b.changing.Unlock()
	now, at := b.Text(), config.Place{}
	for line := range strings.Lines(text.String()) {
		e := now.Enter(at, strings.TrimRight(line, "\n"))
		if strings.HasPrefix(line, "interface ") && config.Errors(e.Findings) == 0 && !e.Text.Equal(now) {
			e = e.Text.Enter(e.At, "no shutdown") // it is new, and a file says what is shut down
		}
		for _, f := range e.Findings {
			if f.Severity == config.Error {
				return fmt.Errorf("%s\n%s", f.Text, f.Reply(0))
			}
		}
		now, at = e.Text, e.At
	}
	_, err := b.install(now)
	return err
}

// certify puts the certificates that trustpoints have got into the text, where an
// ASA shows them. The trustpoint that a PKCS #12 file was imported as is there from
// then on, with the key pair that came in it.
func (b *Box) certify(imported string) error {
	if b.opt.Store == nil {
		return nil
	}
	b.changing.Lock()
	defer b.changing.Unlock()
	text := b.Text()
	if got, err := b.opt.Store.Trustpoint(imported); imported != "" && err == nil {
		at := config.Place{}
		for _, line := range []string{"crypto ca trustpoint " + imported, "keypair " + got.KeyPair} {
			e := text.Enter(at, line)
			if config.Errors(e.Findings) > 0 {
				return fmt.Errorf("%% The certificate is on flash, and not in the configuration: %s", e.Findings[0].Msg)
			}
			text, at = e.Text, e.At
		}
	}
	r, _ := text.Running()
	for _, tp := range r.Trustpoints {
		got, err := b.opt.Store.Trustpoint(tp.Name)
		if err != nil {
			continue // it has none yet
		}
		if got.Identity != nil && !bytes.Equal(got.Identity.Raw, tp.Certificate) {
			text = text.WithCertificate(tp.Name, false, got.Identity.Raw)
		}
		if got.CA != nil && !slices.ContainsFunc(tp.CACertificates, func(der []byte) bool { return bytes.Equal(der, got.CA.Raw) }) {
			text = text.WithCertificate(tp.Name, true, got.CA.Raw)
		}
	}
	if text == b.Text() {
		return nil
	}
	_, err := b.install(text)
	return err
}

// install has the appliance go by text.
func (b *Box) install(text config.Text) (config.Text, error) {
	text, err := b.conceal(text)
	if err != nil {
		return text, err
	}
	r, _ := text.Running()
	if err := b.opt.App.Configure(r); err != nil {
		return text, err
	}
	b.mu.Lock()
	b.text = text
	b.mu.Unlock()
	return text, nil
}

// conceal puts hashes in place of the passwords in text.
func (b *Box) conceal(text config.Text) (config.Text, error) {
	r, _ := text.Running()
	var lines []string
	var failed error
	conceal := func(p config.Password, before, after string) {
		if p.Kind != config.Plain || failed != nil {
			return
		}
		var hash string
		hash, failed = hashPassword(b.opt.Rand, p.Text, b.opt.Rounds)
		lines = append(lines, before+" "+hash+after)
	}
	conceal(r.Login.Passwd, "passwd", " pbkdf2")
	for n, p := range r.Login.Enable {
		after := fmt.Sprintf(" level %d pbkdf2", n)
		if n == maxPrivilege {
			after = " pbkdf2"
		}
		conceal(p, "enable password", after)
	}
	for _, u := range r.Login.Users {
		conceal(u.Password, "username "+u.Name+" password", fmt.Sprintf(" pbkdf2 privilege %d", u.Privilege))
	}
	if failed != nil {
		return text, failed
	}
	for _, line := range lines {
		e := text.Enter(config.Place{}, line)
		if config.Errors(e.Findings) > 0 {
			return text, fmt.Errorf("console: keeping a password: %s", e.Findings[0].Msg)
		}
		text = e.Text
	}
	return text, nil
}

// Save writes the configuration to flash, and returns how many bytes it has and
// its checksum as the ASA writes one.
func (b *Box) Save() (n int, sum string, err error) {
	b.changing.Lock()
	defer b.changing.Unlock()
	text := []byte(b.Text().String())
	return len(text), cryptochecksum(text), b.opt.Startup.Write(text)
}

// cryptochecksum is what an ASA shows of a configuration that it writes.
func cryptochecksum(text []byte) string {
	x := md5.Sum(text)
	return fmt.Sprintf("%x %x %x %x", x[0:4], x[4:8], x[8:12], x[12:16])
}

// Saved returns the configuration on flash. It is fs.ErrNotExist that there is
// none.
func (b *Box) Saved() (config.Text, error) { return b.opt.Startup.Load() }

// Modified reports whether the configuration is not what is on flash.
func (b *Box) Modified() bool {
	saved, err := b.opt.Startup.Read()
	return err != nil || !bytes.Equal(saved, []byte(b.Text().String()))
}

// Load reads the configuration. It is fs.ErrNotExist that there is none; one
// with errors is refused as a whole.
func (s *Startup) Load() (config.Text, error) {
	data, err := s.Read()
	if err != nil {
		return config.Text{}, err
	}
	text, found := config.Load(startupName, bytes.NewReader(data), false)
	if n := config.Errors(found); n > 0 {
		for _, f := range found {
			if f.Severity == config.Error {
				return config.Text{}, fmt.Errorf("%v\n%d errors: the configuration is refused as a whole", f, n)
			}
		}
	}
	return text, nil
}

// reloadIn has the box restart after d, or at once if that is 0.
func (b *Box) reloadIn(d time.Duration, why string) {
	b.cancelReload()
	if d == 0 {
		b.opt.Reload()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &reloading{at: b.opt.Now().Add(d), why: why}
	r.timer = time.AfterFunc(d, func() {
		b.mu.Lock()
		due := b.reload == r
		b.mu.Unlock()
		if due {
			b.opt.Log.Warn("%ASA-1-199001: Reload command executed", "reason", why)
			b.opt.Reload()
		}
	})
	b.reload = r
}

// cancelReload reports whether there was a reload to cancel.
func (b *Box) cancelReload() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.reload
	b.reload = nil
	return r != nil && r.timer.Stop()
}

// log logs a message of the ASA's, with its severity and number.
func (b *Box) log(severity, number int, format string, args ...any) {
	level := slog.LevelInfo
	switch {
	case severity <= 3:
		level = slog.LevelError
	case severity == 4:
		level = slog.LevelWarn
	case severity == 7:
		level = slog.LevelDebug
	}
	b.opt.Log.Log(context.Background(), level, fmt.Sprintf("%%ASA-%d-%d: ", severity, number)+fmt.Sprintf(format, args...))
}

// notExist says in the ASA's way that there is no configuration on flash.
func notExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("% No configuration is on flash")
	}
	return err
}
