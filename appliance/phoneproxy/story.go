package phoneproxy

import (
	"container/list"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"patchbay/appliance/media"
)

// What Stories holds to where its fields are zero, and always.
const (
	DefaultMaxStories       = 2000 // phones and addresses that are told of
	DefaultStoriesPerSource = 64   // of one address, of phones that no certificate has proved

	MaxEvents         = 64  // of one story; the oldest goes
	maxUnprovedEvents = 24  // of one that no certificate has proved
	maxEventText      = 300 // bytes of a text in it
)

// A Kind says what an Event is about.
type Kind uint8

// The kinds, in the order in which a phone comes to them.
const (
	FileAsked    Kind = iota // a file over TFTP
	TLSFailed                // no TLS
	TLSDone                  // the handshake is complete and the certificate good
	TurnedAway               // after that the box did not let it in
	UCMFailed                // the call manager cannot be called
	Connected                // both halves of its signaling are there
	Registered               // the call manager took its registration
	Rejected                 // it did not
	Disconnected             // signaling ended
	MediaOpened              // a stream of a call was readied
	MediaClosed              // and ended
	MediaFailed              // or could not be readied
)

// A Fault says what was wrong, for who looks for the cause. The zero Fault is
// none.
type Fault uint8

// The faults.
const (
	NoFault          Fault = iota
	FaultUnsigned          // it asked for its configuration unsigned: it holds no CTL file
	FaultNotFound          // the UCM has no such file
	FaultNoAnswer          // the UCM's TFTP server is silent
	FaultConfig            // the configuration cannot be read
	FaultCTL               // the CTL file cannot be made
	FaultFile              // the file was refused for another reason
	FaultPhoneSilent       // it does not acknowledge what it asked for
	FaultNoCert            // it showed no certificate
	FaultIssuer            // no trustpoint holds the issuer of its certificate
	FaultDate              // its certificate is outside its dates
	FaultCert              // its certificate is bad in another way
	FaultCipher            // no cipher suite in common
	FaultAlert             // it refused the box's certificate
	FaultHandshake         // the handshake broke off otherwise
	FaultBusy              // too many handshakes or sessions
	FaultEntry             // it has no secure-phone entry
	FaultName              // it registers under a name that is not its certificate's
	FaultUCMRefused        // the UCM's port is closed
	FaultUCMSilent         // the UCM does not answer
	FaultRejected          // the UCM rejected its registration
	FaultPorts             // no media port is left
	FaultMedia             // its media is refused for another reason
)

// An Event is one thing that happened to a phone. Its texts are fit for a
// terminal.
type Event struct {
	Time    time.Time // when it last happened
	Kind    Kind
	Device  string         // as its certificate or the file's name says; "" if nothing does
	From    netip.AddrPort // the phone
	Iface   string         // where it came in
	Service string         // "sip" or "skinny", of signaling and media
	File    string         // of FileAsked
	Done    bool           // of FileAsked: it is over, well if there is no Fault
	Text    string         // what happened, in words
	Fault   Fault
	Count   int // how often in a row, at least 1

	Certificate *Certificate  // of TLSDone and TLSFailed, nil if none was shown
	Stream      *StreamReport // of MediaClosed
}

// A Certificate is what a phone showed.
type Certificate struct {
	Subject, Issuer string
	Trustpoint      string // that vouches for it; "" if none does
	Expired         bool   // and that was allowed
}

// A StreamReport is what one media stream has carried.
type StreamReport struct {
	Call, Stream string
	Opened       time.Time
	Phone, UCM   media.LegStats
}

// A Story is what is known of one phone, or of an address that named no phone.
type Story struct {
	Device string     // "" if it is the story of an address
	Addr   netip.Addr // where it last was
	Iface  string
	Proved bool // a certificate has proved the name

	First, Last time.Time
	Forgotten   int // events that made room for others

	Signer   string    // of the CTL file that it was last given; "" if none was
	SignerAt time.Time // when

	Events []Event        // oldest first
	Media  []StreamReport // of streams that are open
}

// Latest returns the last event of one of the kinds, nil if there is none.
func (s *Story) Latest(kinds ...Kind) *Event {
	for i := len(s.Events) - 1; i >= 0; i-- {
		if slices.Contains(kinds, s.Events[i].Kind) {
			return &s.Events[i]
		}
	}
	return nil
}

