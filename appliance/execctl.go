package appliance

import (
	"bufio"
	"cmp"
	"crypto/md5"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/ctl"
)

// ctlCommands look at CTL files and renew their tokens. The renewal is our own:
// an ASA has none.
var ctlCommands = []cli.Rule[execFunc]{
	{Syntax: "show ctl-file [<ctl>]", Help: "CTL files: what they are built from, and the one that phones get", Do: show(showCTL)},
	{Syntax: "crypto ctl-file renew <ctl> sast <token:0-4>", Help: "Replace a SAST token; the old one signs until it is forgotten", Do: renewToken},
	{Syntax: "crypto ctl-file forget <ctl>", Help: "Remove tokens that were replaced, when every phone has the new list", Do: forgetTokens},
}

// applied returns the phone proxy's trust list if it is of that ctl-file.
func (x *execution) applied(name string) *trustList {
	if x.plan.service == nil || x.plan.phone.ctl.Name != name {
		return nil
	}
	return x.plan.service.trust.Load()
}

// A shownCTL is a ctl-file of the configuration, and the file that phones get.
type shownCTL struct {
	Name     string                `json:"name"`
	Records  cli.List[shownRecord] `json:"record_entries"`
	Cluster  string                `json:"cluster_ctl_file,omitempty"`
	SAST     int                   `json:"sast"`
	Shutdown bool                  `json:"shutdown"`
	Applied  bool                  `json:"applied"` // by a phone proxy, as what follows
	Lost     cli.List[string]      `json:"lost_tokens,omitzero"`
	Error    string                `json:"error,omitempty"` // why there is no file
	File     *shownFile            `json:"file,omitempty"`
	file     *ctl.File
}

// A shownRecord is a record-entry.
type shownRecord struct {
	Role       string     `json:"role"`
	Trustpoint string     `json:"trustpoint"`
	Addr       netip.Addr `json:"address,omitzero"`
	FQDN       string     `json:"fqdn,omitempty"` // in place of the address
	Domain     string     `json:"domain_name,omitempty"`
}

// A shownFile is a CTL file. Serial numbers and sums are hexadecimal.
type shownFile struct {
	Length   int                       `json:"length_bytes"`
	MD5      string                    `json:"md5"`
	SHA1     string                    `json:"sha1"`
	Version  string                    `json:"version"`
	Signer   string                    `json:"signer"`
	Serial   string                    `json:"signer_serial"`
	CA       string                    `json:"signer_issuer"`
	Digest   string                    `json:"digest"`
	Name     string                    `json:"file_name,omitempty"`
	Time     time.Time                 `json:"time,omitzero"`
	Verified bool                      `json:"verified"`
	Why      string                    `json:"verify_error,omitempty"`
	Records  cli.List[shownFileRecord] `json:"records"`
}

type shownFileRecord struct {
	Role        string     `json:"role"`
	DNSName     string     `json:"dns_name,omitempty"`
	Addr        netip.Addr `json:"address,omitzero"`
	Subject     string     `json:"subject"`
	Issuer      string     `json:"issuer"`
	Serial      string     `json:"serial"`
	Certificate string     `json:"certificate_sha1,omitempty"`
}

type shownCTLs struct {
	Files cli.List[shownCTL] `json:"ctl_files"`
}

func showCTL(x *execution, a cli.Args) (s shownCTLs, _ error) {
	only := a.Get("ctl")
	for i := range x.running.CTLs {
		c := &x.running.CTLs[i]
		if only != "" && only != c.Name {
			continue
		}
		o := shownCTL{Name: c.Name, Cluster: c.ClusterFile, SAST: c.SAST, Shutdown: c.Shutdown}
		for _, r := range c.Records {
			o.Records = append(o.Records, shownRecord{r.Role, r.Trustpoint, r.Addr, r.FQDN, r.Domain})
		}
		if t := x.applied(c.Name); t != nil {
			if err := o.served(t); err != nil {
				return s, err
			}
		}
		s.Files = append(s.Files, o)
	}
	return s, nil
}

