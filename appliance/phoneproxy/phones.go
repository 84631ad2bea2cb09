package phoneproxy

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// What Phones does where its fields are zero.
const (
	DefaultTimeout   = 5 * time.Minute // idle time; reference/asa-cli.md, section 8.4
	DefaultMaxPhones = 10000           // entries; the largest ASA had as many UC sessions
	DefaultPerSource = 256             // entries of one address that never authenticated
)

// deviceLen is the length of a device name: SEP and a MAC in hex.
const deviceLen = 3 + 12

// DeviceName returns name as it is kept, "SEP001122334455" with upper-case
// hex, or false if it is not SEP and twelve hex digits in any case.
func DeviceName(name string) (string, bool) {
	if len(name) != deviceLen {
		return "", false
	}
	b := []byte(name)
	for i, c := range b {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if i >= 3 && (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return "", false
		}
		b[i] = c
	}
	if string(b[:3]) != "SEP" {
		return "", false
	}
	return string(b), true
}

// A Phone is one entry of the secure-phone database.
type Phone struct {
	Device string         // DeviceName's form
	Addr   netip.AddrPort // source of its last TFTP request, or of its TLS connection
	Iface  string         // interface it came in by

	Created  time.Time
	LastSeen time.Time
	Timeout  time.Duration // idle time after which it is forgotten

	// Authenticated says that a certificate proved the name.
	Authenticated bool
	// Original is what the UCM's configuration file said before it was made
	// secure. Its zero value: no file was fetched yet.
	Original Original
}

// MAC returns the address in the ASA's form, "0011.2233.4455".
func (p Phone) MAC() string {
	m := strings.ToLower(strings.TrimPrefix(p.Device, "SEP"))
	if len(m) != 12 {
		return m
	}
	return m[:4] + "." + m[4:8] + "." + m[8:]
}

// Idle returns how long the phone has not been seen.
func (p Phone) Idle(now time.Time) time.Duration { return max(0, now.Sub(p.LastSeen)) }

func (p Phone) expired(now time.Time) bool { return p.Idle(now) > p.Timeout }

var (
	errDevice = errors.New("not SEP and twelve hex digits")
	errFull   = errors.New("secure-phone database full")
)

// Phones is the secure-phone database ("show phone-proxy secure-phones"). A
// request for a CTL file makes an entry, signaling keeps it. Anyone can send
// such a request, so an entry that no certificate has proved yet gives way to
// any other, a source can only push out such entries of its own, and it cannot
// move the entry of a phone that has proved its name.
//
// The zero Phones works. Its fields must be set before first use. It may be
// used by many goroutines at once.
type Phones struct {
	Timeout   time.Duration // idle time; 0: DefaultTimeout
	Max       int           // entries; 0: DefaultMaxPhones
	PerSource int           // unproved entries of one address; 0: DefaultPerSource

	mu       sync.Mutex
	devices  map[string]*entry
	unproved list.List                 // of *entry, least recently seen first
	proved   list.List                 // of *entry, least recently seen first
	sources  map[netip.Addr]*list.List // unproved *entry by source, least recently seen first
	most     int                       // entries at once, ever
}

// entry is a Phone and its places in the lists.
type entry struct {
	Phone
	all *list.Element // in unproved or proved
	src *list.Element // in sources; nil once proved
}

