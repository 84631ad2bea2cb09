// Package config is the ASA's configuration language: it reads a configuration
// as text into a Running, which is what the text says, and validates it. A Text
// is a configuration that can be typed and rendered, line by line.
//
// What a reader may get wrong: a Running keeps names, not what they stand for,
// but in access lists, object groups and NAT, where addresses and ports stand in
// place of them. A trustpoint that a TLS proxy names may not exist; only a
// Running for which Parse and Validate report no Error is whole.
package config

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"patchbay/appliance/logging"
)

// A Running is what the text of a configuration says, in the text's order.
// Items carry the number of the line they come from (Line, the first is 1).
// Names in it are not resolved except where a field says so.
type Running struct {
	File     string // as given to Parse, for messages
	Version  string // of the "ASA Version" line: "9.1(7)"; "" if there is none
	Hostname string // "" if there is no such line; see Name
	Domain   string // of the global domain-name

	Interfaces        []Interface
	SameSecurityInter bool // same-security-traffic permit inter-interface
	SameSecurityIntra bool // same-security-traffic permit intra-interface
	Routes            []Route

	ReversePaths []ReversePath // ip verify reverse-path
	TCPMSS       TCPMSS        // sysopt connection tcpmss
	NoProxyARP   []string      // sysopt noproxyarp: interfaces where mapped addresses are not answered for
	Fragments    []Fragments   // fragment; of two for one interface the last says what it does not leave open

	Objects        []Object
	ServiceObjects []ServiceObject
	Groups         []ObjectGroup
	TimeRanges     []TimeRange
	NAT            []NATRule
	NATControl     int // line of nat-control, 0 if it is off: traffic of an interface to one of lower level needs a rule
	AccessLists    []AccessList
	AccessGroups   []AccessGroup
	ICMP           []ICMPRule

	// MappedACL is of a configuration from before 8.3: access lists put on
	// interfaces, and classes of traffic, are compared with addresses and
	// ports as the packets carry them on that interface, mapped ones; else
	// with real ones. (reference/asa-cli.md, section 1.)
	MappedACL bool

	Timeouts Timeouts
	Names    map[string]netip.Addr // of "name" lines; already put in place in the other fields
	Logging  logging.Settings
	DNS      DNS
	Login    Login

	KeyPairs    []KeyPair
	Trustpoints []Trustpoint
	Enroll      []string // trustpoints named by crypto ca enroll, in order

	CTLs              []CTLFile
	TLSProxies        []TLSProxy
	MaxTLSSessions    int // tls-proxy maximum-sessions; 0: no limit set
	MediaTerminations []MediaTermination
	PhoneProxies      []PhoneProxy

	ClassMaps       []ClassMap
	PolicyMaps      []PolicyMap
	ServicePolicies []ServicePolicy

	SSLEncryption []string // words of ssl encryption in order; nil if there is no such line

	Lines []Line // the whole text, Lines[i] is line i+1

	broken map[stanza]bool // those with a refused line, of which less can be said
}

// A stanza is the lines of one named item: an interface by its hardware, all
// else by its name.
type stanza struct {
	mode modeID
	name string
}

// A Line is one line of the text and what became of it.
type Line struct {
	Text string // without the end of line
	Kind LineKind
	Why  string // of an Inert line: why it has no effect here; of an Obeyed one: what of it has none, or ""
}

// A LineKind is what became of a line.
type LineKind uint8

const (
	Comment LineKind = iota // blank, or begins with "!" or ":"
	Obeyed                  // put into the Running
	Inert                   // known, and without effect in Patchbay
	Refused                 // an Error; there is a Finding for it
)

// An Interface is one hardware interface or sub-interface. (reference/asa-cli.md, section 3.)
type Interface struct {
	Line           int
	Hardware       string // canonical: "GigabitEthernet0/0", "GigabitEthernet0/1.20"
	Name           string // nameif; "" carries no traffic
	Level          int    // security level 0 to 100; 100 for "inside" and 0 for others by default
	Addr           netip.Prefix
	Shutdown       bool
	Down           bool // it is shut down, or the interface is that it is a part of
	VLAN           int  // of a sub-interface, 1 to 4094; 0 none
	MTU            int  // bytes, 1500 by default
	ManagementOnly bool
	Description    string

	levelSet bool
}

// A Route is a static route.
type Route struct {
	Line      int
	Interface string
	Prefix    netip.Prefix
	Gateway   netip.Addr
	Metric    int // 1 to 255, 1 by default
}

// A ReversePath drops packets on an interface that the route back to their
// source does not lead out by.
type ReversePath struct {
	Line      int
	Interface string
}

