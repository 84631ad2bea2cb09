package appliance

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/phoneproxy"
	"patchbay/nat"
)

const (
	maxDebugSettings = 32  // "debug" commands in force at once
	maxDebugLines    = 100 // that are shown in one second of the box's clock
	debugQueue       = 256 // lines that wait for one who watches; what is over is counted
)

// A topic is a thing that debug can show. What it shows is which message, file
// or stream it is and what became of it, never what is said in it: no header of
// a SIP message, no body, no key.
type topic uint8

const (
	debugTFTP topic = iota
	debugSignaling
	debugMedia
	debugSIP
	debugSkinny
	debugTLS
	topics
)

var topicNames = [topics]string{
	debugTFTP: "phone-proxy tftp", debugSignaling: "phone-proxy signaling", debugMedia: "phone-proxy media",
	debugSIP: "sip", debugSkinny: "skinny", debugTLS: "tls-proxy",
}

var debugCommands = []cli.Rule[execFunc]{
	{Syntax: "debug phone-proxy {tftp|signaling|media} [errors|events] [host <who:phone>]", Help: "Show what the phone proxy does, as it happens", Do: debugOn},
	{Syntax: "debug {sip|skinny|tls-proxy} [errors|events] [host <who:phone>]", Help: "Show messages and handshakes, as they happen", Do: debugOn},
	{Syntax: "no debug phone-proxy {tftp|signaling|media} [errors|events] [host <who:phone>]", Help: "Show it no more", Do: debugOff},
	{Syntax: "no debug {sip|skinny|tls-proxy} [errors|events] [host <who:phone>]", Help: "Show it no more", Do: debugOff},
	{Syntax: "no debug all", Help: "Show nothing any more", Do: undebugAll},
	{Syntax: "undebug all", Help: "Show nothing any more", Do: undebugAll},
	{Syntax: "show debug", Help: "What is shown as it happens", Do: show(showDebug)},
}

// A debugSetting is one "debug" command.
type debugSetting struct {
	topic topic
	level string // "errors", "events", "" for both
	host  string // a device or an address; "" for all
}

// String is the command.
func (d debugSetting) String() string {
	s := "debug " + topicNames[d.topic]
	if d.level != "" {
		s += " " + d.level
	}
	if d.host != "" {
		s += " host " + d.host
	}
	return s
}

func (d debugSetting) has(t topic, failed bool, device string, at netip.Addr) bool {
	return d.topic == t && (d.level == "" || failed == (d.level == "errors")) &&
		(d.host == "" || d.host == device || d.host == at.String())
}

// debugging is what debug shows and to whom. While nobody watches, or nothing is
// asked for, it costs who has something to show one atomic load.
type debugging struct {
	now func() time.Time
	on  atomic.Uint32 // bits of the topics somebody sees

	mu         sync.Mutex
	settings   []debugSetting // of programs
	watchers   map[*debugWatcher]struct{}
	second     int64 // that lines counts
	lines      int
	suppressed int
}

// A debugWatcher is shown the lines, on a goroutine of its own.
type debugWatcher struct {
	lines chan string
	lost  atomic.Uint64

	own      bool           // it sees what it has asked for itself, and nothing else
	settings []debugSetting // what that is; guarded by debugging.mu
}

// WatchDebug has show called with each line of debug that programs have asked for,
// until stop is: on one goroutine, which is gone when stop returns. Who is slow
// loses lines and is told how many. show must not call stop.
func (a *Appliance) WatchDebug(show func(line string)) (stop func()) {
	return a.debug.watch(new(debugWatcher), show)
}

// debuggerKey is of the *debugWatcher in the context of a command.
type debuggerKey struct{}

// DebugTo returns a context for the commands of one terminal: what they have debug
// show goes to show and to nobody else, and ends when stop is called. See
// WatchDebug for show.
func (a *Appliance) DebugTo(ctx context.Context, show func(line string)) (_ context.Context, stop func()) {
	w := &debugWatcher{own: true}
	return context.WithValue(ctx, debuggerKey{}, w), a.debug.watch(w, show)
}

func (d *debugging) watch(w *debugWatcher, show func(line string)) (stop func()) {
	w.lines = make(chan string, debugQueue)
	d.mu.Lock()
	if d.watchers == nil {
		d.watchers = make(map[*debugWatcher]struct{})
	}
	d.watchers[w] = struct{}{}
	d.markLocked()
	d.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for line := range w.lines {
			show(line)
			if n := w.lost.Swap(0); n > 0 {
				show(fmt.Sprintf("PP: %d lines lost: they came faster than they are read", n))
			}
		}
	}()
	return sync.OnceFunc(func() {
		d.mu.Lock()
		delete(d.watchers, w)
		d.markLocked()
		close(w.lines)
		d.mu.Unlock()
		<-done
	})
}

