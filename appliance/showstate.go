package appliance

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/tlsproxy"
)

// showStateCommands say how the box stands, in the ASA's words.
var showStateCommands = []cli.Rule[execFunc]{
	{Syntax: "show uptime", Help: "How long the box has been up", Do: showUptime},
	{Syntax: "show mode", Help: "Single or multiple context mode", Do: showMode},
	{Syntax: "show firewall", Help: "Routed or transparent mode", Do: showFirewall},
	{Syntax: "show failover", Help: "Failover", Do: showFailover},
	{Syntax: "show nameif [<if>]", Help: "Names and security levels of interfaces", Do: showNameif},
	{Syntax: "show ip address [<if>]", Help: "Addresses of interfaces", Do: showIPAddress},
	{Syntax: "show names", Help: "Names that stand for addresses", Do: showNames},
	{Syntax: "show ssl", Help: "Versions and ciphers toward the phones", Do: showSSL},
	{Syntax: "show skinny audio", Help: "Phones' calls with open media", Do: showSkinnyAudio},
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

func showUptime(x *execution, _ cli.Args) error {
	x.printf("%s up %s\n", cmp.Or(x.running.Hostname, "patchbay"), uptimeText(x.opt.Now().Sub(x.started)))
	return nil
}

func showMode(x *execution, _ cli.Args) error {
	x.printf("Security context mode: single\n")
	return nil
}

func showFirewall(x *execution, _ cli.Args) error {
	x.printf("Firewall mode: Router\n")
	return nil
}

func showFailover(x *execution, _ cli.Args) error {
	x.printf("Failover Off\nThis version has no failover: the box stands alone\n")
	return nil
}

func showNameif(x *execution, args cli.Args) error {
	const layout = "%-24s %-24s %s\n"
	x.printf(layout, "Interface", "Name", "Security")
	for k := range x.running.Interfaces {
		c := &x.running.Interfaces[k]
		if c.Name != "" && (!args.Has("if") || c.Name == args.Get("if")) {
			x.printf(layout, c.Hardware, c.Name, fmt.Sprintf("%3d", c.Level))
		}
	}
	return nil
}

// showIPAddress lists the addresses twice, as the ASA does: those of the
// configuration, and those in use, which without failover are the same.
func showIPAddress(x *execution, args cli.Args) error {
	const layout = "%-24s %-22s %-15s %-15s %s\n"
	for _, head := range []string{"System IP Addresses:", "Current IP Addresses:"} {
		x.printf("%s\n"+layout, head, "Interface", "Name", "IP address", "Subnet mask", "Method")
		for k := range x.running.Interfaces {
			c := &x.running.Interfaces[k]
			if c.Name == "" || !c.Addr.IsValid() || args.Has("if") && c.Name != args.Get("if") {
				continue
			}
			addr, mask := prefixText(c.Addr)
			x.printf(layout, c.Hardware, c.Name, addr, mask, "CONFIG")
		}
	}
	return nil
}

func showNames(x *execution, _ cli.Args) error {
	for _, label := range slices.Sorted(maps.Keys(x.running.Names)) {
		x.printf("name %v %s\n", x.running.Names[label], label)
	}
	return nil
}

// showSSL writes what is spoken toward phones. (reference/asa-cli-show-debug.md,
// section 2.12.)
func showSSL(x *execution, _ cli.Args) error {
	enabled, disabled := tlsproxy.CipherWords(x.running.SSLEncryption)
	x.printf("Accept connections using TLSv1 or greater and negotiate to TLSv1.3 or lower\nEnabled cipher order: %s\nDisabled ciphers: %s\n",
		strings.Join(enabled, " "), strings.Join(disabled, " "))
	return nil
}

// showSkinnyAudio lists the media of phones' calls that inspection follows.
func showSkinnyAudio(x *execution, _ cli.Args) error {
	var lines []string
	x.talks.each(func(t *talk) {
		if t.inspect.protocol != "skinny" {
			return
		}
		for _, c := range t.stream.Calls(x.opt.Now()) {
			for _, m := range c.Media {
				lines = append(lines, fmt.Sprintf("%-22s %-22s\n  MEDIA %s/%d %s/%d\n", slashed(t.client.Src), slashed(t.server),
					wildAddr(m.Local.Addr()), m.Local.Port(), wildAddr(m.Foreign.Addr()), m.Foreign.Port()))
			}
		}
	})
	slices.Sort(lines)
	x.printf("LOCAL                          FOREIGN\n%s\n", strings.Repeat("-", 63))
	for k, l := range lines {
		x.printf("%-7d %s", k+1, l)
	}
	return nil
}
