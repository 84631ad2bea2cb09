package nat

import "time"

// A TimeRange is the times named by a "time-range" command: from Start to End,
// and in one of Periods. A zero Start or End is no bound, and no Periods are
// all times. The minute of an end belongs to the range. (ASA "absolute" and
// "periodic".) It does not change and any number of goroutines may ask it.
type TimeRange struct {
	Name       string
	Start, End time.Time
	Periods    []Period
	Location   *time.Location // of the Periods: "clock timezone"; nil is UTC
}

// A Period is a part of each week: the minutes From to To, both included. One
// whose To is before its From goes on into the next week.
type Period struct{ From, To WeekMinute }

// A WeekMinute is a minute of the week, from 0, Sunday 0:00, to 10,079.
type WeekMinute int

const weekMinutes = 7 * 24 * 60

// NewWeekMinute returns the minute hour:minute of day.
func NewWeekMinute(day time.Weekday, hour, minute int) WeekMinute {
	return WeekMinute(((int(day)*24+hour)*60 + minute) % weekMinutes)
}

// Daily returns the periods from "from" to "to", times since midnight, on each
// of the days, as in "periodic weekdays 8:00 to 17:59". If to is before from
// they end on the next day.
func Daily(days []time.Weekday, from, to time.Duration) []Period {
	var ps []Period
	for _, d := range days {
		end := d
		if to < from {
			end = (d + 1) % 7
		}
		ps = append(ps, Period{
			NewWeekMinute(d, 0, int(from/time.Minute)),
			NewWeekMinute(end, 0, int(to/time.Minute)),
		})
	}
	return ps
}

// contains reports whether m is in p.
func (p Period) contains(m WeekMinute) bool {
	if p.To < p.From {
		return m >= p.From || m <= p.To
	}
	return p.From <= m && m <= p.To
}

// Active reports whether now is in the range. The zero Time is in none.
func (r *TimeRange) Active(now time.Time) bool {
	if now.IsZero() || now.Before(r.Start) || !r.End.IsZero() && !now.Before(r.End.Add(time.Minute)) {
		return false
	}
	if len(r.Periods) == 0 {
		return true
	}
	loc := r.Location
	if loc == nil {
		loc = time.UTC
	}
	now = now.In(loc)
	m := NewWeekMinute(now.Weekday(), now.Hour(), now.Minute())
	for _, p := range r.Periods {
		if p.contains(m) {
			return true
		}
	}
	return false
}
