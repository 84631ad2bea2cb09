package lab

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

const (
	routerMaxMappings = 4096
	routerMaxPeers    = 1024 // remote ends of one mapping
	routerFirstPort   = 1024

	routerUDPIdle  = 2 * time.Minute // RFC 4787, REQ-5
	routerTCPIdle  = 2 * time.Hour   // RFC 5382, REQ-5, rounded
	routerICMPIdle = time.Minute     // RFC 5508, REQ-1
)

// HomeRouterConfig says what kind of router a HomeRouter is.
type HomeRouterConfig struct {
	LAN netip.Prefix // its own address inside, with the subnet: 192.168.1.1/24
	WAN netip.Addr   // the one address it has outside

	// NoTFTPHelper leaves out the helper that lets a TFTP server answer from
	// a port of its own, as RFC 1350 has it. Few routers are without.
	NoTFTPHelper bool
	// Now is the clock for idle timeouts; nil is time.Now.
	Now func() time.Time
}

// A HomeRouter is a cheap home router: port address translation for UDP, TCP
// and ICMP echo. A local address and port has one port outside, whoever it
// talks to (endpoint-independent mapping), but only the very addresses and
// ports it has sent to may answer (address and port-dependent filtering,
// RFC 4787, section 5). It does not hairpin, knows no fragments, and passes no
// ICMP errors.
type HomeRouter struct {
	config   HomeRouterConfig
	lan, wan stack.Link
	stats    HomeRouterStats
	wg       sync.WaitGroup

	mu       sync.Mutex
	byInside map[routerKey]*routerMapping
	byPort   map[routerPort]*routerMapping
	next     uint16
}

// HomeRouterStats counts packets.
type HomeRouterStats struct {
	Out, In atomic.Uint64 // translated from the LAN, from the Internet
	Refused atomic.Uint64 // from the Internet, not expected
	Dropped atomic.Uint64 // not understood, TTL, table full
}

type routerKey struct {
	proto uint8
	addr  netip.AddrPort // inside; for ICMP the port is the identifier
}

type routerPort struct {
	proto uint8
	port  uint16 // outside
}

type routerMapping struct {
	key   routerKey
	port  uint16
	used  time.Time
	peers map[netip.AddrPort]bool
	// servers were asked for a file, and may answer from any port.
	servers map[netip.Addr]bool
}

// NewHomeRouter starts a router between its two links, which Close closes.
func NewHomeRouter(c HomeRouterConfig, lan, wan stack.Link) *HomeRouter {
	if c.Now == nil {
		c.Now = time.Now
	}
	r := &HomeRouter{
		config: c, lan: lan, wan: wan,
		byInside: make(map[routerKey]*routerMapping),
		byPort:   make(map[routerPort]*routerMapping),
		next:     routerFirstPort,
	}
	r.wg.Add(2)
	go r.run(lan, wan, r.translateOut, &r.stats.Out)
	go r.run(wan, lan, r.translateIn, &r.stats.In)
	return r
}

// Stats returns the live counters.
func (r *HomeRouter) Stats() *HomeRouterStats { return &r.stats }

// Close closes both links and waits.
func (r *HomeRouter) Close() error {
	r.lan.Close()
	r.wan.Close()
	r.wg.Wait()
	return nil
}

// Reboot forgets every mapping, as a power cut does.
func (r *HomeRouter) Reboot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.byInside)
	clear(r.byPort)
}

func (r *HomeRouter) run(from, to stack.Link, translate func([]byte) bool, passed *atomic.Uint64) {
	defer r.wg.Done()
	batch := make([]*stack.Packet, pumpBatch)
	for i := range batch {
		batch[i] = stack.NewPacket(from.MTU())
	}
	for {
		n, err := from.Read(batch)
		if err != nil {
			return
		}
		for _, p := range batch[:n] {
			if !translate(p.Data()) {
				continue
			}
			passed.Add(1)
			if to.Write([]*stack.Packet{p}) != nil {
				return
			}
		}
	}
}

