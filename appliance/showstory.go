package appliance

import (
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

// name is what the tale is of.
func (t *tale) name() string {
	switch {
	case t.Device == "":
		return fmt.Sprintf("Address %v", t.Addr)
	case !t.Addr.IsValid():
		return "Phone " + t.Device
	}
	return fmt.Sprintf("Phone %s at %v on %s", t.Device, t.Addr, t.Iface)
}

const storyTime = "Jan 02 15:04:05.000"

// showPhoneStory tells what has happened to a phone. Its layout is ours.
func showPhoneStory(x *execution, args cli.Args) error {
	device, addr := x.execPhone(args.Get("who"))
	for k, t := range x.tales(device, addr) {
		if k > 0 {
			x.printf("\n")
		}
		x.showTale(&t)
	}
	return nil
}

func (x *execution) showTale(t *tale) {
	now := x.opt.Now()
	x.printf("%s\n", t.name())
	if !t.known {
		x.printf("  Nothing has been heard of it. \"diagnose phone\" says what may be in its way.\n")
		return
	}
	x.printf("  Heard of: first %s, last %s\n", at(t.First), at(t.Last))
	if t.Signer != "" {
		x.printf("  CTL file: given %s, signed by %s\n            %s\n", at(t.SignerAt), t.Signer, t.holds())
	} else {
		x.printf("  CTL file: not fetched here\n")
	}
	if e := t.Latest(phoneproxy.TLSDone, phoneproxy.TLSFailed); e != nil {
		x.printf("  TLS: %s %s\n", tlsOutcome(e), at(e.Time))
		if c := e.Certificate; c != nil {
			x.printf("       subject %s\n       issuer %s\n", c.Subject, c.Issuer)
			if c.Trustpoint != "" {
				x.printf("       trustpoint %s\n", c.Trustpoint)
			}
			if c.Expired {
				x.printf("       outside its dates, which is permitted\n")
			}
		}
	} else {
		x.printf("  TLS: never tried\n")
	}
	switch s := t.registered(); {
	case s != nil:
		x.printf("  Registration: registered with %v (%s) since %s, last message %s ago\n", s.UCM, s.Service, at(s.Since), clockTime(now.Sub(s.Last)))
	case len(t.sessions) > 0:
		x.printf("  Registration: connected to %v since %s, not registered\n", t.sessions[0].UCM, at(t.sessions[0].Since))
	default:
		x.printf("  Registration: none\n")
	}
	for _, m := range t.Media {
		x.printf("  Media: call %s, stream %s, since %s\n", m.Call, m.Stream, at(m.Opened))
		x.showStream(&m, "    ", now)
	}
	if e := t.lastError(); e != nil {
		x.printf("  Last error: %s %s: %s\n", at(e.Time), kindText(e.Kind), e.Text)
	} else {
		x.printf("  Last error: none\n")
	}
	x.printf("  What happened:\n")
	if t.Forgotten > 0 {
		x.printf("    (%d earlier)\n", t.Forgotten)
	}
	for k := range t.Events {
		x.showEvent(&t.Events[k], now)
	}
}

// holds says what is known about whose CTL file the phone holds.
func (t *tale) holds() string {
	if e := t.Latest(phoneproxy.TLSDone); e != nil && !e.Time.Before(t.SignerAt) {
		return "the phone holds it: since then it has taken the box's certificate"
	}
	if e := t.Latest(phoneproxy.TLSFailed); e != nil && e.Fault == phoneproxy.FaultAlert && !e.Time.Before(t.SignerAt) {
		return "the phone holds another: since then it has refused the box's certificate"
	}
	return "whether the phone has installed it is not known yet"
}

func tlsOutcome(e *phoneproxy.Event) string {
	if e.Kind == phoneproxy.TLSDone {
		return e.Text
	}
	return "failed: " + e.Text + ","
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

func (x *execution) showEvent(e *phoneproxy.Event, now time.Time) {
	what := kindText(e.Kind)
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
	x.printf("    %s %s: %s%s\n", at(e.Time), what, cmp.Or(e.Text, "-"), times)
	if e.Stream != nil {
		x.showStream(e.Stream, "        ", now)
	}
}

// showStream says what both legs of a stream have carried.
func (x *execution) showStream(m *phoneproxy.StreamReport, indent string, now time.Time) {
	for _, l := range []struct {
		who string
		leg int
	}{{"phone", 0}, {"call manager's side", 1}} {
		leg := m.Phone
		if l.leg == 1 {
			leg = m.UCM
		}
		kind, remote := "RTP", "no address yet"
		if leg.Secure {
			kind = "SRTP"
		}
		if leg.Remote.IsValid() {
			remote = slashed(leg.Remote)
		}
		x.printf("%s%s %s: %s, received %d, sent %d, %s\n", indent, l.who, remote, kind, leg.Packets, leg.Sent, legText(leg, now))
	}
}

// at is a time in the box's zone, which is UTC.
func at(t time.Time) string { return strings.TrimSpace(t.UTC().Format(storyTime)) }
