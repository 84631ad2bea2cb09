// Package dns finds the addresses of names for the box: it asks the servers of
// "dns server-group" through the box's own interfaces, and keeps what it is told
// as long as that holds.
//
// What a reader may get wrong: an answer that has run out is not forgotten. It is
// what callers get, marked stale, while no server answers, so that a resolver
// that is down does not take the phones with it. (RFC 8767.)
package dns

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultTimeout and DefaultRetries are those of the ASA. Each time the list
	// of servers is asked again the timeout is doubled.
	DefaultTimeout = 2 * time.Second
	DefaultRetries = 2

	// MinTTL and MaxTTL bound how long an answer holds, whatever it says.
	MinTTL = 10 * time.Second
	MaxTTL = 24 * time.Hour
	// MaxNegativeTTL bounds how long a name that is not there stays so.
	// (RFC 2308, section 5.)
	MaxNegativeTTL = 10 * time.Minute
	// failureTTL is how long it is remembered that nobody answered. (RFC 2308,
	// section 7.)
	failureTTL = 5 * time.Second
	// maxBackoff bounds the pause between attempts to renew an answer.
	maxBackoff = time.Minute
	// maxStale is how long after its time an answer is better than none.
	// (RFC 8767, section 5.)
	maxStale = 24 * time.Hour
	// keepUsed is how long after its last use an answer is renewed in time.
	keepUsed = time.Hour
	// minLead and maxLead bound how long before its end it is renewed: a tenth
	// of its life.
	minLead = 3 * time.Second
	maxLead = time.Minute

	maxEntries = 1024 // names that are kept
	maxFlights = 64   // names that are being asked for
)

// Why a name has no address. They are wrapped in an *Error.
var (
	ErrDisabled  = errors.New("name lookup is off: \"dns domain-lookup\" and a name-server are needed")
	ErrNoHost    = errors.New("there is no such name")
	ErrNoAddress = errors.New("the name has no address")
	ErrNoAnswer  = errors.New("no DNS server answers")
	ErrBusy      = fmt.Errorf("%d names are being looked up already", maxFlights)
	ErrName      = errors.New("that is no name in the DNS")
)

// An Error says which name has no address, and why.
type Error struct {
	Name string
	ID   uint16 // of the last query; 0 if there was none
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("dns: %s: %v", e.Name, e.Err) }

func (e *Error) Unwrap() error { return e.Err }

// A Network is how the servers are reached. host.Stack is one.
type Network interface {
	ListenPacket(laddr netip.AddrPort) (net.PacketConn, error)
	DialTCP(ctx context.Context, laddr, raddr netip.AddrPort) (net.Conn, error)
}

// Config is what a Resolver is made from.
type Config struct {
	Network Network
	// From returns the address that a query to server is sent from. It reports
	// false if no interface that may look up names faces the server.
	From func(server netip.Addr) (netip.Addr, bool)
	Rand io.Reader        // query numbers and ports
	Now  func() time.Time // for how long answers hold; timeouts are real time
	Log  *slog.Logger
}

// Settings are who is asked, and how.
type Settings struct {
	Servers []netip.Addr
	Domain  string        // ends names without a dot
	Timeout time.Duration // for each server
	Retries int           // of the whole list
	Keep    []string      // names that are looked up at once and kept, used or not
}

// A Resolver looks names up. Any number of goroutines may use it.
type Resolver struct {
	config Config
	ctx    context.Context // of its queries
	cancel context.CancelFunc
	flying sync.WaitGroup

	mu      sync.Mutex
	set     Settings
	round   int // counts changes of who is asked
	entries map[string]*entry
	flights map[string]*flight
	servers map[netip.Addr]*server
}

// A finding is what the DNS has of a name: addresses, or for the name of an
// address names.
type finding struct {
	addrs []netip.Addr
	names []string
}

// An entry is what is known about one name.
type entry struct {
	finding
	err *Error // why there is nothing

	fetched, expires time.Time
	used             time.Time // last
	retry            time.Time // not asked for again before
	backoff          time.Duration
	failure          *Error // why it could not be renewed; nil: it could
}

// A flight is one name being asked for, once for all who want it.
type flight struct {
	round   int
	done    chan struct{}
	finding // when done
	err     *Error
}

