package config

import (
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
)

// A TimeRange is the times of a time-range command: from Start to End, and in
// one of Periods. (reference/asa-cli.md, section 6.)
type TimeRange struct {
	Line int
	Name string

	// Start and End are of the box's clock in its own time zone, written as if
	// that were UTC; a zero one is no bound. The minute of End belongs to the
	// range.
	Start, End time.Time
	Periods    []Period // none: always
}

// A Period is a part of each week, in minutes from Sunday 0:00 (0) to Saturday
// 23:59 (10,079), both included. One with To below From goes on into the next
// week.
type Period struct{ From, To int }

// Active reports whether now, in its own time zone, is in the range.
func (t *TimeRange) Active(now time.Time) bool {
	wall := time.Date(now.Year(), now.Month(), now.Day(), now.Hour(), now.Minute(), 0, 0, time.UTC)
	if wall.Before(t.Start) || !t.End.IsZero() && wall.After(t.End) {
		return false
	}
	m := (int(wall.Weekday())*24+wall.Hour())*60 + wall.Minute()
	for _, p := range t.Periods {
		if p.From <= m && m <= p.To || p.To < p.From && (m >= p.From || m <= p.To) {
			return true
		}
	}
	return len(t.Periods) == 0
}

const (
	dayWords   = "sunday|monday|tuesday|wednesday|thursday|friday|saturday"
	monthWords = "january|february|march|april|may|june|july|august|september|october|november|december"
	dateSyntax = "<at:clock> <day:1-31> {" + monthWords + "} <year:1993-2035>"
)

func timeRangeCommands() []command {
	list := []command{
		cmd("absolute start=[start "+dateSyntax+"] end=[end "+dateSyntax+"]", one.spelled(spellDates), parseAbsolute),
		cmd("periodic {daily|weekdays|weekend|on={"+dayWords+"}...} <from:clock> to until=[{"+dayWords+"}] <to_:clock>", each.spelled(spellDates), parsePeriodic),
	}
	return append(list, notYet("taking this back with no", "no <rest:line>")...)
}

func (p *parser) timeRange() *TimeRange { return &p.run.TimeRanges[p.item] }

// parseClock reads hh:mm as minutes since midnight.
func parseClock(word string) (int, bool) {
	h, m, ok := strings.Cut(word, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	return int(hour)*60 + int(minute), ok && err1 == nil && err2 == nil && len(h) <= 2 && len(m) <= 2 && hour < 24 && minute < 60
}

// wordIn returns the place in words, divided by "|", of the keyword kept under
// prefix, -1 if there is none.
func wordIn(a cli.Args, prefix, words string) int {
	for i, w := range strings.Split(words, "|") {
		if a.Has(prefix + w) {
			return i
		}
	}
	return -1
}

func parseAbsolute(p *parser, a cli.Args) {
	t := p.timeRange()
	if !t.Start.IsZero() || !t.End.IsZero() {
		p.refuse(a.Token("absolute"), "", "time-range %s has an absolute line already, and it has one", t.Name)
		return
	}
	for _, end := range []struct {
		prefix string
		to     *time.Time
	}{{"start.", &t.Start}, {"end.", &t.End}} {
		if !a.Has(end.prefix + "at") {
			continue
		}
		minutes, _ := parseClock(a.Get(end.prefix + "at"))
		day := a.Int(end.prefix+"day", 1)
		month := time.Month(wordIn(a, end.prefix, monthWords) + 1)
		date := time.Date(a.Int(end.prefix+"year", 0), month, day, 0, minutes, 0, 0, time.UTC)
		if date.Day() != day {
			p.refuse(a.Token(end.prefix+"day"), "", "%v has no day %d", month, day)
			return
		}
		*end.to = date
	}
	switch {
	case t.Start.IsZero() && t.End.IsZero():
		p.refuse(a.Token("absolute"), "", "absolute needs start, end or both")
	case !t.End.IsZero() && t.End.Before(t.Start):
		p.refuse(a.Token("end.end"), "", "the time ends before it begins")
	}
}

func parsePeriodic(p *parser, a cli.Args) {
	t := p.timeRange()
	from, _ := parseClock(a.Get("from"))
	to, _ := parseClock(a.Get("to_"))
	var days []int
	for i, w := range strings.Split(dayWords, "|") {
		weekend := i == 0 || i == 6
		if a.Has("daily") || a.Has("weekdays") && !weekend || a.Has("weekend") && weekend || a.Has("on."+w) {
			days = append(days, i)
		}
	}
	last := wordIn(a, "until.", dayWords)
	if last >= 0 && len(days) != 1 {
		p.refuse(a.Token("to"), "", "a day after to needs one day before it")
		return
	}
	if last < 0 && to < from {
		p.refuse(a.Token("to_"), "", "%s is before %s on the same day; name the day it ends on, or write two lines", a.Get("to_"), a.Get("from"))
		return
	}
	for _, d := range days {
		until := d
		if last >= 0 {
			until = last
		}
		period := Period{d*24*60 + from, until*24*60 + to}
		t.Periods = append(t.Periods, period)
	}
}
