package sip

// An agedList has the item that was pushed longest ago first. Items carry their
// places in it, so that nothing is allocated; each is in one list at most.
type agedList[T any, P aged[T]] struct{ first, last *T }

// An aged is what an agedList can hold: a type with a neighbours in it.
type aged[T any] interface {
	*T
	near() *neighbours[T]
}

// neighbours are the items before and after one in its list.
type neighbours[T any] struct{ prev, next *T }

func (n *neighbours[T]) near() *neighbours[T] { return n }

// push puts x, which is in no list, at the end.
func (l *agedList[T, P]) push(x *T) {
	*P(x).near() = neighbours[T]{prev: l.last}
	if l.last != nil {
		P(l.last).near().next = x
	} else {
		l.first = x
	}
	l.last = x
}

// remove takes x out.
func (l *agedList[T, P]) remove(x *T) {
	n := P(x).near()
	if n.prev != nil {
		P(n.prev).near().next = n.next
	} else {
		l.first = n.next
	}
	if n.next != nil {
		P(n.next).near().prev = n.prev
	} else {
		l.last = n.prev
	}
	*n = neighbours[T]{}
}
