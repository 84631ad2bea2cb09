// Package importer takes over the configuration of an ASA as operators have it:
// saved by "show running-config" or in a show tech-support, in a log of a terminal.
// It makes one of it that loads without error, and a report of what became of each
// line and of what is still needed.
//
// What a reader may get wrong: nothing here reads keys. A Result says which PKCS#12
// file seems to hold which, by its name, and not that it does.
package importer

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"patchbay/appliance/config"
)

// ErrNothing is that no line of what was read can be obeyed.
var ErrNothing = errors.New("no line of it is a command of a configuration that can be obeyed")

// A Result is what came of an import. Line numbers in it are of the file.
type Result struct {
	File     string
	Source   Source
	Changes  []Change
	Text     config.Text     // what loads without error
	Running  *config.Running // what it says
	Lines    []Outcome       // of Source.Lines, comments too
	Findings []config.Finding
	Secrets  []Secret
	Masked   []Masked
}

// An Outcome is what became of a line.
type Outcome struct {
	Line // as it was loaded
	Kind config.LineKind
	Why  string // of one that is inert or refused
	With int    // of a refused one: the line it goes with, 0 none
}

// Import takes data, which file names in messages, over. Files are the names of
// the PKCS#12 files that there are.
func Import(file string, data []byte, files []string) (*Result, error) {
	src, err := Extract(data)
	if err != nil {
		return nil, err
	}
	r := &Result{File: file, Source: src}
	r.Source.Lines, r.Changes = convert(src.Lines)
	text, lines, found := config.LoadLines(file, strings.NewReader(r.Source.Text()))
	r.Text = text
	r.Running, _ = text.Running()
	r.outcomes(lines, found)
	if r.Count(config.Obeyed) == 0 {
		return r, ErrNothing
	}
	r.Secrets = r.secrets(files)
	r.Masked = r.masked()
	return r, nil
}

// outcomes joins lines as the loader counts them with those of the file.
func (r *Result) outcomes(lines []config.Line, found []config.Finding) {
	why, below := make(map[int]string), make(map[int]bool)
	for _, f := range found {
		if f.LeftOut && f.Severity >= config.Warning {
			why[f.Line] = cmp.Or(why[f.Line], strings.TrimPrefix(f.Msg, "left out: "))
		}
		below[f.Line] = below[f.Line] || f.Severity == config.Info
		if 0 < f.Line && f.Line <= len(r.Source.Lines) {
			f.Line = r.Source.Lines[f.Line-1].Line
		}
		r.Findings = append(r.Findings, f)
	}
	top := 0
	for i, l := range lines {
		if i >= len(r.Source.Lines) {
			break
		}
		o := Outcome{Line: r.Source.Lines[i], Kind: l.Kind, Why: l.Why}
		if l.Kind == config.Refused {
			if o.Why = why[i+1]; o.Why == "" && below[i+1] {
				o.With = top
			} else {
				top = o.Line.Line
			}
		}
		r.Lines = append(r.Lines, o)
	}
}

// Count returns how many lines have become kind.
func (r *Result) Count(kind config.LineKind) int {
	n := 0
	for _, l := range r.Lines {
		if l.Kind == kind {
			n++
		}
	}
	return n
}

// A Group is lines of one kind of command that have one fate.
type Group struct {
	Head  string // "logging host"
	Why   string // of the first
	Lines []int  // each command
	Below int    // lines that go with them
}

// Groups returns the commands that have become kind, those that occur most first.
func (r *Result) Groups(kind config.LineKind) []Group {
	return r.groups(kind, func(string) bool { return true })
}

func (r *Result) groups(kind config.LineKind, is func(text string) bool) []Group {
	groups := make(map[string]*Group)
	var last *Group
	for _, l := range r.Lines {
		if l.Kind != kind {
			continue
		}
		if l.With > 0 {
			if last != nil {
				last.Below++
			}
			continue
		}
		if !is(l.Text) {
			last = nil
			continue
		}
		h := head(l.Text)
		if last = groups[h]; last == nil {
			last = &Group{Head: h, Why: l.Why}
			groups[h] = last
		}
		last.Lines = append(last.Lines, l.Line.Line)
	}
	var list []Group
	for _, g := range groups {
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b Group) int {
		return cmp.Or(len(b.Lines)+b.Below-len(a.Lines)-a.Below, strings.Compare(a.Head, b.Head))
	})
	return list
}

// guards are commands that keep something out: without one of them more may pass
// than on the ASA. Among them are those that let in only after a login.
var guards = []string{
	"access-list extended", "access-list ethertype", "access-group", "ipv6 access-list", "filter", "url-server", "no forward",
	"aaa authentication", "aaa authorization", "mac-list", "ip audit", "ip verify reverse-path", "shun", "dynamic-filter", "threat-detection", "threat-detection scanning-threat",
	"arp-inspection", "inspect", "police", "tcp-map", "set connection", "set connection advanced-options", "set connection timeout", "set connection conn-max",
	"ips", "csc", "sfr", "cxsc", "nat-control", "service-policy", "policy-map", "policy-map type inspect", "class-map", "class", "match", "regex", "zone-member", "cts",
	"vpn-filter", "fragment", "established", "mac-learn", "xlate per-session",
}

// Guards returns the commands that were left out and kept something out. An entry
// of an access list that permits is none.
func (r *Result) Guards() []Group {
	return r.groups(config.Refused, func(text string) bool {
		h := head(text)
		if strings.HasPrefix(h, "access-list ") && !strings.Contains(text, " deny ") {
			return false
		}
		return slices.ContainsFunc(guards, func(g string) bool { return h == g || strings.HasPrefix(h, g+" ") })
	})
}

// Inert returns the lines without effect by the reason, in the order of reasons.
func (r *Result) Inert() map[string][]Outcome {
	m := make(map[string][]Outcome)
	for _, l := range r.Lines {
		if l.Kind == config.Inert {
			m[l.Why] = append(m[l.Why], l)
		}
	}
	return m
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
