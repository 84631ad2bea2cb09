package config

import (
	"slices"
)

// locked refuses what a configuration at work does not let happen to it, by what
// it was and lines, which it would be: rules V06, V07, V08 and V50 of
// reference/asa-rules.md, section 1. That a CTL instance may be shut down and
// brought up again while the phone proxy that has it is not applied is ours.
func (e *entry) locked(lines []*line) bool {
	n := len(e.Findings)
	was := e.Text.lines()
	for _, pp := range stanzas(was, inPhoneProxy) {
		name := pp.words[1].text
		now := sameStanza(lines, pp)
		where := appliedBy(lines, name)
		applied := where != "" && appliedBy(was, name) != ""
		if applied && (now == nil || !equalLines(now.below, pp.below)) {
			what := "changed"
			if now == nil {
				what = "removed"
			}
			e.refuse(0, "V06", "phone-proxy %s is applied by %s and cannot be %s; write no %s, make the change, and apply it again", name,
				where, what, where)
		}
		if now == nil {
			continue
		}
		e.lockedParts(was, lines, pp, now, applied)
	}
	for _, pp := range stanzas(lines, inPhoneProxy) {
		e.oldForm(sameStanza(was, pp), pp)
	}
	for _, c := range stanzas(was, inCTL) {
		now := sameStanza(lines, c)
		if now == nil || isDown(c) || equalLines(rest(c), rest(now)) {
			continue
		}
		if user(was, "ctl-file", c.words[1].text) == "" {
			e.refuse(0, "V08", "ctl-file %s is up and cannot be changed; write shutdown, make the change, and end it with no shutdown", c.words[1].text)
		}
	}
	return len(e.Findings) > n
}

// oldForm refuses to add the media termination of before 8.2(1) to a phone proxy,
// and to change a phone proxy that keeps it.
func (e *entry) oldForm(was, pp *line) {
	old := func(pp *line) bool {
		return pp != nil && slices.ContainsFunc(pp.below, func(l *line) bool {
			return len(l.words) > 2 && l.words[0].name == "media-termination" && l.words[1].name == "address"
		})
	}
	switch {
	case !old(pp):
	case !old(was):
		e.refuse(0, "V50", "this is the form of before 8.2(1), which is read from a file and not typed; "+
			"write a media-termination of its own with the address, and its name here")
	case !equalLines(was.below, pp.below):
		e.refuse(0, "V50", "phone-proxy %s has its media termination in the form of before 8.2(1), which is kept only while nothing is changed; "+
			"write no media-termination address here, a media-termination of its own with the address, and its name here", pp.words[1].text)
	}
}

// lockedParts refuses changes to what the phone proxy pp has and keeps.
func (e *entry) lockedParts(was, lines []*line, pp, now *line, applied bool) {
	for _, part := range []struct {
		mode modeID
		word string
		rule string
	}{{inMediaTermination, "media-termination", "V07"}, {inCTL, "ctl-file", "V08"}} {
		for _, s := range stanzas(was, part.mode) {
			name := s.words[1].text
			if !has(pp, part.word, name) || !has(now, part.word, name) {
				continue
			}
			after := sameStanza(lines, s)
			if after != nil && part.mode == inCTL && equalLines(rest(s), rest(after)) && (!applied || isDown(s) == isDown(after)) {
				continue
			}
			if after == nil || !equalLines(s.below, after.below) {
				remedy := ""
				if applied {
					remedy = "write no " + appliedBy(lines, pp.words[1].text) + ", "
				}
				e.refuse(0, part.rule, "%s %s is assigned to phone-proxy %s and cannot be changed; %swrite no %[1]s %[2]s in the phone proxy, "+
					"make the change, and assign it again", part.word, name, pp.words[1].text, remedy)
			}
		}
	}
}

// stanzas returns the lines that begin a mode.
func stanzas(lines []*line, m modeID) []*line {
	var list []*line
	for _, l := range lines {
		if l.mode == m {
			list = append(list, l)
		}
	}
	return list
}

// sameStanza returns the stanza of lines with the item of l, nil if there is
// none.
func sameStanza(lines []*line, l *line) *line { return at(lines, []string{l.key}) }

// has reports whether the stanza has a line of two words.
func has(stanza *line, first, second string) bool {
	return slices.ContainsFunc(stanza.below, func(l *line) bool {
		return len(l.words) == 2 && l.words[0].text == first && l.words[1].text == second
	})
}

// user returns the phone proxy that has a part, "" if there is none.
func user(lines []*line, word, name string) string {
	for _, pp := range stanzas(lines, inPhoneProxy) {
		if has(pp, word, name) {
			return pp.words[1].text
		}
	}
	return ""
}

// appliedBy returns the service-policy that puts a phone proxy to work, "" if
// there is none.
func appliedBy(lines []*line, name string) string {
	for _, l := range lines {
		if l.words[0].text != "service-policy" {
			continue
		}
		p := at(lines, []string{"policy-map " + l.words[1].text})
		if p == nil {
			continue
		}
		for _, class := range p.below {
			for _, in := range class.below {
				if n := len(in.words); n > 2 && in.words[0].text == "inspect" && in.words[n-2].name == "phone-proxy" && in.words[n-1].text == name {
					return l.text()
				}
			}
		}
	}
	return ""
}

// isDown reports whether a CTL instance is shut down.
func isDown(ctl *line) bool {
	return !slices.ContainsFunc(ctl.below, func(l *line) bool { return l.key == "shutdown" && l.words[0].text == "no" })
}

// rest returns the lines of a CTL instance but the one that says whether it is
// up.
func rest(ctl *line) []*line {
	return slices.DeleteFunc(slices.Clone(ctl.below), func(l *line) bool { return l.key == "shutdown" })
}
