package nat

import (
	"net/netip"
	"sync"
	"time"

	"patchbay/stack"
)

// A Translation is one that a PAT has made or ended: a port, or with Proto 0 an
// address.
type Translation struct {
	Proto        stack.Proto
	From, To     *stack.Interface // nil is any
	Real, Mapped netip.AddrPort
	Lasted       time.Duration // until it ended
}

// notices are translations of which nobody was told yet: they are made and ended
// with locks held.
type notices struct {
	tell func(x Translation, ended bool)

	mu   sync.Mutex
	list []notice
	room []notice // for the next list
}

type notice struct {
	Translation
	ended bool
}

// SetNotice has f called, with no lock held, for each translation that begins
// and ends: by Table.Open, Table.Expire and Conn.Close when they are done. It is
// called once, before the PAT is used.
func (t *PAT) SetNotice(f func(x Translation, ended bool)) { t.notices.tell = f }

// note keeps a notice of x. The lock of x is held.
func (t *PAT) note(x *xlate, ended bool) {
	n := &t.notices
	if n.tell == nil {
		return
	}
	tr := Translation{From: x.use.from, To: x.use.to, Real: x.real, Mapped: netip.AddrPortFrom(x.addr, x.port)}
	if x.pool != nil {
		tr.Proto = x.pool.key.proto
	}
	if ended {
		tr.Lasted = time.Duration(t.now.Load() - x.born)
	}
	n.mu.Lock()
	n.list = append(n.list, notice{tr, ended})
	n.mu.Unlock()
}

// told hands over what is noted.
func (t *PAT) told() {
	if t == nil || t.notices.tell == nil {
		return
	}
	n := &t.notices
	n.mu.Lock()
	list := n.list
	n.list, n.room = n.room[:0], nil
	n.mu.Unlock()
	for _, x := range list {
		n.tell(x.Translation, x.ended)
	}
	clear(list)
	n.mu.Lock()
	if cap(list) > cap(n.room) && cap(list) <= maxNoticeRoom {
		n.room = list
	}
	n.mu.Unlock()
}

// maxNoticeRoom bounds the room that is kept between two calls.
const maxNoticeRoom = 4096