// Fragments are limits of the fragments that arrive on an interface. Fields that
// are 0 leave a limit as it is.
type Fragments struct {
	Line      int
	Interface string        // "" is all
	Size      int           // packets being put together at a time; 1 to 30,000, 200 by default
	Chain     int           // fragments of a packet; 1 to 8,200, 24 by default
	Timeout   time.Duration // from its first fragment to the last; 1 to 30 s, 5 by default
}

// A TCPMSS holds the largest segment that the ends of TCP connections announce
// within limits.
type TCPMSS struct {
	Line    int // of the last sysopt line about it, 0 if there is none
	Maximum int // bytes, 1380 by default as on the ASA; 0 is no limit
	Minimum int // bytes; 0, the default, is no limit
}

// An Object is a network object. Two stanzas of one name are one Object. From
// is not valid in an object without address: one that has only a FQDN, or
// nothing yet.
type Object struct {
	Line        int // of its definition, or of its first stanza if it has none
	Name        string
	From, To    netip.Addr   // inclusive; equal for a host
	Subnet      netip.Prefix // valid if it is a host (/32) or a subnet
	FQDN        string
	Description string
}

// An AccessGroup puts an access list on an interface.
type AccessGroup struct {
	Line      int
	Name      string // of the access list
	Direction string // "in", "out" or "global"
	Interface string // "" for global
}

// An ICMPRule says which ICMP the box itself takes, on an interface and its
// media termination address. The first that matches decides; an interface with
// rules denies the rest. (reference/asa-cli.md, section 9.4.)
type ICMPRule struct {
	Line      int
	Permit    bool
	Prefix    netip.Prefix // sources; 0.0.0.0/0 for any
	From, To  netip.Addr   // the same, inclusive
	Type      int          // -1 is any
	Interface string
}

// Timeouts are idle times after which the box forgets. 0 is never.
// (reference/asa-cli.md, section 10.)
type Timeouts struct {
	Xlate, PATXlate                         time.Duration
	Conn, HalfClosed, UDP, ICMP             time.Duration
	SIP, SIPMedia, SIPInvite, SIPDisconnect time.Duration
	SIPProvisionalMedia, TCPProxyReassembly time.Duration
	SCTP                                    time.Duration

	// Those of what Patchbay has not, kept as they are written.
	SunRPC, H323, H225, MGCP, MGCPPAT           time.Duration
	Uauth, FloatingConn, ConnHolddown, IGPStale time.Duration
}

// defaultTimeouts are the ASA's.
func defaultTimeouts() Timeouts {
	return Timeouts{
		Xlate: 3 * time.Hour, PATXlate: 30 * time.Second,
		Conn: time.Hour, HalfClosed: 10 * time.Minute, UDP: 2 * time.Minute, ICMP: 2 * time.Second,
		SIP: 30 * time.Minute, SIPMedia: 2 * time.Minute, SIPInvite: 3 * time.Minute, SIPDisconnect: 2 * time.Minute,
		SIPProvisionalMedia: 2 * time.Minute, TCPProxyReassembly: time.Minute,
		SunRPC: 10 * time.Minute, H323: 5 * time.Minute, H225: time.Hour, MGCP: 5 * time.Minute, MGCPPAT: 5 * time.Minute,
		SCTP: 2 * time.Minute, Uauth: 5 * time.Minute, ConnHolddown: 15 * time.Second, IGPStale: 70 * time.Second,
	}
}

// DNS is how the box finds addresses of names.
type DNS struct {
	Lookup  []string // interfaces of dns domain-lookup; none: no lookups at all
	Servers []netip.Addr
	Via     map[netip.Addr]string // the interface by which alone a server is asked, where the text names one
	Domain  string                // of the server group, else "" and Running.Domain holds
	Timeout time.Duration         // of one server; doubled each time they all are asked again
	Retries int                   // how often that is
}

// A KeyPair is an RSA key pair to have. Its key is never in the text.
type KeyPair struct {
	Line    int
	Label   string
	Modulus int // bits
}

// A Trustpoint is a CA, an identity of the box, or both. (reference/asa-cli.md, section 7.)
type Trustpoint struct {
	Line       int
	Name       string
	Enrollment string // "self", "terminal" or "url"; "" if the text says nothing
	URL        string
	FQDN       string // of the identity; "" with NoFQDN or by default
	NoFQDN     bool   // fqdn none
	Subject    string // X.500 name as written, "CN=cucm"
	KeyPair    string // label
	LDCIssuer  bool   // proxy-ldc-issuer: signs local dynamic certificates

	SerialNumber bool       // serial-number: the subject has the device's
	IP           netip.Addr // ip-address, in the certificate
	Password     string     // challenge of the CA; a secret

	// CACertificates and Certificate are DER, from crypto ca certificate
	// chain and crypto ca authenticate.
	CACertificates [][]byte
	Certificate    []byte // of the identity, nil if the text has none
}

