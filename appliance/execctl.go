package appliance

import (
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/ctl"
)

// ctlCommands look at CTL files and renew their tokens. The renewal is our own:
// an ASA has none.
var ctlCommands = []cli.Rule[execFunc]{
	{Syntax: "show ctl-file [<ctl>]", Help: "CTL files: what they are built from, and the one that phones get", Do: showCTL},
	{Syntax: "crypto ctl-file renew <ctl> sast <token:0-4>", Help: "Replace a SAST token; the old one signs until it is forgotten", Do: renewToken},
	{Syntax: "crypto ctl-file forget <ctl>", Help: "Remove tokens that were replaced, when every phone has the new list", Do: forgetTokens},
}

// applied returns the phone proxy's trust list if it is of that ctl-file.
func (x *execution) applied(name string) *trustList {
	if x.plan.service == nil || x.plan.phone.ctl.Name != name {
		return nil
	}
	return x.plan.service.trust.Load()
}

func showCTL(x *execution, a cli.Args) error {
	only := a.Get("ctl")
	for i := range x.running.CTLs {
		c := &x.running.CTLs[i]
		if only != "" && only != c.Name {
			continue
		}
		x.ctlFile(c)
		t := x.applied(c.Name)
		if t == nil {
			x.printf("  Not applied by a phone proxy.\n\n")
			continue
		}
		for _, err := range t.tokens.Lost {
			x.printf("  Lost: %v\n", err)
		}
		data, err := t.current()
		if err != nil {
			x.printf("  No file to serve: %v\n\n", err)
			continue
		}
		f, err := ctl.Parse(data)
		if err != nil {
			return err
		}
		x.printf("\n")
		if err := f.Format(x); err != nil {
			return err
		}
		x.printf("\n")
	}
	return nil
}

// ctlFile writes the instance in the manner of "show running-config all".
func (x *execution) ctlFile(c *config.CTLFile) {
	x.printf("ctl-file %s\n", c.Name)
	for _, r := range c.Records {
		at := r.FQDN
		if at == "" {
			at = r.Addr.String()
		}
		x.printf(" record-entry %s trustpoint %s address %s%s\n", r.Role, r.Trustpoint, at, prefixed(" domain-name ", r.Domain))
	}
	if c.ClusterFile != "" {
		x.printf(" cluster-ctl-file %s\n", c.ClusterFile)
	}
	x.printf(" sast %d\n", c.SAST)
	if c.Shutdown {
		x.printf(" shutdown\n")
	} else {
		x.printf(" no shutdown\n")
	}
}

func renewToken(x *execution, a cli.Args) error {
	c := x.running.CTL(a.Get("ctl"))
	n := a.Int("token", 0)
	if err := ctl.Renew(x.opt.Store, c.Name, n, c.SAST, x.opt.Now()); err != nil {
		return refuse("%% %s", strings.TrimPrefix(err.Error(), "ctl: "))
	}
	x.opt.Log.Warn("SAST token renewed", "ctl-file", c.Name, "token", n)
	x.printf("INFO: token %d of ctl-file %s is new. The old one signs until \"crypto ctl-file forget %s\":\n"+
		"let every phone restart and fetch the list first.\n", n, c.Name, c.Name)
	return x.newList(c)
}

func forgetTokens(x *execution, a cli.Args) error {
	c := x.running.CTL(a.Get("ctl"))
	names, err := ctl.Forget(x.opt.Store, c.Name)
	if err != nil {
		return refuse("%% %s", strings.TrimPrefix(err.Error(), "ctl: "))
	}
	if len(names) == 0 {
		return refuse("%% ctl-file %s has no tokens that were replaced", c.Name)
	}
	x.opt.Log.Warn("former SAST tokens removed", "ctl-file", c.Name, "trustpoints", names)
	x.printf("INFO: removed: %s\n", strings.Join(names, ", "))
	return x.newList(c)
}

// newList has the running phone proxy serve a list with the tokens of now. Calls
// go on.
func (x *execution) newList(c *config.CTLFile) error {
	if x.applied(c.Name) == nil {
		return nil
	}
	t, err := newTrustList(&x.opt, x.running, c)
	if err != nil {
		return refuseCrypto(err)
	}
	x.plan.service.trust.Store(t)
	return nil
}