// A segment is where the fields to be translated lie in an IPv4 packet.
type segment struct {
	b     []byte
	proto uint8
	l4    []byte
	sum   []byte // transport checksum; nil: none in use
	// pseudo: the transport checksum covers the addresses
	pseudo bool
	// echo is 8 for an ICMP echo request and 0 for a reply.
	echo uint8
}

// parseSegment finds the fields; ok is false for what a HomeRouter does not
// translate.
func parseSegment(b []byte) (s segment, ok bool) {
	if !ipv4Whole(b) || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
		return s, false
	}
	s = segment{b: b, proto: b[9], l4: b[int(b[0]&15)*4:]}
	switch {
	case s.proto == protoTCP && len(s.l4) >= 20:
		s.sum, s.pseudo = s.l4[16:18], true
	case s.proto == protoUDP && len(s.l4) >= 8:
		if s.l4[6] != 0 || s.l4[7] != 0 {
			s.sum, s.pseudo = s.l4[6:8], true
		}
	case s.proto == protoICMP && len(s.l4) >= 8 && (s.l4[0] == 8 || s.l4[0] == 0):
		s.sum, s.echo = s.l4[2:4], s.l4[0]
	default:
		return s, false
	}
	return s, true
}

func (s segment) src() netip.AddrPort { return s.end(12, 0) }
func (s segment) dst() netip.AddrPort { return s.end(16, 2) }

// end returns the address at ip and the port at l4. For ICMP echo the port on
// the side that asked is the identifier and the other is 0.
func (s segment) end(ip, l4 int) netip.AddrPort {
	a := netip.AddrFrom4([4]byte(s.b[ip:]))
	if s.proto != protoICMP {
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(s.l4[l4:]))
	}
	if asker := ip == 12; asker == (s.echo == 8) {
		return netip.AddrPortFrom(a, binary.BigEndian.Uint16(s.l4[4:]))
	}
	return netip.AddrPortFrom(a, 0)
}

// set changes the address at ip and the port at l4 and corrects the checksums.
func (s segment) set(ip, l4 int, to netip.AddrPort) {
	a := to.Addr().As4()
	port := s.l4[l4:]
	if s.proto == protoICMP {
		port = s.l4[4:]
	}
	var p [2]byte
	binary.BigEndian.PutUint16(p[:], to.Port())
	replaced(s.b[10:12], s.b[ip:ip+4], a[:])
	if s.sum != nil {
		if s.pseudo {
			replaced(s.sum, s.b[ip:ip+4], a[:])
		}
		replaced(s.sum, port[:2], p[:])
		if s.proto == protoUDP && s.sum[0] == 0 && s.sum[1] == 0 {
			s.sum[0], s.sum[1] = 0xff, 0xff
		}
	}
	copy(s.b[ip:], a[:])
	copy(port, p[:])
}

// hop takes one off the time to live; false when there is none left.
func (s segment) hop() bool {
	if s.b[8] <= 1 {
		return false
	}
	old := [2]byte{s.b[8], s.b[9]}
	s.b[8]--
	replaced(s.b[10:12], old[:], s.b[8:10])
	return true
}

// replaced corrects a checksum for old having become new. (RFC 1624, eqn. 3.)
func replaced(sum, old, new []byte) {
	c := uint32(^binary.BigEndian.Uint16(sum))
	for i := 0; i < len(old); i += 2 {
		c += uint32(^binary.BigEndian.Uint16(old[i:]))
		c += uint32(binary.BigEndian.Uint16(new[i:]))
	}
	for c > 0xffff {
		c = c>>16 + c&0xffff
	}
	binary.BigEndian.PutUint16(sum, ^uint16(c))
}