// Note records that device asked for its files from addr. A new phone gets an
// entry; a known one is seen again. A phone that has proved its name keeps the
// address until it proves it again.
func (ps *Phones) Note(device string, addr netip.AddrPort, iface string, now time.Time) error {
	name, ok := DeviceName(device)
	if !ok {
		return fmt.Errorf("phoneproxy: phone %q: %w", device, errDevice)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	e := ps.liveLocked(name, now)
	switch {
	case e == nil:
		if err := ps.roomLocked(addr.Addr(), now); err != nil {
			return fmt.Errorf("phoneproxy: phone %s from %v: %w", name, addr, err)
		}
		e = &entry{Phone: Phone{Device: name, Created: now}}
		ps.insertLocked(e)
	case e.Authenticated && e.Addr.Addr() != addr.Addr():
		return nil // anyone may say so; the certificate will
	case !e.Authenticated && e.Addr.Addr() != addr.Addr():
		ps.sourceRoomLocked(addr.Addr())
	}
	ps.unlistLocked(e)
	e.Addr, e.Iface, e.LastSeen, e.Timeout = addr, iface, now, ps.timeout()
	ps.listLocked(e)
	return nil
}

// Authenticated records that a certificate proved device's name on a
// connection from addr. The entry follows the phone there; a phone without
// one, for the box may have started after it, gets one.
func (ps *Phones) Authenticated(device string, addr netip.AddrPort, iface string, now time.Time) error {
	name, ok := DeviceName(device)
	if !ok {
		return fmt.Errorf("phoneproxy: phone %q: %w", device, errDevice)
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	e := ps.liveLocked(name, now)
	if e == nil {
		if len(ps.devices) >= ps.max() && ps.expireLocked(now) == 0 {
			ps.removeLocked(ps.oldestLocked())
		}
		e = &entry{Phone: Phone{Device: name, Created: now, Addr: addr}}
		ps.insertLocked(e)
	}
	ps.unlistLocked(e)
	if e.Addr.Addr() != addr.Addr() {
		e.Addr = addr
	}
	e.Iface, e.LastSeen, e.Timeout, e.Authenticated = iface, now, ps.timeout(), true
	ps.listLocked(e)
	return nil
}

// Seen records that device is alive: a Skinny KeepAlive or a SIP REGISTER. It
// reports false if there is no such phone.
func (ps *Phones) Seen(device string, now time.Time) bool {
	return ps.change(device, now, func(e *entry) {
		ps.unlistLocked(e)
		e.LastSeen = now
		ps.listLocked(e)
	})
}

// SetOriginal records what device's configuration file said before it was
// made secure. It reports false if there is no such phone.
func (ps *Phones) SetOriginal(device string, o Original, now time.Time) bool {
	return ps.change(device, now, func(e *entry) { e.Original = o })
}

// change calls f with the entry of device, if there is one.
func (ps *Phones) change(device string, now time.Time, f func(*entry)) bool {
	name, ok := DeviceName(device)
	if !ok {
		return false
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	e := ps.liveLocked(name, now)
	if e == nil {
		return false
	}
	f(e)
	return true
}

// Lookup returns the phone of that name. It does not keep it alive.
func (ps *Phones) Lookup(device string, now time.Time) (Phone, bool) {
	var p Phone
	ok := ps.change(device, now, func(e *entry) { p = e.Phone })
	return p, ok
}

// Expire forgets the phones that have been idle too long and returns how many.
func (ps *Phones) Expire(now time.Time) int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.expireLocked(now)
}

// List returns the phones by address, then name.
func (ps *Phones) List(now time.Time) []Phone {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	var phones []Phone
	for _, e := range ps.devices {
		if !e.expired(now) {
			phones = append(phones, e.Phone)
		}
	}
	slices.SortFunc(phones, func(a, b Phone) int {
		return cmp.Or(a.Addr.Addr().Compare(b.Addr.Addr()), cmp.Compare(a.Device, b.Device))
	})
	return phones
}

// Most returns the largest number of entries there has been at once.
func (ps *Phones) Most() int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.most
}

// Clear forgets the phones at addr, or all for the zero Addr, and returns how
// many. ("clear phone-proxy secure-phones")
func (ps *Phones) Clear(addr netip.Addr) int {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	n := 0
	for _, e := range ps.devices {
		if !addr.IsValid() || e.Addr.Addr() == addr {
			ps.removeLocked(e)
			n++
		}
	}
	return n
}

// liveLocked returns the entry of name unless it has expired, and forgets it
// if so.
func (ps *Phones) liveLocked(name string, now time.Time) *entry {
	e := ps.devices[name]
	if e != nil && e.expired(now) {
		ps.removeLocked(e)
		return nil
	}
	return e
}

// roomLocked makes room for one unproved entry of src.
func (ps *Phones) roomLocked(src netip.Addr, now time.Time) error {
	ps.sourceRoomLocked(src)
	if len(ps.devices) < ps.max() || ps.expireLocked(now) > 0 {
		return nil
	}
	e := ps.oldestLocked()
	if e.Authenticated {
		return errFull
	}
	ps.removeLocked(e)
	return nil
}

// sourceRoomLocked makes room among the unproved entries of src.
func (ps *Phones) sourceRoomLocked(src netip.Addr) {
	l := ps.sources[src]
	if l == nil || l.Len() < ps.perSource() {
		return
	}
	ps.removeLocked(l.Front().Value.(*entry))
}

// oldestLocked returns the entry to give up first. There is one.
func (ps *Phones) oldestLocked() *entry {
	if f := ps.unproved.Front(); f != nil {
		return f.Value.(*entry)
	}
	return ps.proved.Front().Value.(*entry)
}

func (ps *Phones) expireLocked(now time.Time) int {
	n := 0
	for _, l := range []*list.List{&ps.unproved, &ps.proved} {
		for f := l.Front(); f != nil && f.Value.(*entry).expired(now); f = l.Front() {
			ps.removeLocked(f.Value.(*entry))
			n++
		}
	}
	return n
}

func (ps *Phones) insertLocked(e *entry) {
	if ps.devices == nil {
		ps.devices = make(map[string]*entry)
		ps.sources = make(map[netip.Addr]*list.List)
	}
	ps.devices[e.Device] = e
	ps.most = max(ps.most, len(ps.devices))
}

func (ps *Phones) removeLocked(e *entry) {
	ps.unlistLocked(e)
	delete(ps.devices, e.Device)
}

// listLocked puts e at the young end of its lists.
func (ps *Phones) listLocked(e *entry) {
	if e.Authenticated {
		e.all = ps.proved.PushBack(e)
		return
	}
	e.all = ps.unproved.PushBack(e)
	l := ps.sources[e.Addr.Addr()]
	if l == nil {
		l = list.New()
		ps.sources[e.Addr.Addr()] = l
	}
	e.src = l.PushBack(e)
}

// unlistLocked takes e out of its lists. Its address and Authenticated must be
// as when it was listed.
func (ps *Phones) unlistLocked(e *entry) {
	if e.all == nil {
		return
	}
	if e.src == nil {
		ps.proved.Remove(e.all)
	} else {
		ps.unproved.Remove(e.all)
		l := ps.sources[e.Addr.Addr()]
		if l.Remove(e.src); l.Len() == 0 {
			delete(ps.sources, e.Addr.Addr())
		}
	}
	e.all, e.src = nil, nil
}

func (ps *Phones) timeout() time.Duration { return cmp.Or(ps.Timeout, DefaultTimeout) }
func (ps *Phones) max() int               { return cmp.Or(ps.Max, DefaultMaxPhones) }
func (ps *Phones) perSource() int         { return cmp.Or(ps.PerSource, DefaultPerSource) }
