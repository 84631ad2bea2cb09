package phoneproxy

import (
	"fmt"
	"strconv"
	"strings"
)

// MaxConfig is the largest configuration file that is made secure, in bytes.
// (Phones take 550,001. reference/phone-config-xml.md, section 1.)
const MaxConfig = 1 << 20

// secureOffset is what a Skinny phone adds to ethernetPhonePort for TLS.
// (reference/phone-config-xml.md, section 2.2.)
const secureOffset = 443

// The service ports that stand where a configuration file names none.
// (reference/phone-config-xml.md, section 2.2.)
const (
	defaultSCCP      = 2000
	defaultSIP       = 5060
	defaultSecureSIP = 5061
)

// SecurityMode is the value of deviceSecurityMode.
// (reference/phone-config-xml.md, section 2.1.)
type SecurityMode uint8

const (
	ModeUnknown       SecurityMode = 0 // the file did not say, which is non-secure
	ModeNonsecure     SecurityMode = 1
	ModeAuthenticated SecurityMode = 2 // TLS without encryption
	ModeEncrypted     SecurityMode = 3 // TLS with encryption, SRTP
)

// String returns the mode's name as the UCM has it.
func (m SecurityMode) String() string {
	switch m {
	case ModeUnknown:
		return "unknown"
	case ModeNonsecure:
		return "non-secure"
	case ModeAuthenticated:
		return "authenticated"
	case ModeEncrypted:
		return "encrypted"
	}
	return fmt.Sprintf("mode %d", uint8(m))
}

// Original is what a configuration file said before it was made secure: how
// the phone would have met its UCMs. It decides how the box meets them.
type Original struct {
	Mode    SecurityMode
	SIP     bool // else Skinny
	Load    string
	Members []Member // in the order of the file
}

// A Member is one call manager of a configuration file.
type Member struct {
	Host                 string // name or real address
	SCCP, SIP, SecureSIP uint16 // ports; secure Skinny is at SCCP + 443
}

// ConfigParams says what a secure configuration file names.
type ConfigParams struct {
	// Map returns the name or address by which this phone reaches a host of
	// the UCM's side, and false to leave what the file says.
	Map func(host string) (string, bool)
	// Ports returns at which TCP ports this phone reaches the secure services
	// of a UCM, 0 for one to leave as the file says. Nil leaves all.
	Ports func(m Member) (secureSCCP, secureSIP uint16)
	// CAPF is the phone-facing address of the CAPF; "" asks Map.
	CAPF string
	// ProxyServer is the phones' HTTP proxy, "host:port"; "" leaves the file's.
	ProxyServer string
	// KeepServiceSettings leaves PC port, gratuitous ARP, voice VLAN, web
	// access and span as the UCM set them. ("no disable service-settings")
	KeepServiceSettings bool
	// AuthenticateCIPC puts IP Communicator into authenticated mode, where it
	// has TLS but no SRTP. Without, its mode stays as it is.
	// ("cipc security-mode authenticated")
	AuthenticateCIPC bool
	// CIPC says that this device is IP Communicator, where its load name does
	// not tell.
	CIPC bool
}

// secureConfig returns a SEP*.cnf.xml or XMLDefault.cnf.xml as phones outside
// must get it, and what it said before. Every byte that no rule is about stays
// as it is, whatever its encoding. (reference/phone-config-xml.md, section 3.)
func secureConfig(xml []byte, p ConfigParams) ([]byte, Original, error) {
	if len(xml) > MaxConfig {
		return nil, Original{}, fmt.Errorf("phoneproxy: configuration file of %d bytes: over %d", len(xml), MaxConfig)
	}
	doc, err := scan(xml)
	if err != nil {
		return nil, Original{}, err
	}
	w := rewriter{doc: doc, p: p, orig: original(doc)}
	w.cipc = p.CIPC || hasPrefixFold(w.orig.Load, "CIPC")
	rules := deviceRules
	switch root := doc.name(0); root {
	case "device":
	case "Default":
		rules = defaultRules
	default:
		return nil, Original{}, doc.errorf(doc.elements[0].start, "root element <%.40s>: neither device nor Default", root)
	}
	for _, r := range rules() {
		if err := w.apply(r); err != nil {
			return nil, Original{}, err
		}
	}
	return w.edits.apply(xml), w.orig, nil
}

// original reads what a file says.
func original(doc *document) Original {
	var o Original
	if i := doc.find("deviceSecurityMode"); i >= 0 {
		if m, err := strconv.ParseUint(doc.text(i), 10, 8); err == nil {
			o.Mode = SecurityMode(m)
		}
	}
	if i := doc.child(0, "loadInformation"); i >= 0 {
		o.Load = doc.text(i)
	}
	protocol := ""
	if i := doc.child(0, "deviceProtocol"); i >= 0 {
		protocol = doc.text(i)
	}
	switch {
	case strings.EqualFold(protocol, "SIP"):
		o.SIP = true
	case strings.EqualFold(protocol, "SCCP"):
	default:
		o.SIP = doc.find("sipProfile") >= 0 || hasPrefixFold(o.Load, "SIP") || hasPrefixFold(o.Load, "P0S3")
	}
	for i := range doc.elements {
		if doc.name(i) == "callManager" {
			o.Members = append(o.Members, member(doc, i))
		}
	}
	return o
}

