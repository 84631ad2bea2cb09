package appliance

import (
	"cmp"
	"runtime/debug"

	"patchbay/appliance/cli"
)

var showSystemCommands = []cli.Rule[execFunc]{
	{Syntax: "show version", Help: "The program, and how long the box has been up", Do: showVersion},
	{Syntax: "show clock", Help: "The box's time", Do: showClock},
}

// Version returns the version of the program and the revision it was built
// from, "" if that is not known.
func Version() (version, revision string) {
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "(devel)", ""
	}
	for _, s := range b.Settings {
		if s.Key == "vcs.revision" {
			revision = s.Value
		}
	}
	return b.Main.Version, revision
}

func showVersion(x *execution, _ cli.Args) error {
	version, revision := Version()
	if revision != "" {
		version += " (" + revision[:min(12, len(revision))] + ")"
	}
	x.printf("Patchbay %s\nConfiguration of ASA version %s\n\n%s up %s\n", version, orNone(x.running.Version), cmp.Or(x.running.Hostname, "patchbay"), uptimeText(x.opt.Now().Sub(x.started)))
	for k, i := range x.plan.interfaces {
		x.printf(" %d: Int: %s: %s, MTU %d\n", k, i.Name, driverOf(i.Link), i.Link.MTU())
	}
	x.printf("\n")
	x.licenseTable()
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "not stated"
	}
	return s
}

// showClock writes the time. The box's clock is UTC.
func showClock(x *execution, _ cli.Args) error {
	x.printf("%s\n", x.opt.Now().UTC().Format("15:04:05.000 MST Mon Jan 2 2006"))
	return nil
}
