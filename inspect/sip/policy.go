package sip

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"patchbay/inspect"
)

// A Map is the parameters of "policy-map type inspect sip". The zero Map looks
// at nothing and is stricter than the ASA's default in NonSIP, looser in
// MaxForwards; DefaultMap is the ASA's. (reference/asa-cli.md, section 9.1.)
type Map struct {
	// MaxForwards is done about a request whose Max-Forwards is 0 or no
	// number. One without it passes. (RFC 3261, section 16.3.)
	MaxForwards inspect.Action
	// URINonSIP is done about an Alert-Info or Call-Info with another URI
	// than sip: and sips:. Mask takes the field out.
	URINonSIP inspect.Action
	// Software is done about Server and User-Agent. Mask takes them out.
	Software inspect.Action
	// StrictHeader is done about a message without the fields that RFC 3261,
	// section 8.1.1, and 20 want, or with one of them twice.
	StrictHeader inspect.Action
	// State is done about a message that belongs to nothing: an answer that
	// nobody waits for, a CANCEL, BYE or PRACK of no call.
	State inspect.Action
	// NoIM drops instant messages: MESSAGE, and the subscriptions to presence
	// that go with them ("no im").
	NoIM bool
	// NonSIP lets what is not SIP through as it is ("traffic-non-sip"). What
	// looks like SIP and is malformed is neither, and does not pass.
	NonSIP bool
	// Private shows no address that only a display of the caller needs and
	// that no rule translates: the other end gets the sender's own in its
	// place ("ip-address-privacy"). It is for Engine.NAT.
	Private bool
	// Matches are tried in order; the first that ends the message is the last.
	Matches []Match
}

// DefaultMap is the ASA's built-in map.
func DefaultMap() Map { return Map{MaxForwards: inspect.Drop, NonSIP: true} }

// Why a message breaks a rule, wrapped with what it is.
var (
	ErrMaxForwards = errors.New("max-forwards-validation")
	ErrURINonSIP   = errors.New("uri-non-sip")
	ErrSoftware    = errors.New("software-version")
	ErrHeader      = errors.New("strict-header-validation")
	ErrState       = errors.New("state-checking")
	ErrIM          = errors.New("instant message")
)

// isSIP reports whether msg begins as a SIP message does.
func isSIP(msg []byte) bool {
	n := bytes.IndexByte(msg, '\n')
	return n >= 0 && checkStart(msg[:n+1]) == nil
}

// violated does what a says about a message that breaks rule, a parameter of
// the map.
func (s *session) violated(a inspect.Action, rule error, what string) error {
	s.tell(a, "SIP Parameter", rule.Error()+":", func() string { return what })
	if !a.Ends() {
		return nil
	}
	return a.Refuse(fmt.Errorf("sip: %s of %.40q from %v: %s: %w", s.msg.method, s.msg.callID, s.from, what, rule))
}

// tell logs what a did about the message at hand, if it says so.
// (reference/asa-cli-show-debug.md, section 5, messages 607002 and 607003.)
func (s *session) tell(a inspect.Action, class, why string, what func() string) {
	if a&inspect.Log == 0 || s.engine.Log == nil {
		return
	}
	m := &s.msg
	kind, info := "Request", string(m.method)
	if !m.isRequest() {
		kind, info = "Response", strconv.Itoa(m.status)
	}
	between := inspect.Between(s.binder, s.from)
	if done := a.Done(); done != "" {
		s.engine.Log.Warn(fmt.Sprintf("%%ASA-4-607002: %s: %s %s %.40s from %s; %s %s", class, done, kind, info, between, why, what()))
		return
	}
	s.engine.Log.Info(fmt.Sprintf("%%ASA-6-607003: %s: Received %s %.40s from %s; %s %s", class, kind, info, between, why, what()))
}

// enforce checks the rules of the map, and masks.
func (s *session) enforce() error {
	m, e := &s.msg, &s.engine.Map
	s.masked = s.masked[:0]
	if e.NoIM && s.isIM() {
		return s.violated(inspect.Drop, ErrIM, string(m.method))
	}
	if err := s.tryMatches(); err != nil {
		return err
	}
	if e.State != 0 {
		if what := s.stray(); what != "" {
			if err := s.violated(e.State, ErrState, what); err != nil {
				return err
			}
		}
	}
	if e.MaxForwards|e.Software|e.URINonSIP|e.StrictHeader == 0 {
		return nil
	}
	var seen [len(wanted)]int
	hops, hopsOK := 0, false
	line := lines{b: m.raw, at: bytes.IndexByte(m.raw, '\n') + 1}
	for start := line.at; line.next(); start = line.at {
		whole := inspect.Span{Off: start, Len: line.at - start}
		name, value := line.name.Of(m.raw), line.value.Of(m.raw)
		for i := range wanted {
			if equalFold(name, wanted[i].name) || equalFold(name, wanted[i].short) {
				seen[i]++
			}
		}
		var err error
		switch {
		case equalFold(name, "max-forwards"):
			hops, hopsOK = parseLength(value)
		case e.Software != 0 && (equalFold(name, "server") || equalFold(name, "user-agent")):
			err = s.mask(e.Software, ErrSoftware, whole, string(name))
		case e.URINonSIP != 0 && (equalFold(name, "alert-info") || equalFold(name, "call-info")):
			if otherScheme(m.raw, line.value) {
				err = s.mask(e.URINonSIP, ErrURINonSIP, whole, string(name))
			}
		}
		if err != nil {
			return err
		}
	}
	if e.MaxForwards != 0 && m.isRequest() && seen[maxForwards] > 0 && (!hopsOK || hops == 0) {
		what := "Max-Forwards is 0"
		if !hopsOK {
			what = "Max-Forwards is no number"
		}
		if err := s.violated(e.MaxForwards, ErrMaxForwards, what); err != nil {
			return err
		}
	}
	if e.StrictHeader != 0 {
		if what := s.illFormed(seen[:], hops, hopsOK); what != "" {
			return s.violated(e.StrictHeader, ErrHeader, what)
		}
	}
	return nil
}