// member reads a callManager element.
func member(doc *document, cm int) Member {
	m := Member{SCCP: defaultSCCP, SIP: defaultSIP, SecureSIP: defaultSecureSIP}
	if i := doc.child(cm, "processNodeName"); i >= 0 {
		m.Host = doc.text(i)
	}
	if ports := doc.child(cm, "ports"); ports >= 0 {
		m.SCCP = port(doc, ports, "ethernetPhonePort", m.SCCP)
		m.SIP = port(doc, ports, "sipPort", m.SIP)
		m.SecureSIP = port(doc, ports, "securedSipPort", m.SecureSIP)
	}
	return m
}

func port(doc *document, ports int, name string, def uint16) uint16 {
	if i := doc.child(ports, name); i >= 0 {
		if v, err := strconv.ParseUint(doc.text(i), 10, 16); err == nil && v != 0 {
			return uint16(v)
		}
	}
	return def
}

// A rule is what becomes of the elements of one name.
type rule struct {
	// parent is the name of the element around, "" for any.
	parent, name string
	// value returns what the element i must say, and false to leave it. The
	// element is missing, and i is its parent to be, if missing is set.
	value func(w *rewriter, i int, missing bool) (string, bool)
	// insert says where a missing element is put.
	insert insertion
	// markup says that value returns elements, not text.
	markup bool
}

type insertion uint8

const (
	never    insertion = iota
	inRoot             // before </device>, if there is none anywhere
	inParent           // before the end of each element parent that has none
)

// defaultRules are for XMLDefault.cnf.xml, which has addresses and no
// security.
func defaultRules() []rule {
	return []rule{
		{"callManager", "processNodeName", mapHost, never, false},
		{"callManager", "ports", makePorts, inParent, true},
		{"ports", "ethernetPhonePort", sccpPort, inParent, false},
		{"ports", "securedSipPort", sipPort, inParent, false},
		{"capf", "processNodeName", mapCAPF, never, false},
	}
}

// deviceRules are for SEP*.cnf.xml, in the order of
// reference/phone-config-xml.md, section 3.
func deviceRules() []rule {
	rules := []rule{
		{"", "deviceSecurityMode", securityMode, inRoot, false},
		{"", "transportLayerProtocol", transport, inRoot, false},
		{"", "encrConfig", always("false"), never, false},
		{"", "certHash", always(""), never, false},
		{"TVS", "members", noContent, never, false},
		{"", "proxyServerURL", proxyServer, inRoot, false},
		{"srstInfo", "srstOption", always("Disable"), never, false},
		{"", "loadServer", always(""), never, false},
		{"vendorConfig", "pcPort", serviceOff, never, false},
		{"vendorConfig", "garp", serviceOff, never, false},
		{"vendorConfig", "voiceVlanAccess", serviceOff, never, false},
		{"device", "vendorConfig", makeVendorConfig, inRoot, true},
		{"vendorConfig", "webAccess", serviceOff, inParent, false},
		{"vendorConfig", "spanToPCPort", serviceOff, inParent, false},
	}
	for _, n := range []string{"1", "2", "3"} {
		rules = append(rules,
			rule{"srstInfo", "ipAddr" + n, always(""), never, false},
			rule{"srstInfo", "sipIpAddr" + n, always(""), never, false})
	}
	return append(rules, defaultRules()...)
}

func always(v string) func(*rewriter, int, bool) (string, bool) {
	return func(*rewriter, int, bool) (string, bool) { return v, true }
}

func securityMode(w *rewriter, _ int, _ bool) (string, bool) {
	if w.cipc {
		return "2", w.p.AuthenticateCIPC
	}
	return "3", true
}

// transport is TLS for SIP phones; it means nothing to Skinny phones.
func transport(w *rewriter, _ int, _ bool) (string, bool) {
	return "3", w.orig.SIP && (!w.cipc || w.p.AuthenticateCIPC)
}

func proxyServer(w *rewriter, _ int, _ bool) (string, bool) {
	return w.p.ProxyServer, w.p.ProxyServer != ""
}

func serviceOff(w *rewriter, _ int, _ bool) (string, bool) {
	return "1", !w.p.KeepServiceSettings
}

func mapHost(w *rewriter, i int, missing bool) (string, bool) {
	if missing || w.p.Map == nil {
		return "", false
	}
	return w.p.Map(w.doc.text(i))
}

func mapCAPF(w *rewriter, i int, missing bool) (string, bool) {
	if w.p.CAPF != "" {
		return w.p.CAPF, true
	}
	return mapHost(w, i, missing)
}