// translateOut makes a packet from the LAN the router's own.
func (r *HomeRouter) translateOut(b []byte) bool {
	s, ok := parseSegment(b)
	if !ok || s.proto == protoICMP && s.echo != 8 || !s.hop() {
		r.stats.Dropped.Add(1)
		return false
	}
	dst := s.dst()
	if r.config.LAN.Contains(dst.Addr()) || dst.Addr() == r.config.WAN {
		r.stats.Dropped.Add(1)
		return false
	}
	m := r.mapping(routerKey{s.proto, s.src()}, dst)
	if m == nil {
		r.stats.Dropped.Add(1)
		return false
	}
	s.set(12, 0, netip.AddrPortFrom(r.config.WAN, m.port))
	return true
}

// translateIn makes an expected packet from the Internet one for the LAN.
func (r *HomeRouter) translateIn(b []byte) bool {
	s, ok := parseSegment(b)
	if !ok || s.dst().Addr() != r.config.WAN || s.proto == protoICMP && s.echo != 0 || !s.hop() {
		r.stats.Dropped.Add(1)
		return false
	}
	src, dst := s.src(), s.dst()
	r.mu.Lock()
	m := r.byPort[routerPort{s.proto, dst.Port()}]
	now := r.config.Now()
	if m == nil || r.idleLocked(m, now) || !m.peers[src] && !m.servers[src.Addr()] {
		r.mu.Unlock()
		r.stats.Refused.Add(1)
		return false
	}
	m.used = now
	inside := m.key.addr
	r.mu.Unlock()
	s.set(16, 2, inside)
	return true
}

// mapping returns the mapping for key, new if need be, and lets dst answer.
func (r *HomeRouter) mapping(key routerKey, dst netip.AddrPort) *routerMapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.config.Now()
	m := r.byInside[key]
	if m != nil && r.idleLocked(m, now) {
		r.removeLocked(m)
		m = nil
	}
	if m == nil {
		if len(r.byInside) >= routerMaxMappings {
			r.expireLocked(now)
		}
		port, ok := r.portLocked(key)
		if !ok {
			return nil
		}
		m = &routerMapping{
			key: key, port: port,
			peers:   make(map[netip.AddrPort]bool),
			servers: make(map[netip.Addr]bool),
		}
		r.byInside[key] = m
		r.byPort[routerPort{key.proto, port}] = m
	}
	m.used = now
	if len(m.peers) >= routerMaxPeers {
		clear(m.peers)
	}
	m.peers[dst] = true
	if key.proto == protoUDP && dst.Port() == tftpPort && !r.config.NoTFTPHelper {
		m.servers[dst.Addr()] = true
	}
	return m
}

// portLocked chooses a port outside: the same as inside if it is free.
func (r *HomeRouter) portLocked(key routerKey) (uint16, bool) {
	if len(r.byInside) >= routerMaxMappings {
		return 0, false
	}
	want := key.addr.Port()
	if want >= routerFirstPort || key.proto == protoICMP {
		if r.byPort[routerPort{key.proto, want}] == nil {
			return want, true
		}
	}
	for range 1<<16 - routerFirstPort {
		p := r.next
		if r.next++; r.next < routerFirstPort {
			r.next = routerFirstPort
		}
		if r.byPort[routerPort{key.proto, p}] == nil {
			return p, true
		}
	}
	return 0, false
}

func (r *HomeRouter) idleLocked(m *routerMapping, now time.Time) bool {
	idle := routerUDPIdle
	switch m.key.proto {
	case protoTCP:
		idle = routerTCPIdle
	case protoICMP:
		idle = routerICMPIdle
	}
	return now.Sub(m.used) > idle
}

func (r *HomeRouter) removeLocked(m *routerMapping) {
	delete(r.byInside, m.key)
	delete(r.byPort, routerPort{m.key.proto, m.port})
}

func (r *HomeRouter) expireLocked(now time.Time) {
	for _, m := range r.byInside {
		if r.idleLocked(m, now) {
			r.removeLocked(m)
		}
	}
}