// served fills in what a trust list serves.
func (s *shownCTL) served(t *trustList) error {
	s.Applied, s.Lost = true, cli.List[string]{}
	for _, err := range t.tokens.Lost {
		s.Lost = append(s.Lost, err.Error())
	}
	data, err := t.current()
	if err != nil {
		s.Error = err.Error()
		return nil
	}
	if s.file, err = ctl.Parse(data); err != nil {
		return err
	}
	h := &s.file.Header
	s.File = &shownFile{
		Length: len(data), MD5: fmt.Sprintf("%x", md5.Sum(data)), SHA1: fmt.Sprintf("%x", sha1.Sum(data)),
		Version: fmt.Sprintf("%d.%d", h.Version[0], h.Version[1]), Signer: oneLine(h.SignerName), Serial: hex.EncodeToString(h.Serial), CA: oneLine(h.CAName),
		Digest: h.Digest.String(), Name: oneLine(h.FileName), Time: h.Time, Verified: true,
	}
	if err := s.file.Verify(); err != nil {
		s.File.Verified, s.File.Why = false, err.Error()
	}
	for i := range s.file.Records {
		r := &s.file.Records[i]
		o := shownFileRecord{r.Role.String(), oneLine(r.DNSName), r.IP, oneLine(r.SubjectName), oneLine(r.IssuerName), hex.EncodeToString(r.Serial), ""}
		if r.DER != nil {
			o.Certificate = fmt.Sprintf("%x", sha1.Sum(r.DER))
		}
		s.File.Records = append(s.File.Records, o)
	}
	return nil
}

// Text writes each instance in the manner of "show running-config all", and then
// the file.
func (s shownCTLs) Text(w *bufio.Writer) {
	for i := range s.Files {
		c := &s.Files[i]
		c.text(w)
		if !c.Applied {
			w.WriteString("  Not applied by a phone proxy.\n\n")
			continue
		}
		for _, why := range c.Lost {
			fmt.Fprintf(w, "  Lost: %s\n", why)
		}
		if c.file == nil {
			fmt.Fprintf(w, "  No file to serve: %s\n\n", c.Error)
			continue
		}
		w.WriteString("\n")
		c.file.Format(w)
		w.WriteString("\n")
	}
}

func (s *shownCTL) text(w *bufio.Writer) {
	fmt.Fprintf(w, "ctl-file %s\n", s.Name)
	for _, r := range s.Records {
		fmt.Fprintf(w, " record-entry %s trustpoint %s address %s%s\n", r.Role, r.Trustpoint, cmp.Or(r.FQDN, r.Addr.String()), prefixed(" domain-name ", r.Domain))
	}
	if s.Cluster != "" {
		fmt.Fprintf(w, " cluster-ctl-file %s\n", s.Cluster)
	}
	fmt.Fprintf(w, " sast %d\n", s.SAST)
	if s.Shutdown {
		w.WriteString(" shutdown\n")
	} else {
		w.WriteString(" no shutdown\n")
	}
}

func renewToken(x *execution, a cli.Args) error {
	c := x.running.CTL(a.Get("ctl"))
	n := a.Int("token", 0)
	if err := ctl.Renew(x.opt.Store, c.Name, n, c.SAST, x.opt.Now()); err != nil {
		return refuse("%% %s", strings.TrimPrefix(err.Error(), "ctl: "))
	}
	x.opt.Log.Warn("SAST token renewed", "ctl-file", c.Name, "token", n)
	x.printf("INFO: token %d of ctl-file %s is new. The old one signs until \"crypto ctl-file forget %s\":\n"+
		"let every phone restart and fetch the list first.\n", n, c.Name, c.Name)
	return x.newList(c)
}

func forgetTokens(x *execution, a cli.Args) error {
	c := x.running.CTL(a.Get("ctl"))
	names, err := ctl.Forget(x.opt.Store, c.Name)
	if err != nil {
		return refuse("%% %s", strings.TrimPrefix(err.Error(), "ctl: "))
	}
	if len(names) == 0 {
		return refuse("%% ctl-file %s has no tokens that were replaced", c.Name)
	}
	x.opt.Log.Warn("former SAST tokens removed", "ctl-file", c.Name, "trustpoints", names)
	x.printf("INFO: removed: %s\n", strings.Join(names, ", "))
	return x.newList(c)
}

// newList has the running phone proxy serve a list with the tokens of now. Calls
// go on.
func (x *execution) newList(c *config.CTLFile) error {
	if x.applied(c.Name) == nil {
		return nil
	}
	t, err := newTrustList(&x.opt, x.running, c)
	if err != nil {
		return refuseCrypto(err)
	}
	x.plan.service.trust.Store(t)
	return nil
}
