package lab

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

const (
	defaultTalk = 2 * time.Second
	stepTimeout = 30 * time.Second
	settleTime  = 200 * time.Millisecond // for what is on its way when the talk ends
	catchUp     = 2 * time.Second        // for it to arrive on a machine that is busy
	// tolerated is the share of frames that may be lost or late in a step, for
	// a machine that is busy: one in 20.
	tolerated = 20
)

// A StepResult is what became of one step of a scenario.
type StepResult struct {
	Name     string        `json:"name"`
	OK       bool          `json:"ok"`
	Err      string        `json:"error,omitempty"`
	Took     time.Duration `json:"took_ns"`
	Measures []Measure     `json:"measures,omitempty"`
}

// A Measure is what one phone sent and heard in a step. Counts are packets.
type Measure struct {
	Phone        string  `json:"phone"`
	Line         string  `json:"line"`
	Sent         int     `json:"sent"`
	Received     int     `json:"received"`
	Lost         int     `json:"lost"`
	AuthFailures int     `json:"auth_failures"`
	RTCPReceived int     `json:"rtcp_received"`
	JitterMillis float64 `json:"jitter_ms"`
	HeardHz      int     `json:"heard_hz"` // 0: silence
	WantHz       int     `json:"want_hz"`
}

// String is the result as a line for people, with one more for each measure.
func (r StepResult) String() string {
	var b strings.Builder
	mark := "ok  "
	if !r.OK {
		mark = "FAIL"
	}
	fmt.Fprintf(&b, "%s %-52s %6.2f s", mark, r.Name, r.Took.Seconds())
	if r.Err != "" {
		fmt.Fprintf(&b, "  %s", r.Err)
	}
	for _, m := range r.Measures {
		fmt.Fprintf(&b, "\n     %s %s: sent %d, received %d, lost %d, jitter %.1f ms, hears %d Hz",
			m.Line, m.Phone, m.Sent, m.Received, m.Lost, m.JitterMillis, m.HeardHz)
		if m.HeardHz != m.WantHz {
			fmt.Fprintf(&b, " (want %d)", m.WantHz)
		}
		if m.AuthFailures > 0 {
			fmt.Fprintf(&b, ", %d not authentic", m.AuthFailures)
		}
	}
	return b.String()
}

// CallOptions vary RunCalls. The zero value runs everything.
type CallOptions struct {
	Protocols []Protocol    // nil: SCCP and SIP
	Talk      time.Duration // of each leg of a call; 0 is 2 s
	NoHold    bool          // leave out hold and resume
	NoHome    bool          // leave out the phones behind the home router
	// Step, if set, gets each result as soon as there is one.
	Step func(StepResult)
}

// RunCalls boots and registers the phones of a lab and makes calls between
// them: a remote phone to one inside, inside to remote, and between two remote
// phones; each with a tone of its own in each direction, with hold and resume
// and a hang-up. It goes on after a step that fails, as far as that makes
// sense, and ends when ctx does.
func RunCalls(ctx context.Context, l *Lab, o CallOptions) []StepResult {
	if o.Protocols == nil {
		o.Protocols = []Protocol{SCCP, SIP}
	}
	setDefault(&o.Talk, defaultTalk)
	r := &runner{ctx: ctx, lab: l, o: o}
	for _, proto := range o.Protocols {
		r.protocol(proto)
	}
	r.conclude()
	return r.results
}

// conclude asks everybody what was wrong.
func (r *runner) conclude() {
	l := r.lab
	r.step("call manager saw nothing it cannot have", func(context.Context) ([]Measure, error) {
		for _, m := range l.Managers {
			if v := m.Violations(); len(v) > 0 {
				return nil, fmt.Errorf("%d violations, first: %s", len(v), v[0])
			}
		}
		for _, p := range l.Phones {
			if c := p.Problems(); len(c) > 0 {
				return nil, fmt.Errorf("%s: %d problems, first: %s", p.Name(), len(c), c[0])
			}
		}
		return nil, nil
	})
	r.step("nothing crossed the Internet in the clear", func(context.Context) ([]Measure, error) {
		if e := l.Exposed(); len(e) > 0 {
			return nil, fmt.Errorf("%s (%d findings)", e[0], len(e))
		}
		return nil, nil
	})
}

// A runner carries out steps.
type runner struct {
	ctx     context.Context
	lab     *Lab
	o       CallOptions
	results []StepResult
}

// step runs f and notes how it went.
func (r *runner) step(name string, f func(context.Context) ([]Measure, error)) bool {
	ctx, cancel := context.WithTimeout(r.ctx, stepTimeout+2*r.o.Talk)
	defer cancel()
	start := time.Now()
	m, err := f(ctx)
	res := StepResult{Name: name, OK: err == nil, Took: time.Since(start), Measures: m}
	if err != nil {
		res.Err = err.Error()
	}
	r.results = append(r.results, res)
	if r.o.Step != nil {
		r.o.Step(res)
	}
	return err == nil
}

