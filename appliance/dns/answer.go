package dns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	maxChain   = 8   // aliases that are followed from one name
	maxAddrs   = 16  // of a name that are kept
	maxRecords = 256 // of a section that are looked at
)

var (
	errNotOurs   = errors.New("it answers another question")
	errMalformed = errors.New("the answer is malformed")
	errLame      = errors.New("the server knows nothing about the name and asks nobody")
	errChain     = fmt.Errorf("more than %d aliases", maxChain)
)

// An answer is what one message says about a name.
type answer struct {
	truncated bool
	addrs     []netip.Addr
	names     []string // of an address
	alias     string   // the last alias, if there is nothing else
	hops      int      // aliases on the way
	ttl       time.Duration
	negative  error // ErrNoHost or ErrNoAddress
}

// reverseZone ends the names by which the names of addresses are asked for. (RFC
// 1035, section 3.5.)
const reverseZone = ".in-addr.arpa"

// typeOf is what is asked for of a name: the names of an address, or the
// addresses of a name.
func typeOf(name string) dnsmessage.Type {
	if strings.HasSuffix(name, reverseZone) {
		return dnsmessage.TypePTR
	}
	return dnsmessage.TypeA
}

// reverse returns the name by which the names of addr are asked for.
func reverse(addr netip.Addr) string {
	b := addr.As4()
	return fmt.Sprintf("%d.%d.%d.%d%s", b[3], b[2], b[1], b[0], reverseZone)
}

// question returns the query for name. (RFC 1035, section 4.1.)
func question(id uint16, name string) ([]byte, error) {
	n, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return nil, ErrName
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: n, Type: typeOf(name), Class: dnsmessage.ClassINET}},
	}
	return m.Pack()
}

// parse reads msg. It must be the answer to question(id, name), else the error is
// errNotOurs. What it says of other names than this and its aliases is passed
// over.
func parse(msg []byte, id uint16, name string) (answer, error) {
	var a answer
	var p dnsmessage.Parser
	h, err := p.Start(msg)
	if err != nil || !h.Response || h.ID != id || h.OpCode != 0 {
		return a, errNotOurs
	}
	q, err := p.Question()
	if err != nil || nameOf(q.Name) != name || q.Type != typeOf(name) || q.Class != dnsmessage.ClassINET {
		return a, errNotOurs
	}
	if _, err := p.Question(); !errors.Is(err, dnsmessage.ErrSectionDone) {
		return a, errNotOurs
	}
	switch {
	case h.Truncated:
		a.truncated = true
		return a, nil
	case h.RCode != dnsmessage.RCodeSuccess && h.RCode != dnsmessage.RCodeNameError:
		return a, fmt.Errorf("the server says %s", strings.TrimPrefix(h.RCode.String(), "RCode"))
	}
	aliases, found, err := readAnswers(&p)
	if err != nil {
		return a, err
	}
	a.ttl = MaxTTL
	at := name
	for alias, ok := aliases[at]; ok; alias, ok = aliases[at] {
		if a.hops++; a.hops > maxChain {
			return a, errChain
		}
		a.ttl = min(a.ttl, alias.ttl)
		at = alias.to
	}
	for _, r := range found {
		switch wanted := typeOf(name); {
		case r.name != at || len(a.addrs)+len(a.names) == maxAddrs:
			continue
		case r.to == "" && wanted == dnsmessage.TypeA && !slices.Contains(a.addrs, r.addr):
			a.addrs = append(a.addrs, r.addr)
		case r.to != "" && wanted == dnsmessage.TypePTR && !slices.Contains(a.names, r.to):
			a.names = append(a.names, r.to)
		default:
			continue
		}
		a.ttl = min(a.ttl, r.ttl)
	}
	switch {
	case len(a.addrs)+len(a.names) > 0:
	case h.RCode == dnsmessage.RCodeNameError:
		a.negative = ErrNoHost
	case at != name:
		a.alias = at
	default:
		a.negative = ErrNoAddress
	}
	if a.negative != nil {
		ttl, found := negativeTTL(&p)
		if !found && !h.Authoritative && !h.RecursionAvailable {
			return a, errLame // a referral, which is for a resolver of another kind
		}
		a.ttl = min(a.ttl, ttl)
	}
	a.ttl = max(a.ttl, MinTTL)
	return a, nil
}

