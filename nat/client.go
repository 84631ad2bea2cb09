package nat

import (
	"net/netip"
	"sync"

	"patchbay/stack"
)

// clients counts the connections of each client address, for the limits.
type clients struct {
	maxConns, maxEmbryonic int
	shards                 [numShards]clientShard
}

type clientShard struct {
	mu     sync.Mutex
	counts map[netip.Addr]clientCount
}

type clientCount struct{ conns, embryonic int }

func (s *clients) init(cfg TableConfig) {
	s.maxConns, s.maxEmbryonic = cfg.MaxPerClient, cfg.MaxEmbryonic
	for i := range s.shards {
		s.shards[i].counts = make(map[netip.Addr]clientCount)
	}
}

func (s *clients) shard(a netip.Addr) *clientShard {
	return &s.shards[number(a)*0x9e3779b1>>(32-shardBits)] // 2^32 / golden ratio
}

// add counts a new connection of f's client, or reports that it has too many.
func (s *clients) add(f stack.Flow) bool {
	a := f.Src.Addr()
	sh := s.shard(a)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	n := sh.counts[a]
	n.conns++
	if s.maxConns > 0 && n.conns > s.maxConns {
		return false
	}
	if f.Proto == stack.TCP {
		if n.embryonic++; n.embryonic > s.maxEmbryonic {
			return false
		}
	}
	sh.counts[a] = n
	return true
}

// up counts c as embryonic no more.
func (s *clients) up(c *Conn) {
	if c.counted.Swap(true) {
		return
	}
	a := c.Client().Src.Addr()
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
		n.embryonic--
	}
	if n.conns <= 0 {
		delete(sh.counts, a)
		return
	}
	sh.counts[a] = n
}
