package phoneproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/appliance/media"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect"
	"patchbay/nat"
	"patchbay/stack/host"
)

const (
	dialTimeout = 10 * time.Second // the call manager must answer within it

	// DefaultMaxSessions bounds the phones' signaling connections at once.
	DefaultMaxSessions = 10_000

	// MaxPerDevice bounds those of one phone: one for each of its call
	// managers, and those that a home router has forgotten and nobody has
	// missed yet.
	MaxPerDevice = 16

	maxQuoted = 64 // bytes of a device name that are quoted; a right one has 15
)

// A Service is one of the two signaling services of the phone proxy.
type Service struct {
	Name   string         // "sip" or "skinny"
	Engine inspect.Engine // how its conversations are read
	Offset uint16         // secure port - nonsecure port: 443 for Skinny, 1 for SIP
	SDES   bool           // the phone chooses the key it transmits with (SIP)

	Count *inspect.Counters // what its inspection did; or nil
}

// A Dialer opens the leg to the call manager from any address.
type Dialer interface {
	DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error)
}

// Config is what a Proxy works with.
type Config struct {
	Name   string // the phone-proxy instance
	TLS    *tlsproxy.Proxy
	Phones *Phones
	Relay  *media.Relay
	Dial   Dialer
	Rand   io.Reader
	Now    func() time.Time
	Log    *slog.Logger

	// Readmit lets a phone in whose secure-phone entry has timed out but
	// whose certificate is good, and enters it again. The ASA refused it.
	Readmit bool

	Stories *Stories // what happens is told there; or nil
	// Watch hears of each message of the phones' signaling, which is borrowed;
	// nil for nobody. The conversation waits for it.
	Watch func(s *Session, msg []byte, from nat.End, err error)

	MaxSessions int // phones connected at once; 0: DefaultMaxSessions ("tls-proxy maximum-sessions")
	Limits      inspect.Limits
}

// A Proxy is the running phone-proxy instance: it takes the TLS connections of
// the phones to the call manager, each to its end. Serve may be called by many
// goroutines.
type Proxy struct {
	c      Config
	nextID atomic.Uint64

	mu       sync.Mutex
	sessions map[uint64]*session
	count    map[string]int // of sessions by service, and of all as ""
	most     map[string]int // at once, ever
	open     int            // phones let in, those that wait for the call manager included
	devices  map[string]int // of them by name
}

// New returns a Proxy without phones.
func New(c Config) *Proxy {
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	return &Proxy{c: c, sessions: make(map[uint64]*session), devices: make(map[string]int),
		count: make(map[string]int), most: make(map[string]int)}
}

// Where says what one connection is about, in addresses.
type Where struct {
	Interface string         // nameif it came in by
	Toward    string         // nameif that the call manager is behind
	Global    netip.AddrPort // what the phone asked for: mapped address, secure port
	UCM       netip.AddrPort // the call manager's real address, nonsecure port
	Phone     netip.Addr     // the phone as the call manager's side knows it; zero: unchanged
	Book      AddressBook
	Outside   media.Side // the media leg toward the phone
	Inside    media.Side // the media leg toward the call manager
}

// A Session is one phone's signaling connection, for "show phone-proxy
// signaling-sessions".
type Session struct {
	ID      uint64
	Device  string
	Service string
	Phone   netip.AddrPort // as it came
	AsUCM   netip.AddrPort // as the call manager sees it
	UCM     netip.AddrPort
	Secure  uint16 // the UCM's port for phones that speak TLS
	Version string // of TLS
	Cipher  string
	Since   time.Time

	Interface, Toward string // where the phone is, and the call manager
	Certificate       Certificate

	Last       time.Time // its last message, either way
	Registered bool      // the call manager took its registration
	Bytes      uint64    // that either end sent
}

// session is a Session while it lasts.
type session struct {
	Session // does not change
	stream  *inspect.Stream

	last       atomic.Int64 // ns since 1970
	registered atomic.Bool
}

// now returns how it stands.
func (s *session) now() Session {
	c := s.Session
	c.Last, c.Registered = time.Unix(0, s.last.Load()), s.registered.Load()
	c.Bytes = s.stream.Stats(nat.Client).In + s.stream.Stats(nat.Server).In
	return c
}

