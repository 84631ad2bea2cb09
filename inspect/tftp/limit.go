package tftp

import (
	"net/netip"
	"time"
)

// A Rate is a token bucket's shape.
type Rate struct {
	PerSecond float64 // requests a second, in the long run
	Burst     float64 // requests at once
}

// bucket is one token bucket.
type bucket struct {
	tokens float64
	at     time.Time // when tokens was true; zero: the bucket is new and full
}

// take takes a token, if there is one.
func (b *bucket) take(r Rate, now time.Time) bool {
	b.fill(r, now)
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// fill brings tokens up to now and reports whether the bucket is full.
func (b *bucket) fill(r Rate, now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = r.Burst
	} else if d := now.Sub(b.at).Seconds(); d > 0 {
		b.tokens = min(r.Burst, b.tokens+d*r.PerSecond)
	}
	b.at = now
	return b.tokens >= r.Burst
}

const (
	maxSources    = 4096        // source addresses with a bucket of their own
	sweepInterval = time.Second // least time between two searches for full buckets
)

// limiter says whether a request may be looked at: by source and in all. A
// source with a full bucket needs no memory, so only sources that asked lately
// hold a place, and while all places are held no new source gets one.
type limiter struct {
	all     bucket
	sources map[netip.Addr]*bucket
	swept   time.Time
}

func (l *limiter) allow(src netip.Addr, per, all Rate, now time.Time) bool {
	b := l.sources[src]
	if b == nil {
		if len(l.sources) >= maxSources {
			l.sweep(per, now)
			if len(l.sources) >= maxSources {
				return false
			}
		}
		if l.sources == nil {
			l.sources = make(map[netip.Addr]*bucket)
		}
		b = new(bucket)
		l.sources[src] = b
	}
	return b.take(per, now) && l.all.take(all, now)
}

// sweep forgets the sources whose buckets are full again.
func (l *limiter) sweep(per Rate, now time.Time) {
	if d := now.Sub(l.swept); d >= 0 && d < sweepInterval {
		return
	}
	l.swept = now
	for src, b := range l.sources {
		if b.fill(per, now) {
			delete(l.sources, src)
		}
	}
}
