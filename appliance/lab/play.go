package lab

import (
	"context"
	"fmt"
)

// An Act is one thing that happens in a play. Exactly one field is set.
type Act struct {
	Call     *[2]string // the line that calls, and the one that is called
	Services string     // a line whose phone asks for its services
	Stop     string     // a call manager that goes down; its phones register anew
}

// Play brings up the phones that are named in acts, in order, and has the acts
// happen one after the other. The results are as those of RunCalls.
func Play(ctx context.Context, l *Lab, acts []Act, o CallOptions) []StepResult {
	setDefault(&o.Talk, defaultTalk)
	r := &runner{ctx: ctx, lab: l, o: o}
	up := make(map[string]*Phone)
	var order []string
	for _, a := range acts {
		for _, line := range a.lines() {
			if _, known := up[line]; known {
				continue
			}
			p := l.Line(line)
			if p == nil {
				up[line] = nil
				r.step("phone "+line, func(context.Context) ([]Measure, error) {
					return nil, fmt.Errorf("nobody has the line %s", line)
				})
				continue
			}
			up[line] = nil
			if r.bringUp(fmt.Sprintf("%s %s phone %s", p.Place, p.Protocol, line), p.Phone) {
				up[line] = p.Phone
				order = append(order, line)
			}
		}
	}
	for _, a := range acts {
		switch {
		case a.Call != nil:
			from, to := up[a.Call[0]], up[a.Call[1]]
			if from != nil && to != nil {
				r.call(fmt.Sprintf("%s calls %s", a.Call[0], a.Call[1]), from, to)
			}
		case a.Services != "":
			if p := up[a.Services]; p != nil {
				r.services(p)
			}
		case a.Stop != "":
			r.stop(a.Stop, up, order)
		}
	}
	r.conclude()
	return r.results
}

// lines are those of the phones that take part.
func (a Act) lines() []string {
	switch {
	case a.Call != nil:
		return a.Call[:]
	case a.Services != "":
		return []string{a.Services}
	}
	return nil
}

// services has a phone look at its services, through the proxy that it was told.
func (r *runner) services(p *Phone) {
	proxy := p.Device().ProxyURL
	how := "itself"
	if proxy != "" {
		how = "through " + proxy
	}
	r.step(fmt.Sprintf("%s asks for its services %s", p.Line(), how), func(ctx context.Context) ([]Measure, error) {
		prompt, err := p.Services(ctx)
		if err == nil && proxy != "" && prompt == askedBy+p.config.Host.Addr().String() {
			err = fmt.Errorf("the server saw the phone, not the proxy %s", proxy)
		}
		return nil, err
	})
}

// stop has a call manager go, and the phones that are up find another.
func (r *runner) stop(name string, up map[string]*Phone, order []string) {
	m := r.lab.Managers[name]
	if m == nil {
		r.step("call manager "+name, func(context.Context) ([]Measure, error) {
			return nil, fmt.Errorf("there is no call manager %q", name)
		})
		return
	}
	r.step("call manager "+name+" goes down, phones notice", func(ctx context.Context) ([]Measure, error) {
		if err := m.Close(); err != nil {
			return nil, err
		}
		for _, line := range order {
			if up[line] == nil {
				continue
			}
			if err := up[line].Wait(ctx, Unregistered); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	for _, line := range order {
		p := up[line]
		if p == nil {
			continue
		}
		if !r.step(line+" registers elsewhere", func(ctx context.Context) ([]Measure, error) {
			return nil, p.Register(ctx)
		}) {
			up[line] = nil
		}
	}
}

// Line returns the phone that has a line, nil if there is none.
func (l *Lab) Line(number string) *LabPhone {
	for i, p := range l.Phones {
		if p.Line() == number {
			return &l.Phones[i]
		}
	}
	return nil
}