// Most returns the largest number of sessions of a service, "" for all, that
// there has been at once.
func (p *Proxy) Most(service string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most[service]
}

// Sessions returns the phones that are connected, in no order.
func (p *Proxy) Sessions() []Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Session, 0, len(p.sessions))
	for _, s := range p.sessions {
		all = append(all, s.now())
	}
	return all
}

// errName is a phone that says it is another.
var errName = errors.New("device name is not the certificate's")

// Serve takes one connection of a phone from handshake to end, and closes it.
// What went wrong is logged here, because nobody above can do more.
//
// In order: TLS handshake and certificate, before which a connection holds
// nothing but one of tlsproxy's handshakes; a place among the sessions; the
// secure-phone entry; the leg to the call manager, from the phone's own address
// and port; the engine between the two, until either ends.
func (p *Proxy) Serve(ctx context.Context, c net.Conn, svc Service, w Where) {
	defer c.Close()
	remote := addrPortOf(c.RemoteAddr())
	log := p.c.Log.With("phone-proxy", p.c.Name, "service", svc.Name, "interface", w.Interface, "from", remote)
	tell := func(e Event) {
		e.Time, e.From, e.Iface, e.Service = p.c.Now(), remote, w.Interface, svc.Name
		p.c.Stories.Note(e)
	}
	phone, err := p.c.TLS.Handshake(ctx, c)
	if err != nil {
		tell(tlsFailed(err))
		return // tlsproxy has logged which and why
	}
	tell(tlsDone(phone))
	note := func(e Event) {
		e.Device = phone.Device
		tell(e)
	}
	// From here on by the TLS connection, so that the phone is told of the end.
	defer phone.Conn.Close()
	log = log.With("phone", phone.Device)
	if limit := p.enter(phone.Device); limit > 0 {
		log.Warn(fmt.Sprintf("%%ASA-4-446001: Maximum TLS Proxy session limit of %d reached", limit))
		note(Event{Kind: TurnedAway, Fault: FaultBusy, Text: fmt.Sprintf("session limit of %d reached", limit)})
		return
	}
	defer p.leave(phone.Device)
	if err := p.admit(phone.Device, remote, w.Interface); err != nil {
		log.Warn("phone refused", "reason", err)
		note(Event{Kind: TurnedAway, Fault: FaultEntry, Text: err.Error()})
		return
	}
	ucm, err := p.dial(ctx, w, remote)
	if err != nil {
		log.Error("call manager does not answer", "ucm", w.UCM, "reason", err)
		note(ucmFailed(w.UCM, err))
		return
	}
	defer ucm.Close()

	s := &session{Session: Session{
		ID: p.nextID.Add(1), Device: phone.Device, Service: svc.Name, Phone: remote,
		AsUCM: addrPortOf(ucm.LocalAddr()), UCM: w.UCM, Secure: w.UCM.Port() + svc.Offset,
		Version: phone.Version(), Cipher: phone.Cipher(), Since: p.c.Now(),
		Interface: w.Interface, Toward: w.Toward,
	}}
	if e := tlsDone(phone); e.Certificate != nil {
		s.Certificate = *e.Certificate
	}
	s.last.Store(s.Since.UnixNano())
	note(Event{Kind: Connected, Text: fmt.Sprintf("to call manager %v as %v", s.UCM, s.AsUCM)})
	log.Info("phone connected", "as", s.AsUCM, "ucm", w.UCM, "cipher", s.Cipher)

	b := &binder{
		device: phone.Device, phone: remote, global: w.Global, asUCM: s.AsUCM, ucm: w.UCM,
		places: [2]string{place(w.Interface, remote), place(w.Toward, w.UCM)},
		secure: svc.Offset, sdes: svc.SDES,
		book: w.Book, relay: p.c.Relay, outside: w.Outside, inside: w.Inside,
		rand: p.c.Rand, now: p.c.Now, log: log,
		streams: make(map[streamKey]*stream),
		stories: p.c.Stories, note: note,
		seen: func(device string) error {
			if device != "" && !strings.EqualFold(device, phone.Device) {
				err := fmt.Errorf("phone-proxy: %w: says %.*q, certificate %s", errName, maxQuoted, device, phone.Device)
				note(Event{Kind: TurnedAway, Fault: FaultName, Text: err.Error()})
				return err
			}
			p.c.Phones.Seen(phone.Device, p.c.Now())
			return nil
		},
	}
	defer b.close()
	s.stream = &inspect.Stream{
		Client: phone.Conn, Server: ucm, Engine: svc.Engine, Binder: b,
		Limits: p.c.Limits, Log: log, Count: svc.Count,
		Watch: func(msg []byte, from nat.End, err error) {
			s.last.Store(p.c.Now().UnixNano())
			p.watch(s, msg, from, err, note)
		},
	}
	p.list(s)
	defer p.unlist(s)
	err = s.stream.Run(ctx)
	note(Event{Kind: Disconnected, Text: reason(err)})
	log.Info("phone disconnected", "reason", reason(err))
}

