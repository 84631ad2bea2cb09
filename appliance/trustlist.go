package appliance

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/ctl"
	"patchbay/appliance/pki"
)

const (
	// servedCTL is the CTL file on flash that phones got last. It tells which
	// tokens they know. (reference/asa-rules.md, V35: the name is taken.)
	servedCTL = "disk0:/" + ctl.FileName

	lookupWait  = 5 * time.Second  // for the names of all record entries
	lookupAgain = 30 * time.Second // after names were resolved; the resolver keeps them by their TTL
	lookupRetry = 5 * time.Second  // after they were not
)

// A LookupFunc returns the IPv4 addresses of a host name, best first.
type LookupFunc func(ctx context.Context, host string) ([]netip.Addr, error)

// A trustList is the CTL file of a ctl-file instance: what it is built from, and
// the file as it is served. Many goroutines may use it at once.
type trustList struct {
	where    string // for errors
	store    *pki.Store
	log      *slog.Logger
	now      func() time.Time
	lookup   LookupFunc
	tokens   *ctl.TokenSet
	entries  []ctl.Entry
	lines    []int // of entries, for errors
	file     string
	cluster  *ctl.File // nil without "cluster-ctl-file"
	named    bool      // an entry has a host name
	internal *pki.Identity

	mu      sync.Mutex
	checked time.Time // when names were last looked up
	err     error     // why they did not resolve then
	served  []byte    // nil before they have
	kept    bool      // served is on flash
}

// newTrustList makes the CTL file of c: its tokens and the internal trustpoint
// from the store, made on the first "no shutdown" and kept for ever after, and its
// records. Where an entry has a name in place of an address, it must resolve
// before there is a file to serve.
func newTrustList(opt *Options, r *config.Running, c *config.CTLFile) (*trustList, error) {
	t := &trustList{
		where: fmt.Sprintf("appliance: %s:%d: ctl-file %s", r.File, c.Line, c.Name), file: r.File,
		store: opt.Store, log: opt.Log, now: opt.Now, lookup: opt.Lookup,
	}
	var err error
	if t.tokens, err = ctl.Tokens(t.store, c.Name, c.SAST, r.Domain, t.now()); err != nil {
		return nil, fmt.Errorf("%s: %w", t.where, err)
	}
	t.internal = t.tokens.Internal
	for _, err := range t.tokens.Lost {
		t.log.Error("CTL token lost: import its PKCS #12 export, or renew it while another can sign", "ctl-file", c.Name, "error", err)
	}
	for _, rec := range c.Records {
		e, err := t.entry(r, rec)
		if err != nil {
			return nil, fmt.Errorf("appliance: %s:%d: record-entry %s: %w", r.File, rec.Line, rec.Role, err)
		}
		t.entries, t.lines = append(t.entries, e), append(t.lines, rec.Line)
		t.named = t.named || e.Host != ""
	}
	if c.ClusterFile != "" {
		if t.cluster, err = readCluster(t.store, c.ClusterFile); err != nil {
			return nil, fmt.Errorf("%s: cluster-ctl-file %s: %w", t.where, c.ClusterFile, err)
		}
	}
	data, err := t.build(t.entries)
	if err != nil {
		return nil, err
	}
	if !t.named {
		t.served = data
	}
	return t, nil
}

// entry returns what a record-entry line says.
func (t *trustList) entry(r *config.Running, rec config.Record) (ctl.Entry, error) {
	role, err := ctl.RoleOf(rec.Role)
	if err != nil {
		return ctl.Entry{}, err
	}
	cert, err := recordCertificate(t.store, rec, role)
	if err != nil {
		return ctl.Entry{}, err
	}
	domain := rec.Domain
	if domain == "" {
		domain = r.Domain
	}
	return ctl.Entry{Role: role, Cert: cert, Addr: rec.Addr, Host: rec.FQDN, Domain: domain}, nil
}

// readCluster reads an existing CTL file from flash, which must be consistent.
func readCluster(store *pki.Store, path string) (*ctl.File, error) {
	data, err := store.ReadFlash(path)
	if err != nil {
		return nil, err
	}
	f, err := ctl.Parse(data)
	if err == nil {
		err = f.Verify()
	}
	return f, err
}

