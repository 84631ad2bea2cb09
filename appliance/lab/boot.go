package lab

import (
	"context"
	"errors"
	"fmt"
)

// Boot fetches the phone's files as tftp-boot-sequence.md, section 2, has it:
// the CTL file (installed by trust on first use), the configuration, signed if
// there is a CTL, and the extra files. A secure phone insists on a CTL file
// that knows the TFTP server, on a signed configuration with security mode 3,
// and for SIP on transport TLS.
func (p *Phone) Boot(ctx context.Context) error {
	fail := func(err error) error { return fmt.Errorf("lab: boot of %s: %w", p.name, err) }
	if !p.config.TFTP.IsValid() {
		return fail(errors.New("no TFTP server"))
	}
	var kept error // why the trust list on the server is not installed
	if p.Secure() {
		if kept = p.fetchTrust(ctx); kept != nil && p.trust.CTL() == nil {
			return fail(kept)
		}
	}
	// A phone that refuses a CTL file keeps the one it has, and then fails at the
	// configuration. (reference/tftp-boot-sequence.md, section 3.)
	b, err := p.fetch(ctx, p.name+".cnf.xml")
	if err = errors.Join(kept, err); err != nil {
		return fail(err)
	}
	d, err := ParseDeviceConfig(b)
	if err != nil {
		return fail(err)
	}
	p.device = d
	if err := p.checkDevice(d); err != nil {
		return fail(err)
	}
	for _, name := range p.config.ExtraFiles {
		if _, err := p.fetch(ctx, name); err != nil {
			return fail(err)
		}
	}
	p.logf("booted: security mode %d, call manager %s", d.SecurityMode, d.Managers[0].Node)
	return nil
}

// fetchTrust fetches and installs the CTL file. Without one on the server the
// installed one is kept.
func (p *Phone) fetchTrust(ctx context.Context) error {
	name := "CTL" + p.name + ".tlv"
	b, err := TFTPGet(ctx, p.config.Host, p.config.TFTP, name)
	var refused *TFTPError
	switch {
	case errors.As(err, &refused) && refused.Code == tftpNotFound && p.trust.CTL() != nil:
		p.logf("no CTL file on the server, the installed one stays")
	case err != nil:
		return err
	default:
		if err := p.trust.Install(b); err != nil {
			return err
		}
		p.files[name] = b
		p.logf("CTL file of %d bytes with %d records, signed by %q",
			len(b), len(p.trust.CTL().Records), p.trust.CTL().Signer.Subject)
	}
	if p.config.AskITL {
		_, err := TFTPGet(ctx, p.config.Host, p.config.TFTP, "ITL"+p.name+".tlv")
		if !errors.As(err, &refused) || refused.Code != tftpNotFound {
			return fmt.Errorf("ITL file: %v; want error 1", err)
		}
	}
	if !p.trust.Signs() {
		return errors.New("CTL file without a TFTP server that signs")
	}
	return p.trust.CheckAddress(p.config.TFTP.Addr(), RoleTFTP, RoleCCMTFTP)
}

// fetch gets a file, signed if the phone has a CTL, and remembers its content.
func (p *Phone) fetch(ctx context.Context, name string) ([]byte, error) {
	ask := name
	if p.trust.Signs() {
		ask += ".sgn"
	}
	b, err := TFTPGet(ctx, p.config.Host, p.config.TFTP, ask)
	if err != nil {
		return nil, err
	}
	if ask != name {
		if b, err = p.trust.Open(ask, b); err != nil {
			return nil, err
		}
	}
	p.files[name] = b
	p.logf("fetched %s, %d bytes", ask, len(b))
	return b, nil
}

func (p *Phone) checkDevice(d *DeviceConfig) error {
	if len(d.Managers) == 0 || d.Managers[0].Node == "" {
		return errors.New("configuration without a call manager")
	}
	if !p.Secure() {
		return nil
	}
	switch {
	case d.SecurityMode != 3:
		return fmt.Errorf("deviceSecurityMode is %d, want 3", d.SecurityMode)
	case p.config.Protocol == SIP && d.Transport != 3:
		return fmt.Errorf("transportLayerProtocol is %d, want 3", d.Transport)
	case d.EncrConfig:
		return errors.New("encrConfig is true")
	}
	return nil
}
