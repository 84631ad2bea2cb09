package appliance

import (
	"bufio"
	"fmt"

	"patchbay/appliance/cli"
)

var showLicenseCommands = []cli.Rule[execFunc]{
	{Syntax: "show license [all|features]", Help: "What the box may do, and how much of it is in use", Do: show(showLicense)},
	{Syntax: "show activation-key [detail]", Help: "What the box may do, and how much of it is in use", Do: show(showActivationKey)},
}

// A licensed is a line of the table of licenses.
type licensed struct {
	Feature string `json:"feature"`
	Value   string `json:"value"` // a number, "Unlimited", "Enabled" or "Disabled"
	Used    *int   `json:"in_use,omitempty"`
}

// licenses are what the ASA's table has of what the box can do. Patchbay is free:
// no number limits it but those of the configuration.
// (reference/asa-cli-show-debug.md, section 2.11.)
func (x *execution) licenses() []licensed {
	const unlimited, on, off = "Unlimited", "Enabled", "Disabled"
	sessions := 0
	if s := x.plan.service; s != nil {
		sessions = len(s.proxy.Sessions())
	}
	total := unlimited
	if n := x.running.MaxTLSSessions; n > 0 {
		total = fmt.Sprint(n) // tls-proxy maximum-sessions
	}
	of := func(n int) *int { return &n }
	return []licensed{
		{"Maximum Physical Interfaces", unlimited, of(len(x.plan.interfaces))},
		{"Maximum VLANs", "4094", nil},
		{"Inside Hosts", unlimited, nil},
		{"Failover", off, nil},
		{"Encryption-DES", off, nil},
		{"Encryption-3DES-AES", on, nil},
		{"Security Contexts", "0", nil},
		{"AnyConnect Premium Peers", off, nil},
		{"Other VPN Peers", off, nil},
		{"Advanced Endpoint Assessment", off, nil},
		{"UC Phone Proxy Sessions", unlimited, of(sessions)},
		{"Total UC Proxy Sessions", total, of(sessions)},
		{"Botnet Traffic Filter", off, nil},
		{"Intercompany Media Engine", off, nil},
	}
}

// licenseTable writes the table in the ASA's layout, with a column of what is in
// use.
func licenseTable(w *bufio.Writer, list []licensed) {
	fmt.Fprintf(w, "Licensed features for this platform:\n")
	for _, l := range list {
		used := ""
		if l.Used != nil {
			used = fmt.Sprintf("  %d in use", *l.Used)
		}
		fmt.Fprintf(w, "%-34s: %-14s perpetual%s\n", l.Feature, l.Value, used)
	}
}

type shownLicenses struct {
	Licenses cli.List[licensed] `json:"licenses"`
}

func showLicense(x *execution, _ cli.Args) (shownLicenses, error) {
	return shownLicenses{x.licenses()}, nil
}

func (s shownLicenses) Text(w *bufio.Writer) { licenseTable(w, s.Licenses) }

// A shownActivation is "show activation-key": there is none to enter.
type shownActivation struct {
	Needed bool `json:"key_needed"`
	shownLicenses
}

func showActivationKey(x *execution, _ cli.Args) (shownActivation, error) {
	return shownActivation{false, shownLicenses{x.licenses()}}, nil
}

func (s shownActivation) Text(w *bufio.Writer) {
	w.WriteString("No activation key is needed: this box runs free software.\n\n")
	s.shownLicenses.Text(w)
}
