package tlsproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/pki"
)

// A handshake is one in progress.
type handshake struct {
	p             *Proxy
	remote, local netip.AddrPort
	anchors       []pki.Anchor

	hello    bool // the phone's hello was read
	noCipher bool // and offered no suite of ours
	verified pki.Verified
	refused  *pki.VerifyError // why its certificate was
}

// run is the handshake from first byte to last.
func (h *handshake) run(ctx context.Context, conn net.Conn) (*Phone, error) {
	ctx, cancel := context.WithTimeout(ctx, h.p.c.HandshakeTimeout)
	defer cancel()
	h.anchors = h.p.c.Anchors()
	h.log(6, 725001, fmt.Sprintf("Starting SSL handshake with %s for TLS session", h.peers()), nil)

	cfg := h.p.base.Clone()
	cfg.ClientCAs = hint(h.anchors)
	cfg.VerifyConnection = h.verify
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return h.configFor(cfg, hello), nil }
	tc := tls.Server(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, h.fail(err, tc.ConnectionState())
	}
	if h.verified.Device == "" { // crypto/tls did not ask; it never should come to this
		return nil, h.fail(errors.New("certificate was not verified"), tc.ConnectionState())
	}
	phone := &Phone{Conn: tc, Device: h.verified.Device, Verified: h.verified, State: tc.ConnectionState()}
	h.log(7, 725012, fmt.Sprintf("Device chooses cipher : %s for the SSL session with %s", phone.Cipher(), h.peers()), nil)
	h.log(6, 725002, fmt.Sprintf("Device completed SSL handshake with %s for %s session", h.peers(), versionName(phone.State.Version)), nil,
		"phone", phone.Device, "cipher", phone.Cipher(), "trustpoint", phone.Verified.Anchor, "expired", phone.Verified.Expired)
	return phone, nil
}

// configFor narrows cfg to what this client needs: the suite that the configured
// order gives, and TLS 1.1 if it can sign with SHA-1 only.
func (h *handshake) configFor(cfg *tls.Config, hello *tls.ClientHelloInfo) *tls.Config {
	h.hello = true
	var offers []string
	for _, id := range hello.CipherSuites {
		offers = append(offers, suiteName(id))
	}
	if h.p.c.Log.Enabled(context.Background(), slog.LevelDebug) {
		h.log(7, 725008, fmt.Sprintf("SSL %s proposes the following %d cipher(s)", h.peers(), len(offers)), nil,
			"ciphers", strings.Join(offers, " "))
	}
	if slices.Contains(hello.SupportedVersions, tls.VersionTLS13) {
		return cfg // its suites are not ours to order
	}
	version := uint16(0)
	for _, v := range hello.SupportedVersions {
		version = max(version, v)
	}
	narrow := cfg.Clone()
	if version == tls.VersionTLS12 && weakSignatures(hello) &&
		slices.Contains(hello.SupportedVersions, tls.VersionTLS11) && cfg.MinVersion <= tls.VersionTLS11 {
		version = tls.VersionTLS11
		narrow.MaxVersion = version
	}
	if s, ok := choose(h.p.suites, hello, version); ok {
		narrow.CipherSuites = []uint16{s.id}
	} else {
		h.noCipher = true
	}
	return narrow
}

// verify is asked by crypto/tls once it has the phone's certificates, and before
// it knows that the phone has their key.
func (h *handshake) verify(cs tls.ConnectionState) error {
	v, err := pki.VerifyPhone(cs.PeerCertificates, h.anchors, pki.VerifyOptions{
		Now: h.p.c.Now(), AllowExpired: h.p.c.AllowExpired, MinRSABits: h.p.c.MinRSABits,
	})
	if err != nil {
		errors.As(err, &h.refused)
		return err
	}
	h.verified = v
	return nil
}

