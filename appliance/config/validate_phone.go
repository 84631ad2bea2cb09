package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

const (
	internalTrustpoint = "_internal_PP_" // before a CTL's name: the trustpoint that signs for it
	reservedCTLName    = "CTLFile.tlv"   // a stored CTL file must not be called so (V35)

	portSCCP        = 2000
	portSecureSCCP  = 2443
	secureOffset    = portSecureSCCP - portSCCP // a phone adds it to the port in its file (V61)
	portCAPF        = 3804
	longestInterval = 2 * time.Minute // between REGISTERs; SCCP keepalives come each 30 or 60 s (V78)
)

// An application is a phone proxy that a service policy puts into effect.
type application struct {
	proxy  *PhoneProxy
	policy *ServicePolicy
	line   int // of the inspect
}

// applied returns where phone proxies are in effect.
func (v *validator) applied() []application {
	var list []application
	for i := range v.run.ServicePolicies {
		s := &v.run.ServicePolicies[i]
		m := v.run.PolicyMap(s.Policy)
		if m == nil {
			continue
		}
		for _, c := range m.Classes {
			for _, in := range c.Inspects {
				if p := v.run.PhoneProxy(in.PhoneProxy); p != nil {
					list = append(list, application{p, s, in.Line})
				}
			}
		}
	}
	return list
}

// phoneProxy checks the phone proxy and its parts: always what an ASA checks
// line by line, and what it checks at the service policy if one applies it.
func (v *validator) phoneProxy() {
	for i, p := range v.run.PhoneProxies {
		if i > 0 {
			v.fail(p.Line, p.Name, "V01", "there is phone-proxy %s already (line %d), and there can be one only; remove one",
				v.run.PhoneProxies[0].Name, v.run.PhoneProxies[0].Line)
		}
	}
	for i, m := range v.run.MediaTerminations {
		if i > 0 {
			v.fail(m.Line, m.Name, "V03", "there is media-termination %s already (line %d), and there can be one only; "+
				"put its addresses there", v.run.MediaTerminations[0].Name, v.run.MediaTerminations[0].Line)
		}
		v.mediaTermination(&m)
	}
	for i := range v.run.CTLs {
		v.ctl(&v.run.CTLs[i])
	}
	for i := range v.run.TLSProxies {
		v.tlsProxy(&v.run.TLSProxies[i])
	}
	applied := v.applied()
	for i := range v.run.PhoneProxies {
		p := &v.run.PhoneProxies[i]
		v.references(p)
		v.tftpServers(p)
		v.records(p)
		if p.SecurePhones <= longestInterval {
			v.warn(v.below(p.Line, "secure-phones"), "secure-phones", "V78", "phones show themselves every %v at the longest, so with timeout %v "+
				"those that are well are forgotten; write more, as the default of 0:05:00", longestInterval, p.SecurePhones)
		}
		if i > 0 {
			continue // there can be no second
		}
		mine := slices.DeleteFunc(slices.Clone(applied), func(a application) bool { return a.proxy != p })
		if len(mine) == 0 {
			v.warn(p.Line, p.Name, "", "phone-proxy %s has no effect: no service-policy has an inspect with it", p.Name)
			continue
		}
		v.complete(p, mine)
		v.facing(p, mine)
		v.portTranslations(p)
	}
}

// references checks that what a phone proxy names exists (V04).
func (v *validator) references(p *PhoneProxy) {
	missing := func(kind, name string, names []string) {
		v.fail(v.below(p.Line, kind, name), name, "V04", "there is no %s %s; %s", kind, name, nearestOf(name, names))
	}
	if p.MediaTermination != "" && v.run.MediaTermination(p.MediaTermination) == nil {
		var names []string
		for _, m := range v.run.MediaTerminations {
			names = append(names, m.Name)
		}
		missing("media-termination", p.MediaTermination, names)
	}
	if p.CTL != "" && v.run.CTL(p.CTL) == nil {
		var names []string
		for _, c := range v.run.CTLs {
			names = append(names, c.Name)
		}
		missing("ctl-file", p.CTL, names)
	}
	if p.TLSProxy != "" && v.run.TLSProxy(p.TLSProxy) == nil {
		var names []string
		for _, t := range v.run.TLSProxies {
			names = append(names, t.Name)
		}
		missing("tls-proxy", p.TLSProxy, names)
	}
	if s := p.ProxyServer; s != nil {
		v.needInterface(s.Line, s.Interface)
		v.needDNS(s.Line, s.Host)
	}
}