// seenLocked are the settings whose lines w is shown.
func (d *debugging) seenLocked(w *debugWatcher) []debugSetting {
	if w.own {
		return w.settings
	}
	return d.settings
}

// markLocked sets on.
func (d *debugging) markLocked() {
	bits := uint32(0)
	for w := range d.watchers {
		for _, s := range d.seenLocked(w) {
			bits |= 1 << s.topic
		}
	}
	d.on.Store(bits)
}

// sees reports whether anybody may want to see t.
func (d *debugging) sees(t topic) bool { return d.on.Load()&(1<<t) != 0 }

// show shows a line to those who have asked for it.
func (d *debugging) show(t topic, failed bool, device string, at netip.Addr, line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var to []*debugWatcher
	for w := range d.watchers {
		if slices.ContainsFunc(d.seenLocked(w), func(s debugSetting) bool { return s.has(t, failed, device, at) }) {
			to = append(to, w)
		}
	}
	if len(to) == 0 {
		return
	}
	if second := d.now().Unix(); second != d.second {
		if d.suppressed > 0 {
			say(to, fmt.Sprintf("PP: %d lines suppressed: over %d in one second; narrow it with \"host\"", d.suppressed, maxDebugLines))
		}
		d.second, d.lines, d.suppressed = second, 0, 0
	}
	if d.lines++; d.lines > maxDebugLines {
		d.suppressed++
		return
	}
	say(to, line)
}

func say(to []*debugWatcher, line string) {
	for _, w := range to {
		select {
		case w.lines <- line:
		default:
			w.lost.Add(1)
		}
	}
}

// topicOf says which topic shows an event first; those of TLS are of signaling,
// too.
func topicOf(k phoneproxy.Kind) topic {
	switch k {
	case phoneproxy.FileAsked:
		return debugTFTP
	case phoneproxy.TLSFailed, phoneproxy.TLSDone:
		return debugTLS
	case phoneproxy.MediaOpened, phoneproxy.MediaClosed, phoneproxy.MediaFailed:
		return debugMedia
	}
	return debugSignaling
}

// event shows what happened to a phone.
// (reference/asa-cli-show-debug.md, section 3.)
func (d *debugging) event(e phoneproxy.Event) {
	t := topicOf(e.Kind)
	if !d.sees(t) && (t != debugTLS || !d.sees(debugSignaling)) {
		return
	}
	if t == debugTLS && !d.sees(debugTLS) {
		t = debugSignaling
	}
	d.show(t, e.Fault != phoneproxy.NoFault, e.Device, e.From.Addr(), debugLine(e))
}

func debugLine(e phoneproxy.Event) string {
	from := fmt.Sprintf("%s:%s", e.Iface, slashed(e.From))
	switch {
	case e.Kind == phoneproxy.FileAsked && e.Text == phoneproxy.Retransmitted:
		return fmt.Sprintf("PP: Client %s retransmitting request for %s", from, e.File)
	case e.Kind == phoneproxy.FileAsked && !e.Done:
		return fmt.Sprintf("PP: %s requesting %s", slashed(e.From), e.File)
	case e.Kind == phoneproxy.FileAsked && e.Fault == phoneproxy.NoFault && strings.HasPrefix(strings.ToUpper(e.File), "CTL"):
		return fmt.Sprintf("PP: Client %s requesting %s, retrieved CTL file", from, e.File)
	case e.Kind == phoneproxy.FileAsked:
		return fmt.Sprintf("PP: Client %s requesting %s, %s", from, e.File, e.Text)
	}
	s := fmt.Sprintf("PP: %s %s %s: %s", cmp.Or(e.Device, "a phone"), from, kindText(e.Kind), e.Text)
	if c := e.Certificate; c != nil {
		s += fmt.Sprintf(", subject %s, issuer %s", c.Subject, c.Issuer)
	}
	return s
}

// watchPhone shows a message of a phone's signaling.
func (a *Appliance) watchPhone(s *phoneproxy.Session, msg []byte, from nat.End, err error) {
	a.debug.message(s.Service, s.Device, s.Interface, s.Phone, msg, from, err)
}

// watchPlain shows a message of plain inspection.
func (a *Appliance) watchPlain(x *inspection, client netip.AddrPort, msg []byte, from nat.End, err error) {
	a.debug.message(x.protocol, "", "", client, msg, from, err)
}

