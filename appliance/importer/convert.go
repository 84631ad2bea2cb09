package importer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A Change is a line that was written otherwise so that it can be obeyed.
type Change struct {
	Line     int // of the file
	From, To string
	Why      string
}

// A converter rewrites lines that mean something here, and are written otherwise.
type converter struct {
	lines   []Line
	changes []Change
	used    map[string]bool   // hardware names in the file
	moved   map[string]string // hardware, without ".vlan", by how the file calls it
}

var (
	interfaceLine = regexp.MustCompile(`^(?i)interface +(\S+?) ?([0-9][0-9/]*)?(\.[0-9]+)?$`)
	versionLine   = regexp.MustCompile(`^PIX Version (\S+)`)
	trackedRoute  = regexp.MustCompile(`^(route .*?) track \d+$`)
	shortRoute    = regexp.MustCompile(`^route (\S+) 0 0 (.*)$`)
	port          = regexp.MustCompile(`^\d+/\d+$`)
)

// convert returns the lines with what must be written otherwise in their place,
// and what that is: interfaces of kinds that are not here (VLANs of an ASA 5505,
// port channels, redundant interfaces, names in a context) become GigabitEthernet
// ones, which a link stands for anyway.
func convert(lines []Line) ([]Line, []Change) {
	c := converter{lines: slices.Clone(lines), used: make(map[string]bool), moved: make(map[string]string)}
	for _, l := range lines {
		if m := interfaceLine.FindStringSubmatch(l.Text); m != nil {
			c.used[m[1]+m[2]] = true
		}
	}
	for i := range c.lines {
		l := &c.lines[i]
		switch {
		case versionLine.MatchString(l.Text):
			c.change(l, "ASA"+strings.TrimPrefix(l.Text, "PIX"), "a PIX and an ASA of one version speak one language")
		case trackedRoute.MatchString(l.Text):
			c.change(l, trackedRoute.FindStringSubmatch(l.Text)[1], "nothing is tracked here: the route is always used, and one of a higher metric never takes its place")
		case shortRoute.MatchString(l.Text):
			c.change(l, shortRoute.ReplaceAllString(l.Text, "route $1 0.0.0.0 0.0.0.0 $2"), "0 is 0.0.0.0")
		case interfaceLine.MatchString(l.Text):
			c.hardware(l)
		}
	}
	return c.lines, c.changes
}

func (c *converter) change(l *Line, to, why string) {
	c.changes = append(c.changes, Change{l.Line, l.Text, to, why})
	l.Text = to
}

// hardware gives an interface a name that is one here.
func (c *converter) hardware(l *Line) {
	m := interfaceLine.FindStringSubmatch(l.Text)
	name := m[1] + m[2]
	kind := strings.ToLower(m[1])
	switch {
	case isPort(kind) && port.MatchString(m[2]), kind == "bvi", kind == "tunnel", kind == "loopback":
		return
	}
	to, ok := c.moved[name]
	if !ok {
		if to = m[1] + "0/" + m[2]; !isPort(kind) || !port.MatchString("0/"+m[2]) || c.used[to] { // "Ethernet0" of a PIX
			to = c.free()
		}
		c.moved[name], c.used[to] = to, true
	}
	why := "interfaces here are of the type and number of a port; the link says what it really is"
	switch kind {
	case "vlan":
		why = "the VLAN of a switch in the box is an interface here; the switch's ports are not: let the link be the VLAN's"
	case "port-channel", "redundant":
		why = "let the link be the host's bond of these ports"
	}
	c.change(l, "interface "+to+m[3], why)
}

// isPort reports whether kind, in lower case, is a type of interface that is here,
// which may be abbreviated.
func isPort(kind string) bool {
	for _, t := range []string{"ethernet", "fastethernet", "gigabitethernet", "tengigabitethernet", "management"} {
		if kind != "" && strings.HasPrefix(t, kind) {
			return true
		}
	}
	return false
}

// free returns the first port that no interface has.
func (c *converter) free() string {
	for n := 0; ; n++ {
		if name := "GigabitEthernet0/" + strconv.Itoa(n); !c.used[name] {
			return name
		}
	}
}

// String returns the change as one line of text.
func (c Change) String() string {
	return fmt.Sprintf("line %d: `%s` is now `%s`: %s", c.Line, c.From, c.To, c.Why)
}