// needDNS reports a name where the box cannot look names up.
func (v *validator) needDNS(line int, name string) {
	if name != "" && (len(v.run.DNS.Lookup) == 0 || len(v.run.DNS.Servers) == 0) {
		v.fail(line, name, "", "%s cannot be looked up: write dns domain-lookup and a name-server, or give the address", name)
	}
}

// complete checks that an applied phone proxy has all its parts (V05).
func (v *validator) complete(p *PhoneProxy, mine []application) {
	where := fmt.Sprintf("but the service-policy of line %d applies it", mine[0].policy.Line)
	for _, part := range []struct {
		missing bool
		syntax  string
	}{
		{p.MediaTermination == "", "media-termination NAME"},
		{p.TLSProxy == "", "tls-proxy NAME"},
		{p.CTL == "", "ctl-file NAME"},
		{len(p.TFTPServers) == 0, "tftp-server address A interface IF"},
	} {
		if part.missing && !v.run.broken[stanza{inPhoneProxy, p.Name}] {
			v.fail(p.Line, p.Name, "V05", "phone-proxy %s has no %s, %s; add the line, or remove the service-policy", p.Name, part.syntax, where)
		}
	}
	if c := v.run.CTL(p.CTL); c != nil && c.Shutdown && !v.run.broken[stanza{inCTL, c.Name}] {
		v.fail(c.Line, c.Name, "V05", "ctl-file %s is shut down, %s; end it with no shutdown", c.Name, where)
	}
	if t := v.run.TLSProxy(p.TLSProxy); t != nil {
		switch {
		case v.run.broken[stanza{inTLSProxy, t.Name}]:
		case t.ServerTrustpoint == "":
			v.fail(t.Line, t.Name, "V05", "tls-proxy %s has no server trust-point, %s; write server trust-point %s%s", t.Name, where,
				internalTrustpoint, p.CTL)
		case v.run.CTL(p.CTL) != nil && t.ServerTrustpoint != internalTrustpoint+p.CTL &&
			v.run.CTL(strings.TrimPrefix(t.ServerTrustpoint, internalTrustpoint)) != nil:
			v.warn(v.below(t.Line, t.ServerTrustpoint), t.ServerTrustpoint, "V02", "phones that have ctl-file %s trust %s%[1]s, not %[3]s", p.CTL,
				internalTrustpoint, t.ServerTrustpoint)
		}
		if p.Mixed && t.LDCIssuer == "" && t.ClientTrustpoint == "" {
			v.fail(t.Line, t.Name, "V05", "phone-proxy %s is mixed, and tls-proxy %s has no certificate for the call manager; "+
				"write client ldc issuer and client ldc key-pair", p.Name, t.Name)
		}
	}
	if m := v.run.MediaTermination(p.MediaTermination); m != nil {
		global := slices.ContainsFunc(m.Addrs, func(a MTA) bool { return a.Interface == "" })
		switch {
		case v.run.broken[stanza{inMediaTermination, m.Name}]:
		case len(m.Addrs) == 0:
			v.fail(m.Line, m.Name, "V05", "media-termination %s has no address, %s", m.Name, where)
		case !global && len(m.Addrs) < 2:
			v.fail(m.Line, m.Name, "V42", "media-termination %s has one interface's address only, %s; "+
				"give one for the call manager's side and one for the phones'", m.Name, where)
		}
	}
}

