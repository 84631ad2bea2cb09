package config

import "slices"

// unsupported refuses what Parse has stored and the box does not do, so that
// nothing with an effect on an ASA is passed over in silence.
func (v *validator) unsupported() {
	fail := func(line int, word, text string) {
		if v.refused(line) {
			return // one reason is enough
		}
		v.fail(line, word, "", "%s", text)
	}
	for i := range v.run.PhoneProxies {
		p := &v.run.PhoneProxies[i]
		if p.Mixed {
			fail(v.below(p.Line, "cluster-mode", "mixed"), "mixed", notSupported("a mixed-mode cluster"))
		}
		if p.CIPCAuthenticated {
			fail(v.below(p.Line, "cipc"), "authenticated", notSupported("authenticated mode without encryption (null-sha1)"))
		}
	}
	for i := range v.run.CTLs {
		c := &v.run.CTLs[i]
		if c.ClusterFile != "" {
			fail(v.below(c.Line, "cluster-ctl-file"), c.ClusterFile, notSupported("building on an existing CTL file"))
		}
		for _, rec := range c.Records {
			if rec.FQDN != "" {
				fail(rec.Line, rec.FQDN, "a record-entry by name: this version resolves no names; give the mapped address")
			}
		}
	}
	for i := range v.run.TLSProxies {
		t := &v.run.TLSProxies[i]
		if !t.AuthenticateClient {
			fail(v.below(t.Line, "authenticate-client"), "authenticate-client", "phones are always asked for a certificate here: remove the line")
		}
		if t.ClientTrustpoint != "" || t.LDCIssuer != "" || t.LDCKeyPair != "" || len(t.ClientCiphers) > 0 {
			fail(v.below(t.Line, "client"), "client", notSupported("TLS toward the call manager"))
		}
	}
	for i := range v.run.PolicyMaps {
		for _, class := range v.run.PolicyMaps[i].Classes {
			for _, in := range class.Inspects {
				switch {
				case in.TLSProxy != "":
					fail(in.Line, in.TLSProxy, notSupported("inspect with a tls-proxy of its own"))
				case in.PhoneProxy == "" && (in.Protocol == "sip" || in.Protocol == "skinny"):
					v.warn(in.Line, in.Protocol, "", "plain inspect %s is not done by this version: this traffic passes as access lists and NAT say, uninspected", in.Protocol)
				}
			}
		}
	}
	for _, w := range v.run.SSLEncryption {
		switch w {
		case "null-sha1", "rc4-md5", "des-sha1":
			if line := v.below(1, "ssl", "encryption"); line > 1 || lastWord(v.run.Lines[0].Text, "encryption").Col > 0 {
				v.warn(line, w, "", "%s is not supported by this version and is left out", w)
			}
		}
	}
}

// refused reports whether line has an error already.
func (v *validator) refused(line int) bool {
	if line >= 1 && line <= len(v.run.Lines) && v.run.Lines[line-1].Kind == Refused {
		return true
	}
	return slices.ContainsFunc(v.found, func(f Finding) bool { return f.Line == line && f.Severity == Error })
}
