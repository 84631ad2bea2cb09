package lab

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// A Protocol is the signaling protocol of a phone's load.
type Protocol string

// The two protocols.
const (
	SCCP Protocol = "sccp"
	SIP  Protocol = "sip"
)

// A State is what a phone is doing.
type State uint8

// The states of a phone with one line.
const (
	Unregistered State = iota
	Idle               // registered, on hook
	Dialing            // off hook, no answer from the far end yet
	Ringback           // the far end rings
	Ringing            // it rings here
	Connected
	Held // we have put the far end on hold
)

// String returns the state's name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var stateNames = [...]string{"unregistered", "idle", "dialing", "ringback", "ringing", "connected", "held"}

const (
	defaultTone    = 1000 // Hz
	defaultVersion = 19   // of SCCP: the highest that the ASA inspects
	dialTimeout    = 10 * time.Second
)

// PhoneConfig describes one phone.
type PhoneConfig struct {
	Host     Host
	Protocol Protocol
	MAC      string // 12 hex digits; the device is SEP and these
	Line     string // directory number

	// Identity makes the phone a secure one: TLS with this certificate, and
	// SRTP. nil is a plain phone.
	Identity *Identity
	// TFTP is where Boot fetches files. A plain phone may do without.
	TFTP netip.AddrPort
	// Manager is where a phone registers that has not booted.
	Manager netip.AddrPort
	// Resolve finds a processNodeName that is no address; nil fails.
	Resolve func(name string) (netip.Addr, error)

	Tone       int  // Hz, a multiple of 50 from 300 to 3400; 0 is 1000
	AutoAnswer bool // answers as soon as it rings
	UDP        bool // a plain SIP phone that signals over UDP
	TLS12      bool // speaks TLS up to 1.2 instead of 1.0 only
	NoRTCP     bool
	AskITL     bool // asks for ITLSEP<MAC>.tlv as loads from 9.0 on do

	Version byte // highest SCCP version, 3 to 22; 0 is 19
	// ZeroHold holds with c=0.0.0.0 as old SIP loads, not with a=sendonly.
	ZeroHold bool
	// FirstSequence is the sequence number streams begin with; 0 is random.
	FirstSequence uint16
	// ExtraFiles are fetched by Boot after the configuration, with ".sgn" if
	// the phone has a CTL. nil is Ringlist.xml.
	ExtraFiles []string

	// Rand gives SSRCs, ports, tags and SRTP keys; nil is crypto/rand.
	Rand io.Reader
	// Log, if set, gets a line for each thing that happens.
	Log func(format string, args ...any)
}

// A Phone is one IP phone with one line, secure or plain, SIP or Skinny. Boot
// and Register are called in this order; then the call methods, each of which
// returns when the phone has reached its new state, or the call has failed.
// Methods may be called by several goroutines.
type Phone struct {
	config PhoneConfig
	name   string // SEP<MAC>
	rand   *lockedReader
	sig    signaling
	wg     sync.WaitGroup

	// Set by Boot.
	trust  Trust
	device *DeviceConfig
	files  map[string][]byte

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something below changes
	state    State
	failure  error // why the last call or the registration ended, if not by will
	session  *session
	media    *media
	last     Report // of the last call, when media is nil
	caller   string // number of who rang last
	closed   bool
	problems []string // what a strict phone would complain about
}

// signaling is what differs between SIP and Skinny. All methods are called
// with Phone.mu held and do not wait.
type signaling interface {
	port(m DeviceManager, secure bool) int
	start()                // the connection is up: register
	run(r io.Reader) error // reads until the connection ends, without mu held
	dial(number string) error
	answer() error
	hold() error
	resume() error
	hangUp() error
	unregister()
}