// facing checks the interfaces that phones come by.
func (v *validator) facing(p *PhoneProxy, mine []application) {
	m := v.run.MediaTermination(p.MediaTermination)
	if m == nil || len(m.Addrs) == 0 || len(m.Addrs) == 1 && m.Addrs[0].Interface != "" || v.run.broken[stanza{inMediaTermination, m.Name}] {
		return // reported by complete
	}
	has := func(name string) bool {
		return slices.ContainsFunc(m.Addrs, func(a MTA) bool { return a.Interface == name || a.Interface == "" })
	}
	seen := make(map[string]bool)
	need := func(name, why string) {
		if !seen[name] && !has(name) && v.run.Interface(name) != nil {
			v.warn(m.Line, m.Name, "V43", "media-termination %s has no address for interface %s, %s; media cannot end there", m.Name, name, why)
		}
		seen[name] = true
	}
	var names []string
	for _, a := range mine {
		name := a.policy.Interface
		if name == "" || slices.Contains(names, name) {
			continue
		}
		names = append(names, name)
		need(name, fmt.Sprintf("where phones come by (line %d)", a.policy.Line))
		for _, mta := range m.Addrs {
			if i := v.run.Interface(name); i != nil && i.Level == 0 && mta.Addr.IsPrivate() && (mta.Interface == name || mta.Interface == "") &&
				!(i.Addr.IsValid() && i.Addr.Addr().IsPrivate()) {
				v.warn(mta.Line, mta.Addr.String(), "V48", "%v is a private address, which phones beyond %s cannot reach", mta.Addr, name)
			}
		}
	}
	for _, s := range p.TFTPServers {
		need(s.Interface, "where the call manager is")
	}
}

func (v *validator) mediaTermination(m *MediaTermination) {
	for i, a := range m.Addrs {
		word := a.Addr.String()
		for _, before := range m.Addrs[:i] {
			switch {
			case (before.Interface == "") != (a.Interface == ""):
				v.fail(a.Line, word, "V40", "line %d has an address of the other style; either one address for all interfaces, "+
					"or one with interface for each", before.Line)
			case before.Interface == a.Interface:
				v.fail(a.Line, word, "V41", "line %d has the address %v for the same interface already; there is one", before.Line, before.Addr)
			case before.Addr == a.Addr:
				v.fail(a.Line, word, "V44", "line %d has the same address", before.Line)
			default:
				continue
			}
			break
		}
		v.mta(&a)
	}
}

// mta checks one media termination address: V44 to V47.
func (v *validator) mta(a *MTA) {
	word := a.Addr.String()
	for _, i := range v.run.Interfaces {
		if i.Addr.IsValid() && i.Addr.Addr() == a.Addr {
			v.fail(a.Line, word, "V45", "%s is the address of interface %s itself; use one that nothing has", word, i.Name)
			return
		}
	}
	if who := v.server(a.Addr); who != "" {
		v.fail(a.Line, word, "V47", "%s is the address of %s; use one that nothing has", word, who)
		return
	}
	for j := range v.run.NAT {
		n := &v.run.NAT[j]
		from, to := v.mapped(n)
		if n.Inactive || n.Identity() && n.RealFrom != n.RealTo {
			continue // nothing else has the address for it
		}
		if within(a.Addr, from, to) || n.Static && n.RealFrom == n.RealTo && n.RealFrom == a.Addr {
			v.fail(a.Line, word, "V46", "%s is in the NAT rule of line %d (%s); use an address that no rule has", word, n.Line, n.label())
			return
		}
	}
	for _, r := range v.run.Routes {
		if r.Gateway == a.Addr {
			v.fail(a.Line, word, "V44", "%s is the gateway of line %d; use an address that nothing has", word, r.Line)
			return
		}
	}
	if a.Interface == "" {
		return
	}
	i := v.needInterface(a.Line, a.Interface)
	switch {
	case i == nil, v.run.broken[stanza{inInterface, i.Hardware}]:
	case !i.Addr.IsValid():
		v.fail(a.Line, a.Interface, "V44", "interface %s has no address, so none can be beside it", a.Interface)
	case !i.Addr.Contains(a.Addr):
		v.fail(a.Line, word, "V44", "%s is not in the subnet of interface %s, which is %v", word, a.Interface, i.Addr.Masked())
	case i.Addr.Bits() < 31 && (a.Addr == i.Addr.Masked().Addr() || a.Addr == lastAddr(i.Addr)):
		v.fail(a.Line, word, "V44", "%s is the network or broadcast address of %v", word, i.Addr.Masked())
	}
}