type aliasRecord struct {
	to  string
	ttl time.Duration
}

// A record is an address of a name, or a name of an address.
type record struct {
	name string
	addr netip.Addr
	to   string // the name of an address; "": this is an address
	ttl  time.Duration
}

// readAnswers reads the aliases, addresses and names of the answer section.
func readAnswers(p *dnsmessage.Parser) (map[string]aliasRecord, []record, error) {
	aliases := make(map[string]aliasRecord)
	var found []record
	for range maxRecords {
		h, err := p.AnswerHeader()
		if errors.Is(err, dnsmessage.ErrSectionDone) {
			return aliases, found, nil
		}
		if err != nil {
			return nil, nil, errMalformed
		}
		owner, ttl := nameOf(h.Name), ttlOf(h.TTL)
		switch {
		case h.Class != dnsmessage.ClassINET:
			err = p.SkipAnswer()
		case h.Type == dnsmessage.TypeA:
			var r dnsmessage.AResource
			if r, err = p.AResource(); err == nil {
				if addr := netip.AddrFrom4(r.A); isHost(addr) {
					found = append(found, record{owner, addr, "", ttl})
				}
			}
		case h.Type == dnsmessage.TypePTR:
			var r dnsmessage.PTRResource
			if r, err = p.PTRResource(); err == nil {
				if to, ok := canonical(nameOf(r.PTR)); ok {
					found = append(found, record{owner, netip.Addr{}, to, ttl})
				}
			}
		case h.Type == dnsmessage.TypeCNAME:
			var r dnsmessage.CNAMEResource
			if r, err = p.CNAMEResource(); err == nil {
				to, ok := canonicalAlias(nameOf(r.CNAME))
				if !ok {
					return nil, nil, errMalformed
				}
				if _, twice := aliases[owner]; !twice {
					aliases[owner] = aliasRecord{to, ttl}
				}
			}
		default:
			err = p.SkipAnswer()
		}
		if err != nil {
			return nil, nil, errMalformed
		}
	}
	return nil, nil, errMalformed
}

// negativeTTL returns how long it holds that there is nothing, from the SOA record
// in the authority section, and whether there is one. (RFC 2308, section 5.)
func negativeTTL(p *dnsmessage.Parser) (time.Duration, bool) {
	for range maxRecords {
		h, err := p.AuthorityHeader()
		if err != nil {
			break
		}
		if h.Type == dnsmessage.TypeSOA {
			if r, err := p.SOAResource(); err == nil {
				return min(ttlOf(h.TTL), ttlOf(r.MinTTL), MaxNegativeTTL), true
			}
			break
		}
		if p.SkipAuthority() != nil {
			break
		}
	}
	return MinTTL, false
}

// canonicalAlias is canonical for what an alias stands for. In the zones of
// addresses there are names as 9.0/25.2.0.192.in-addr.arpa. (RFC 2317, section 4.)
func canonicalAlias(name string) (string, bool) {
	if !strings.HasSuffix(name, reverseZone) {
		return canonical(name)
	}
	_, ok := canonical(strings.ReplaceAll(name, "/", "-"))
	return name, ok
}

// ttlOf reads a TTL. One with the top bit set is 0. (RFC 2181, section 8.)
func ttlOf(seconds uint32) time.Duration {
	if seconds > 1<<31-1 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, MaxTTL)
}

// isHost reports whether a can be the address of another host.
func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] != 0 && a.As4()[0] < 240
}

// nameOf returns a name of a message in lower case, without the dot at its end.
func nameOf(n dnsmessage.Name) string {
	return strings.ToLower(strings.TrimSuffix(n.String(), "."))
}
