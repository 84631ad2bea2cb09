package appliance

import (
	"bufio"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/phoneproxy"
)

// A tale is what is known of one phone: its own story, with what happened at its
// address in nobody's name, and its signaling now.
type tale struct {
	phoneproxy.Story
	sessions []phoneproxy.Session
	known    bool // there is a story
}

// tales returns what is known of a device, or of all that are at an address.
func (x *execution) tales(device string, addr netip.Addr) []tale {
	var stories []phoneproxy.Story
	if device != "" {
		s, ok := x.stories.Device(device)
		if !ok {
			s.Device = device
		}
		stories = append(stories, s)
	} else {
		stories = x.stories.At(addr)
		if len(stories) > 1 && stories[len(stories)-1].Device == "" {
			stories = stories[:len(stories)-1] // it is in those of the phones
		}
		if len(stories) == 0 {
			stories = []phoneproxy.Story{{Addr: addr}}
		}
	}
	var all []tale
	for _, s := range stories {
		t := tale{Story: s, known: !s.Last.IsZero()}
		if s.Device != "" && s.Addr.IsValid() {
			t.join(x.stories.At(s.Addr))
		}
		if x.plan.service != nil && s.Device != "" {
			t.sessions = slices.DeleteFunc(x.plan.service.sessions(), func(c phoneproxy.Session) bool { return c.Device != s.Device })
		}
		all = append(all, t)
	}
	return all
}

// join adds what happened at the phone's address in nobody's name or, not
// believed, in its own.
func (t *tale) join(here []phoneproxy.Story) {
	for _, o := range here {
		if o.Device != "" {
			continue
		}
		for _, e := range o.Events {
			if e.Device == "" || e.Device == t.Device {
				t.Events = append(t.Events, e)
			}
		}
	}
	slices.SortStableFunc(t.Events, func(a, b phoneproxy.Event) int { return a.Time.Compare(b.Time) })
}

// registered returns the session in which it is registered, or nil.
func (t *tale) registered() *phoneproxy.Session {
	for k := range t.sessions {
		if t.sessions[k].Registered {
			return &t.sessions[k]
		}
	}
	return nil
}

// taleName is whom a tale is of.
func taleName(device string, addr netip.Addr, iface string) string {
	switch {
	case device == "":
		return fmt.Sprintf("Address %v", addr)
	case !addr.IsValid():
		return "Phone " + device
	}
	return fmt.Sprintf("Phone %s at %v on %s", device, addr, iface)
}

const storyTime = "Jan 02 15:04:05.000"

// A shownTale is what is known of one phone.
type shownTale struct {
	Device    string     `json:"device,omitempty"` // none: it is of an address
	Addr      netip.Addr `json:"address,omitzero"`
	Interface string     `json:"interface,omitempty"`
	Known     bool       `json:"known"` // there is a story: what follows
	First     time.Time  `json:"first_heard,omitzero"`
	Last      time.Time  `json:"last_heard,omitzero"`

	CTL          *shownCTLGiven        `json:"ctl_file,omitempty"` // none: not fetched here
	TLS          *shownOutcome         `json:"tls,omitempty"`      // none: never tried
	Registration *shownRegistration    `json:"registration,omitempty"`
	Media        cli.List[shownStream] `json:"media"` // that is open
	LastError    *shownEvent           `json:"last_error,omitempty"`
	Earlier      int                   `json:"forgotten_events"`
	Events       cli.List[shownEvent]  `json:"events"` // the oldest first
}

// A shownCTLGiven is the CTL file that a phone was last given.
type shownCTLGiven struct {
	Given  time.Time `json:"given"`
	Signer string    `json:"signer"`
	Holds  string    `json:"phone_holds"` // "ours", "another" or "unknown"
}

// A shownOutcome is how a handshake went.
type shownOutcome struct {
	OK          bool         `json:"ok"`
	Time        time.Time    `json:"time"`
	Outcome     string       `json:"text"`
	Certificate *certificate `json:"certificate,omitempty"`
}

// A shownRegistration is the connection to a call manager.
type shownRegistration struct {
	Registered bool        `json:"registered"`
	UCM        endpoint    `json:"call_manager"`
	Protocol   string      `json:"protocol"`
	Since      time.Time   `json:"since"`
	Idle       cli.Seconds `json:"since_last_message_seconds"`
}

