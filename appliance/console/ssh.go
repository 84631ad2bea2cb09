package console

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"patchbay/appliance/config"
)

const (
	maxSessions = 5           // by SSH at once, as on the ASA
	maxArriving = 10          // that have not logged in yet
	loginGrace  = time.Minute // for the handshake and the login
	writeWait   = time.Minute // until a client takes what it asked for
	maxTries    = 3           // of authentication in one connection
	sshVersion  = "SSH-2.0-Patchbay"
)

// An SSH serves sessions to the users of the configuration.
type SSH struct {
	box   *Box
	keys  []ssh.Signer
	grace time.Duration // loginGrace

	arriving, sessions atomic.Int32
}

// SSH returns the box's SSH server. Its keys are on flash, and are made if there
// are none.
func (b *Box) SSH() (*SSH, error) {
	keys, err := hostKeys(b.opt.Startup, b.opt.Rand, b.opt.Log)
	if err != nil {
		return nil, err
	}
	return &SSH{box: b, keys: keys, grace: loginGrace}, nil
}

// Serve serves the connections of ln until ctx ends, and closes it. It waits for
// its sessions.
func (s *SSH) Serve(ctx context.Context, ln net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			s.box.opt.Log.Warn("SSH", "reason", err)
			time.Sleep(100 * time.Millisecond) // out of descriptors, which passes
			continue
		}
		all.Add(1)
		go func() {
			defer all.Done()
			s.ServeConn(ctx, c)
		}()
	}
}

// ServeConn serves one connection until it ends or ctx does, and closes it.
func (s *SSH) ServeConn(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if s.arriving.Add(1) > maxArriving {
		s.arriving.Add(-1)
		return
	}
	c.SetDeadline(time.Now().Add(s.grace))
	conn, channels, requests, err := ssh.NewServerConn(c, s.config(c))
	s.arriving.Add(-1)
	if err != nil {
		return // the callbacks have said what there is to say
	}
	defer conn.Close()
	if s.sessions.Add(1) > maxSessions {
		s.sessions.Add(-1)
		s.box.log(3, 315004, "SSH session from %s refused: there are %d already", hostOf(c), maxSessions)
		return
	}
	defer s.sessions.Add(-1)
	c.SetDeadline(time.Time{})
	go ssh.DiscardRequests(requests)
	user := conn.User()
	s.box.log(6, 605005, "Login permitted from %s to %s for user %q", c.RemoteAddr(), s.where(c), user)
	defer s.box.log(6, 315011, "SSH session from %s on interface %s for user %q terminated normally", hostOf(c), s.interfaceOf(c), user)
	level, _ := strconv.Atoi(conn.Permissions.Extensions["privilege"])
	s.channels(ctx, conn, channels, Who{User: user, From: hostOf(c)}, level)
}

// channels serves the sessions that a client opens, one at a time. Anything else,
// as forwarding, is refused.
func (s *SSH) channels(ctx context.Context, conn *ssh.ServerConn, channels <-chan ssh.NewChannel, who Who, level int) {
	var busy sync.WaitGroup
	defer busy.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var open atomic.Bool
	idle := time.AfterFunc(s.grace, func() { conn.Close() }) // without a session
	defer idle.Stop()
	for c := range channels {
		if c.ChannelType() != "session" {
			c.Reject(ssh.UnknownChannelType, "the box has sessions only")
			continue
		}
		if !open.CompareAndSwap(false, true) {
			c.Reject(ssh.ResourceShortage, "one session a connection")
			continue
		}
		ch, requests, err := c.Accept()
		if err != nil {
			return
		}
		busy.Add(1)
		go func() {
			defer busy.Done()
			defer open.Store(false)
			defer idle.Reset(s.grace)
			idle.Stop()
			x := &sshSession{box: s.box, ch: ch, who: who, privilege: level, hang: func() { conn.Close() }}
			if !x.serve(ctx, requests) {
				conn.Close() // it was idle for too long, or the client went away
			}
		}()
	}
}

// config is for one connection: who is asked, and for what.
func (s *SSH) config(c net.Conn) *ssh.ServerConfig {
	from := hostOf(c)
	denied := func(user string) error {
		s.box.log(6, 605004, "Login denied from %s to %s for user %q", c.RemoteAddr(), s.where(c), s.known(user))
		return errDenied
	}
	conf := &ssh.ServerConfig{
		ServerVersion: sshVersion,
		MaxAuthTries:  maxTries,
		PasswordCallback: func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			check := s.box.checkDefault
			switch {
			case s.box.login().SSHLocal:
				check = s.box.check
			case !s.box.running().DefaultUsers():
				s.box.opt.Log.Info("SSH takes no password without \"aaa authentication ssh console LOCAL\"")
			}
			u, err := check(m.User(), string(password), from)
			if err != nil {
				return nil, denied(m.User())
			}
			return permissions(u), nil
		},
		PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			u := s.box.login().User(m.User())
			if u == nil || s.box.lockedOut(u) || s.box.remoteOnly(u) || !hasKey(u, key.Marshal()) {
				return nil, errDenied // not counted: clients offer one key after the other, and nobody guesses one
			}
			return permissions(u), nil
		},
		BannerCallback: func(ssh.ConnMetadata) string {
			var text string
			for _, k := range []config.BannerKind{config.BannerMOTD, config.BannerLogin} {
				if lines := s.box.login().Banner[k]; len(lines) > 0 {
					text += strings.Join(lines, "\n") + "\n"
				}
			}
			return text
		},
	}
	for _, k := range s.keys {
		conf.AddHostKey(k)
	}
	return conf
}

