package logging

import (
	"slices"
	"strings"
)

// unnumbered is the number of what has none of its own.
const unnumbered = 990000

// own are the numbers of our own messages, which the ASA does not have, by the
// text up to a colon. A number once given stays with its text.
var own = map[string]int{
	"box is up": 990001, "shutting down": 990002, "key pair made": 990003, "flash": 990004, "control socket": 990005,
	"serving files": 990006, "TFTP": 990007, "ssl encryption": 990008,
	"no CA certificate is installed": 990009, "key pair destroyed": 990010, "CA certificate installed": 990011,
	"identity certificate installed": 990012, "PKCS #12 file imported": 990013, "key pair exported": 990014,
	"SAST token renewed": 990015, "former SAST tokens removed": 990016, "CTL token lost": 990017, "CTL file on flash damaged": 990018,
	"no CTL token that phones know can sign": 990019, "CTL file not kept on flash": 990020,
	"name in the CTL file does not resolve": 990021, "certificate without its private key": 990022,
	"machine": 990023, "startup configuration": 990024, "watchdog": 990025, "SSH host key not kept on flash": 990026, "a command is not authorized": 990027,

	"phone requesting ITL file":                                    990101,
	"phone requesting a file that is not for phones":               990102,
	"phone requesting CTL file, retrieved CTL file":                990103,
	"phone not entered among the secure phones":                    990104,
	"phone requesting for unsigned config file":                    990105,
	"error parsing config file":                                    990106,
	"config file made secure":                                      990107,
	"phone refused":                                                990108,
	"call manager does not answer":                                 990109,
	"phone connected":                                              990110,
	"phone disconnected":                                           990111,
	"media session opened":                                         990112,
	"media session closed":                                         990113,
	"message dropped":                                              990201,
	"conversation ended":                                           990202,
	"server does not answer":                                       990203,
	"client does not complete its handshake":                       990204,
	"too many streams in one conversation, the oldest is released": 990205,
}

// numberOf returns the number of one of our own messages.
func numberOf(text string) int {
	if n, ok := own[text]; ok {
		return n
	}
	head, _, _ := strings.Cut(text, ":")
	if n, ok := own[head]; ok {
		return n
	}
	return unnumbered
}

// defaults are the severities of the ASA's messages that Patchbay logs.
// (reference/asa-cli-show-debug.md, section 5; of those that it does not list,
// the ASA's syslog guide as remembered.)
var defaults = map[int]int{
	106001: 2, 106006: 2, 106010: 3, 106014: 3, 106015: 6, 106021: 1, 106023: 4, 106100: 6,
	110002: 6, 111008: 5, 111010: 5, 201008: 3, 302013: 6, 302014: 6, 302015: 6, 302016: 6, 302020: 6, 302021: 6, 305005: 3, 305011: 6, 305012: 6,
	305013: 5, 313001: 3, 313004: 4, 411001: 4, 411002: 4, 414003: 3, 414004: 6, 446001: 4, 607002: 4, 607003: 6, 608002: 4, 608003: 4, 608004: 4,
	608005: 4, 710005: 7, 717009: 3, 717027: 3, 717054: 1, 717055: 1, 725001: 6, 725002: 6, 725006: 6, 725008: 7, 725011: 7, 725012: 7, 725014: 7, 725017: 7,
}

// Known returns the numbers of the ASA's messages that may be logged, in order.
func Known() []int {
	var all []int
	for n := range defaults {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// A Class is the messages of a kind: those whose numbers begin with one of
// Prefixes.
type Class struct {
	Name     string
	Prefixes []int // first three digits
}

// Classes are those of "logging list NAME level LEVEL class CLASS". (The ASA's
// syslog guide as remembered.)
var Classes = []Class{
	{"auth", []int{109, 113}}, {"bridge", []int{110, 220}}, {"ca", []int{717}},
	{"config", []int{111, 112, 208, 308}}, {"email", []int{719}},
	{"ha", []int{101, 102, 103, 104, 105, 210, 311, 709}}, {"ids", []int{400, 401, 415}},
	{"ip", []int{209, 215, 313, 317, 408}}, {"np", []int{319}}, {"ospf", []int{318, 409, 503, 613}}, {"rip", []int{107, 312}},
	{"rm", []int{321}},
	{"session", []int{106, 108, 201, 202, 204, 302, 303, 304, 305, 314, 405, 406, 407, 500, 502, 607, 608, 609, 616, 620, 703, 710}},
	{"snmp", []int{212}}, {"ssl", []int{725}},
	{"sys", []int{199, 211, 214, 216, 306, 307, 315, 414, 604, 605, 606, 610, 612, 614, 615, 701, 711}},
	{"vpdn", []int{213, 403, 603}}, {"vpn", []int{316, 320, 402, 404, 501, 602, 702, 713, 714, 715}},
	{"vpnc", []int{611}}, {"vpnfo", []int{720}}, {"vpnlb", []int{718}}, {"webvpn", []int{716}},
}

func inClass(name string, number int) bool {
	for _, c := range Classes {
		if c.Name == name {
			return slices.Contains(c.Prefixes, number/1000)
		}
	}
	return false
}

// levels are the names of severities.
var levels = [...]string{"emergencies", "alerts", "critical", "errors", "warnings", "notifications", "informational", "debugging"}

// LevelName returns the ASA's name of a severity, 0 to 7.
func LevelName(level int) string { return levels[level&7] }