// Stories remembers what happened to each phone, for "show phone-proxy phone"
// and "diagnose phone". Anyone can ask for files under any name, so a phone that
// no certificate has proved gives way to any other, an address has a share of
// such, and what others than itself do under the name of a phone that has proved
// it is the story of their address.
//
// The zero Stories works, and a nil one remembers nothing. Its fields must be
// set before first use. It may be used by many goroutines at once.
type Stories struct {
	Max       int // phones and addresses; 0: DefaultMaxStories
	PerSource int // of one address, not proved; 0: DefaultStoriesPerSource

	// OnEvent hears of everything, also of what is not kept; nil: nobody does.
	OnEvent func(Event)

	mu       sync.Mutex
	all      map[string]*story // by device, or by address
	at       map[netip.Addr][]*story
	unproved list.List // of *story, least recently told first
	proved   list.List // the same
}

// story is a Story and its place in the list.
type story struct {
	Story
	place *list.Element
	live  map[streamKey]*media.Session
}

// Note adds an event. e.Device is "" where the phone is known by its address
// only: then the event is of the one phone there, or of the address.
func (s *Stories) Note(e Event) {
	if s == nil {
		return
	}
	e.Text, e.File = fit(e.Text), fit(e.File)
	e.Count = max(e.Count, 1)
	s.mu.Lock()
	if st := s.storyLocked(&e); st != nil {
		st.add(e)
	}
	s.mu.Unlock()
	if s.OnEvent != nil {
		s.OnEvent(e)
	}
}

// storyLocked returns the story that e belongs to, moved to the young end; nil
// if there is no room for it.
func (s *Stories) storyLocked(e *Event) *story {
	addr := e.From.Addr()
	if e.Device == "" {
		// Of several phones behind one address it could be any.
		if here := s.at[addr]; len(here) == 1 && here[0].Device != "" && !e.claims() {
			e.Device = here[0].Device
		}
	}
	key, device := e.Device, e.Device
	proves := e.Kind >= TLSDone
	if st := s.all[key]; key == "" || st != nil && st.Proved && !proves && st.Addr != addr {
		key, device = addr.String(), "" // anyone may say so
	}
	st := s.all[key]
	if st == nil {
		if !s.roomLocked(addr, proves) {
			return nil
		}
		st = &story{Story: Story{Device: device, First: e.Time}}
		if s.all == nil {
			s.all, s.at = make(map[string]*story), make(map[netip.Addr][]*story)
		}
		s.all[key] = st
	} else {
		s.unlistLocked(st)
		if st.Addr != addr && !st.Proved && !proves {
			s.sourceRoomLocked(addr)
		}
	}
	st.Addr, st.Iface, st.Last = addr, e.Iface, e.Time
	st.Proved = st.Proved || proves && device != ""
	s.listLocked(st)
	return st
}

// claims reports whether the event is of somebody who says that he is another
// than the one who is known at the address: the name in a certificate that
// nobody vouches for.
func (e *Event) claims() bool { return e.Kind == TLSFailed && e.Certificate != nil }

// add appends e, or counts the last event once more. What became of a file takes
// the place and time of the request for it: a last acknowledgement may come late.
func (st *story) add(e Event) {
	if e.Kind == FileAsked {
		for i := len(st.Events) - 1; i >= 0; i-- {
			o := &st.Events[i]
			if o.Kind != FileAsked || o.Done || o.File != e.File || o.From != e.From {
				continue
			}
			if !e.Done { // asked once more
				o.Time, o.Text, o.Count = e.Time, e.Text, o.Count+1
				return
			}
			e.Time, e.Count = o.Time, o.Count
			*o = e
			if i > 0 && st.Events[i-1].like(&e) {
				before := &st.Events[i-1]
				before.Time, before.Count = e.Time, before.Count+e.Count
				st.Events = slices.Delete(st.Events, i, i+1)
			}
			return
		}
	}
	if n := len(st.Events); n > 0 {
		if o := &st.Events[n-1]; o.like(&e) {
			o.Time, o.From, o.Count = e.Time, e.From, o.Count+e.Count
			return
		}
	}
	limit := maxUnprovedEvents
	if st.Proved {
		limit = MaxEvents
	}
	if len(st.Events) >= limit {
		st.Events = slices.Delete(st.Events, 0, 1)
		st.Forgotten++
	}
	st.Events = append(st.Events, e)
}

func (e *Event) like(o *Event) bool {
	return e.Kind == o.Kind && e.From.Addr() == o.From.Addr() && e.Service == o.Service && e.File == o.File &&
		e.Done == o.Done && e.Text == o.Text && e.Fault == o.Fault && e.Stream == nil && o.Stream == nil
}