// server returns which call manager or TFTP server has addr, real or mapped;
// "" if none has.
func (v *validator) server(addr netip.Addr) string {
	for _, c := range v.run.CTLs {
		for _, r := range c.Records {
			if r.Addr == addr || r.Addr.IsValid() && slices.Contains(v.reals(r.Addr), addr) {
				return fmt.Sprintf("the %s of line %d", r.Role, r.Line)
			}
		}
	}
	for _, p := range v.run.PhoneProxies {
		for _, s := range p.TFTPServers {
			if s.Addr == addr {
				return fmt.Sprintf("the TFTP server of line %d", s.Line)
			}
		}
	}
	return ""
}

// ctl checks a CTL file alone: V31, V34, V35, V37.
func (v *validator) ctl(c *CTLFile) {
	if !c.Shutdown && len(c.Records) == 0 && c.ClusterFile == "" && !v.run.broken[stanza{inCTL, c.Name}] {
		v.fail(c.Line, c.Name, "V37", "ctl-file %s has no record-entry, so there is nothing to build from; add one for each call manager "+
			"and TFTP server before no shutdown", c.Name)
	}
	if name := c.ClusterFile[strings.LastIndexAny(c.ClusterFile, "/:")+1:]; strings.EqualFold(name, reservedCTLName) {
		v.fail(v.below(c.Line, c.ClusterFile), c.ClusterFile, "V35", "a stored CTL file must not be called %s; rename it", reservedCTLName)
	}
	capf := 0
	for _, r := range c.Records {
		if r.Role == "capf" {
			if capf > 0 {
				v.fail(r.Line, "capf", "V31", "line %d has a capf record already, and there is one", capf)
			}
			capf = r.Line
		}
		v.needDNS(r.Line, r.FQDN)
		t := v.run.Trustpoint(r.Trustpoint)
		switch {
		case t == nil:
			v.fail(r.Line, r.Trustpoint, "V04", "there is no trustpoint %s; %s", r.Trustpoint, nearestOf(r.Trustpoint, v.run.trustpointNames()))
		case v.run.broken[stanza{inTrustpoint, t.Name}]:
		case c.Shutdown || t.Certificate != nil || t.CACertificates != nil || v.run.Enrolled(t.Name):
		case t.Enrollment == "self" || t.Enrollment == "":
			v.fail(r.Line, r.Trustpoint, "V34", "trustpoint %s has no certificate for the record; write crypto ca enroll %[1]s noconfirm "+
				"before the ctl-file", r.Trustpoint)
		default:
			v.warn(r.Line, r.Trustpoint, "V34", "trustpoint %s has no certificate in the text; the box must have it before "+
				"the CTL file can be built", r.Trustpoint)
		}
	}
}

func (v *validator) tlsProxy(t *TLSProxy) {
	for _, x := range []struct{ name, words string }{{t.ServerTrustpoint, "server"}, {t.ClientTrustpoint, "client"}, {t.LDCIssuer, "issuer"}} {
		if x.name == "" || v.run.Trustpoint(x.name) != nil {
			continue
		}
		if ctl, ok := strings.CutPrefix(x.name, internalTrustpoint); ok && x.words == "server" && v.run.CTL(ctl) != nil {
			continue
		}
		names := v.run.trustpointNames()
		for _, c := range v.run.CTLs {
			names = append(names, internalTrustpoint+c.Name)
		}
		v.fail(v.below(t.Line, x.words, x.name), x.name, "V04", "there is no trustpoint %s; %s", x.name, nearestOf(x.name, names))
	}
	if i := v.run.Trustpoint(t.LDCIssuer); i != nil && !i.LDCIssuer {
		v.fail(v.below(t.Line, "issuer", t.LDCIssuer), t.LDCIssuer, "V04", "trustpoint %s may not issue certificates: it has no line proxy-ldc-issuer", t.LDCIssuer)
	}
	if t.LDCKeyPair != "" && v.run.KeyPair(t.LDCKeyPair) == nil {
		v.noKeyPair(v.below(t.Line, t.LDCKeyPair), t.LDCKeyPair, "no line generates key pair %s; the box must have it already")
	}
}