// fail logs why the handshake ended, in the ASA's messages, and returns the error
// to give to the caller. (reference/asa-cli-show-debug.md, section 5, and
// asa-rules.md, 6.9 to 6.11.)
func (h *handshake) fail(err error, cs tls.ConnectionState) error {
	if h.refused == nil && strings.Contains(err.Error(), "didn't provide a certificate") {
		// crypto/tls has no error of its own for this. Should the words
		// change, the log says less and the phone stays out all the same.
		if _, none := pki.VerifyPhone(nil, nil, pki.VerifyOptions{}); errors.As(none, &h.refused) {
			err = none
		}
	}
	session := "TLS"
	if cs.Version != 0 {
		session = versionName(cs.Version)
	}
	switch r := h.refused; {
	case r != nil && r.Reason == pki.ReasonNone:
		h.log(7, 725017, fmt.Sprintf("No certificates received during the handshake with %s for %s session", h.peers(), session), nil)
		h.log(7, 725014, "SSL lib error. Function: SSL3_GET_CLIENT_CERTIFICATE Reason: no certificate returned", nil)
	case r != nil:
		why := r.Detail
		if r.Reason == pki.ReasonIssuer {
			why = "No suitable trustpoints found to validate certificate"
		}
		h.log(3, 717009, fmt.Sprintf("Certificate validation failed. %s, serial number: %s, subject name: %s, issuer name: %s",
			why, r.Serial, r.Subject, r.Issuer), nil)
		h.log(3, 717027, fmt.Sprintf("Certificate chain failed validation. %s", r.Detail), nil)
		h.log(7, 725014, "SSL lib error. Function: SSL3_GET_CLIENT_CERTIFICATE Reason: certificate verify failed", nil)
	case h.noCipher:
		h.log(7, 725014, "SSL lib error. Function: SSL3_GET_CLIENT_HELLO Reason: no shared cipher", nil)
		err = fmt.Errorf("%w: %w", ErrCipher, err)
	default:
		h.log(7, 725014, fmt.Sprintf("SSL lib error. Function: %s Reason: %s", h.stage(), plain(err.Error())), nil)
	}
	h.log(6, 725006, fmt.Sprintf("Device failed SSL handshake with %s for %s session", h.peers(), session), err)
	return err
}

func (h *handshake) stage() string {
	if h.hello {
		return "SSL3_READ_BYTES"
	}
	return "SSL3_GET_CLIENT_HELLO"
}

// log writes one message under its ASA number; err, if any, is the reason in full.
func (h *handshake) log(level int, id int, text string, err error, attrs ...any) {
	at := slog.LevelInfo
	switch {
	case level <= 3:
		at = slog.LevelError
	case level == 4:
		at = slog.LevelWarn
	case level == 7:
		at = slog.LevelDebug
	}
	attrs = append(attrs, "from", h.remote)
	if err != nil {
		attrs = append(attrs, "reason", plain(err.Error()))
	}
	h.p.c.Log.Log(context.Background(), at, fmt.Sprintf("%%ASA-%d-%d: %s", level, id, text), attrs...)
}

// peers returns "client outside:198.51.100.7/49692 to 203.0.113.10/2443".
func (h *handshake) peers() string {
	iface := ""
	if h.p.c.Interface != nil {
		if iface = h.p.c.Interface(h.remote); iface != "" {
			iface += ":"
		}
	}
	return fmt.Sprintf("client %s%v/%d to %v/%d", iface, h.remote.Addr(), h.remote.Port(), h.local.Addr(), h.local.Port())
}

// plain makes an error's text fit for one line; certificates' names in it are so
// already, what crypto/tls quotes may not be.
func plain(s string) string {
	const limit = 512 // bytes
	if len(s) > limit {
		s = s[:limit] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}

// versionName returns the ASA's word for a version of TLS.
func versionName(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLSv1"
	case tls.VersionTLS11:
		return "TLSv1.1"
	case tls.VersionTLS12:
		return "TLSv1.2"
	case tls.VersionTLS13:
		return "TLSv1.3"
	}
	return tls.VersionName(v)
}