// NewPhone returns a phone that has not booted.
func NewPhone(c PhoneConfig) (*Phone, error) {
	mac := strings.ToUpper(c.MAC)
	if b, err := hex.DecodeString(mac); err != nil || len(b) != 6 {
		return nil, fmt.Errorf("lab: phone: MAC %q is not 12 hex digits", c.MAC)
	}
	if c.Tone == 0 {
		c.Tone = defaultTone
	}
	if c.Tone%toneStep != 0 || c.Tone < toneLowest || c.Tone > toneHighest {
		return nil, fmt.Errorf("lab: phone %s: tone of %d Hz", mac, c.Tone)
	}
	if c.Version == 0 {
		c.Version = defaultVersion
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	if c.ExtraFiles == nil {
		c.ExtraFiles = []string{"Ringlist.xml"}
	}
	c.MAC = mac
	p := &Phone{
		config:  c,
		name:    "SEP" + mac,
		rand:    &lockedReader{r: c.Rand},
		changed: make(chan struct{}),
		files:   make(map[string][]byte),
	}
	switch c.Protocol {
	case SCCP:
		p.sig = &skinnyPhone{p: p}
	case SIP:
		p.sig = &sipPhone{p: p}
	default:
		return nil, fmt.Errorf("lab: phone %s: protocol %q", mac, c.Protocol)
	}
	return p, nil
}

// Name returns the device name, SEP<MAC>.
func (p *Phone) Name() string { return p.name }

// Line returns the directory number of the configuration.
func (p *Phone) Line() string { return p.config.Line }

// Secure reports whether the phone speaks TLS and SRTP.
func (p *Phone) Secure() bool { return p.config.Identity != nil }

// Tone returns the frequency that the phone sends, in Hz.
func (p *Phone) Tone() int { return p.config.Tone }

// Trust returns the installed trust list. Not while Boot runs.
func (p *Phone) Trust() *Trust { return &p.trust }

// Device returns the configuration that Boot fetched, nil before.
func (p *Phone) Device() *DeviceConfig { return p.device }

// File returns a file that Boot fetched and, if signed, verified. The name is
// without ".sgn".
func (p *Phone) File(name string) []byte { return p.files[name] }

func (p *Phone) logf(format string, args ...any) {
	p.config.Log("%s "+format, append([]any{p.name}, args...)...)
}

// managers returns where to register, best first.
func (p *Phone) managers() ([]netip.AddrPort, error) {
	if p.device == nil {
		if !p.config.Manager.IsValid() {
			return nil, errors.New("no call manager is known: boot first")
		}
		return []netip.AddrPort{p.config.Manager}, nil
	}
	var list []netip.AddrPort
	for _, m := range p.device.Managers {
		a, err := netip.ParseAddr(m.Node)
		if err != nil && p.config.Resolve != nil {
			a, err = p.config.Resolve(m.Node)
		}
		if err != nil {
			return nil, fmt.Errorf("call manager %q: %w", m.Node, err)
		}
		list = append(list, netip.AddrPortFrom(a, uint16(p.sig.port(m, p.Secure()))))
	}
	return list, nil
}

// Connect opens the phone's signaling connection and says nothing on it: TLS
// for a secure phone, in which the server must show a certificate of the CTL
// file. Register uses it; tests that send nonsense do too.
func (p *Phone) Connect(ctx context.Context) (net.Conn, error) {
	list, err := p.managers()
	if err != nil {
		return nil, fmt.Errorf("lab: %s: %w", p.name, err)
	}
	for _, m := range list {
		var c net.Conn
		if c, err = p.connect(ctx, m); err == nil {
			return c, nil
		}
		err = fmt.Errorf("lab: %s: connect to %v: %w", p.name, m, err)
		p.logf("%v", err)
	}
	return nil, err
}

func (p *Phone) connect(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if p.config.UDP && !p.Secure() && p.config.Protocol == SIP {
		c, err := p.config.Host.ListenUDP(netip.AddrPort{})
		if err != nil {
			return nil, err
		}
		return &datagramConn{c, to}, nil
	}
	c, err := p.config.Host.DialTCP(ctx, netip.AddrPort{}, to)
	if err != nil || !p.Secure() {
		return c, err
	}
	t := tls.Client(c, p.config.Identity.clientConfig(p.config.TLS12, p.trust.CheckServer))
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	s := t.ConnectionState()
	p.logf("TLS %#04x suite %#04x with %v", s.Version, s.CipherSuite, to)
	return t, nil
}

// Register connects to the first call manager that takes the phone and registers
// the line. A manager may be gone and a box before it still answer, so one that
// hangs up is not the last that is tried.
func (p *Phone) Register(ctx context.Context) error {
	list, err := p.managers()
	if err != nil {
		return fmt.Errorf("lab: %s: %w", p.name, err)
	}
	for _, m := range list {
		if err = p.register(ctx, m); err == nil || ctx.Err() != nil {
			break
		}
		p.logf("%v", err)
	}
	return err
}

func (p *Phone) register(ctx context.Context, to netip.AddrPort) error {
	c, err := p.connect(ctx, to)
	if err != nil {
		return fmt.Errorf("lab: %s: connect to %v: %w", p.name, to, err)
	}
	p.mu.Lock()
	if p.closed || p.session != nil {
		p.mu.Unlock()
		c.Close()
		return fmt.Errorf("lab: %s: register: closed, or registered already", p.name)
	}
	s := newSession(c, &p.wg)
	p.session = s
	p.failure = nil
	p.sig.start()
	p.wg.Add(1)
	go func() {
		defer p.wg.Done()
		p.lost(s, p.sig.run(c))
	}()
	p.mu.Unlock()
	err = p.Wait(ctx, Idle)
	if err != nil {
		s.close()
		p.mu.Lock()
		if p.session == s { // it was refused and is still connected
			p.session = nil
			p.setLocked(Unregistered)
		}
		p.mu.Unlock()
		return fmt.Errorf("lab: %s: register: %w", p.name, err)
	}
	p.logf("registered from %v", s.local())
	return nil
}

// lost takes note that the signaling connection has ended.
func (p *Phone) lost(s *session, err error) {
	s.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.session != s {
		return
	}
	p.session = nil
	if p.failure == nil {
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("connection closed by the call manager")
		}
		p.failure = err
	}
	p.endMediaLocked()
	p.setLocked(Unregistered)
}