// mask takes a field out, or does otherwise as a says.
func (s *session) mask(a inspect.Action, rule error, line inspect.Span, what string) error {
	if err := s.violated(a, rule, what); err != nil {
		return err
	}
	if a&inspect.Mask != 0 {
		s.edits.Replace(line.Off, line.Len, nil)
		s.masked = append(s.masked, line)
	}
	return nil
}

// removed reports whether f has been masked.
func (s *session) removed(f *field) bool {
	for _, line := range s.masked {
		if line.Off <= f.value.Off && f.value.Off < line.End() {
			return true
		}
	}
	return false
}

// otherScheme reports whether a list names a URI that is neither sip: nor sips:.
func otherScheme(b []byte, value inspect.Span) bool {
	l := list{b: b, rest: value}
	for l.next() {
		u, _, ok := nameAddr(b, l.value)
		if !ok {
			return true
		}
		scheme, _, _ := bytes.Cut(u.Of(b), []byte(":"))
		if !equalFold(scheme, "sip") && !equalFold(scheme, "sips") {
			return true
		}
	}
	return false
}

// isIM reports whether the message at hand is a request for instant messaging.
func (s *session) isIM() bool {
	m := &s.msg
	switch {
	case !m.isRequest():
		return false
	case m.isMethod("MESSAGE"):
		return true
	case !m.isMethod("SUBSCRIBE") && !m.isMethod("NOTIFY") && !m.isMethod("PUBLISH"):
		return false
	}
	line := lines{b: m.raw, at: bytes.IndexByte(m.raw, '\n') + 1}
	for line.next() {
		if name := line.name.Of(m.raw); !equalFold(name, "event") && !equalFold(name, "o") {
			continue
		}
		event, _, _ := bytes.Cut(line.value.Of(m.raw), []byte(";"))
		event, _, _ = bytes.Cut(bytes.TrimSpace(event), []byte("."))
		return equalFold(event, "presence")
	}
	return false
}

// stray says what a message wants that there is not, or "".
func (s *session) stray() string {
	m := &s.msg
	c := s.calls.byID[string(m.callID)]
	if m.isRequest() {
		switch {
		case m.isMethod("CANCEL") && (c == nil || c.stage != early && !c.cancelled):
			return "CANCEL of no call that rings"
		case c == nil && (m.isMethod("BYE") || m.isMethod("PRACK") || m.isMethod("UPDATE") || m.isMethod("ACK")):
			return string(m.method) + " of no call"
		}
		return ""
	}
	branch, found := []byte(nil), false
	s.eachVia(func(i int, v via) {
		if i == 0 {
			branch, found = v.branch.Of(m.raw), true
		}
	})
	if !found || s.pending.get(s.from.Other(), branch) == nil {
		return "answer to no request"
	}
	return ""
}

// wanted are the fields that every message has exactly once, Via aside; the
// last two are requests' and INVITE's alone. (RFC 3261, section 20, table 2.)
var wanted = [...]struct{ name, short string }{
	{"from", "f"}, {"to", "t"}, {"call-id", "i"}, {"cseq", "cseq"}, {"max-forwards", "max-forwards"}, {"contact", "m"},
}

// maxForwards is the index of that field in wanted.
const maxForwards = 4

// illFormed says what is wrong with the fields of the message, or "".
func (s *session) illFormed(seen []int, hops int, hopsOK bool) string {
	m := &s.msg
	for i, n := range seen[:4] {
		if n != 1 {
			return miscounted(wanted[i].name, n)
		}
	}
	switch {
	case m.isRequest() && seen[maxForwards] != 1:
		return miscounted("max-forwards", seen[maxForwards])
	case m.isRequest() && (!hopsOK || hops > 255):
		return "Header field max-forwards is not 0 to 255"
	case m.isRequest() && m.isMethod("INVITE") && seen[5] != 1:
		return miscounted("contact", seen[5])
	case m.cseq > 1<<31-1:
		return "CSeq over 2^31" // RFC 3261, section 8.1.1.5
	case m.status > 100 && !m.inside:
		return "answer without a tag in To" // RFC 3261, section 8.2.6.2
	}
	for i := range m.fields {
		f := &m.fields[i]
		if f.kind == fieldIdentity && isFrom(m.raw, f.value.Off) && !hasTag(m.raw, f.value) {
			return "From without a tag"
		}
	}
	return ""
}

// miscounted says what is wrong with a field that is there n times.
func miscounted(name string, n int) string {
	if n == 0 {
		return "Mandatory header field " + name + " is missing"
	}
	return "Header field " + name + " is there more than once"
}

// isFrom reports whether the field whose value is at off is From.
func isFrom(b []byte, off int) bool {
	line := b[bytes.LastIndexByte(b[:off], '\n')+1 : off]
	name, _, _ := bytes.Cut(line, []byte(":"))
	name = bytes.TrimSpace(name)
	return equalFold(name, "from") || equalFold(name, "f")
}
