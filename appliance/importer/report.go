package importer

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"

	"patchbay/appliance/config"
)

// Report writes what became of the configuration, as Markdown for the colleague
// who puts the box into service. Out names the file that the configuration was
// written to, "" if it was not.
func (r *Result) Report(w io.Writer, out string) error {
	p := &printer{w: bufio.NewWriter(w)}
	name := r.Running.Hostname
	if name == "" {
		name = r.File
	}
	p.f("# Import of %s\n\n", name)
	r.summary(p, out)
	r.first(p)
	r.interfaces(p)
	r.keys(p)
	r.leftOut(p)
	r.rewritten(p)
	r.warnings(p)
	r.idle(p)
	p.f("\n## Obeyed\n\n")
	for _, g := range r.Groups(config.Obeyed) {
		p.f("- %d × `%s`\n", len(g.Lines), clean(g.Head))
	}
	r.next(p, out)
	return p.w.Flush() // holds the first error
}

// A printer writes Markdown.
type printer struct{ w *bufio.Writer }

func (p *printer) f(format string, args ...any) { fmt.Fprintf(p.w, format, args...) }

// clean makes text from the file fit to stand in Markdown's `code` and in a table.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '`':
			return '\''
		case r == '|':
			return '¦'
		case r < ' ' || r == 0x7f:
			return ' '
		}
		return r
	}, text)
}

// numbers writes line numbers, the first few of many.
func numbers(lines []int) string {
	const most = 8
	var list []string
	for i, n := range lines {
		if i == most && len(lines) > most+1 {
			list = append(list, fmt.Sprintf("and %d more", len(lines)-most))
			break
		}
		list = append(list, strconv.Itoa(n))
	}
	return strings.Join(list, ", ")
}

func (r *Result) summary(p *printer, out string) {
	obeyed, inert, refused := r.Count(config.Obeyed), r.Count(config.Inert), r.Count(config.Refused)
	total := float64(max(obeyed+inert+refused, 1))
	p.f("| | |\n|---|---|\n| File | %s, %s |\n", clean(r.File), clean(r.Source.From))
	if r.Running.Version != "" {
		p.f("| Version | %s |\n", clean(r.Running.Version))
	}
	p.f("| Obeyed | %d lines (%.0f %%) |\n", obeyed, 100*float64(obeyed)/total)
	p.f("| Known, without effect here | %d lines (%.0f %%) |\n", inert, 100*float64(inert)/total)
	p.f("| Left out | %d lines (%.0f %%) |\n", refused, 100*float64(refused)/total)
	if out != "" {
		p.f("| Written | %s: loads without error |\n", clean(out))
	}
	for _, n := range r.Source.Notes {
		p.f("\n%s\n", clean(n))
	}
}

// has reports whether a line begins so.
func (r *Result) has(begin string) bool {
	for _, l := range r.Lines {
		if l.Kind != config.Comment && strings.HasPrefix(l.Text, begin) {
			return true
		}
	}
	return false
}

// first says what concerns the configuration as a whole.
func (r *Result) first(p *printer) {
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	major, minor, known := version(r.Running.Version)
	switch {
	case !known:
		add("**No version line.** Without `ASA Version` it is read as of 8.3 to 9.3, or as older if there is a `static` or `global` line.")
	case major < 7:
		add("**This is of a PIX before 7.0**, which had another language: most of it is left out.")
	case major > 9 || major == 9 && minor >= 4:
		add("**Version %s no longer has a phone proxy**: an ASA that was upgraded to 9.4 or later has dropped `phone-proxy`, `ctl-file` and what names them. "+
			"If this box was one, import a configuration saved before the upgrade.", clean(r.Running.Version))
	}
	if r.Running.MappedACL {
		add("**NAT and access lists are of before 8.3 and stay as they are**: `static`, `global` and `nat` lines are obeyed with the meaning they had, and access lists " +
			"on interfaces are compared with mapped addresses.")
	}
	if r.has("firewall transparent") {
		add("**Transparent mode is not supported.** The lines below are read as of a routed firewall: its interfaces have no addresses, and nothing passes until they do.")
	}
	if r.has("context ") || r.has("admin-context ") {
		add("**This is the system configuration of a box in multiple mode.** What its contexts do is in files of their own: import each, and run a box for each.")
	}
	if r.has("crypto map ") {
		add("**There is no VPN.** What an ASA sends through the tunnels of `crypto map` is routed and translated here as any packet is: in the clear. " +
			"See that access lists stop it, or end the tunnels elsewhere.")
	}
	if r.has("failover lan ") {
		add("**The ASA was one of a failover pair.** This box stands alone; the standby addresses are not used.")
	}
	for _, i := range r.Running.Interfaces {
		if i.Name != "" && !i.Addr.IsValid() && !i.Shutdown {
			add("**Interface %s has no address**: give it one with `ip address`; addresses from DHCP and PPPoE are not supported. NAT to its address does nothing until then.", clean(i.Name))
		}
	}
	if len(notes) > 0 {
		p.f("\n## Read this first\n\n")
	}
	for _, n := range notes {
		p.f("- %s\n", n)
	}
	if guards := r.Guards(); len(guards) > 0 {
		p.f("\n## Protection that is missing\n\nThese lines kept something out, or let it in only after a login, and are left out. " +
			"See for each that nothing passes now which it stopped.\n\n")
		for _, g := range guards {
			p.f("- `%s` (lines %s): %s\n", clean(g.Head), numbers(g.Lines), clean(g.Why))
		}
	}
}

