package nat

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"patchbay/stack"
)

// clients counts the connections of each client address, for the limits. A
// limit of 0 is none.
type clients struct {
	maxConns, maxEmbryonic int // of one client
	maxHalfOpen            int // in all

	halfOpen atomic.Int64 // embryonic ones of all clients
	shards   [numShards]clientShard
}

type clientShard struct {
	mu     sync.Mutex
	counts map[netip.Addr]clientCount
}

type clientCount struct{ conns, embryonic int }

func (s *clients) init(maxConns, maxEmbryonic, maxHalfOpen int) {
	s.maxConns, s.maxEmbryonic, s.maxHalfOpen = maxConns, maxEmbryonic, maxHalfOpen
	for i := range s.shards {
		s.shards[i].counts = make(map[netip.Addr]clientCount)
	}
}

func (s *clients) shard(a netip.Addr) *clientShard {
	return &s.shards[number(a)*0x9e3779b1>>(32-shardBits)] // 2^32 / golden ratio
}

// add counts a new connection of f's client, or drops it if there are too many. If
// dry it only says which.
func (s *clients) add(f stack.Flow, dry bool) stack.Verdict {
	a := f.Src.Addr()
	sh := s.shard(a)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.counts[a]
	n.conns++
	if s.maxConns > 0 && n.conns > s.maxConns {
		return stack.DropHostLimit
	}
	if f.Proto == stack.TCP {
		if n.embryonic++; s.maxEmbryonic > 0 && n.embryonic > s.maxEmbryonic {
			return stack.DropEmbryonic
		}
		one := int64(1)
		if dry {
			one = 0
		}
		if all := s.halfOpen.Add(one) - one; s.maxHalfOpen > 0 && all >= int64(s.maxHalfOpen) {
			s.halfOpen.Add(-one)
			return stack.DropEmbryonic
		}
	}
	if !dry {
		sh.counts[a] = n
	}
	return stack.Forward
}

// up counts a connection of a as embryonic no more.
func (s *clients) up(a netip.Addr) {
	s.halfOpen.Add(-1)
	sh := s.shard(a)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if n, ok := sh.counts[a]; ok {
		n.embryonic--
		sh.counts[a] = n
	}
}

// remove counts a connection of a no more; embryonic says that it was one.
func (s *clients) remove(a netip.Addr, embryonic bool) {
	sh := s.shard(a)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.counts[a]
	n.conns--
	if embryonic {
		s.halfOpen.Add(-1)
		n.embryonic--
	}
	if n.conns <= 0 {
		delete(sh.counts, a)
		return
	}
	sh.counts[a] = n
}