// setLocked changes the state and wakes who waits.
func (p *Phone) setLocked(s State) {
	if p.state != s {
		p.logf("%v", s)
	}
	p.state = s
	close(p.changed)
	p.changed = make(chan struct{})
}

// failLocked ends the call with a reason.
func (p *Phone) failLocked(err error) {
	p.failure = err
	p.endMediaLocked()
	p.setLocked(Idle)
}

// complainLocked notes what is wrong but does not end anything.
func (p *Phone) complainLocked(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	p.problems = append(p.problems, s)
	p.logf("complains: %s", s)
}

// Problems returns what was wrong with messages so far though the phone could
// go on: a message that it does not expect, a header changed on the way.
func (p *Phone) Problems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

// State returns what the phone is doing.
func (p *Phone) State() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// Caller returns the number of who rang last.
func (p *Phone) Caller() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.caller
}

// Wait returns when the phone is in state want. It fails when the connection
// is lost before.
func (p *Phone) Wait(ctx context.Context, want State) error { return p.wait(ctx, want, false) }

// wait is Wait that, within a call, fails when the call does.
func (p *Phone) wait(ctx context.Context, want State, inCall bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.state != want {
		if p.failure != nil && (p.state == Unregistered || inCall && p.state == Idle) {
			return fmt.Errorf("waiting for %v: %w", want, p.failure)
		}
		if p.closed {
			return fmt.Errorf("waiting for %v: %w", want, net.ErrClosed)
		}
		changed := p.changed
		p.mu.Unlock()
		select {
		case <-changed:
			p.mu.Lock()
		case <-ctx.Done():
			p.mu.Lock()
			return fmt.Errorf("waiting for %v while %v: %w", want, p.state, ctx.Err())
		}
	}
	return nil
}

