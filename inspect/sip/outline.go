package sip

// An Outline says which message this is and nothing of what it carries: what of
// it may be shown to anybody.
type Outline struct {
	Method string // of the request, or of the request that is answered
	Status int    // of a response; 0 for a request
	CallID string
	CSeq   uint32
}

// Outlined returns the outline of msg, a message that Split found; false if it
// does not parse.
func Outlined(msg []byte) (Outline, bool) {
	var m message
	if err := m.parse(msg); err != nil {
		return Outline{}, false
	}
	return Outline{string(m.method), m.status, string(m.callID), m.cseq}, true
}