// A shownStream is what both legs of a stream have carried.
type shownStream struct {
	Call   string    `json:"call"`
	Stream string    `json:"stream"`
	Opened time.Time `json:"opened"`
	Phone  shownLeg  `json:"phone"`
	UCM    shownLeg  `json:"call_manager_side"`
}

// A shownEvent is one thing that happened to a phone.
type shownEvent struct {
	Time    time.Time    `json:"time"` // when it last happened
	Kind    string       `json:"kind"` // "file", "tls", "tls_failed", "registered" ...
	Service string       `json:"protocol,omitempty"`
	File    string       `json:"file,omitempty"`
	What    string       `json:"text,omitempty"`
	Failed  bool         `json:"failed"`
	Count   int          `json:"count"` // how often in a row
	Stream  *shownStream `json:"stream,omitempty"`
	kind    phoneproxy.Kind
}

type shownTales struct {
	Phones cli.List[shownTale] `json:"phones"` // the phone, or all that are at the address
}

// showPhoneStory tells what has happened to a phone.
func showPhoneStory(x *execution, args cli.Args) (s shownTales, _ error) {
	now := x.opt.Now()
	for _, t := range x.tales(x.execPhone(args.Get("who"))) {
		s.Phones = append(s.Phones, t.shown(now))
	}
	return s, nil
}

func (t *tale) shown(now time.Time) shownTale {
	s := shownTale{Device: t.Device, Addr: t.Addr, Interface: t.Iface, Known: t.known, Earlier: t.Forgotten}
	if !t.known {
		return s
	}
	s.First, s.Last = t.First.UTC(), t.Story.Last.UTC()
	if t.Signer != "" {
		s.CTL = &shownCTLGiven{t.SignerAt.UTC(), t.Signer, t.holds()}
	}
	if e := t.Latest(phoneproxy.TLSDone, phoneproxy.TLSFailed); e != nil {
		s.TLS = &shownOutcome{e.Kind == phoneproxy.TLSDone, e.Time.UTC(), e.Text, (*certificate)(e.Certificate)}
	}
	c := t.registered()
	if c == nil && len(t.sessions) > 0 {
		c = &t.sessions[0]
	}
	if c != nil {
		s.Registration = &shownRegistration{c.Registered, endpointOf(c.UCM), c.Service, c.Since.UTC(), cli.Seconds(now.Sub(c.Last))}
	}
	for k := range t.Media {
		s.Media = append(s.Media, *streamOf(&t.Media[k], now))
	}
	if e := t.lastError(); e != nil {
		s.LastError = new(phoneEvent(e, now))
	}
	for k := range t.Events {
		s.Events = append(s.Events, phoneEvent(&t.Events[k], now))
	}
	return s
}

func streamOf(m *phoneproxy.StreamReport, now time.Time) *shownStream {
	return &shownStream{m.Call, m.Stream, m.Opened.UTC(), legOf(m.Phone, now), legOf(m.UCM, now)}
}

func phoneEvent(e *phoneproxy.Event, now time.Time) shownEvent {
	s := shownEvent{
		Time: e.Time.UTC(), Kind: strings.ReplaceAll(strings.ToLower(kindText(e.Kind)), " ", "_"), Service: e.Service, File: e.File,
		What: e.Text, Failed: e.Fault != phoneproxy.NoFault, Count: e.Count, kind: e.Kind,
	}
	if e.Stream != nil {
		s.Stream = streamOf(e.Stream, now)
	}
	return s
}

// Text has a layout of our own.
func (s shownTales) Text(w *bufio.Writer) {
	for k := range s.Phones {
		if k > 0 {
			w.WriteString("\n")
		}
		s.Phones[k].text(w)
	}
}

