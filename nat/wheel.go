package nat

// wheelTicks is how far ahead the wheel reaches, in seconds. A connection that
// is due later is looked at when it has come that far.
const wheelTicks = 256

// A wheel holds connections by the second in which their idle time may be
// over. It is guarded by the lock of its shard.
type wheel struct {
	heads [wheelTicks]*Conn
}

// add puts c where it is looked at at tick, or as far ahead of now as the
// wheel reaches. Both are Unix times in s, and tick is later.
func (w *wheel) add(c *Conn, tick, now int64) {
	c.tick = min(tick, now+wheelTicks-1)
	head := &w.heads[uint64(c.tick)%wheelTicks]
	c.prev, c.next, c.wheeled = nil, *head, true
	if c.next != nil {
		c.next.prev = c
	}
	*head = c
}

// remove takes c off, if it is on.
func (w *wheel) remove(c *Conn) {
	if !c.wheeled {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.heads[uint64(c.tick)%wheelTicks] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev, c.wheeled = nil, nil, false
}