// noContent empties an element that holds others, and leaves one that does not.
func noContent(*rewriter, int, bool) (string, bool) { return "", true }

// makeVendorConfig makes a vendorConfig where there is none.
func makeVendorConfig(w *rewriter, _ int, missing bool) (string, bool) {
	return "<webAccess>1</webAccess><spanToPCPort>1</spanToPCPort>", missing && !w.p.KeepServiceSettings
}

// makePorts makes a ports element where there is none and a port moved.
func makePorts(w *rewriter, i int, missing bool) (string, bool) {
	if !missing {
		return "", false
	}
	var b strings.Builder
	sccp, sip := w.ports(i)
	if sccp != 0 && sccp != defaultSCCP {
		fmt.Fprintf(&b, "<ethernetPhonePort>%d</ethernetPhonePort>", sccp)
	}
	if sip != 0 && sip != defaultSecureSIP {
		fmt.Fprintf(&b, "<securedSipPort>%d</securedSipPort>", sip)
	}
	return b.String(), b.Len() > 0
}

// sccpPort is the port to which a Skinny phone adds 443.
func sccpPort(w *rewriter, i int, missing bool) (string, bool) {
	sccp, _ := w.ports(w.callManager(i))
	return strconv.Itoa(int(sccp)), sccp != 0 && !(missing && sccp == defaultSCCP)
}

func sipPort(w *rewriter, i int, missing bool) (string, bool) {
	_, sip := w.ports(w.callManager(i))
	return strconv.Itoa(int(sip)), sip != 0 && !(missing && sip == defaultSecureSIP)
}

// A rewriter applies rules to one document.
type rewriter struct {
	doc    *document
	p      ConfigParams
	orig   Original
	cipc   bool // the device is IP Communicator
	edits  edits
	opened map[int]int // self-closing elements that something was put in: their edits
}

// callManager returns the callManager element that i is in or is, or -1.
func (w *rewriter) callManager(i int) int {
	for i >= 0 && w.doc.name(i) != "callManager" {
		i = w.doc.elements[i].parent
	}
	return i
}

// ports returns what the ports of callManager cm must be, 0 to leave one.
func (w *rewriter) ports(cm int) (sccp, sip uint16) {
	if cm < 0 || w.p.Ports == nil {
		return 0, 0
	}
	sccp, sip = w.p.Ports(member(w.doc, cm))
	if sccp <= secureOffset {
		return 0, sip
	}
	return sccp - secureOffset, sip
}

// apply edits every element that r is about, and inserts it where it is
// missing.
func (w *rewriter) apply(r rule) error {
	found := false
	for i := range w.doc.elements {
		e := &w.doc.elements[i]
		if w.doc.name(i) == r.name && (r.parent == "" || e.parent >= 0 && w.doc.name(e.parent) == r.parent) {
			found = true
			if v, ok := r.value(w, i, false); ok {
				if err := w.set(i, v); err != nil {
					return err
				}
			}
		}
		if r.insert == inParent && w.doc.name(i) == r.parent && w.doc.child(i, r.name) < 0 {
			if v, ok := r.value(w, i, true); ok {
				w.insert(i, r, v)
			}
		}
	}
	if r.insert == inRoot && !found {
		if v, ok := r.value(w, 0, true); ok {
			w.insert(0, r, v)
		}
	}
	return nil
}

// set makes the text of element i be v. An element that already says v stays
// as it is, to the byte.
func (w *rewriter) set(i int, v string) error {
	e := &w.doc.elements[i]
	if e.children {
		if v != "" {
			return w.doc.errorf(e.start, "<%s> holds elements where a value was expected", w.doc.name(i))
		}
	} else if w.doc.text(i) == v {
		return nil
	}
	if e.selfClosing {
		w.edits.add(e.open-2, e.open, ">"+escape(v)+"</"+w.doc.name(i)+">")
		return nil
	}
	w.edits.add(e.open, e.close, escape(v))
	return nil
}

// insert puts the element of r with value v at the end of element parent.
func (w *rewriter) insert(parent int, r rule, v string) {
	if !r.markup {
		v = escape(v)
	}
	s := "<" + r.name + ">" + v + "</" + r.name + ">"
	e := &w.doc.elements[parent]
	if !e.selfClosing {
		w.edits.add(e.close, e.close, s)
		return
	}
	if at, ok := w.opened[parent]; ok {
		w.edits[at].text += s
		return
	}
	if w.opened == nil {
		w.opened = make(map[int]int)
	}
	w.opened[parent] = len(w.edits)
	w.edits = append(w.edits, edit{e.open - 2, e.open, ">" + s, "</" + w.doc.name(parent) + ">"})
}

// escape makes a value that came from our configuration safe in XML.
func escape(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func hasPrefixFold(s, prefix string) bool {
	return len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix)
}
