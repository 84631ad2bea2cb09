package phoneproxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"patchbay/appliance/media"
	"patchbay/appliance/pki"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
	"patchbay/inspect/tftp"
	"patchbay/nat"
)

const skinnyHeader = 12 // bytes, with the message ID at the end

// Retransmitted is the Text of a request for a file that is being sent already.
const Retransmitted = "request retransmitted"

// File notes what became of a request for a file that came in by iface. signer
// says who signed the CTL file that is served.
func (s *Stories) File(t tftp.Event, iface string, signer func() string, now time.Time) {
	if s == nil {
		return
	}
	f, by := parseFileName(t.Name), ""
	e := Event{Time: now, Kind: FileAsked, Device: f.device, From: t.From, Iface: iface, File: t.Name, Done: true}
	switch t.Kind {
	case tftp.Requested:
		e.Done, e.Text = false, "requested"
	case tftp.Repeated:
		e.Done, e.Text = false, Retransmitted
	case tftp.Sent:
		e.Text = fmt.Sprintf("sent, %d bytes", t.Bytes)
		if f.kind == fileCTL {
			by = signer()
			e.Text += ", signed by " + by
		}
	case tftp.Failed:
		e.Fault, e.Text = FaultPhoneSilent, fmt.Sprintf("given up after %d bytes: %v", t.Bytes, t.Err)
	default:
		e.Fault, e.Text = fileFault(t.Err), fmt.Sprintf("refused: %v", t.Err)
		if e.Fault == FaultNoAnswer {
			e.Text = fmt.Sprintf("not answered: %v", t.Err)
		}
	}
	s.Note(e)
	if f.kind == fileCTL && t.Kind == tftp.Sent {
		s.given(f.device, e.File, t.From.Addr(), by)
	}
}

func fileFault(err error) Fault {
	switch {
	case errors.Is(err, errUnsigned):
		return FaultUnsigned
	case errors.Is(err, errCTL):
		return FaultCTL
	case errors.Is(err, errConfig):
		return FaultConfig
	case errors.Is(err, tftp.ErrNoAnswer):
		return FaultNoAnswer
	case tftp.IsNotFound(err) || errors.Is(err, fs.ErrNotExist):
		return FaultNotFound
	}
	return FaultFile
}

// tlsFailed is the event of a handshake that failed.
func tlsFailed(err error) Event {
	e := Event{Kind: TLSFailed, Fault: FaultHandshake, Text: err.Error()}
	var bad *pki.VerifyError
	var alert *net.OpError
	switch {
	case errors.As(err, &bad):
		e.Text, e.Fault = bad.Detail, FaultCert
		if bad.Subject != "" {
			e.Certificate = &Certificate{Subject: bad.Subject, Issuer: bad.Issuer}
			e.Device = deviceIn(bad.Subject)
		}
		switch bad.Reason {
		case pki.ReasonNone:
			e.Fault = FaultNoCert
		case pki.ReasonIssuer, pki.ReasonSignature:
			e.Fault = FaultIssuer
		case pki.ReasonDate:
			e.Fault = FaultDate
		}
	case errors.Is(err, tlsproxy.ErrCipher):
		e.Fault = FaultCipher
	case errors.Is(err, tlsproxy.ErrBusy):
		e.Fault = FaultBusy
	case errors.As(err, &alert) && alert.Op == "remote error":
		e.Fault, e.Text = FaultAlert, "the phone refused: "+alert.Err.Error()
	}
	return e
}

// deviceIn finds the name of a phone in a certificate that nobody vouches for.
func deviceIn(subject string) string {
	for i := 0; i+deviceLen <= len(subject); i++ {
		if subject[i] != 'S' {
			continue
		}
		if d, ok := DeviceName(subject[i : i+deviceLen]); ok {
			return d
		}
	}
	return ""
}

// tlsDone is the event of a phone that is who it says.
func tlsDone(p *tlsproxy.Phone) Event {
	e := Event{Kind: TLSDone, Device: p.Device, Text: fmt.Sprintf("%s %s", p.Version(), p.Cipher())}
	if certs := p.State.PeerCertificates; len(certs) > 0 {
		e.Certificate = certificate(certs[0])
		e.Certificate.Trustpoint, e.Certificate.Expired = p.Verified.Anchor, p.Verified.Expired
	}
	return e
}

func certificate(c *x509.Certificate) *Certificate {
	return &Certificate{Subject: pki.Name(c.RawSubject), Issuer: pki.Name(c.RawIssuer)}
}

// ucmFailed is the event of a call manager that cannot be called.
func ucmFailed(ucm netip.AddrPort, err error) Event {
	e := Event{Kind: UCMFailed, Fault: FaultUCMSilent, Text: fmt.Sprintf("call manager %v: %v", ucm, err)}
	// The netstack has an error of its own for it.
	if errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection was refused") {
		e.Fault = FaultUCMRefused
	}
	return e
}

func mediaFailed(err error) Event {
	e := Event{Kind: MediaFailed, Fault: FaultMedia, Text: err.Error()}
	if errors.Is(err, media.ErrPorts) || errors.Is(err, media.ErrSessions) {
		e.Fault = FaultPorts
	}
	return e
}

// Outline says what a message of an engine is.
func Outline(service string, msg []byte) (name, call string) {
	if service == "skinny" {
		if len(msg) < skinnyHeader {
			return "no SCCP", ""
		}
		return skinny.Name(skinny.ID(msg)), ""
	}
	o, ok := sip.Outlined(msg)
	if !ok {
		return "no SIP", ""
	}
	if o.Status == 0 {
		return fit(o.Method), fit(o.CallID)
	}
	return fit(fmt.Sprintf("%d %s", o.Status, o.Method)), fit(o.CallID)
}

// registration says what a message of the call manager makes of the phone's
// registration: a Kind, or false.
func registration(service string, msg []byte, from nat.End) (k Kind, why string, ok bool) {
	if from != nat.Server {
		return 0, "", false
	}
	if service == "skinny" {
		if len(msg) < skinnyHeader {
			return 0, "", false
		}
		switch skinny.ID(msg) {
		case skinny.RegisterAck:
			return Registered, "", true
		case skinny.RegisterReject:
			return Rejected, "RegisterReject", true
		}
		return 0, "", false
	}
	o, parsed := sip.Outlined(msg)
	switch {
	case !parsed || o.Method != "REGISTER" || o.Status < 200 || o.Status == 401 || o.Status == 407:
		return 0, "", false // not the end of it: a challenge is answered
	case o.Status < 300:
		return Registered, "", true
	}
	return Rejected, fmt.Sprintf("status %d", o.Status), true
}