// tftpServers checks V21, V22 and V65.
func (v *validator) tftpServers(p *PhoneProxy) {
	managers := v.managerInterfaces(p)
	known := make(map[netip.Addr]*TFTPServer) // by mapped address
	for _, s := range p.TFTPServers {
		word := s.Addr.String()
		out := v.needInterface(s.Line, s.Interface)
		if out == nil {
			continue
		}
		rule := v.mapping(s.Addr)
		at := v.locate(s.Addr)
		switch {
		case rule != nil && rule.Static && v.static(s.Addr) == nil:
			v.fail(s.Line, word, "V22", "%s is a mapped address; the address here is the real one, %v", word, v.real(rule, s.Addr))
			continue
		case at == nil:
			v.fail(s.Line, word, "V21", "no interface or route leads to %s", word)
			continue
		case at != out:
			v.fail(s.Line, s.Interface, "V21", "%s is reached by interface %s, not %s", word, at.Name, s.Interface)
			continue
		case len(managers) > 0 && !slices.Contains(managers, s.Interface):
			v.fail(s.Line, s.Interface, "V21", "the call managers are on interface %s; a TFTP server must be on the same", orList(managers))
		}
		mapped := false
		for i := range v.run.NAT {
			n := &v.run.NAT[i]
			from, _ := v.mapped(n)
			if !n.Static || !n.fixed() || !within(s.Addr, n.RealFrom, n.RealTo) || !from.IsValid() || n.Proto == "tcp" || n.Proto == "udp" && n.RealPort != s.Port {
				continue
			}
			addr, _ := advance(from, toInt(s.Addr)-toInt(n.RealFrom))
			if n.Proto == "udp" && n.MappedPort != defaultTFTPPort {
				v.warn(n.Line, "service", "V65", "phones ask on port %d only, so none reaches the TFTP server %s on mapped port %d", defaultTFTPPort, word, n.MappedPort)
			}
			if other := known[addr]; other != nil && other.Addr != s.Addr {
				v.warn(s.Line, word, "V65", "the TFTP server of line %d has the mapped address %v too, and phones tell servers apart by address only", other.Line, addr)
			}
			known[addr], mapped = &s, true
		}
		if !mapped && !v.unsure() && !v.recorded(p, s.Addr) {
			v.warn(s.Line, word, "V22", "no static nat line maps %s to an address that phones can reach, so their requests never meet the proxy; "+
				"add one to its object", word)
		}
	}
}

// unsure reports whether a translation may be missing for a line refused.
func (v *validator) unsure() bool {
	for s := range v.run.broken {
		if s.mode == inObject {
			return true
		}
	}
	return false
}

// recorded reports whether the CTL file has addr as it is.
func (v *validator) recorded(p *PhoneProxy, addr netip.Addr) bool {
	c := v.run.CTL(p.CTL)
	return c != nil && slices.ContainsFunc(c.Records, func(r Record) bool { return r.Addr == addr })
}

// managerInterfaces returns the interfaces that the call managers of the CTL
// file are on.
func (v *validator) managerInterfaces(p *PhoneProxy) []string {
	var names []string
	c := v.run.CTL(p.CTL)
	if c == nil {
		return nil
	}
	for _, r := range c.Records {
		if r.Role != "cucm" && r.Role != "cucm-tftp" || !r.Addr.IsValid() || v.mapping(r.Addr) == nil {
			continue
		}
		for _, a := range v.reals(r.Addr) {
			if i := v.locate(a); i != nil && !slices.Contains(names, i.Name) {
				names = append(names, i.Name)
			}
		}
	}
	return names
}