// A CTLFile is a CTL file to build. (reference/asa-cli.md, section 8.1.)
type CTLFile struct {
	Line        int
	Name        string
	Records     []Record
	SAST        int    // number of tokens, 1 to 5; 2 by default
	Shutdown    bool   // true until no shutdown
	ClusterFile string // cluster-ctl-file, "disk0:/old.tlv"
}

// A Record is an entity that the phones shall trust.
type Record struct {
	Line       int
	Role       string     // "cucm", "cucm-tftp", "tftp" or "capf"
	Trustpoint string     // whose certificate it is
	Addr       netip.Addr // mapped: as the phones see it; not valid with FQDN
	FQDN       string     // given in place of an address
	Domain     string     // domain-name, appended to the subject's CN
}

// A TLSProxy is how signaling TLS is ended and begun. (reference/asa-cli.md, section 8.2.)
type TLSProxy struct {
	Line               int
	Name               string
	ServerTrustpoint   string // shown to the phones
	AuthenticateClient bool   // ask phones for a certificate; true by default
	ClientTrustpoint   string // shown to the UCM
	LDCIssuer          string // trustpoint
	LDCKeyPair         string // label
	ClientCiphers      []string
}

// A MediaTermination is where the box takes media. (reference/asa-cli.md, section 8.3.)
type MediaTermination struct {
	Line             int
	Name             string
	Addrs            []MTA
	MinPort, MaxPort uint16 // of RTP; 16384 and 32767 by default

	// Within says that it stands inside the phone proxy of the same name, as
	// before 8.2(1): one global address. (reference/asa-rules.md, V50.)
	Within bool
}

// An MTA is one media termination address.
type MTA struct {
	Line      int
	Addr      netip.Addr
	Interface string // "" is global: every interface
}

// A PhoneProxy joins the parts. (reference/asa-cli.md, section 8.4.)
//
// ExpiredCertificates, Readmit, SCCPVersionMax and TFTPSinglePort are
// Patchbay's own, not the ASA's:
//
//	phone-certificate expired {permit | deny}
//	secure-phones {readmit | refuse}
//	sccp version-max N
//	[no] tftp single-port
type PhoneProxy struct {
	Line                int
	Name                string
	MediaTermination    string
	CTL                 string
	TLSProxy            string
	TFTPServers         []TFTPServer
	Mixed               bool          // cluster-mode mixed
	SecurePhones        time.Duration // timeout secure-phones, 5 minutes by default
	KeepServiceSettings bool          // no disable service-settings
	CIPCAuthenticated   bool          // cipc security-mode authenticated
	ProxyServer         *ProxyServer  // nil if there is none

	// ExpiredCertificates permits phones whose certificate has expired, as
	// those of most 79xx have. True by default. (reference/certificates.md.)
	ExpiredCertificates bool
	// Readmit lets a phone that was forgotten while its certificate is good
	// come back without fetching its CTL file again. True by default.
	Readmit bool
	// SCCPVersionMax is the highest SCCP version passed, up to 22; 19 by
	// default. (reference/asa-rules.md, V76.)
	SCCPVersionMax int
	// TFTPSinglePort answers TFTP from port 69 itself, for phones behind NAT
	// that forgets. False by default. (reference/tftp-boot-sequence.md.)
	TFTPSinglePort bool
}

// A TFTPServer is where phones' files really are.
type TFTPServer struct {
	Line      int
	Addr      netip.Addr // real
	Port      uint16     // 69 by default
	Interface string
}

// A ProxyServer is the HTTP proxy written into the phones' files.
type ProxyServer struct {
	Line      int
	Addr      netip.Addr // mapped, as the phones see it; not valid with Host
	Host      string
	Port      uint16 // 8080 by default
	Interface string
}

// A ClassMap says which traffic a class is.
type ClassMap struct {
	Line  int
	Name  string
	Match Match
}

// A MatchKind is the form of a Match.
type MatchKind uint8

const (
	MatchNone    MatchKind = iota // no match line yet: no traffic
	MatchAny                      // all traffic
	MatchPort                     // Proto, From to To
	MatchACL                      // what the access list permits
	MatchDefault                  // default-inspection-traffic: each engine's own ports
)

// A Match is the condition of a ClassMap.
type Match struct {
	Line     int
	Kind     MatchKind
	Proto    string // "tcp" or "udp"
	From, To uint16 // inclusive
	ACL      string
	Default  bool // Kind is MatchDefault
}

// A PolicyMap says what is done to classes.
type PolicyMap struct {
	Line    int
	Name    string
	Type    string // "" for layer 3/4, "inspect dns" for the parameters of an engine
	Classes []PolicyClass
	SIP     *SIPMap    // of type "inspect sip", else nil
	Skinny  *SkinnyMap // of type "inspect skinny", else nil
}

