package appliance

import (
	"patchbay/appliance/config"
	"patchbay/nat"
	"patchbay/stack"
)

// treatment is the rates and limits of service policies.
func (r *traceReport) treatment(t *trace) bool {
	treat := t.opening.Treat
	if treat == nil || !t.opened {
		return true
	}
	if treat.Limits != nil {
		r.phase(phase{typ: "CONN-SETTINGS", ok: true, config: r.classLines(func(c *class, pc *config.PolicyClass) []int {
			if c.limits != treat.Limits || pc.Set == nil {
				return nil
			}
			return []int{pc.Set.Line}
		})})
	}
	for _, l := range []*stack.Policer{treat.Police[nat.Client].Arrive, treat.Police[nat.Client].Leave} {
		if l == nil {
			continue
		}
		r.phase(phase{typ: "QOS", subtype: "police", ok: t.verdict != stack.DropRate, config: r.classLines(func(c *class, pc *config.PolicyClass) []int {
			for dir, rate := range c.rates {
				if rate == nil {
					continue
				}
				for _, on := range rate.on {
					if on != l {
						continue
					}
					for _, line := range pc.Police {
						if line.Direction == directions[dir] {
							return []int{line.Line}
						}
					}
				}
			}
			return nil
		})})
	}
	return t.verdict != stack.DropRate
}

// classLines returns the lines that lead to what find knows in a class: the
// class-map, the policy-map with the class and find's lines, the service-policy.
func (r *traceReport) classLines(find func(*class, *config.PolicyClass) []int) []string {
	for _, sp := range r.running.ServicePolicies {
		pol := r.plan.policies[r.plan.named(sp.Interface)]
		pm := r.running.PolicyMap(sp.Policy)
		if pol == nil || pm == nil || pol.line != sp.Line {
			continue
		}
		for _, c := range pol.classes {
			for i := range pm.Classes {
				pc := &pm.Classes[i]
				if pc.Class != c.name {
					continue
				}
				lines := find(c, pc)
				if lines == nil {
					continue
				}
				var all []string
				if cm := r.running.ClassMap(c.name); cm != nil {
					all = append(all, r.configLine(cm.Line), " "+r.configLine(cm.Match.Line))
				}
				all = append(all, r.configLine(pm.Line), " "+r.configLine(pc.Line))
				for _, n := range lines {
					all = append(all, "  "+r.configLine(n))
				}
				return append(all, r.configLine(sp.Line))
			}
		}
	}
	return nil
}

// inspection is the engine that takes the conversation.
func (r *traceReport) inspection(t *trace) {
	d := &t.decision
	if d.files != nil {
		p := phase{typ: "INSPECT", subtype: "phone-proxy", ok: true, info: []string{"The box answers for TFTP server " + slashed(d.files.real)}}
		for _, s := range r.plan.phone.config.TFTPServers {
			if s.Addr == d.files.real.Addr() && s.Port == d.files.real.Port() {
				p.config = []string{"phone-proxy " + r.plan.phone.config.Name, " " + r.configLine(s.Line)}
			}
		}
		r.phase(p)
	}
	if d.inspect == nil {
		return
	}
	p := phase{typ: "INSPECT", subtype: "inspect-" + d.inspect.protocol, ok: true}
	p.config = r.classLines(func(c *class, _ *config.PolicyClass) []int {
		for _, i := range c.inspects {
			if i == d.inspect {
				return []int{i.line}
			}
		}
		return nil
	})
	if d.fate == fateEnded {
		p.info = []string{"The box ends both halves of the conversation"}
	}
	r.phase(p)
}