// records checks the addresses in the CTL file, which phones must reach: V32, V60.
func (v *validator) records(p *PhoneProxy) {
	c := v.run.CTL(p.CTL)
	if c == nil || v.unsure() {
		return
	}
	for _, r := range c.Records {
		if !r.Addr.IsValid() {
			continue
		}
		rule, at := v.static(r.Addr), v.locate(r.Addr)
		mapping := v.mapping(r.Addr)
		inside := at != nil && slices.ContainsFunc(p.TFTPServers, func(s TFTPServer) bool { return s.Interface == at.Name })
		switch {
		case mapping != nil && mapping.Static:
		case rule != nil:
			from, _ := v.mapped(rule)
			if addr, ok := advance(from, toInt(r.Addr)-toInt(rule.RealFrom)); ok {
				v.warn(r.Line, r.Addr.String(), "V32", "%v is a real address, and phones need the mapped one, %v", r.Addr, addr)
			}
		case inside && r.Addr.IsPrivate() && v.publicSide(at):
			v.warn(r.Line, r.Addr.String(), "V60", "%v is private and no static nat line maps it to an address that phones can reach; "+
				"add one, and write the mapped address here", r.Addr)
		case !inside:
			v.warn(r.Line, r.Addr.String(), "V32", "no static nat line maps a server to %v; a record has the mapped address, as phones see it", r.Addr)
		}
	}
}

// publicSide reports whether there is an interface with a public address, other
// than the one given.
func (v *validator) publicSide(but *Interface) bool {
	return slices.ContainsFunc(v.run.Interfaces, func(i Interface) bool {
		return i.Name != "" && i.Name != but.Name && i.Addr.IsValid() && !i.Addr.Addr().IsPrivate()
	})
}

// portTranslations checks servers that share an address by ports: V61, V62.
func (v *validator) portTranslations(p *PhoneProxy) {
	pat := func(tcp *NATRule, port uint16) *NATRule {
		return find(v.run.NAT, func(n *NATRule) bool {
			return n.Static && n.Proto == "tcp" && n.RealFrom == tcp.RealFrom && n.RealPort == port && n.MappedIf == tcp.MappedIf
		})
	}
	for i := range v.run.NAT {
		n := &v.run.NAT[i]
		if !n.Static || n.Proto != "tcp" {
			continue
		}
		switch n.RealPort {
		case portSCCP:
			secure := pat(n, portSecureSCCP)
			if secure == nil {
				v.warn(n.Line, "service", "V61", "port %d is mapped and the secure port %d is not; map it to %d", portSCCP, portSecureSCCP, n.MappedPort+secureOffset)
			} else if uint32(secure.MappedPort) != uint32(n.MappedPort)+secureOffset {
				v.warn(secure.Line, "service", "V61", "a phone adds %d to the nonsecure port, so port %d must be mapped to %d, not %d", secureOffset,
					portSecureSCCP, uint32(n.MappedPort)+secureOffset, secure.MappedPort)
			}
		case portSecureSCCP:
			if pat(n, portSCCP) == nil {
				v.warn(n.Line, "service", "V61", "the secure port %d is mapped and port %d is not; map it to %d, for a phone's file names only that one",
					portSecureSCCP, portSCCP, int(n.MappedPort)-secureOffset)
			}
		}
	}
	c := v.run.CTL(p.CTL)
	if c == nil {
		return
	}
	for _, r := range c.Records {
		if r.Role != "capf" || !r.Addr.IsValid() {
			continue
		}
		ports, capf := false, false
		for i := range v.run.NAT {
			n := &v.run.NAT[i]
			if from, to := v.mapped(n); n.Static && within(r.Addr, from, to) {
				ports = ports || n.Proto == "tcp"
				capf = capf || n.Proto == "" || n.Proto == "tcp" && n.RealPort == portCAPF
			}
		}
		if ports && !capf {
			v.warn(r.Line, r.Addr.String(), "V62", "%v is shared by ports, and TCP %d of the CAPF is not among them; map it", r.Addr, portCAPF)
		}
	}
}