// A PolicyClass is one class in a policy.
type PolicyClass struct {
	Line     int
	Class    string // a class-map, or "class-default": what is in no class before
	Inspects []Inspect
	Police   []Police       // at most one for each direction
	Set      *SetConnection // nil if there is none
}

// An Inspect is an engine at work on a class.
type Inspect struct {
	Line       int
	Protocol   string // "sip", "skinny", "tftp"; others have no engine and Validate warns
	Map        string // policy-map type inspect, or ""
	PhoneProxy string
	TLSProxy   string
}

// A ServicePolicy puts a policy to work.
type ServicePolicy struct {
	Line      int
	Policy    string
	Interface string // "" is global
}

// Name returns what the box is called, also without a hostname line. The ASA's own
// default is ciscoasa.
func (r *Running) Name() string { return cmp.Or(r.Hostname, "patchbay") }

// Inert returns a Finding for each line that is known and has no effect here.
func (r *Running) Inert() []Finding {
	var list []Finding
	for i, l := range r.Lines {
		if l.Why != "" {
			list = append(list, Finding{File: r.File, Line: i + 1, Severity: Info, Text: l.Text, Msg: "no effect here: " + l.Why})
		}
	}
	return list
}

// find returns the first item of list for which is is true, nil if there is none.
func find[T any](list []T, is func(*T) bool) *T {
	for i := range list {
		if is(&list[i]) {
			return &list[i]
		}
	}
	return nil
}

// Interface returns the interface of a nameif, nil if there is none.
func (r *Running) Interface(name string) *Interface {
	return find(r.Interfaces, func(i *Interface) bool { return i.Name == name && name != "" })
}

// Object returns the network object of a name, nil if there is none.
func (r *Running) Object(name string) *Object {
	return find(r.Objects, func(o *Object) bool { return o.Name == name })
}

// ServiceObject returns the service object of a name, nil if there is none.
func (r *Running) ServiceObject(name string) *ServiceObject {
	return find(r.ServiceObjects, func(o *ServiceObject) bool { return o.Name == name })
}

// Group returns the object group of a name, nil if there is none.
func (r *Running) Group(name string) *ObjectGroup {
	return find(r.Groups, func(g *ObjectGroup) bool { return g.Name == name })
}

// TimeRange returns the time range of a name, nil if there is none.
func (r *Running) TimeRange(name string) *TimeRange {
	return find(r.TimeRanges, func(t *TimeRange) bool { return t.Name == name })
}

// AccessList returns the access list of a name, nil if there is none.
func (r *Running) AccessList(name string) *AccessList {
	return find(r.AccessLists, func(l *AccessList) bool { return l.Name == name })
}

// KeyPair returns the key pair of a label, nil if the text makes none.
func (r *Running) KeyPair(label string) *KeyPair {
	return find(r.KeyPairs, func(k *KeyPair) bool { return k.Label == label })
}

// Trustpoint returns the trustpoint of a name, nil if there is none.
func (r *Running) Trustpoint(name string) *Trustpoint {
	return find(r.Trustpoints, func(t *Trustpoint) bool { return t.Name == name })
}

// Enrolled reports whether the trustpoint of a name is named by crypto ca enroll.
func (r *Running) Enrolled(name string) bool { return slices.Contains(r.Enroll, name) }

// CTL returns the CTL file of a name, nil if there is none.
func (r *Running) CTL(name string) *CTLFile {
	return find(r.CTLs, func(c *CTLFile) bool { return c.Name == name })
}

// TLSProxy returns the TLS proxy of a name, nil if there is none.
func (r *Running) TLSProxy(name string) *TLSProxy {
	return find(r.TLSProxies, func(t *TLSProxy) bool { return t.Name == name })
}

// MediaTermination returns the media termination of a name, nil if there is none.
func (r *Running) MediaTermination(name string) *MediaTermination {
	return find(r.MediaTerminations, func(m *MediaTermination) bool { return m.Name == name })
}

// PhoneProxy returns the phone proxy of a name, nil if there is none.
func (r *Running) PhoneProxy(name string) *PhoneProxy {
	return find(r.PhoneProxies, func(p *PhoneProxy) bool { return p.Name == name })
}

// ClassMap returns the class map of a name, nil if there is none.
func (r *Running) ClassMap(name string) *ClassMap {
	return find(r.ClassMaps, func(c *ClassMap) bool { return c.Name == name })
}

// PolicyMap returns the policy map of a name, nil if there is none.
func (r *Running) PolicyMap(name string) *PolicyMap {
	return find(r.PolicyMaps, func(p *PolicyMap) bool { return p.Name == name })
}