func (d *debugging) message(protocol, device, iface string, client netip.AddrPort, msg []byte, from nat.End, err error) {
	t := debugSIP
	if protocol == "skinny" {
		t = debugSkinny
	}
	if !d.sees(t) {
		return
	}
	name, call := phoneproxy.Outline(protocol, msg)
	var b strings.Builder
	fmt.Fprintf(&b, "%s: ", strings.ToUpper(protocol))
	if device != "" {
		fmt.Fprintf(&b, "%s ", device)
	}
	if iface != "" {
		fmt.Fprintf(&b, "%s:", iface)
	}
	arrow := "->"
	if from == nat.Server {
		arrow = "<-"
	}
	fmt.Fprintf(&b, "%s %s %s, %d bytes", slashed(client), arrow, name, len(msg))
	if call != "" {
		fmt.Fprintf(&b, ", call-id %s", call)
	}
	if err != nil {
		fmt.Fprintf(&b, ", does not pass")
	}
	d.show(t, err != nil, device, client.Addr(), b.String())
}

// kindText is what a kind of event is called.
func kindText(k phoneproxy.Kind) string {
	if int(k) < len(kindTexts) {
		return kindTexts[k]
	}
	return "event"
}

var kindTexts = [...]string{
	phoneproxy.FileAsked: "file", phoneproxy.TLSFailed: "TLS failed", phoneproxy.TLSDone: "TLS",
	phoneproxy.TurnedAway: "turned away", phoneproxy.UCMFailed: "not connected", phoneproxy.Connected: "connected",
	phoneproxy.Registered: "registered", phoneproxy.Rejected: "registration rejected", phoneproxy.Disconnected: "disconnected",
	phoneproxy.MediaOpened: "media opened", phoneproxy.MediaClosed: "media closed", phoneproxy.MediaFailed: "media failed",
}

// settingOf is what a command asks for.
func (x *execution) settingOf(args cli.Args) debugSetting {
	var s debugSetting
	for t, name := range topicNames {
		words := strings.Fields(name)
		if args.Has(words[len(words)-1]) && args.Has(words[0]) {
			s.topic = topic(t)
		}
	}
	for _, level := range []string{"errors", "events"} {
		if args.Has(level) {
			s.level = level
		}
	}
	if args.Has("host") {
		device, addr := x.execPhone(args.Get("who"))
		if s.host = device; device == "" {
			s.host = addr.String()
		}
	}
	return s
}

// debugSettings are those that the command is about: its terminal's, or those of
// programs. x.debug.mu guards them.
func (x *execution) debugSettings() *[]debugSetting {
	if w, ok := x.ctx.Value(debuggerKey{}).(*debugWatcher); ok {
		return &w.settings
	}
	return &x.debug.settings
}

func debugOn(x *execution, args cli.Args) error {
	s, d := x.settingOf(args), &x.debug
	d.mu.Lock()
	defer d.mu.Unlock()
	if list := x.debugSettings(); !slices.Contains(*list, s) {
		if len(*list) >= maxDebugSettings {
			return refuse("%% %d debug commands are in force already; end some with \"no debug\"", maxDebugSettings)
		}
		*list = append(*list, s)
		d.markLocked()
	}
	x.printf("%s is on\n", s)
	return nil
}

func debugOff(x *execution, args cli.Args) error {
	s, d := x.settingOf(args), &x.debug
	d.mu.Lock()
	defer d.mu.Unlock()
	list := x.debugSettings()
	*list = slices.DeleteFunc(*list, func(o debugSetting) bool { return o == s })
	d.markLocked()
	x.printf("%s is off\n", s)
	return nil
}

// undebugAll ends all debug, whoever has asked for it.
func undebugAll(x *execution, _ cli.Args) error {
	d := &x.debug
	d.mu.Lock()
	defer d.mu.Unlock()
	d.settings = nil
	for w := range d.watchers {
		w.settings = nil
	}
	d.markLocked()
	x.printf("All possible debugging has been turned off\n")
	return nil
}

// A shownSetting is a "debug" command that is in force.
type shownSetting struct {
	Command string `json:"command"`
	Topic   string `json:"topic"`
	Level   string `json:"level,omitempty"` // "errors" or "events"; none: both
	Host    string `json:"host,omitempty"`  // a device or an address; none: all
}

type shownSettings struct {
	Settings cli.List[shownSetting] `json:"debug"`
}

func showDebug(x *execution, _ cli.Args) (s shownSettings, _ error) {
	d := &x.debug
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, o := range *x.debugSettings() {
		s.Settings = append(s.Settings, shownSetting{o.String(), topicNames[o.topic], o.level, o.host})
	}
	return s, nil
}

func (s shownSettings) Text(w *bufio.Writer) {
	for _, o := range s.Settings {
		fmt.Fprintf(w, "%s\n", o.Command)
	}
}