// version reads "8.2(5)".
func version(v string) (major, minor int, ok bool) {
	n, err := fmt.Sscanf(v, "%d.%d", &major, &minor)
	return major, minor, n == 2 && err == nil
}

func (r *Result) interfaces(p *printer) {
	p.f("\n## Interfaces\n\n")
	if len(r.Links()) == 0 {
		p.f("None has a name: nothing passes.\n")
		return
	}
	p.f("| Name | Level | Address | In the file | Link |\n|---|---|---|---|---|\n")
	for _, l := range r.Links() {
		addr := "none"
		if l.Interface.Addr.IsValid() {
			addr = l.Interface.Addr.String()
		}
		if l.Interface.Shutdown {
			addr += ", shut down"
		}
		p.f("| %s | %d | %s | %s | `%s` |\n", clean(l.Interface.Name), l.Interface.Level, addr, clean(l.Was), clean(l.Flag))
	}
	p.f("\nThe devices are proposals, `eth0` for the first port and so on: put in those of this host.\n")
}

func (r *Result) keys(p *printer) {
	if len(r.Secrets) == 0 && len(r.Masked) == 0 {
		return
	}
	p.f("\n## Secrets that are still needed\n")
	if len(r.Secrets) > 0 {
		p.f("\nA configuration holds no private keys. Show each on the ASA with the command below, save what it shows as a file with the trustpoint's name " +
			"and `.p12`, and install it with `patchbay pki import --flash DIR TRUSTPOINT FILE`. (A trustpoint whose name begins with `" + signer + "` exists on the ASA " +
			"although its configuration may not show it.)\n\n")
		p.f("| Trustpoint | Key pair | For | PKCS#12 file | On the ASA | Without it |\n|---|---|---|---|---|---|\n")
		for _, s := range r.Secrets {
			file, lost := "**missing**", s.Lost
			if s.File != "" {
				file = s.File
			}
			if s.Made {
				if lost == "" {
					lost = "who trusts the old certificate does not trust the new one"
				}
				lost = "a new key is made; " + lost
			} else {
				lost = strings.TrimSuffix("it must be enrolled anew; "+lost, "; ")
			}
			p.f("| %s | %s | %s | %s | `%s` | %s |\n", clean(s.Trustpoint), clean(s.KeyPair), clean(strings.Join(s.Uses, "; ")), clean(file), clean(s.Export()), lost)
		}
	}
	if len(r.Masked) > 0 {
		p.f("\nThe ASA showed asterisks for these. `more system:running-config` shows some of them.\n\n")
		for _, m := range r.Masked {
			need := ""
			if m.Left {
				need = " (not needed: the line has no effect here)"
			}
			p.f("- line %d: `%s`%s\n", m.Line, clean(m.Text), need)
		}
	}
}

func (r *Result) leftOut(p *printer) {
	groups := r.Groups(config.Refused)
	if len(groups) == 0 {
		return
	}
	p.f("\n## Left out\n\n| Times | Command | Lines | Why |\n|---|---|---|---|\n")
	for _, g := range groups {
		below := ""
		if g.Below > 0 {
			below = fmt.Sprintf(" and %d below", g.Below)
		}
		p.f("| %d%s | `%s` | %s | %s |\n", len(g.Lines), below, clean(g.Head), numbers(g.Lines), clean(g.Why))
	}
}

func (r *Result) rewritten(p *printer) {
	if len(r.Changes) == 0 {
		return
	}
	p.f("\n## Converted\n\n")
	for _, c := range r.Changes {
		p.f("- line %d: `%s` is now `%s`: %s\n", c.Line, clean(c.From), clean(c.To), c.Why)
	}
}

func (r *Result) warnings(p *printer) {
	begun := false
	for _, f := range r.Findings {
		if f.Severity != config.Warning || f.LeftOut {
			continue
		}
		if !begun {
			p.f("\n## Obeyed, but see\n\n")
			begun = true
		}
		p.f("- line %d: `%s`: %s\n", f.Line, clean(strings.TrimSpace(f.Text)), clean(f.Msg))
	}
}

func (r *Result) idle(p *printer) {
	inert := r.Inert()
	if len(inert) == 0 {
		return
	}
	p.f("\n## Known, without effect here\n\n")
	for _, why := range sortedKeys(inert) {
		var heads []string
		seen := make(map[string]bool)
		for _, l := range inert[why] {
			if h := head(l.Text); !seen[h] {
				seen[h] = true
				heads = append(heads, "`"+clean(h)+"`")
			}
		}
		p.f("- %s: %s\n", clean(why), strings.Join(heads, ", "))
	}
}

func (r *Result) next(p *printer, out string) {
	if out == "" {
		out = "FILE"
	}
	p.f("\n## Next\n\n```\npatchbay check %s\n", clean(out))
	for _, s := range r.Secrets {
		if s.File != "" {
			p.f("patchbay pki import --flash DIR %s %s\n", clean(s.Trustpoint), clean(s.File))
		}
	}
	p.f("patchbay run --config %s --flash DIR", clean(out))
	for _, l := range r.Links() {
		p.f(" \\\n  %s", clean(l.Flag))
	}
	p.f("\n```\n")
}
