package appliance

import (
	"bufio"
	"fmt"
	"runtime/debug"
	"time"

	"patchbay/appliance/cli"
)

var showSystemCommands = []cli.Rule[execFunc]{
	{Syntax: "show version", Help: "The program, and how long the box has been up", Do: show(showVersion)},
	{Syntax: "show clock", Help: "The box's time", Do: show(showClock)},
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

// A shownVersion is "show version".
type shownVersion struct {
	Version    string                  `json:"version"`
	Revision   string                  `json:"revision,omitempty"`
	ASAVersion string                  `json:"asa_version,omitempty"` // of the configuration
	Hostname   string                  `json:"hostname"`
	Up         cli.Seconds             `json:"up_seconds"`
	Interfaces cli.List[shownHardware] `json:"interfaces"`
	Licenses   cli.List[licensed]      `json:"licenses"`
}

type shownHardware struct {
	Name   string `json:"name"`
	Driver string `json:"driver"`
	MTU    int    `json:"mtu"`
}

func showVersion(x *execution, _ cli.Args) (s shownVersion, _ error) {
	s.Version, s.Revision = Version()
	s.ASAVersion, s.Hostname = x.running.Version, x.running.Name()
	s.Up = cli.Seconds(x.opt.Now().Sub(x.started))
	for _, i := range x.plan.interfaces {
		s.Interfaces = append(s.Interfaces, shownHardware{i.Name, driverOf(i.Link), i.Link.MTU()})
	}
	s.Licenses = x.licenses()
	return s, nil
}

func (s shownVersion) Text(w *bufio.Writer) {
	version := s.Version
	if s.Revision != "" {
		version += " (" + s.Revision[:min(12, len(s.Revision))] + ")"
	}
	fmt.Fprintf(w, "Patchbay %s\nConfiguration of ASA version %s\n\n%s up %s\n", version, orNone(s.ASAVersion), s.Hostname, uptimeText(s.Up.Duration()))
	for k, i := range s.Interfaces {
		fmt.Fprintf(w, " %d: Int: %s: %s, MTU %d\n", k, i.Name, i.Driver, i.MTU)
	}
	w.WriteByte('\n')
	licenseTable(w, s.Licenses)
}

func orNone(s string) string {
	if s == "" {
		return "not stated"
	}
	return s
}

// A shownClock is the time. The box's clock is UTC.
type shownClock struct {
	Time time.Time `json:"time"`
}

func showClock(x *execution, _ cli.Args) (shownClock, error) {
	return shownClock{x.opt.Now().UTC()}, nil
}

func (s shownClock) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "%s\n", s.Time.Format("15:04:05.000 MST Mon Jan 2 2006"))
}