// given notes the signer of the CTL file that device has received under a name.
func (s *Stories) given(device, file string, from netip.Addr, signer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.all[device]
	if st == nil || st.Addr != from {
		return
	}
	for k := len(st.Events) - 1; k >= 0; k-- {
		if e := &st.Events[k]; e.Kind == FileAsked && e.File == file {
			st.Signer, st.SignerAt = fit(signer), e.Time
			return
		}
	}
}

// opened has the story of device show what a media session carries, until
// closed is called.
func (s *Stories) opened(device string, k streamKey, m *media.Session) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.all[device]; st != nil {
		if st.live == nil {
			st.live = make(map[streamKey]*media.Session)
		}
		st.live[k] = m
	}
}

func (s *Stories) closed(device string, k streamKey, m *media.Session) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.all[device]; st != nil && st.live[k] == m {
		delete(st.live, k)
	}
}

// Device returns the story of a phone. What happened at its address and names no
// phone, or names it and was not believed, is the story of the address.
func (s *Stories) Device(name string) (Story, bool) {
	if s == nil {
		return Story{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.all[name]
	if st == nil || st.Device == "" {
		return Story{}, false
	}
	return st.told(), true
}

// At returns the stories at an address: of phones by name, then its own.
func (s *Stories) At(addr netip.Addr) []Story {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Story
	for _, st := range s.at[addr] {
		all = append(all, st.told())
	}
	slices.SortFunc(all, func(a, b Story) int {
		if (a.Device == "") != (b.Device == "") {
			return len(b.Device) - len(a.Device)
		}
		return strings.Compare(a.Device, b.Device)
	})
	return all
}

// told returns a copy.
func (st *story) told() Story {
	c := st.Story
	c.Events = slices.Clone(st.Events)
	for k, m := range st.live {
		c.Media = append(c.Media, report(k, m))
	}
	slices.SortFunc(c.Media, func(a, b StreamReport) int { return a.Opened.Compare(b.Opened) })
	return c
}

// Len returns how many stories there are.
func (s *Stories) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// roomLocked makes room for one more story, of addr. It reports false if all
// there are may stay.
func (s *Stories) roomLocked(addr netip.Addr, proves bool) bool {
	if !proves {
		s.sourceRoomLocked(addr)
	}
	if len(s.all) < orDefault(s.Max, DefaultMaxStories) {
		return true
	}
	if f := s.unproved.Front(); f != nil {
		s.removeLocked(f.Value.(*story))
		return true
	}
	if !proves {
		return false
	}
	s.removeLocked(s.proved.Front().Value.(*story))
	return true
}

// sourceRoomLocked makes room among the stories of addr that are not proved.
func (s *Stories) sourceRoomLocked(addr netip.Addr) {
	var oldest *story
	n := 0
	for _, st := range s.at[addr] {
		if !st.Proved {
			if n++; oldest == nil || st.Last.Before(oldest.Last) {
				oldest = st
			}
		}
	}
	if n >= orDefault(s.PerSource, DefaultStoriesPerSource) {
		s.removeLocked(oldest)
	}
}

func (s *Stories) removeLocked(st *story) {
	s.unlistLocked(st)
	key := st.Device
	if key == "" {
		key = st.Addr.String()
	}
	delete(s.all, key)
}

// listLocked puts st at the young end.
func (s *Stories) listLocked(st *story) {
	l := &s.unproved
	if st.Proved {
		l = &s.proved
	}
	st.place = l.PushBack(st)
	s.at[st.Addr] = append(s.at[st.Addr], st)
}

// unlistLocked takes st out of its list. Its address and Proved must be as when
// it was listed.
func (s *Stories) unlistLocked(st *story) {
	if st.Proved {
		s.proved.Remove(st.place)
	} else {
		s.unproved.Remove(st.place)
	}
	here := slices.DeleteFunc(s.at[st.Addr], func(o *story) bool { return o == st })
	if s.at[st.Addr] = here; len(here) == 0 {
		delete(s.at, st.Addr)
	}
}

// report is what a session carries.
func report(k streamKey, m *media.Session) StreamReport {
	phone, ucm := m.Legs()
	return StreamReport{Call: fit(k.call), Stream: fit(k.stream), Opened: m.Opened, Phone: phone, UCM: ucm}
}

// fit makes a text from a phone fit for one line of a terminal.
func fit(s string) string {
	if len(s) > maxEventText {
		s = s[:maxEventText] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '?'
		}
		return r
	}, s)
}

func orDefault(n, def int) int {
	if n == 0 {
		return def
	}
	return n
}
