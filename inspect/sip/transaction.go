package sip

import (
	"bytes"
	"hash/maphash"

	"patchbay/nat"
)

// A transaction is a request that awaits its answer.
type transaction struct {
	from     nat.End
	branch   []byte
	via      []byte // as the sender wrote it; through NAT every Via, a line each
	answered bool   // with a final response
	hash     uint64 // of from and branch

	neighbours[transaction] // in its list
}

// transactions are those of a conversation, max at most and maxViaBytes of their
// Vias. A branch is unique within its sender (RFC 3261, section 8.1.1.7), and
// CANCEL shares that of its INVITE. Where there are too many, those that are
// answered go first, then those that nobody has spoken of for longest.
type transactions struct {
	max    int // 0: MaxTransactions
	n      int
	bytes  int // of room for Vias
	seed   maphash.Seed
	byHash map[uint64]*transaction                // of two with one hash the later
	lists  [2]agedList[transaction, *transaction] // those that wait, those that are answered
}

// listOf returns the list that x is in.
func (t *transactions) listOf(x *transaction) *agedList[transaction, *transaction] {
	if x.answered {
		return &t.lists[1]
	}
	return &t.lists[0]
}

// remember keeps the Via of a request.
func (t *transactions) remember(from nat.End, branch, via []byte) {
	if len(branch) == 0 || len(via) > MaxVia {
		return
	}
	if t.byHash == nil {
		t.byHash = make(map[uint64]*transaction)
		t.seed = maphash.MakeSeed()
	}
	h := t.hash(from, branch)
	x := t.byHash[h]
	switch {
	case x != nil: // the same, or one that it takes the place of
		t.listOf(x).remove(x)
	case t.n < max(t.max, MaxTransactions) && t.bytes+len(via) <= maxViaBytes:
		x = new(transaction)
		t.n++
	default:
		x = t.oldest()
		t.listOf(x).remove(x)
		delete(t.byHash, x.hash)
	}
	t.bytes -= cap(x.via)
	x.from, x.answered, x.hash = from, false, h
	x.branch = append(x.branch[:0], branch...)
	x.via = append(x.via[:0], via...)
	t.bytes += cap(x.via)
	t.byHash[h] = x
	t.lists[0].push(x)
	for t.bytes > maxViaBytes && t.n > 1 {
		t.forget(t.oldest())
	}
}

// oldest returns the one to give up first. There is one.
func (t *transactions) oldest() *transaction {
	if x := t.lists[1].first; x != nil {
		return x
	}
	return t.lists[0].first
}

func (t *transactions) forget(x *transaction) {
	t.listOf(x).remove(x)
	delete(t.byHash, x.hash)
	t.n--
	t.bytes -= cap(x.via)
}

// find returns the Via of the request that is answered, or nil.
func (t *transactions) find(from nat.End, branch []byte, final bool) []byte {
	x := t.get(from, branch)
	if x == nil {
		return nil
	}
	t.listOf(x).remove(x)
	x.answered = x.answered || final
	t.listOf(x).push(x)
	return x.via
}

func (t *transactions) get(from nat.End, branch []byte) *transaction {
	if t.byHash == nil || len(branch) == 0 {
		return nil
	}
	x := t.byHash[t.hash(from, branch)]
	if x == nil || x.from != from || !bytes.Equal(x.branch, branch) {
		return nil
	}
	return x
}

func (t *transactions) hash(from nat.End, branch []byte) uint64 {
	return maphash.Bytes(t.seed, branch) ^ uint64(from)
}
