package lab

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	sipPort          = 5060
	defaultKeepAlive = 30 * time.Second
	defaultExpires   = 120 * time.Second // reference/sip-cisco-phones.md, section 1.2
	managerVersion   = 20                // SCCP of the UCM in the captures
)

// CallManagerConfig describes a nonsecure call manager.
type CallManagerConfig struct {
	Host  Host
	Lines []LineConfig

	KeepAlive  time.Duration // SCCP, in whole seconds; 0 is 30 s
	Expires    time.Duration // of a SIP registration; 0 is 120 s
	MaxVersion byte          // of SCCP; 0 is 20

	SCCPPort, SIPPort, TFTPPort uint16 // 0: 2000, 5060 and 69

	// Backup is the manager that phones are told to go to when this one is
	// gone, at the same ports; zero is none.
	Backup netip.Addr

	// DelayedOffer sends INVITEs without SDP, and takes the offer from the
	// 200, as UCM does by default.
	DelayedOffer bool
	// MediaNets are where media addresses may lie that phones announce. One
	// elsewhere is a violation. Empty: anywhere.
	MediaNets []netip.Prefix
	// RefuseUnreachable refuses a registration whose Contact or station
	// address is not where its connection comes from. It is noted as a
	// violation in any case.
	RefuseUnreachable bool

	Now  func() time.Time // dates registrations and DefineTimeDate; nil: time.Now
	Rand io.Reader        // tags and branches; nil: crypto/rand
	Log  func(format string, args ...any)
}

// LineConfig is one phone that the call manager knows.
type LineConfig struct {
	Device   string // SEP<MAC>
	Number   string
	Protocol Protocol
}

// A Registration is a phone as the call manager sees it.
type Registration struct {
	Device   string
	Number   string
	Protocol Protocol
	Source   netip.AddrPort // where the connection comes from
	Local    netip.AddrPort // what it was made to
	Station  netip.AddrPort // what the phone says it is: Register, or Contact
	Contact  string         // of SIP, as it came
	Version  byte           // of SCCP, agreed on
	Offered  byte           // of SCCP, what the phone would have had
	Load     string         // User-Agent or load name
	At       time.Time      // last REGISTER or KeepAlive
	Renewed  int            // REGISTERs or KeepAlives after the first
}

// A CallManager registers phones on TCP 2000 (SCCP) and TCP and UDP 5060
// (SIP), joins calls between two phones of one protocol, and serves files on
// UDP 69. Like a UCM without a media termination point it gives each phone the
// media address of the other. It does no security: whatever smells of it is a
// violation.
type CallManager struct {
	config CallManagerConfig
	rand   *lockedReader
	tftp   *TFTPServer
	wg     sync.WaitGroup
	sccp   net.Listener
	sip    net.Listener
	sipUDP net.PacketConn

	mu         sync.Mutex
	closed     bool
	sessions   map[*session]bool
	registered map[string]*Registration // by device
	devices    map[string]*sccpDevice   // SCCP, by number
	users      map[string]*sipUser      // SIP, by number
	nextRef    uint32
	nextPass   uint32
	violations []string
	calls      int
	statistics []string // what phones answered to ConnectionStatisticsReq
}

// NewCallManager starts a call manager, and its TFTP server with a
// configuration file for each line, XMLDefault.cnf.xml and Ringlist.xml.
func NewCallManager(c CallManagerConfig) (*CallManager, error) {
	setDefault(&c.KeepAlive, defaultKeepAlive)
	setDefault(&c.Expires, defaultExpires)
	setDefault(&c.MaxVersion, managerVersion)
	setDefault(&c.SCCPPort, sccpPort)
	setDefault(&c.SIPPort, sipPort)
	setDefault(&c.TFTPPort, tftpPort)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Log == nil {
		c.Log = func(string, ...any) {}
	}
	m := &CallManager{
		config: c, rand: &lockedReader{r: c.Rand},
		sessions:   make(map[*session]bool),
		registered: make(map[string]*Registration),
		devices:    make(map[string]*sccpDevice),
		users:      make(map[string]*sipUser),
		nextRef:    0x0168bce0,
		nextPass:   0x01000000,
	}
	if err := m.listen(); err != nil {
		m.Close()
		return nil, fmt.Errorf("lab: call manager: %w", err)
	}
	m.writeFiles(m.tftp)
	return m, nil
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (m *CallManager) listen() (err error) {
	at := func(port uint16) netip.AddrPort { return netip.AddrPortFrom(netip.Addr{}, port) }
	if m.sccp, err = m.config.Host.ListenTCP(at(m.config.SCCPPort)); err != nil {
		return err
	}
	if m.sip, err = m.config.Host.ListenTCP(at(m.config.SIPPort)); err != nil {
		return err
	}
	if m.sipUDP, err = m.config.Host.ListenUDP(at(m.config.SIPPort)); err != nil {
		return err
	}
	if m.tftp, err = ServeTFTP(m.config.Host, m.config.TFTPPort); err != nil {
		return err
	}
	m.wg.Add(3)
	go m.accept(m.sccp, m.serveSCCP)
	go m.accept(m.sip, m.serveSIP)
	go m.serveSIPDatagrams()
	return nil
}

// accept serves each connection of l on a goroutine of its own.
func (m *CallManager) accept(l net.Listener, serve func(*session)) {
	defer m.wg.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s := newSession(c, &m.wg)
		m.mu.Lock()
		if m.closed {
			m.mu.Unlock()
			s.close()
			return
		}
		m.sessions[s] = true
		m.wg.Add(1)
		m.mu.Unlock()
		go func() {
			defer m.wg.Done()
			serve(s)
			s.close()
			m.mu.Lock()
			delete(m.sessions, s)
			m.mu.Unlock()
		}()
	}
}

