package topology

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Limits of a text.
const (
	maxText  = 64 << 10 // bytes
	maxHosts = 64       // nets, hosts and routers
	maxParts = 256      // phones, managers and acts, of each; of a host, addresses; of a router, forwards and permits
	maxName  = 11       // bytes: names of devices and namespaces are made of it
)

// Limits of what is said of a text's mistakes: it may be no topology at all.
const (
	maxTold    = 20  // mistakes
	maxMistake = 400 // bytes of one
)

// A pos is where a word stands.
type pos struct{ line, column int }

// A word is one of a line, with its place.
type word struct {
	text string
	pos
}

// A parser reads one text.
type parser struct {
	file  string
	t     *Topology
	words []word // of the line, those yet to be read
	text  string // the line, without its comment
	end   pos    // of the line
	errs  []*Error
}

// Parse reads a text. file is its name, for errors, and names the topology. The
// error joins an *Error for each mistake, in order.
func Parse(file string, r io.Reader) (*Topology, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return nil, err
	}
	p := &parser{file: file, t: &Topology{Name: strings.TrimSuffix(filepath.Base(file), Ending)}}
	if len(data) > maxText {
		return nil, &Error{file, 1, 1, fmt.Sprintf("longer than %d bytes", maxText)}
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxText+1)
	for n := 1; lines.Scan(); n++ {
		p.line(n, lines.Text())
	}
	if len(p.errs) == 0 {
		p.check()
	}
	if err := p.mistakes(); err != nil {
		return nil, err
	}
	return p.t, nil
}