// build makes and signs the file.
func (t *trustList) build(entries []ctl.Entry) ([]byte, error) {
	records, err := ctl.Assemble(entries, t.cluster, t.internal)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.where, err)
	}
	var before *ctl.File
	switch data, err := t.store.ReadFlash(servedCTL); {
	case err == nil:
		if before, err = ctl.Parse(data); err != nil {
			t.log.Warn("CTL file on flash damaged: it is made anew", "file", servedCTL, "error", err)
		}
	case !errors.Is(err, pki.ErrNotFound):
		return nil, fmt.Errorf("%s: %w", t.where, err)
	}
	signer, follow := t.tokens.Signer(before)
	if !follow {
		t.log.Error("no CTL token that phones know can sign: they refuse the new file until theirs is erased by hand; "+
			"import the PKCS #12 export of an old token", "file", servedCTL)
	}
	p := ctl.Params{SASTs: t.tokens.Certs(), Records: records, Signer: signer, Time: t.now()}
	if before != nil { // what says the same is the same file, also after a restart
		now := p.Time
		p.Time = before.Header.Time
		if data, err := ctl.Build(p); err == nil && bytes.Equal(data, before.Bytes()) {
			return data, nil
		}
		p.Time = now
	}
	data, err := ctl.Build(p)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.where, err)
	}
	return data, nil
}

// trusts reports whether phones with this list take cert as a TLS server's. It is for the
// time before phones are served.
func (t *trustList) trusts(cert *x509.Certificate) bool {
	if cert.Equal(t.internal.Cert) {
		return true
	}
	for _, e := range t.entries {
		if (e.Role == ctl.CCM || e.Role == ctl.CCMTFTP) && e.Cert.Equal(cert) {
			return true
		}
	}
	return t.cluster != nil && t.cluster.Trusts(cert, ctl.CCM, ctl.CCMTFTP)
}

// open returns the file to serve. It looks names up if that is due; what was
// known of them before holds while they do not resolve.
func (t *trustList) open(ctx context.Context) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wait := lookupAgain
	if t.err != nil {
		wait = lookupRetry
	}
	if now := t.now(); t.named && (t.checked.IsZero() || now.Sub(t.checked) >= wait || now.Before(t.checked)) {
		ctx, cancel := context.WithTimeout(ctx, lookupWait)
		t.err = t.resolveLocked(ctx)
		cancel()
		t.checked = now
		if t.err != nil {
			t.log.Warn("name in the CTL file does not resolve", "error", t.err, "served", len(t.served) > 0)
		}
	}
	if t.served == nil {
		return nil, t.err
	}
	if !t.kept { // from here on phones may know its tokens
		t.kept = true
		if err := t.store.WriteFlash(servedCTL, t.served); err != nil {
			t.log.Error("CTL file not kept on flash", "error", err)
		}
	}
	return t.served, nil
}

// current returns the file that open returned last, or would return.
func (t *trustList) current() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.served == nil && t.err == nil {
		return nil, errors.New("no phone has asked for it yet, and its names are not resolved")
	}
	if t.served == nil {
		return nil, t.err
	}
	return t.served, nil
}

// resolveLocked looks the names up and builds the file anew if an address is new.
func (t *trustList) resolveLocked(ctx context.Context) error {
	entries := slices.Clone(t.entries)
	for i := range entries {
		e := &entries[i]
		if e.Host == "" {
			continue
		}
		addrs, err := t.lookup(ctx, e.Host)
		if err == nil && len(addrs) == 0 {
			err = errors.New("no address")
		}
		if err != nil {
			return fmt.Errorf("appliance: %s:%d: record-entry: %s: %w", t.file, t.lines[i], e.Host, err)
		}
		// A server of many addresses stays at the one that phones know.
		if e.Addr.IsValid() && slices.Contains(addrs, e.Addr) {
			continue
		}
		e.Addr = addrs[0].Unmap()
	}
	if t.served != nil && slices.EqualFunc(entries, t.entries, func(a, b ctl.Entry) bool { return a.Addr == b.Addr }) {
		return nil
	}
	data, err := t.build(entries)
	if err != nil {
		return err
	}
	t.entries, t.served, t.kept = entries, data, false
	return nil
}

// address returns what a record-entry with a host name has resolved to.
func (t *trustList) address(host string) (netip.Addr, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.Host == host && e.Addr.IsValid() {
			return e.Addr, true
		}
	}
	return netip.Addr{}, false
}