func permissions(u *config.User) *ssh.Permissions {
	return &ssh.Permissions{Extensions: map[string]string{"privilege": strconv.Itoa(u.Privilege)}}
}

// known is a user's name for a message; of nobody's name it may be a password.
func (s *SSH) known(name string) string {
	if s.box.login().User(name) != nil {
		return name
	}
	return shown(name)
}

// hasKey reports whether a public key, in its wire form, is one of the user's.
func hasKey(u *config.User, key []byte) bool {
	sum := sha256.Sum256(key)
	for _, k := range u.PublicKeys {
		want, got := key, []byte(nil)
		var err error
		if k.Hashed {
			want = sum[:]
			got, err = hex.DecodeString(strings.ReplaceAll(k.Text, ":", ""))
		} else {
			got, err = base64.StdEncoding.DecodeString(k.Text)
		}
		if err == nil && subtle.ConstantTimeCompare(want, got) == 1 {
			return true
		}
	}
	return false
}

// hostOf is the address that a connection comes from.
func hostOf(c net.Conn) string {
	if ap, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		return ap.Addr().Unmap().String()
	}
	return c.RemoteAddr().String()
}

// interfaceOf names the interface that a connection came to.
func (s *SSH) interfaceOf(c net.Conn) string {
	if ap, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		for _, i := range s.box.running().Interfaces {
			if i.Name != "" && i.Addr.Addr() == ap.Addr().Unmap() {
				return i.Name
			}
		}
	}
	return "host"
}

func (s *SSH) where(c net.Conn) string {
	addr, _, _ := net.SplitHostPort(c.LocalAddr().String())
	return s.interfaceOf(c) + ":" + addr + "/ssh"
}

// An sshSession is one channel of type session. (RFC 4254, section 6.)
type sshSession struct {
	box       *Box
	ch        ssh.Channel
	who       Who
	privilege int    // of the user
	hang      func() // ends the connection

	terminal   bool
	cols, rows atomic.Int32
}

// serve obeys the requests of a channel: a terminal, and then a shell or one
// command. It reports whether that came to its end.
func (x *sshSession) serve(ctx context.Context, requests <-chan *ssh.Request) bool {
	defer x.ch.Close()
	ctx, cancel := context.WithCancel(ctx)
	var done chan bool
	defer func() {
		cancel()
		if done != nil {
			<-done
		}
	}()
	for {
		select {
		case ok := <-done:
			done = nil
			return ok
		case r, open := <-requests:
			if !open {
				return false
			}
			ok := false
			switch r.Type {
			case "pty-req":
				ok = done == nil && x.pty(r.Payload)
			case "window-change":
				ok = x.resize(r.Payload)
			case "shell":
				if ok = done == nil; ok {
					done = make(chan bool, 1)
					go func() { done <- x.shell(ctx) }()
				}
			case "exec":
				var command struct{ Line string }
				if ok = done == nil && ssh.Unmarshal(r.Payload, &command) == nil; ok {
					done = make(chan bool, 1)
					go func() { done <- x.exec(ctx, command.Line) }()
				}
			}
			if r.WantReply {
				r.Reply(ok, nil)
			}
		}
	}
}

// pty reads a request for a terminal. What it says of the terminal's kind does
// not matter to an editor that knows backspace only.
func (x *sshSession) pty(payload []byte) bool {
	var p struct {
		Term          string
		Cols, Rows    uint32
		Width, Height uint32
		Modes         string
	}
	if ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	x.terminal = true
	x.size(p.Cols, p.Rows)
	return true
}

func (x *sshSession) resize(payload []byte) bool {
	var p struct{ Cols, Rows, Width, Height uint32 }
	if ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	x.size(p.Cols, p.Rows)
	return true
}

func (x *sshSession) size(cols, rows uint32) {
	x.cols.Store(int32(min(cols, 10_000)))
	x.rows.Store(int32(min(rows, 10_000)))
}

func (x *sshSession) transport(in *Input) Transport {
	return Transport{
		In: in, Out: patient{x.ch, x.hang}, Terminal: x.terminal,
		Size: func() (int, int) { return int(x.cols.Load()), int(x.rows.Load()) },
	}
}

func (x *sshSession) shell(ctx context.Context) bool {
	in := NewInput(x.ch)
	defer in.Close()
	if l := x.box.login(); l.AutoEnable {
		x.who.Level = x.privilege
	}
	err := x.box.Serve(ctx, x.transport(in), x.who)
	ok := err == nil || errors.Is(err, io.EOF)
	x.exit(ok)
	return ok
}

// exec does one command, with the privilege that "enable" would give for the
// password that the user has logged in with, where it is that one.
func (x *sshSession) exec(ctx context.Context, line string) bool {
	in := NewInput(x.ch)
	defer in.Close()
	l := x.box.login()
	if l.AutoEnable || l.EnableLocal {
		x.who.Level = x.privilege
	}
	tr := x.transport(in)
	tr.Terminal = false // nobody is there to turn a page
	x.exit(x.box.Do(ctx, tr, x.who, line))
	return true
}

// exit tells the client how it went. (RFC 4254, section 6.10.)
func (x *sshSession) exit(ok bool) {
	var status struct{ Status uint32 }
	if !ok {
		status.Status = 1
	}
	x.ch.SendRequest("exit-status", false, ssh.Marshal(status))
}

// patient is a writer that hangs up on a client which takes nothing for too long.
type patient struct {
	w    io.Writer
	hang func()
}

func (p patient) Write(b []byte) (int, error) {
	t := time.AfterFunc(writeWait, p.hang)
	defer t.Stop()
	n, err := p.w.Write(b)
	if err != nil {
		err = fmt.Errorf("console: the client is gone: %w", err)
	}
	return n, err
}
