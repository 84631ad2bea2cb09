package sip

import "patchbay/inspect"

// calls are those of a conversation.
type calls struct {
	max  int
	byID map[string]*call
	seen uint64

	agedList[call, *call] // the first was last seen longest ago
}

// maxLooked is how many calls are looked at for one that has ended, before one
// that has not gives way.
const maxLooked = 32

// forget ends x and takes it out.
func (c *calls) forget(x *call, b inspect.Binder) {
	x.end(b)
	c.remove(x)
	delete(c.byID, x.id)
}

// get returns the call, or nil.
func (c *calls) get(id []byte) *call {
	x := c.byID[string(id)]
	if x != nil && x != c.last {
		c.remove(x)
		c.push(x)
	}
	return x
}

// add returns the call, new if need be. In a full conversation an ended call
// gives way, or else the one that was silent longest.
func (c *calls) add(id []byte, st stage, b inspect.Binder) *call {
	if x := c.get(id); x != nil {
		return x
	}
	if len(c.byID) >= c.max {
		old := c.first
		for x, n := c.first, 0; x != nil && n < maxLooked; x, n = x.next, n+1 {
			if x.stage == ended {
				old = x
				break
			}
		}
		c.forget(old, b)
	}
	c.seen++
	x := &call{id: string(id), stage: st, born: c.seen}
	c.byID[x.id] = x
	c.push(x)
	return x
}

// close ends every call.
func (c *calls) close(b inspect.Binder) {
	for c.first != nil {
		c.forget(c.first, b)
	}
}