// protocol runs all that phones of one protocol do.
func (r *runner) protocol(proto Protocol) {
	places := []Place{Inside, Remote, AtHome}
	if r.o.NoHome {
		places = places[:2]
	}
	up := make(map[Place]*Phone)
	for _, place := range places {
		p := r.lab.Phone(place, proto)
		if p == nil {
			continue
		}
		if r.bringUp(fmt.Sprintf("%s %s phone", place, proto), p) {
			up[place] = p
		}
	}
	for _, c := range [][2]Place{
		{Remote, Inside}, {Inside, Remote}, {AtHome, Inside}, {Inside, AtHome}, {Remote, AtHome}, {AtHome, Remote},
	} {
		if a, b := up[c[0]], up[c[1]]; a != nil && b != nil {
			r.call(fmt.Sprintf("%s: %s calls %s", proto, c[0], c[1]), a, b)
		}
	}
}

// bringUp boots and registers a phone.
func (r *runner) bringUp(name string, p *Phone) bool {
	return r.step(name+" boots by TFTP", func(ctx context.Context) ([]Measure, error) {
		return nil, p.Boot(ctx)
	}) && r.step(name+" registers", func(ctx context.Context) ([]Measure, error) {
		return nil, p.Register(ctx)
	})
}

// call makes one call with all that belongs to it.
func (r *runner) call(name string, a, b *Phone) {
	defer r.hangUp(a, b)
	ok := r.step(name, func(ctx context.Context) ([]Measure, error) {
		if err := a.Dial(ctx, b.Line()); err != nil {
			return nil, err
		}
		if err := b.Wait(ctx, Connected); err != nil {
			return nil, err
		}
		if got := b.Caller(); got != a.Line() {
			return nil, fmt.Errorf("%s shows caller %q, want %q", b.Name(), got, a.Line())
		}
		return r.talk(ctx, a, b)
	})
	if !ok {
		return
	}
	if !r.o.NoHold {
		for _, holder := range []*Phone{a, b} {
			if !r.hold(name, holder, a, b) {
				return
			}
		}
	}
	r.step(name+", hang-up", func(ctx context.Context) ([]Measure, error) {
		if err := a.HangUp(ctx); err != nil {
			return nil, err
		}
		return nil, b.Wait(ctx, Idle)
	})
}

// hold has one of two phones put the other on hold and resume.
func (r *runner) hold(name string, holder, a, b *Phone) bool {
	return r.step(fmt.Sprintf("%s, hold and resume by %s", name, holder.Line()), func(ctx context.Context) ([]Measure, error) {
		if err := holder.Hold(ctx); err != nil {
			return nil, err
		}
		if err := sleep(ctx, settleTime); err != nil {
			return nil, err
		}
		ra, rb := a.Report(), b.Report()
		if err := sleep(ctx, settleTime); err != nil {
			return nil, err
		}
		if na, nb := a.Report().Since(ra), b.Report().Since(rb); na.Sent+nb.Sent+na.Received+nb.Received > 0 {
			return nil, errors.New("there is media on hold")
		}
		if err := holder.Resume(ctx); err != nil {
			return nil, err
		}
		return r.talk(ctx, a, b)
	})
}

// talk measures a stretch of a call in both directions.
func (r *runner) talk(ctx context.Context, a, b *Phone) ([]Measure, error) {
	if err := sleep(ctx, settleTime); err != nil {
		return nil, err
	}
	ra, rb := a.Report(), b.Report()
	if err := sleep(ctx, r.o.Talk); err != nil {
		return nil, err
	}
	na, nb := a.Report().Since(ra), b.Report().Since(rb)
	sentA, sentB := na.Sent, nb.Sent
	// What was sent in the stretch is still on its way on a busy machine.
	for wait := catchUp; wait > 0 && (na.Received < sentB || nb.Received < sentA); wait -= settleTime {
		if err := sleep(ctx, settleTime); err != nil {
			return nil, err
		}
		na, nb = a.Report().Since(ra), b.Report().Since(rb)
	}
	na.Sent, nb.Sent = sentA, sentB
	m := []Measure{measure(a, b, na), measure(b, a, nb)}
	return m, errors.Join(judge(m[0], m[1]), judge(m[1], m[0]))
}

func measure(p, far *Phone, r Report) Measure {
	return Measure{
		Phone: p.Name(), Line: p.Line(), Sent: r.Sent, Received: r.Received, Lost: r.Lost,
		AuthFailures: r.AuthFailures, RTCPReceived: r.RTCPReceived,
		JitterMillis: float64(r.Jitter.Microseconds()) / 1000,
		HeardHz:      r.Heard(), WantHz: far.Tone(),
	}
}

// judge says whether a phone heard what the other sent.
func judge(m, far Measure) error {
	slack := far.Sent/tolerated + 2
	switch {
	case far.Sent == 0:
		return fmt.Errorf("%s sent nothing", far.Line)
	case m.HeardHz != m.WantHz:
		return fmt.Errorf("%s hears %d Hz, want %d", m.Line, m.HeardHz, m.WantHz)
	case m.Lost > slack || m.Received+slack < far.Sent:
		return fmt.Errorf("%s received %d of %d packets and lost %d", m.Line, m.Received, far.Sent, m.Lost)
	case m.AuthFailures > 0:
		return fmt.Errorf("%s got %d packets that are not authentic", m.Line, m.AuthFailures)
	}
	return nil
}

// hangUp puts both phones back on hook after a step that failed.
func (r *runner) hangUp(phones ...*Phone) {
	ctx, cancel := context.WithTimeout(r.ctx, stepTimeout/10)
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range phones {
		if p.State() != Idle && p.State() != Unregistered {
			wg.Go(func() { p.HangUp(ctx) })
		}
	}
	wg.Wait()
}

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