func (t *shownTale) text(w *bufio.Writer) {
	fmt.Fprintf(w, "%s\n", taleName(t.Device, t.Addr, t.Interface))
	if !t.Known {
		w.WriteString("  Nothing has been heard of it. \"diagnose phone\" says what may be in its way.\n")
		return
	}
	fmt.Fprintf(w, "  Heard of: first %s, last %s\n", at(t.First), at(t.Last))
	if c := t.CTL; c != nil {
		fmt.Fprintf(w, "  CTL file: given %s, signed by %s\n            %s\n", at(c.Given), c.Signer, map[string]string{
			"ours":    "the phone holds it: since then it has taken the box's certificate",
			"another": "the phone holds another: since then it has refused the box's certificate",
			"unknown": "whether the phone has installed it is not known yet",
		}[c.Holds])
	} else {
		w.WriteString("  CTL file: not fetched here\n")
	}
	t.TLS.text(w)
	switch c := t.Registration; {
	case c == nil:
		w.WriteString("  Registration: none\n")
	case c.Registered:
		fmt.Fprintf(w, "  Registration: registered with %v (%s) since %s, last message %s ago\n", c.UCM, c.Protocol, at(c.Since), clockTime(c.Idle.Duration()))
	default:
		fmt.Fprintf(w, "  Registration: connected to %v since %s, not registered\n", c.UCM, at(c.Since))
	}
	for k := range t.Media {
		m := &t.Media[k]
		fmt.Fprintf(w, "  Media: call %s, stream %s, since %s\n", m.Call, m.Stream, at(m.Opened))
		m.text(w, "    ")
	}
	if e := t.LastError; e != nil {
		fmt.Fprintf(w, "  Last error: %s %s: %s\n", at(e.Time), kindText(e.kind), e.What)
	} else {
		w.WriteString("  Last error: none\n")
	}
	w.WriteString("  What happened:\n")
	if t.Earlier > 0 {
		fmt.Fprintf(w, "    (%d earlier)\n", t.Earlier)
	}
	for k := range t.Events {
		t.Events[k].text(w)
	}
}

func (o *shownOutcome) text(w *bufio.Writer) {
	switch {
	case o == nil:
		w.WriteString("  TLS: never tried\n")
		return
	case o.OK:
		fmt.Fprintf(w, "  TLS: %s %s\n", o.Outcome, at(o.Time))
	default:
		fmt.Fprintf(w, "  TLS: failed: %s, %s\n", o.Outcome, at(o.Time))
	}
	if c := o.Certificate; c != nil {
		fmt.Fprintf(w, "       subject %s\n       issuer %s\n", c.Subject, c.Issuer)
		if c.Trustpoint != "" {
			fmt.Fprintf(w, "       trustpoint %s\n", c.Trustpoint)
		}
		if c.Expired {
			w.WriteString("       outside its dates, which is permitted\n")
		}
	}
}

func (e *shownEvent) text(w *bufio.Writer) {
	what := kindText(e.kind)
	if e.Service != "" {
		what = e.Service + " " + what
	}
	if e.File != "" {
		what += " " + e.File
	}
	times := ""
	if e.Count > 1 {
		times = fmt.Sprintf(" (%d times)", e.Count)
	}
	fmt.Fprintf(w, "    %s %s: %s%s\n", at(e.Time), what, cmp.Or(e.What, "-"), times)
	if e.Stream != nil {
		e.Stream.text(w, "        ")
	}
}

func (m *shownStream) text(w *bufio.Writer, indent string) {
	for _, l := range []struct {
		who string
		leg *shownLeg
	}{{"phone", &m.Phone}, {"call manager's side", &m.UCM}} {
		fmt.Fprintf(w, "%s%s %s: %s, received %d, sent %d, %s\n", indent, l.who, l.leg.remote("no address yet"), l.leg.kind(), l.leg.Received, l.leg.Sent, l.leg.more())
	}
}

// holds says whose CTL file the phone holds: "ours", "another" or, where nothing
// tells, "unknown".
func (t *tale) holds() string {
	if e := t.Latest(phoneproxy.TLSDone); e != nil && !e.Time.Before(t.SignerAt) {
		return "ours"
	}
	if e := t.Latest(phoneproxy.TLSFailed); e != nil && e.Fault == phoneproxy.FaultAlert && !e.Time.Before(t.SignerAt) {
		return "another"
	}
	return "unknown"
}

func (t *tale) lastError() *phoneproxy.Event {
	for k := len(t.Events) - 1; k >= 0; k-- {
		// That a file is missing is usual.
		if f := t.Events[k].Fault; f != phoneproxy.NoFault && f != phoneproxy.FaultNotFound {
			return &t.Events[k]
		}
	}
	return nil
}

// at is a time in the box's zone, which is UTC.
func at(t time.Time) string { return strings.TrimSpace(t.UTC().Format(storyTime)) }
