package stack

import (
	"sync"
	"time"
)

// A PolicerConfig is what a "police" command says of one direction.
// (reference/asa-cli.md, section 9.3.)
type PolicerConfig struct {
	Rate  int64 // bits a second, 1 to MaxPoliceRate
	Burst int64 // bytes, 1 to MaxPoliceBurst

	DropConforming   bool // conform-action drop
	TransmitExceeded bool // exceed-action transmit
}

// The most that a Policer can count with, which is what the ASA takes: the
// bucket in bits and nanoseconds fits in 63 bits.
const (
	MaxPoliceRate  = 2_000_000_000 // bits a second
	MaxPoliceBurst = 512_000_000   // bytes
)

const (
	// policeWindow is how long a rate that a Policer reports was measured.
	policeWindow = 5 * time.Second
	// policeSkew is how far back the time of a packet may be because several
	// goroutines bring them. One further back means that the clock was set.
	policeSkew = time.Second

	nanos = 1_000_000_000 // in a second
)

// A Policer holds a class of traffic to a rate: a token bucket that fills with
// the rate up to the burst and that each packet takes its length from. What
// fits conforms, what does not exceeds and takes nothing. It knows no clock but
// the packets'. It may be used by several goroutines at once.
type Policer struct {
	cfg  PolicerConfig
	full int64 // the bucket when it is full, as tokens

	mu     sync.Mutex
	begun  bool  // a packet was here
	tokens int64 // in the bucket, in bits times nanoseconds, so that nothing is rounded
	last   int64 // when it was filled, Unix time in ns
	count  PoliceCount
	window int64    // when the running window began, Unix time in ns
	now    [2]int64 // bits in it, by whether they exceeded
	before [2]int64 // in the window before
}

// A PoliceCount is what a Policer has seen.
type PoliceCount struct {
	Conformed, ConformedBytes uint64
	Exceeded, ExceededBytes   uint64
}

// NewPolicer returns a Policer whose bucket is full.
func NewPolicer(cfg PolicerConfig) *Policer {
	cfg.Rate = min(max(cfg.Rate, 1), MaxPoliceRate)
	cfg.Burst = min(max(cfg.Burst, 1), MaxPoliceBurst)
	return &Policer{cfg: cfg, full: cfg.Burst * 8 * nanos}
}

// Config returns what the Policer was made from.
func (l *Policer) Config() PolicerConfig { return l.cfg }

// Take takes the tokens for p at p.Time, counts it, and returns Forward or
// DropRate as its action says. It allocates nothing.
//
// What counts is the length of the IP packet: the 80 bytes of the arithmetic
// 300 requests/s x 80 x 8 = 192,000 are those of an IP packet with a TFTP
// request, and so the rate is the same on every kind of link. (Configuration
// (g), reference/asa-cli.md, section 9.3.)
func (l *Policer) Take(p *Packet) Verdict {
	n := int64(p.Len())
	now := p.Time.UnixNano()

	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillLocked(now)
	l.turnLocked(now)
	if need := n * 8 * nanos; need <= l.tokens {
		l.tokens -= need
		l.count.Conformed++
		l.count.ConformedBytes += uint64(n)
		l.now[0] += n * 8
		if l.cfg.DropConforming {
			return DropRate
		}
		return Forward
	}
	l.count.Exceeded++
	l.count.ExceededBytes += uint64(n)
	l.now[1] += n * 8
	if l.cfg.TransmitExceeded {
		return Forward
	}
	return DropRate
}

// Foresee returns what Take would, and changes nothing.
func (l *Policer) Foresee(p *Packet) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := Policer{cfg: l.cfg, full: l.full, begun: l.begun, tokens: l.tokens, last: l.last}
	c.fillLocked(p.Time.UnixNano())
	if int64(p.Len())*8*nanos <= c.tokens {
		if l.cfg.DropConforming {
			return DropRate
		}
	} else if !l.cfg.TransmitExceeded {
		return DropRate
	}
	return Forward
}

// fillLocked puts into the bucket what has come since it was last filled.
func (l *Policer) fillLocked(now int64) {
	d := now - l.last
	switch {
	case !l.begun:
		l.begun, l.tokens, l.last, l.window = true, l.full, now, now
	case d < -int64(policeSkew): // the clock was set back
		l.last = now
	case d <= 0:
	case d > (l.full-l.tokens)/l.cfg.Rate: // so that the product below cannot overflow
		l.tokens, l.last = l.full, now
	default:
		l.tokens, l.last = l.tokens+d*l.cfg.Rate, now
	}
}

// turnLocked begins a new window when the running one is over.
func (l *Policer) turnLocked(now int64) {
	switch d := now - l.window; {
	case d < -int64(policeSkew) || d >= 2*int64(policeWindow):
		l.before, l.now, l.window = [2]int64{}, [2]int64{}, now
	case d >= int64(policeWindow):
		l.before, l.now, l.window = l.now, [2]int64{}, l.window+int64(policeWindow)
	}
}

// Count returns what was seen so far.
func (l *Policer) Count() PoliceCount {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// Rates returns how many bits a second conformed and exceeded in the last whole
// five seconds before now that were measured.
func (l *Policer) Rates(now time.Time) (conformed, exceeded int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.begun {
		return 0, 0
	}
	l.turnLocked(now.UnixNano())
	const seconds = int64(policeWindow / time.Second)
	return l.before[0] / seconds, l.before[1] / seconds
}

// Clear sets the counts to zero. The bucket stays as it is.
func (l *Policer) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count, l.now, l.before = PoliceCount{}, [2]int64{}, [2]int64{}
}
