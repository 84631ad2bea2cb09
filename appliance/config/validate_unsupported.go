package config

import "slices"

// A feature is something that Parse understands, an ASA does, and this version
// does not.
type feature struct {
	name string // "twice NAT"; the tests know it by this
	text string // of the finding; notSupported(name) if it is ""
	warn bool   // the configuration is obeyed without it; else it is refused

	// find calls hit for each line that asks for it, with the word to point at.
	find func(v *validator, hit func(line int, word string))
}

// unsupported is what Parse has stored and the box does not do, so that nothing
// with an effect on an ASA is passed over in silence. Here alone a feature is
// switched on: when the box learns it, its entry goes.
var unsupported = []feature{
	// The phone proxy.
	{name: "a mixed-mode cluster", find: func(v *validator, hit func(int, string)) {
		for _, p := range v.run.PhoneProxies {
			if p.Mixed {
				hit(v.below(p.Line, "cluster-mode", "mixed"), "mixed")
			}
		}
	}},
	{name: "authenticated mode without encryption (null-sha1)", find: func(v *validator, hit func(int, string)) {
		for _, p := range v.run.PhoneProxies {
			if p.CIPCAuthenticated {
				hit(v.below(p.Line, "cipc"), "authenticated")
			}
		}
	}},
	{name: "phones without a certificate", text: "phones are always asked for a certificate here: remove the line",
		find: func(v *validator, hit func(int, string)) {
			for _, t := range v.run.TLSProxies {
				if !t.AuthenticateClient {
					hit(v.below(t.Line, "authenticate-client"), "authenticate-client")
				}
			}
		}},
	{name: "TLS toward the call manager", find: func(v *validator, hit func(int, string)) {
		for _, t := range v.run.TLSProxies {
			if t.ClientTrustpoint != "" || t.LDCIssuer != "" || t.LDCKeyPair != "" || len(t.ClientCiphers) > 0 {
				hit(v.below(t.Line, "client"), "client")
			}
		}
	}},

	// NAT.
	{name: "NAT of answers of the DNS", find: eachRule(func(n *NATRule) string {
		if n.DNS {
			return "dns"
		}
		return ""
	})},

	// Policies.
	{name: "mask as the action of a match", find: func(v *validator, hit func(int, string)) {
		for _, m := range v.run.PolicyMaps {
			if m.SIP == nil {
				continue
			}
			for _, x := range m.SIP.Matches {
				if x.Act.Action == "mask" {
					hit(x.Act.Line, "mask")
				}
			}
		}
	}},
	{name: "two maps of one engine for one phone proxy", find: func(v *validator, hit func(int, string)) {
		type service struct{ engine, proxy string }
		maps := make(map[service]string)
		eachClass(func(c *PolicyClass, hit func(int, string)) {
			for _, in := range c.Inspects {
				k := service{in.Protocol, in.PhoneProxy}
				first, ok := maps[k]
				if ok && first != in.Map {
					hit(in.Line, in.Protocol)
				} else if in.PhoneProxy != "" {
					maps[k] = in.Map
				}
			}
		})(v, hit)
	}},
	{name: "inspect with a tls-proxy of its own", find: eachInspect("", func(in *Inspect) string { return in.TLSProxy })},

	// Ciphers.
	{name: "null-sha1", warn: true, text: "null-sha1 is not supported by this version and is left out", find: eachCipher("null-sha1")},
	{name: "rc4-md5", warn: true, text: "rc4-md5 is not supported by this version and is left out", find: eachCipher("rc4-md5")},
	{name: "des-sha1", warn: true, text: "des-sha1 is not supported by this version and is left out", find: eachCipher("des-sha1")},
}

// eachRule finds the NAT rules for which word is not "".
func eachRule(word func(*NATRule) string) func(*validator, func(int, string)) {
	return func(v *validator, hit func(int, string)) {
		for i := range v.run.NAT {
			if w := word(&v.run.NAT[i]); w != "" {
				hit(v.run.NAT[i].Line, w)
			}
		}
	}
}

func eachClass(find func(*PolicyClass, func(int, string))) func(*validator, func(int, string)) {
	return func(v *validator, hit func(int, string)) {
		for i := range v.run.PolicyMaps {
			for j := range v.run.PolicyMaps[i].Classes {
				find(&v.run.PolicyMaps[i].Classes[j], hit)
			}
		}
	}
}

// eachInspect finds the inspects of a protocol, "" of all, for which word is
// not "".
func eachInspect(protocol string, word func(*Inspect) string) func(*validator, func(int, string)) {
	return eachClass(func(c *PolicyClass, hit func(int, string)) {
		for i := range c.Inspects {
			in := &c.Inspects[i]
			if w := word(in); w != "" && (protocol == "" || in.Protocol == protocol) {
				hit(in.Line, w)
			}
		}
	})
}

func eachCipher(word string) func(*validator, func(int, string)) {
	return func(v *validator, hit func(int, string)) {
		if slices.Contains(v.run.SSLEncryption, word) {
			hit(v.below(1, "ssl", "encryption", word), word)
		}
	}
}

// unsupported reports the lines that ask for one of features.
func (v *validator) unsupported(features []feature) {
	refused := make(map[int]bool) // one reason is enough
	for i, l := range v.run.Lines {
		refused[i+1] = l.Kind == Refused
	}
	for _, f := range v.found {
		refused[f.Line] = refused[f.Line] || f.Severity == Error
	}
	for _, f := range features {
		text := f.text
		if text == "" {
			text = notSupported(f.name)
		}
		warned := make(map[int]bool)
		f.find(v, func(line int, word string) {
			switch {
			case f.warn && !warned[line]:
				v.warn(line, word, "", "%s", text)
			case !f.warn && !refused[line]:
				v.fail(line, word, "", "%s", text)
				refused[line] = true
			}
			warned[line] = true
		})
	}
}