// do runs a call command in a state it is for, and waits for another.
func (p *Phone) do(ctx context.Context, what string, from, to State, f func() error) error {
	p.mu.Lock()
	err := error(nil)
	if p.state != from || p.session == nil {
		err = fmt.Errorf("phone is %v", p.state)
	} else {
		p.failure = nil
		err = f()
	}
	p.mu.Unlock()
	if err == nil {
		err = p.wait(ctx, to, true)
	}
	if err != nil {
		return fmt.Errorf("lab: %s: %s: %w", p.name, what, err)
	}
	return nil
}

// Dial calls a number and returns when the far end has answered.
func (p *Phone) Dial(ctx context.Context, number string) error {
	return p.do(ctx, "dial "+number, Idle, Connected, func() error {
		p.last = Report{}
		p.setLocked(Dialing)
		return p.sig.dial(number)
	})
}

// Answer waits until it rings, and answers.
func (p *Phone) Answer(ctx context.Context) error {
	if err := p.Wait(ctx, Ringing); err != nil {
		return fmt.Errorf("lab: %s: answer: %w", p.name, err)
	}
	return p.do(ctx, "answer", Ringing, Connected, p.sig.answer)
}

// Hold puts the far end on hold.
func (p *Phone) Hold(ctx context.Context) error {
	return p.do(ctx, "hold", Connected, Held, p.sig.hold)
}

// Resume ends Hold.
func (p *Phone) Resume(ctx context.Context) error {
	return p.do(ctx, "resume", Held, Connected, p.sig.resume)
}

// HangUp ends the call, or gives up dialing or a call that rings here.
func (p *Phone) HangUp(ctx context.Context) error {
	state := p.State()
	if state == Idle {
		return nil
	}
	return p.do(ctx, "hang up", state, Idle, p.sig.hangUp)
}

// Unregister says goodbye to the call manager and closes the connection.
func (p *Phone) Unregister(ctx context.Context) error {
	return p.part(ctx, "unregister", func(*session) { p.sig.unregister() })
}

// Reset ends the connection to the call manager without a word, as a phone does
// whose keepalives are not answered. What it trusts stays.
func (p *Phone) Reset(ctx context.Context) error { return p.part(ctx, "reset", (*session).close) }

// part ends the session, if there is one, and waits until it has ended.
func (p *Phone) part(ctx context.Context, what string, end func(*session)) error {
	p.mu.Lock()
	s := p.session
	if s != nil {
		p.failure = nil
		end(s)
	}
	p.mu.Unlock()
	if s == nil {
		return nil
	}
	if err := p.Wait(ctx, Unregistered); err != nil {
		return fmt.Errorf("lab: %s: %s: %w", p.name, what, err)
	}
	return nil
}

// Report returns what was sent and heard in the present call or, on hook, in
// the last.
func (p *Phone) Report() Report {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reportLocked()
}

func (p *Phone) reportLocked() Report {
	if p.media != nil {
		return p.media.snapshot()
	}
	return p.last
}

// openMediaLocked readies the sockets of the call, once.
func (p *Phone) openMediaLocked() (*media, error) {
	if p.media != nil {
		return p.media, nil
	}
	c := &p.config
	m, err := openMedia(c.Host, p.name+"@example.com", c.Tone, c.FirstSequence, c.NoRTCP, p.rand)
	if err != nil {
		return nil, err
	}
	p.media = m
	return m, nil
}

// endMediaLocked closes the sockets of the call and keeps its report.
func (p *Phone) endMediaLocked() {
	if p.media != nil {
		p.media.close()
		p.last = p.media.snapshot()
		p.media = nil
	}
}

// newKeyLocked makes an SRTP key of the kind a 7900 makes.
func (p *Phone) newKeyLocked() (k mediaKey, err error) {
	if _, err = p.rand.Read(k.master[:]); err == nil {
		_, err = p.rand.Read(k.salt[:])
	}
	return k, err
}

// Close hangs up without a word and ends every goroutine.
func (p *Phone) Close() error {
	p.mu.Lock()
	p.closed = true
	s := p.session
	p.endMediaLocked()
	p.setLocked(p.state)
	p.mu.Unlock()
	if s != nil {
		s.close()
		s.conn.Close()
	}
	p.wg.Wait()
	return nil
}