// watch takes note of a message that the engine has seen.
func (p *Proxy) watch(s *session, msg []byte, from nat.End, err error, note func(Event)) {
	if k, why, ok := registration(s.Service, msg, from); ok && s.registered.Swap(k == Registered) != (k == Registered) || ok && k == Rejected {
		e := Event{Kind: k, Text: "with " + s.UCM.String()}
		if k == Rejected {
			e.Fault, e.Text = FaultRejected, fmt.Sprintf("by %v: %s", s.UCM, why)
		}
		note(e)
	}
	if p.c.Watch != nil {
		p.c.Watch(&s.Session, msg, from, err)
	}
}

func (p *Proxy) list(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions[s.ID] = s
	for _, service := range [...]string{"", s.Service} {
		p.count[service]++
		p.most[service] = max(p.most[service], p.count[service])
	}
}

func (p *Proxy) unlist(s *session) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.sessions, s.ID)
	p.count[""]--
	p.count[s.Service]--
}

// enter takes a place among the sessions for device. It returns 0, or the
// limit that leaves none.
func (p *Proxy) enter(device string) (limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.open >= p.c.MaxSessions:
		return p.c.MaxSessions
	case p.devices[device] >= MaxPerDevice:
		return MaxPerDevice
	}
	p.open++
	p.devices[device]++
	return 0
}

func (p *Proxy) leave(device string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	if p.devices[device]--; p.devices[device] == 0 {
		delete(p.devices, device)
	}
}

// close ends the media that the engine has left behind.
func (b *binder) close() {
	for k, st := range b.streams {
		b.end(k, st)
	}
}

// admit enters the phone in the secure-phone database.
func (p *Proxy) admit(device string, remote netip.AddrPort, iface string) error {
	now := p.c.Now()
	if _, ok := p.c.Phones.Lookup(device, now); !ok && !p.c.Readmit {
		return errors.New("no secure-phone entry: it has not fetched its CTL file here, or timed out")
	}
	return p.c.Phones.Authenticated(device, remote, iface, now)
}

// dial connects to the call manager as the phone. If the phone's port is still
// taken by a connection that died, another serves as well.
func (p *Proxy) dial(ctx context.Context, w Where, remote netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	from := remote
	if w.Phone.IsValid() {
		from = netip.AddrPortFrom(w.Phone, remote.Port())
	}
	c, err := p.c.Dial.DialTCP(ctx, from, w.UCM)
	if errors.Is(err, host.ErrInUse) {
		c, err = p.c.Dial.DialTCP(ctx, netip.AddrPortFrom(from.Addr(), 0), w.UCM)
	}
	return c, err
}

// place is an address as a log line has it: "outside:198.51.100.7/49153".
func place(iface string, at netip.AddrPort) string {
	return fmt.Sprintf("%s:%v/%d", iface, at.Addr(), at.Port())
}

func reason(err error) string {
	if err == nil {
		return "closed"
	}
	return err.Error()
}

func addrPortOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	case *net.UDPAddr:
		ap := a.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	return netip.AddrPort{}
}
