package appliance

import (
	"bufio"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/tlsproxy"
)

// showStateCommands say how the box stands, in the ASA's words.
var showStateCommands = []cli.Rule[execFunc]{
	{Syntax: "show uptime", Help: "How long the box has been up", Do: show(showUptime)},
	{Syntax: "show mode", Help: "Single or multiple context mode", Do: show(showMode)},
	{Syntax: "show firewall", Help: "Routed or transparent mode", Do: show(showFirewall)},
	{Syntax: "show failover", Help: "Failover", Do: show(showFailover)},
	{Syntax: "show nameif [<if>]", Help: "Names and security levels of interfaces", Do: show(showNameif)},
	{Syntax: "show ip address [<if>]", Help: "Addresses of interfaces", Do: show(showIPAddress)},
	{Syntax: "show names", Help: "Names that stand for addresses", Do: show(showNames)},
	{Syntax: "show ssl", Help: "Versions and ciphers toward the phones", Do: show(showSSL)},
	{Syntax: "show skinny audio", Help: "Phones' calls with open media", Do: show(showSkinnyAudio)},
}

// uptimeText is how long the box has been up, as the ASA writes it.
func uptimeText(up time.Duration) string {
	days, hours, mins := int(up.Hours())/24, int(up.Hours())%24, int(up.Minutes())%60
	switch {
	case days > 0:
		return fmt.Sprintf("%d days %d hours", days, hours)
	case hours > 0:
		return fmt.Sprintf("%d hours %d mins", hours, mins)
	}
	return fmt.Sprintf("%d mins %d secs", mins, int(up.Seconds())%60)
}

// A shownUptime is how long the box has been up.
type shownUptime struct {
	Hostname string      `json:"hostname"`
	Up       cli.Seconds `json:"up_seconds"`
}

func showUptime(x *execution, _ cli.Args) (shownUptime, error) {
	return shownUptime{x.running.Name(), cli.Seconds(x.opt.Now().Sub(x.started))}, nil
}

func (s shownUptime) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "%s up %s\n", s.Hostname, uptimeText(s.Up.Duration()))
}

// A shownMode is one of the ASA's modes, of which the box has one.
type shownMode struct {
	Mode string `json:"mode"`
	text string
}

func (s shownMode) Text(w *bufio.Writer) { w.WriteString(s.text) }

func showMode(*execution, cli.Args) (shownMode, error) {
	return shownMode{"single", "Security context mode: single\n"}, nil
}

func showFirewall(*execution, cli.Args) (shownMode, error) {
	return shownMode{"router", "Firewall mode: Router\n"}, nil
}

func showFailover(*execution, cli.Args) (shownMode, error) {
	return shownMode{"off", "Failover Off\nThis version has no failover: the box stands alone\n"}, nil
}

// A namedInterface is an interface that has a name.
type namedInterface struct {
	Hardware string `json:"hardware"`
	Name     string `json:"name"`
	Level    int    `json:"security_level"`
}

type namedInterfaces struct {
	Interfaces cli.List[namedInterface] `json:"interfaces"`
}

func showNameif(x *execution, args cli.Args) (s namedInterfaces, _ error) {
	for k := range x.running.Interfaces {
		c := &x.running.Interfaces[k]
		if c.Name != "" && means(args, c.Name) {
			s.Interfaces = append(s.Interfaces, namedInterface{c.Hardware, c.Name, c.Level})
		}
	}
	return s, nil
}

func (s namedInterfaces) Text(w *bufio.Writer) {
	const layout = "%-24s %-24s %s\n"
	fmt.Fprintf(w, layout, "Interface", "Name", "Security")
	for _, i := range s.Interfaces {
		fmt.Fprintf(w, layout, i.Hardware, i.Name, fmt.Sprintf("%3d", i.Level))
	}
}

