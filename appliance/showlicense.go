package appliance

import (
	"fmt"

	"patchbay/appliance/cli"
)

var showLicenseCommands = []cli.Rule[execFunc]{
	{Syntax: "show license [all|features]", Help: "What the box may do, and how much of it is in use", Do: showLicense},
	{Syntax: "show activation-key [detail]", Help: "What the box may do, and how much of it is in use", Do: showActivationKey},
}

// A licensed is a line of the table of licenses.
type licensed struct {
	feature, value string
	used           int // -1: it is not counted
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
	return []licensed{
		{"Maximum Physical Interfaces", unlimited, len(x.plan.interfaces)},
		{"Maximum VLANs", "4094", -1},
		{"Inside Hosts", unlimited, -1},
		{"Failover", off, -1},
		{"Encryption-DES", off, -1},
		{"Encryption-3DES-AES", on, -1},
		{"Security Contexts", "0", -1},
		{"AnyConnect Premium Peers", off, -1},
		{"Other VPN Peers", off, -1},
		{"Advanced Endpoint Assessment", off, -1},
		{"UC Phone Proxy Sessions", unlimited, sessions},
		{"Total UC Proxy Sessions", total, sessions},
		{"Botnet Traffic Filter", off, -1},
		{"Intercompany Media Engine", off, -1},
	}
}

// licenseTable writes the table in the ASA's layout, with a column of what is in
// use.
func (x *execution) licenseTable() {
	x.printf("Licensed features for this platform:\n")
	for _, l := range x.licenses() {
		used := ""
		if l.used >= 0 {
			used = fmt.Sprintf("  %d in use", l.used)
		}
		x.printf("%-34s: %-14s perpetual%s\n", l.feature, l.value, used)
	}
}

func showLicense(x *execution, _ cli.Args) error {
	x.licenseTable()
	return nil
}

// showActivationKey says that there is none to enter, and what an ASA says of one.
func showActivationKey(x *execution, _ cli.Args) error {
	x.printf("No activation key is needed: this box runs free software.\n\n")
	x.licenseTable()
	return nil
}