// New returns a resolver that has no servers yet.
func New(c Config) *Resolver {
	r := &Resolver{config: c, entries: make(map[string]*entry), flights: make(map[string]*flight), servers: make(map[netip.Addr]*server)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends what is being asked, and waits for it.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.cancel() // no flight begins after this
	r.mu.Unlock()
	r.flying.Wait()
}

// Set makes s what r goes by. Other servers may know other things: answers of the
// old ones are asked for again, and stand until then.
func (r *Resolver) Set(s Settings) {
	s.Servers, s.Keep = slices.Clone(s.Servers), slices.Clone(s.Keep)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(s.Servers, r.set.Servers) {
		r.round++
		now := r.config.Now()
		maps.DeleteFunc(r.entries, func(_ string, e *entry) bool { return e.err != nil })
		for _, e := range r.entries {
			e.expires, e.retry, e.backoff = now, time.Time{}, 0
			e.failure = nil
		}
		r.servers = make(map[netip.Addr]*server)
		for _, a := range s.Servers {
			r.servers[a] = &server{}
		}
	}
	r.set = s
}

// An Answer is the addresses of a name, or the names of an address.
type Answer struct {
	Name  string // in full
	Addrs []netip.Addr
	Names []string
	// Stale says that this is an old answer whose time is over, and that no
	// server has given a new one.
	Stale bool
}

// Lookup returns the addresses of name, to which the domain is added if it has no
// dot. If there are none the error is an *Error.
func (r *Resolver) Lookup(ctx context.Context, name string) (Answer, error) {
	r.mu.Lock()
	full, err := r.fullLocked(name)
	r.mu.Unlock()
	if err != nil {
		return Answer{}, err
	}
	return r.find(ctx, full)
}

// LookupAddr returns the names of an IPv4 address. If there are none the error is
// an *Error.
func (r *Resolver) LookupAddr(ctx context.Context, addr netip.Addr) (Answer, error) {
	if !addr.Is4() {
		return Answer{}, &Error{Name: addr.String(), Err: ErrName}
	}
	return r.find(ctx, reverse(addr))
}

// find returns what there is of a name in full.
func (r *Resolver) find(ctx context.Context, full string) (Answer, error) {
	r.mu.Lock()
	now := r.config.Now()
	var last entry // what is known, good or not
	if e := r.entries[full]; e != nil {
		e.used = now
		last = *e
	}
	if now.Before(last.expires) {
		r.mu.Unlock()
		return last.answer(full, false)
	}
	f, ferr := r.fetchLocked(full)
	r.mu.Unlock()
	switch {
	case last.failure != nil && last.usable(now): // nobody waits for who is known not to answer
		return last.answer(full, true)
	case ferr != nil:
		return last.rather(full, now, ferr)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return last.rather(full, now, &Error{Name: full, Err: ctx.Err()})
	}
	switch {
	case f.err == nil:
		return f.answer(full, false), nil
	case f.err.negative():
		return Answer{}, f.err
	}
	return last.rather(full, now, f.err)
}

// fullLocked returns the name to ask for.
func (r *Resolver) fullLocked(name string) (string, error) {
	full, ok := canonical(name)
	if !ok {
		return "", &Error{Name: fmt.Sprintf("%.80q", name), Err: ErrName}
	}
	if !strings.Contains(full, ".") && r.set.Domain != "" {
		if full, ok = canonical(full + "." + r.set.Domain); !ok {
			return "", &Error{Name: fmt.Sprintf("%.80q", name), Err: ErrName}
		}
	}
	return full, nil
}

// answer returns what e says of name.
func (e *entry) answer(name string, stale bool) (Answer, error) {
	if e.err != nil {
		return Answer{}, e.err
	}
	return e.finding.answer(name, stale), nil
}

func (f *finding) answer(name string, stale bool) Answer {
	return Answer{Name: name, Addrs: slices.Clone(f.addrs), Names: slices.Clone(f.names), Stale: stale}
}

// usable reports whether e has an answer that is better than none at now.
func (e *entry) usable(now time.Time) bool {
	return len(e.addrs)+len(e.names) > 0 && now.Before(e.expires.Add(maxStale))
}

// rather returns what e said of name while it held, if that is better than err.
func (e *entry) rather(name string, now time.Time, err *Error) (Answer, error) {
	if e.usable(now) {
		return e.answer(name, true)
	}
	return Answer{}, err
}

// first writes the first address or name.
func (f *finding) first() string {
	if len(f.addrs) > 0 {
		return f.addrs[0].String()
	}
	return f.names[0]
}

// negative reports whether a server said so, in contrast to none saying anything.
func (e *Error) negative() bool {
	return errors.Is(e.Err, ErrNoHost) || errors.Is(e.Err, ErrNoAddress)
}

// fetchLocked has name asked for, unless that is being done. What could not be
// renewed just now is left alone for a while: it returns why.
func (r *Resolver) fetchLocked(name string) (*flight, *Error) {
	if f := r.flights[name]; f != nil && f.round == r.round {
		return f, nil
	}
	e := r.entries[name]
	switch {
	case e != nil && e.failure != nil && r.config.Now().Before(e.retry):
		return nil, e.failure
	case r.ctx.Err() != nil:
		return nil, &Error{Name: name, Err: net.ErrClosed}
	case len(r.set.Servers) == 0:
		return nil, &Error{Name: name, Err: ErrDisabled}
	case len(r.flights) >= maxFlights:
		return nil, &Error{Name: name, Err: ErrBusy}
	}
	f := &flight{round: r.round, done: make(chan struct{})}
	r.flights[name] = f
	r.flying.Add(1)
	set := r.set
	go func() {
		defer r.flying.Done()
		found, ttl, err := r.resolve(r.ctx, &set, name)
		r.land(name, f, found, ttl, err)
	}()
	return f, nil
}

// land ends a flight with what it found.
func (r *Resolver) land(name string, f *flight, found finding, ttl time.Duration, err *Error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer close(f.done)
	f.finding, f.err = found, err
	if r.flights[name] == f {
		delete(r.flights, name)
	}
	if f.round != r.round || r.ctx.Err() != nil {
		return // of servers that are asked no more
	}
	now := r.config.Now()
	e := r.entries[name]
	if e == nil {
		e = &entry{used: now}
		r.entries[name] = e
	}
	switch {
	case err == nil || err.negative():
		if e.failure != nil {
			r.config.Log.Info("DNS answers again", "name", name)
		}
		*e = entry{finding: found, err: err, fetched: now, expires: now.Add(ttl), used: e.used}
	case e.usable(now):
		if e.failure == nil {
			r.config.Log.Warn("DNS does not answer; the last answer stands", "name", name, "address", e.first(),
				"age", now.Sub(e.fetched).Round(time.Second), "reason", err.Err)
		}
		e.failure, e.backoff = err, min(max(2*e.backoff, failureTTL), maxBackoff)
		e.retry = now.Add(e.backoff)
	default:
		*e = entry{err: err, fetched: now, expires: now.Add(failureTTL), used: e.used}
	}
	r.evictLocked(name)
}

// evictLocked makes room: what was not used for longest goes, but not keep.
func (r *Resolver) evictLocked(keep string) {
	for len(r.entries) > maxEntries {
		oldest := ""
		for name, e := range r.entries {
			if name != keep && (oldest == "" || e.used.Before(r.entries[oldest].used)) {
				oldest = name
			}
		}
		delete(r.entries, oldest)
	}
}

// Refresh renews, in the background, answers in use that are about to run out,
// and forgets those that nobody needs. It is to be called about every second.
func (r *Resolver) Refresh() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.set.Servers) == 0 || r.ctx.Err() != nil {
		return
	}
	now := r.config.Now()
	kept := make(map[string]bool, len(r.set.Keep))
	for _, name := range r.set.Keep {
		full, err := r.fullLocked(name)
		if err != nil {
			continue
		}
		kept[full] = true
		if r.entries[full] == nil {
			r.fetchLocked(full)
		}
	}
	for name, e := range r.entries {
		inUse := kept[name] || now.Before(e.used.Add(keepUsed))
		switch {
		case e.err != nil && !now.Before(e.expires):
			delete(r.entries, name) // what is kept is asked for next time
		case e.err == nil && !e.usable(now) || !inUse && !now.Before(e.expires):
			delete(r.entries, name)
		case e.err == nil && inUse && !now.Before(e.expires.Add(-e.lead())):
			r.fetchLocked(name)
		}
	}
}

// lead is how long before its end e is renewed.
func (e *entry) lead() time.Duration {
	return min(max(e.expires.Sub(e.fetched)/10, minLead), maxLead)
}

// Clear forgets name, or all names if it is "", and returns how many.
func (r *Resolver) Clear(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.entries)
	if name == "" {
		clear(r.entries)
		return n
	}
	if full, err := r.fullLocked(name); err == nil {
		delete(r.entries, full)
	}
	return n - len(r.entries)
}

// canonical returns name in lower case without a dot at its end, and whether it
// can be the name of a host. An underscore passes: it is in use. (RFC 1123,
// section 2.1.)
func canonical(name string) (string, bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if name == "" || len(name) > 253 {
		return "", false
	}
	digits := true // in the last label: such a name is an address gone wrong
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		digits = true
		for i := range len(label) {
			switch c := label[i]; {
			case '0' <= c && c <= '9':
			case 'a' <= c && c <= 'z', c == '-', c == '_':
				digits = false
			default:
				return "", false
			}
		}
	}
	return name, !digits
}

// ValidName reports whether name can be looked up.
func ValidName(name string) bool {
	_, ok := canonical(name)
	return ok
}
