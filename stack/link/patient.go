package link

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/stack"
)

// reopenEvery is how often a Patient looks whether its device is there.
const reopenEvery = 500 * time.Millisecond

// A Patient is a link whose device may come late, go, and come again: until it is
// there nothing arrives, and what is written is dropped as Absent.
type Patient struct {
	open  func() (stack.Link, error)
	mtu   int
	say   func(up bool, err error)
	since atomic.Pointer[error] // why it is not there; nil: it is

	absent atomic.Uint64 // packets for a device that was not there
	done   chan struct{} // closed by Close
	once   sync.Once

	mu     sync.Mutex
	inner  stack.Link // nil: the device is not there
	own    netip.Prefix
	proxy  func(netip.Addr) bool
	addrs  bool  // SetAddrs was called
	before Stats // of those that are gone
}

// NewPatient returns a Patient that opens its device by open, at once if it is
// there. mtu is its MTU as long as it is not; 0 is DefaultMTU. say hears when the
// device comes, and goes and why; it is called by the goroutine that reads, and
// before NewPatient returns if the device is not there.
func NewPatient(open func() (stack.Link, error), mtu int, say func(up bool, err error)) *Patient {
	if mtu == 0 {
		mtu = DefaultMTU
	}
	p := &Patient{open: open, mtu: mtu, say: say, done: make(chan struct{})}
	if err := p.try(); err != nil {
		p.note(err)
	}
	return p
}

// note says why the device is not there, once.
func (p *Patient) note(err error) {
	if old := p.since.Swap(&err); old == nil || (*old).Error() != err.Error() {
		p.say(false, err)
	}
}

// try opens the device.
func (p *Patient) try() error {
	l, err := p.open()
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return errors.Join(net.ErrClosed, l.Close())
	default:
	}
	p.inner = l
	if p.addrs {
		setAddrs(l, p.own, p.proxy)
	}
	return nil
}

func setAddrs(l stack.Link, own netip.Prefix, proxy func(netip.Addr) bool) {
	if e, ok := l.(interface {
		SetAddrs(netip.Prefix, func(netip.Addr) bool)
	}); ok {
		e.SetAddrs(own, proxy)
	}
}

// Device returns the link of the device, nil if that is not there.
func (p *Patient) Device() stack.Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inner
}

// Read implements stack.Link.
func (p *Patient) Read(batch []*stack.Packet) (int, error) {
	for {
		l := p.Device()
		if l == nil {
			t := time.NewTimer(reopenEvery)
			select {
			case <-p.done:
				t.Stop()
				return 0, net.ErrClosed
			case <-t.C:
			}
			if err := p.try(); err == nil {
				p.since.Store(nil)
				p.say(true, nil)
			} else if !errors.Is(err, net.ErrClosed) {
				p.note(err)
			}
			continue
		}
		n, err := l.Read(batch)
		select {
		case <-p.done:
			return n, net.ErrClosed
		default:
		}
		if err == nil {
			return n, nil
		}
		p.lose(l)
		p.note(err)
		if n > 0 {
			return n, nil
		}
	}
}

// lose closes the link of a device that is gone, and keeps what it counted.
func (p *Patient) lose(l stack.Link) {
	var s Stats
	if c, ok := l.(Counter); ok {
		s = c.Stats()
	}
	p.mu.Lock()
	p.before = p.before.plus(s)
	p.inner = nil
	p.mu.Unlock()
	l.Close() // what it says is known: the device is gone
}

// plus returns the sums of s and o.
func (s Stats) plus(o Stats) Stats {
	sum := Stats{
		InPackets: s.InPackets + o.InPackets, InBytes: s.InBytes + o.InBytes,
		OutPackets: s.OutPackets + o.OutPackets, OutBytes: s.OutBytes + o.OutBytes,
		Drops: make(map[Reason]uint64),
	}
	for _, drops := range []map[Reason]uint64{s.Drops, o.Drops} {
		for r, n := range drops {
			sum.Drops[r] += n
		}
	}
	return sum
}

// Write implements stack.Link.
func (p *Patient) Write(batch []*stack.Packet) error {
	select {
	case <-p.done:
		return net.ErrClosed
	default:
	}
	l := p.Device()
	if l == nil || l.Write(batch) != nil { // Read finds out, and why
		p.absent.Add(uint64(len(batch)))
	}
	return nil
}

// MTU implements stack.Link.
func (p *Patient) MTU() int {
	if l := p.Device(); l != nil {
		return l.MTU()
	}
	return p.mtu
}

// Close implements stack.Link.
func (p *Patient) Close() (err error) {
	p.once.Do(func() {
		close(p.done)
		if l := p.Device(); l != nil {
			err = l.Close()
		}
	})
	return err
}

// SetAddrs is Ethernet.SetAddrs of the device, also of one that is yet to come.
func (p *Patient) SetAddrs(own netip.Prefix, proxy func(netip.Addr) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own, p.proxy, p.addrs = own, proxy, true
	if p.inner != nil {
		setAddrs(p.inner, own, proxy)
	}
}

// Absent returns why the device is not there; nil if it is.
func (p *Patient) Absent() error {
	if err := p.since.Load(); err != nil {
		return *err
	}
	return nil
}

// Driver returns the name of the device as Open takes it, or that there is none.
func (p *Patient) Driver() string {
	if d, ok := p.Device().(interface{ Driver() string }); ok {
		return d.Driver()
	}
	return "not there"
}

// MAC is that of the device, zero if it is not there.
func (p *Patient) MAC() MAC {
	if e, ok := p.Device().(interface{ MAC() MAC }); ok {
		return e.MAC()
	}
	return MAC{}
}

// Neighbours is Ethernet.Neighbours of the device.
func (p *Patient) Neighbours() []Neighbour {
	if e, ok := p.Device().(interface{ Neighbours() []Neighbour }); ok {
		return e.Neighbours()
	}
	return nil
}

// ForgetNeighbours is Ethernet.ForgetNeighbours of the device.
func (p *Patient) ForgetNeighbours() int {
	if e, ok := p.Device().(interface{ ForgetNeighbours() int }); ok {
		return e.ForgetNeighbours()
	}
	return 0
}

// Probe is Ethernet.Probe of the device.
func (p *Patient) Probe(addr netip.Addr) error {
	if e, ok := p.Device().(interface{ Probe(netip.Addr) error }); ok {
		return e.Probe(addr)
	}
	return errors.New("link: there is no device to ask by ARP")
}

// Conflicts is Ethernet.Conflicts of the device.
func (p *Patient) Conflicts() []Conflict {
	if e, ok := p.Device().(interface{ Conflicts() []Conflict }); ok {
		return e.Conflicts()
	}
	return nil
}

// Stats returns what passed, also by devices that are gone.
func (p *Patient) Stats() Stats {
	p.mu.Lock()
	s, l := p.before, p.inner
	p.mu.Unlock()
	if c, ok := l.(Counter); ok {
		s = s.plus(c.Stats())
	} else {
		s = s.plus(Stats{})
	}
	if n := p.absent.Load(); n > 0 {
		s.Drops[Absent] += n
	}
	return s
}