// mistakes is the error that joins them, in order, nil if there are none.
func (p *parser) mistakes() error {
	if len(p.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(p.errs, func(a, b *Error) int { return (a.Line-b.Line)<<16 + a.Column - b.Column })
	return errorList(p.errs)
}

// An errorList is the mistakes of a text, one a line.
type errorList []*Error

func (l errorList) Error() string {
	var all []string
	for _, e := range l[:min(len(l), maxTold)] {
		all = append(all, e.Error())
	}
	if n := len(l) - maxTold; n > 0 {
		all = append(all, fmt.Sprintf("%s: and %d mistakes more", l[0].File, n))
	}
	return strings.Join(all, "\n")
}

// Unwrap returns the mistakes.
func (l errorList) Unwrap() []error {
	var all []error
	for _, e := range l {
		all = append(all, e)
	}
	return all
}

func (p *parser) fail(at pos, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(text) > maxMistake {
		text = strings.ToValidUTF8(text[:maxMistake], "") + " ..."
	}
	p.errs = append(p.errs, &Error{p.file, at.line, at.column, text})
}

// A mistake ends the reading of a line.
type mistake struct {
	at   pos
	text string
}

func (p *parser) stop(at pos, format string, args ...any) {
	panic(mistake{at, fmt.Sprintf(format, args...)})
}

// statements are what a line may be, by its first word.
var statements = map[string]struct {
	usage string
	read  func(p *parser, at pos)
}{
	"title":      {"title TEXT", (*parser).title},
	"config":     {"config FILE", (*parser).config},
	"ca":         {"ca TRUSTPOINT", (*parser).ca},
	"net":        {"net NAME PREFIX [public]", (*parser).net},
	"box":        {"box NAMEIF=NET ...", (*parser).box},
	"host":       {"host NAME NET=ADDRESS[,ADDRESS...] [via GATEWAY]", (*parser).host},
	"router":     {"router NAME NET=ADDRESS ... [via GATEWAY]", (*parser).router},
	"masquerade": {"masquerade ROUTER NET", (*parser).masquerade},
	"forward":    {"forward ROUTER {tcp|udp} PORT[-PORT] to ADDRESS", (*parser).forward},
	"guard":      {"guard ROUTER NET", (*parser).guard},
	"permit":     {"permit ROUTER {tcp|udp} ADDRESS PORT[-PORT]", (*parser).permit},
	"manager":    {"manager NAME ADDRESS [tftp ADDRESS,...] [backup NAME] [media PREFIX,...]", (*parser).manager},
	"phone":      {"phone LINE {sccp|sip} ADDRESS {secure|plain} tftp ADDRESS", (*parser).phone},
	"site":       {"site ADDRESS PORT", (*parser).site},
	"proxy":      {"proxy ADDRESS PORT", (*parser).proxy},
	"call":       {"call LINE LINE", (*parser).call},
	"services":   {"services LINE", (*parser).services},
	"stop":       {"stop MANAGER", (*parser).stopManager},
}

// line reads one line.
func (p *parser) line(n int, text string) {
	text, _, _ = strings.Cut(text, "#")
	p.words, p.text = split(n, text), text
	p.end = pos{n, len(strings.TrimRight(text, " \t\r")) + 1}
	if len(p.words) == 0 {
		return
	}
	first := p.words[0]
	p.words = p.words[1:]
	s, ok := statements[first.text]
	if !ok {
		p.fail(first.pos, "no statement begins with %q; there are %s", first.text, strings.Join(keywords(), ", "))
		return
	}
	defer func() {
		if r := recover(); r != nil {
			m, ok := r.(mistake)
			if !ok {
				panic(r)
			}
			p.fail(m.at, "%s (%s)", m.text, s.usage)
		}
	}()
	s.read(p, first.pos)
	if len(p.words) > 0 {
		p.stop(p.words[0].pos, "%q is too much", p.words[0].text)
	}
}

// keywords are the first words of statements, in order.
func keywords() []string {
	var all []string
	for k := range statements {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// split cuts a line at white space.
func split(n int, text string) []word {
	var words []word
	start := -1
	for i := 0; i <= len(text); i++ {
		space := i == len(text) || text[i] == ' ' || text[i] == '\t' || text[i] == '\r'
		switch {
		case space && start >= 0:
			words = append(words, word{text[start:i], pos{n, start + 1}})
			start = -1
		case !space && start < 0:
			start = i
		}
	}
	return words
}

// next takes a word; want is what it should be.
func (p *parser) next(want string) word {
	if len(p.words) == 0 {
		p.stop(p.end, "the line ends where %s should be", want)
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

// option takes the word text if it is next.
func (p *parser) option(text string) bool {
	if len(p.words) > 0 && p.words[0].text == text {
		p.words = p.words[1:]
		return true
	}
	return false
}

// keyword takes the word text, which must be next.
func (p *parser) keyword(text string) {
	if w := p.next(strconv.Quote(text)); w.text != text {
		p.stop(w.pos, "%q where %q should be", w.text, text)
	}
}

// name takes a name of something.
func (p *parser) name(what string) (string, pos) {
	w := p.next(what)
	p.checkName(w, what)
	return w.text, w.pos
}

func (p *parser) checkName(w word, what string) {
	if !ValidName(w.text) {
		p.stop(w.pos, "%q is no name for %s: a letter, then letters, digits and _, up to %d", w.text, what, maxName)
	}
}

// ValidName reports whether s can name a net, a host or a lab: a lower-case
// letter, then lower-case letters, digits and "_", 11 at most.
func ValidName(s string) bool {
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || c != '_' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

// address reads an IPv4 address of a host.
func (p *parser) address(w word) netip.Addr {
	a, err := netip.ParseAddr(w.text)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
		p.stop(w.pos, "%q is no IPv4 address of a host", w.text)
	}
	return a
}

func (p *parser) prefix(w word) netip.Prefix {
	n, err := netip.ParsePrefix(w.text)
	if err != nil || !n.Addr().Is4() || n.Bits() == 0 {
		p.stop(w.pos, "%q is no IPv4 prefix such as 10.20.0.0/24", w.text)
	}
	if n != n.Masked() {
		p.stop(w.pos, "%q has bits set behind its mask: %v is meant?", w.text, n.Masked())
	}
	return n
}

// pair cuts NAME=VALUE; the value keeps its place.
func (p *parser) pair(w word, want string) (key, value word) {
	k, v, ok := strings.Cut(w.text, "=")
	if !ok || k == "" || v == "" {
		p.stop(w.pos, "%q is not %s", w.text, want)
	}
	return word{k, w.pos}, word{v, pos{w.line, w.column + len(k) + 1}}
}

// list cuts A,B,C; each keeps its place.
func list(w word) []word {
	var all []word
	at := w.column
	for _, s := range strings.Split(w.text, ",") {
		all = append(all, word{s, pos{w.line, at}})
		at += len(s) + 1
	}
	return all
}

func (p *parser) attachment(w word) Attachment {
	net, addrs := p.pair(w, "NET=ADDRESS")
	p.checkName(net, "a net")
	a := Attachment{Net: net.text, pos: w.pos}
	all := list(addrs)
	if len(all) > maxParts {
		p.stop(w.pos, "%d addresses: %d at most", len(all), maxParts)
	}
	for _, x := range all {
		a.Addrs = append(a.Addrs, p.address(x))
	}
	return a
}

func (p *parser) via() netip.Addr {
	if p.option("via") {
		return p.address(p.next("a gateway's address"))
	}
	return netip.Addr{}
}

func (p *parser) protocol() Protocol {
	w := p.next("tcp or udp")
	if w.text != string(TCP) && w.text != string(UDP) {
		p.stop(w.pos, "%q where tcp or udp should be", w.text)
	}
	return Protocol(w.text)
}

func (p *parser) port(w word) uint16 {
	n, err := strconv.ParseUint(w.text, 10, 16)
	if err != nil || n == 0 {
		p.stop(w.pos, "%q is no port from 1 to 65535", w.text)
	}
	return uint16(n)
}

func (p *parser) ports() Ports {
	w := p.next("a port")
	first, last, ranged := strings.Cut(w.text, "-")
	r := Ports{First: p.port(word{first, w.pos})}
	r.Last = r.First
	if ranged {
		r.Last = p.port(word{last, pos{w.line, w.column + len(first) + 1}})
	}
	if r.Last < r.First {
		p.stop(w.pos, "the range %q ends before it begins", w.text)
	}
	return r
}

// lineNumber takes a phone's number.
func (p *parser) lineNumber() word {
	w := p.next("a phone's line")
	if len(w.text) > maxName || strings.Trim(w.text, "0123456789") != "" {
		p.stop(w.pos, "%q is no line: up to %d digits", w.text, maxName)
	}
	return w
}

// again complains of a second statement of which there may be one.
func (p *parser) again(at pos, what string) { p.stop(at, "a second %q", what) }

// Statements, as in the table.

func (p *parser) title(at pos) {
	if p.t.Title != "" {
		p.again(at, "title")
	}
	words := []string{p.next("a title").text}
	for len(p.words) > 0 {
		words = append(words, p.next("").text)
	}
	p.t.Title = strings.Join(words, " ")
}

func (p *parser) config(at pos) {
	if p.t.Config != "" {
		p.again(at, "config")
	}
	w := p.next("a file")
	p.t.Config = strings.Trim(p.text[w.column-1:], " \t\r") // there may be blanks in it
	p.words = nil
}

func (p *parser) ca(pos) {
	w := p.next("a trustpoint")
	p.t.CAs, p.t.cas = append(p.t.CAs, w.text), append(p.t.cas, w.pos)
}

func (p *parser) net(pos) {
	var n Net
	n.Name, n.pos = p.name("a net")
	n.Prefix = p.prefix(p.next("a prefix"))
	if n.Prefix.Bits() > 30 {
		p.stop(n.pos, "%v is too small for a net of several hosts", n.Prefix)
	}
	n.Public = p.option("public")
	p.t.Nets = append(p.t.Nets, n)
}

func (p *parser) box(at pos) {
	if p.t.Box != nil {
		p.again(at, "box")
	}
	p.words = append([]word{p.next("NAMEIF=NET")}, p.words...)
	for len(p.words) > 0 {
		w := p.next("")
		nameif, net := p.pair(w, "NAMEIF=NET")
		p.checkName(net, "a net")
		p.t.Box = append(p.t.Box, Port{nameif.text, net.text, w.pos})
	}
}

func (p *parser) host(pos) {
	var h Host
	h.Name, h.pos = p.name("a host")
	h.Attachment = p.attachment(p.next("NET=ADDRESS"))
	h.Via = p.via()
	p.t.Hosts = append(p.t.Hosts, h)
}

func (p *parser) router(pos) {
	var r Router
	r.Name, r.pos = p.name("a router")
	for len(p.words) > 0 && p.words[0].text != "via" {
		r.Nets = append(r.Nets, p.attachment(p.next("")))
	}
	if len(r.Nets) < 2 {
		p.stop(r.pos, "a router is on two nets at least")
	}
	r.Via = p.via()
	p.t.Routers = append(p.t.Routers, r)
}

// routerBefore takes the name of a router that has been declared.
func (p *parser) routerBefore() *Router {
	name, at := p.name("a router")
	r := p.t.Router(name)
	if r == nil {
		p.stop(at, "no line above declares a router %q", name)
	}
	return r
}

// netOf takes the name of a net that r is on.
func (p *parser) netOf(r *Router) string {
	name, at := p.name("a net")
	if !slices.ContainsFunc(r.Nets, func(a Attachment) bool { return a.Net == name }) {
		p.stop(at, "router %s is not on a net %q", r.Name, name)
	}
	return name
}

func (p *parser) masquerade(at pos) {
	r := p.routerBefore()
	if r.Masquerade != "" {
		p.stop(at, "router %s masquerades already", r.Name)
	}
	r.Masquerade = p.netOf(r)
}

func (p *parser) forward(at pos) {
	r := p.routerBefore()
	if r.Masquerade == "" {
		p.stop(at, "router %s does not masquerade: there is nothing to forward", r.Name)
	}
	f := Forward{Protocol: p.protocol(), Ports: p.ports()}
	p.keyword("to")
	f.To = p.address(p.next("an address"))
	for _, other := range r.Forwards {
		if f.Protocol == other.Protocol && f.Ports.overlap(other.Ports) {
			p.stop(at, "router %s forwards %s %v to %v already", r.Name, other.Protocol, other.Ports, other.To)
		}
	}
	if len(r.Forwards) == maxParts {
		p.stop(at, "router %s has %d forwards, which is all it may have", r.Name, maxParts)
	}
	r.Forwards = append(r.Forwards, f)
}

func (p *parser) guard(at pos) {
	r := p.routerBefore()
	if r.Guard != "" {
		p.stop(at, "router %s guards already", r.Name)
	}
	r.Guard = p.netOf(r)
}

func (p *parser) permit(at pos) {
	r := p.routerBefore()
	if r.Guard == "" {
		p.stop(at, "router %s does not guard: it lets everything pass", r.Name)
	}
	m := Permit{Protocol: p.protocol(), Addr: p.address(p.next("an address"))}
	m.Ports = p.ports()
	if len(r.Permits) == maxParts {
		p.stop(at, "router %s has %d permits, which is all it may have", r.Name, maxParts)
	}
	r.Permits = append(r.Permits, m)
}

func (p *parser) manager(pos) {
	var m Manager
	m.Name, m.pos = p.name("a call manager")
	m.Addr = p.address(p.next("an address"))
	if p.option("tftp") {
		for _, w := range list(p.next("addresses of TFTP servers")) {
			m.TFTP = append(m.TFTP, p.address(w))
		}
	}
	if p.option("backup") {
		m.Backup, _ = p.name("a call manager")
	}
	if p.option("media") {
		for _, w := range list(p.next("prefixes")) {
			m.Media = append(m.Media, p.prefix(w))
		}
	}
	p.t.Managers = append(p.t.Managers, m)
}

func (p *parser) phone(pos) {
	var f Phone
	line := p.lineNumber()
	f.Line, f.pos = line.text, line.pos
	w := p.next("sccp or sip")
	if w.text != "sccp" && w.text != "sip" {
		p.stop(w.pos, "%q where sccp or sip should be", w.text)
	}
	f.Protocol = w.text
	f.Addr = p.address(p.next("an address"))
	switch w := p.next("secure or plain"); w.text {
	case "secure":
		f.Secure = true
	case "plain":
	default:
		p.stop(w.pos, "%q where secure or plain should be", w.text)
	}
	p.keyword("tftp")
	f.TFTP = p.address(p.next("an address"))
	p.t.Phones = append(p.t.Phones, f)
}

func (p *parser) site(at pos)  { p.web(at, false) }
func (p *parser) proxy(at pos) { p.web(at, true) }

func (p *parser) web(at pos, proxy bool) {
	s := Site{Addr: p.address(p.next("an address")), Proxy: proxy, pos: at}
	s.Port = p.port(p.next("a port"))
	p.t.Sites = append(p.t.Sites, s)
}

func (p *parser) act(verb string, args ...word) {
	a := Act{Verb: verb, pos: args[0].pos}
	for _, w := range args {
		a.Args = append(a.Args, w.text)
	}
	p.t.Acts = append(p.t.Acts, a)
}

func (p *parser) call(pos) {
	from := p.lineNumber()
	p.act("call", from, p.lineNumber())
}

func (p *parser) services(pos) { p.act("services", p.lineNumber()) }

func (p *parser) stopManager(pos) { p.act("stop", p.next("a call manager")) }