// writeFiles puts what a UCM has for its phones on a TFTP server.
func (m *CallManager) writeFiles(to *TFTPServer) {
	addr := m.config.Host.Addr().String()
	for i, l := range m.config.Lines {
		v := configValues{
			CTI:      100 + i,
			SCCPPort: int(m.config.SCCPPort), SIPPort: int(m.config.SIPPort),
			Protocol: strings.ToUpper(string(l.Protocol)),
			UUID:     m.uuid(), Contact: m.uuid(),
			Manager: addr, Line: l.Number, Load: "SCCP41.9-4-2SR3-1S",
		}
		if m.config.Backup.IsValid() {
			v.Backup = m.config.Backup.String()
		}
		if l.Protocol == SIP {
			v.Load = "SIP41.9-4-2SR3-1S"
		}
		to.Put(l.Device+".cnf.xml", v.file())
	}
	to.Put("XMLDefault.cnf.xml", defaultConfigFile(addr, int(m.config.SCCPPort)))
	to.Put("Ringlist.xml", []byte(ringList))
	to.Put("dialplan.xml", []byte("<DIALTEMPLATE><TEMPLATE MATCH=\"*\" Timeout=\"5\"/></DIALTEMPLATE>\n"))
}

// random returns n random bytes in hex.
func (m *CallManager) random(n int) string { return randomHex(m.rand, n) }

func (m *CallManager) uuid() string {
	h := m.random(16)
	return strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-")
}

// randomHex returns n random bytes in hex. A source of chance that ends is a
// mistake of the caller that cannot be hidden.
func randomHex(r io.Reader, n int) string {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		panic(fmt.Sprintf("lab: source of chance: %v", err))
	}
	return hex.EncodeToString(b)
}

// TFTP returns the TFTP server, to add files to or see requests.
func (m *CallManager) TFTP() *TFTPServer { return m.tftp }

// Registration returns how a device is registered now.
func (m *CallManager) Registration(device string) (Registration, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.registered[device]
	if r == nil {
		return Registration{}, false
	}
	return *r, true
}

// Violations returns what phones have sent that a nonsecure call manager
// cannot have from honest ones, in order.
func (m *CallManager) Violations() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.violations)
}

// Calls returns how many calls have been answered.
func (m *CallManager) Calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// Statistics returns what phones have reported at the end of SCCP calls:
// "SEP… sent=100 received=99 lost=1".
func (m *CallManager) Statistics() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.statistics)
}

func (m *CallManager) violateLocked(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	m.violations = append(m.violations, s)
	m.config.Log("ucm violation: %s", s)
}

// line finds the line of a device.
func (m *CallManager) line(device string, proto Protocol) *LineConfig {
	for i, l := range m.config.Lines {
		if strings.EqualFold(l.Device, device) && l.Protocol == proto {
			return &m.config.Lines[i]
		}
	}
	return nil
}

// checkMediaLocked notes a media address that no phone inside could reach.
func (m *CallManager) checkMediaLocked(who string, a netip.Addr) {
	if len(m.config.MediaNets) == 0 || !a.IsValid() || a.IsUnspecified() {
		return
	}
	for _, n := range m.config.MediaNets {
		if n.Contains(a) {
			return
		}
	}
	m.violateLocked("%s: media address %v is in none of %v", who, a, m.config.MediaNets)
}

// looksSecret reports whether the first byte of a conversation is TLS.
func looksSecret(b byte) bool { return b == 0x16 || b == 0x80 }

// Reset tells an SCCP phone to restart: 1 reset, 2 restart, 3 apply
// configuration. (reference/skinny.md, section 5.)
func (m *CallManager) Reset(device string, kind uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.devices {
		if d.reg.Device == device {
			d.send(msgReset, words(kind))
			return nil
		}
	}
	return fmt.Errorf("lab: call manager: %s is not registered", device)
}

// Disconnect closes the connection of a device, as a UCM does that is
// restarted.
func (m *CallManager) Disconnect(device string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.devices {
		if d.reg.Device == device {
			d.session.close()
			return nil
		}
	}
	for _, u := range m.users {
		if u.reg.Device == device {
			u.link.close()
			return nil
		}
	}
	return fmt.Errorf("lab: call manager: %s is not registered", device)
}

// Close ends all connections and waits.
func (m *CallManager) Close() error {
	m.mu.Lock()
	m.closed = true
	for s := range m.sessions {
		s.close()
		s.conn.Close()
	}
	m.mu.Unlock()
	for _, l := range []net.Listener{m.sccp, m.sip} {
		if l != nil {
			l.Close()
		}
	}
	if m.sipUDP != nil {
		m.sipUDP.Close()
	}
	if m.tftp != nil {
		m.tftp.Close()
	}
	m.wg.Wait()
	return nil
}