// An addressedInterface is an interface that has an address.
type addressedInterface struct {
	Hardware     string     `json:"hardware"`
	Name         string     `json:"name"`
	Addr         netip.Addr `json:"address"`
	PrefixLength int        `json:"prefix_length"`
}

type addressedInterfaces struct {
	Interfaces cli.List[addressedInterface] `json:"interfaces"`
}

func showIPAddress(x *execution, args cli.Args) (s addressedInterfaces, _ error) {
	for k := range x.running.Interfaces {
		c := &x.running.Interfaces[k]
		if c.Name != "" && c.Addr.IsValid() && means(args, c.Name) {
			s.Interfaces = append(s.Interfaces, addressedInterface{c.Hardware, c.Name, c.Addr.Addr(), c.Addr.Bits()})
		}
	}
	return s, nil
}

// Text lists the addresses twice, as the ASA does: those of the configuration, and
// those in use, which without failover are the same.
func (s addressedInterfaces) Text(w *bufio.Writer) {
	const layout = "%-24s %-22s %-15s %-15s %s\n"
	for _, head := range []string{"System IP Addresses:", "Current IP Addresses:"} {
		fmt.Fprintf(w, "%s\n"+layout, head, "Interface", "Name", "IP address", "Subnet mask", "Method")
		for _, i := range s.Interfaces {
			fmt.Fprintf(w, layout, i.Hardware, i.Name, i.Addr, config.MaskText(i.PrefixLength), "CONFIG")
		}
	}
}

// A shownLabel is a name that stands for an address.
type shownLabel struct {
	Addr netip.Addr `json:"address"`
	Name string     `json:"name"`
}

type shownLabels struct {
	Names cli.List[shownLabel] `json:"names"`
}

func showNames(x *execution, _ cli.Args) (s shownLabels, _ error) {
	for _, label := range slices.Sorted(maps.Keys(x.running.Names)) {
		s.Names = append(s.Names, shownLabel{x.running.Names[label], label})
	}
	return s, nil
}

func (s shownLabels) Text(w *bufio.Writer) {
	for _, n := range s.Names {
		fmt.Fprintf(w, "name %v %s\n", n.Addr, n.Name)
	}
}

// A shownSSL is what is spoken toward phones, the ciphers in order of preference.
type shownSSL struct {
	Enabled  cli.List[string] `json:"enabled_ciphers"`
	Disabled cli.List[string] `json:"disabled_ciphers"`
}

func showSSL(x *execution, _ cli.Args) (s shownSSL, _ error) {
	enabled, disabled := tlsproxy.CipherWords(x.running.SSLEncryption)
	return shownSSL{enabled, disabled}, nil
}

// Text is in the ASA's layout. (reference/asa-cli-show-debug.md, section 2.12.)
func (s shownSSL) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "Accept connections using TLSv1 or greater and negotiate to TLSv1.3 or lower\nEnabled cipher order: %s\nDisabled ciphers: %s\n",
		strings.Join(s.Enabled, " "), strings.Join(s.Disabled, " "))
}

// shownAudio is what of "show skinny" has media.
type shownAudio struct{ shownTalks }

func showSkinnyAudio(x *execution, args cli.Args) (s shownAudio, err error) {
	s.shownTalks, err = showSkinny(x, args)
	s.Phones = slices.DeleteFunc(s.Phones, func(t shownTalk) bool { return len(t.Media) == 0 })
	return s, err
}

// Text numbers the streams.
func (s shownAudio) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "LOCAL                          FOREIGN\n%s\n", strings.Repeat("-", 63))
	n := 0
	for _, t := range s.Phones {
		for _, m := range t.Media {
			n++
			fmt.Fprintf(w, "%-7d %-22s %-22s\n  MEDIA %s/%d %s/%d\n", n, slashed(t.Local.addrPort()), slashed(t.Foreign.addrPort()),
				wildAddr(m.Local.Addr), m.Local.Port, wildAddr(m.Foreign.Addr), m.Foreign.Port)
		}
	}
}
