package appliance

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"patchbay/appliance/media"
	"patchbay/appliance/phoneproxy"
	"patchbay/stack"
	"patchbay/stack/link"
)

// files judges the phone's requests for files.
func (d *diagnosis) files() {
	if d.tale.registered() != nil {
		d.ok("files", "it is registered, so it has them")
		return
	}
	e := d.lastFile()
	if e == nil {
		d.unknown("files", "it has asked for none")
		return
	}
	text := fmt.Sprintf("%s %s: %s", at(e.Time), e.File, e.Text)
	if e.Count > 1 {
		text += fmt.Sprintf(" (%d times)", e.Count)
	}
	switch e.Fault {
	case phoneproxy.FaultUnsigned:
		d.fault("files", "the phone holds no CTL file", text,
			"It asks for its configuration unsigned, as a phone without one does. Restart it, so that it asks for CTLSEP<MAC>.tlv first; its status messages say why it does not install that.")
	case phoneproxy.FaultNoAnswer:
		d.fault("files", "the TFTP server does not answer", text,
			"Check that the Cisco TFTP service runs there, and its route back to the box's address inside, from which the box asks.")
	case phoneproxy.FaultCTL:
		d.fault("files", "the box has no CTL file to give", text, "Look at \"show ctl-file\": the names in its record-entry lines must resolve.")
	case phoneproxy.FaultConfig:
		d.fault("files", "the phone's configuration file cannot be read", text, "Look at it on the TFTP server; switch off the encryption of configuration files in its profile.")
	case phoneproxy.FaultPhoneSilent:
		d.fault("files", "the phone does not answer what it asked for", text,
			"A router in front of it drops what comes from another port than 69: forward UDP 69 and 1024-65535 to the phone, or set \"tftp single-port\".")
	case phoneproxy.FaultNotFound:
		if e.Device != "" {
			d.fault("files", "the TFTP server has no configuration for the phone", text, "Check that the phone is configured in the call manager under this name.")
			return
		}
		d.ok("files", "%s, which is usual", text)
	case phoneproxy.FaultFile:
		d.fault("files", "the phone is refused a file", text, "\"debug phone-proxy tftp\" shows the requests.")
	default:
		if !e.Done {
			d.unknown("files", "%s, not answered yet", text)
			return
		}
		d.ok("files", "%s", text)
	}
}

// lastFile returns the last request that tells: of the CTL file or the
// configuration, or any that failed otherwise.
func (d *diagnosis) lastFile() *phoneproxy.Event {
	for k := len(d.tale.Events) - 1; k >= 0; k-- {
		e := &d.tale.Events[k]
		if e.Kind == phoneproxy.FileAsked && (e.Device != "" || e.Fault != phoneproxy.NoFault && e.Fault != phoneproxy.FaultNotFound) {
			return e
		}
	}
	return nil
}

const eraseCTL = "Erase the phone's CTL file (Settings > Security, unlocked by **#, or a factory reset), so that it takes this box's. If the box was replaced, import the old one's _internal_PP_* and SAST keys instead: then every phone takes its files as they are."

// tls judges the phone's handshakes.
func (d *diagnosis) tls() {
	if s := d.tale.registered(); s != nil {
		d.ok("TLS", "%s %s, subject %s", s.Version, s.Cipher, s.Certificate.Subject)
		return
	}
	e := d.latest(phoneproxy.TLSDone, phoneproxy.TLSFailed)
	if boots, last := d.booted(); boots > 0 && (e == nil || e.Time.Before(last)) {
		// It has all its files, and does not come.
		switch text := fmt.Sprintf("since its configuration at %s it has not tried", at(last)); {
		case boots > 1:
			d.fault("TLS", "the phone holds another signer's CTL file", fmt.Sprintf("%s; it has fetched it %d times", text, boots),
				eraseCTL+" If its trust list is right, something between it and the box drops its TLS.")
		case d.opt.Now().Sub(last) > bootTime:
			d.fault("TLS", "the phone does not trust its files, or its TLS does not reach the box", text,
				eraseCTL+" If its trust list is right, something between it and the box drops its TLS.")
		default:
			d.unknown("TLS", "%s; it may still be starting", text)
		}
		return
	}
	if e == nil {
		d.unknown("TLS", "it has not tried")
		return
	}
	text := fmt.Sprintf("%s %s", at(e.Time), e.Text)
	issuer := "its issuer"
	if c := e.Certificate; c != nil {
		text += fmt.Sprintf("; subject %s, issuer %s", c.Subject, c.Issuer)
		issuer = c.Issuer
	}
	switch e.Fault {
	case phoneproxy.NoFault:
		d.ok("TLS", "%s", text)
	case phoneproxy.FaultIssuer:
		d.fault("TLS", "no trustpoint vouches for the phone's certificate", text,
			fmt.Sprintf("If it is a phone of yours, import the certificate of %s: \"crypto ca trustpoint NAME\", \"crypto ca authenticate NAME\", or \"patchbay ca import\". Otherwise it is a stranger, and rightly kept out.", issuer))
	case phoneproxy.FaultDate:
		d.fault("TLS", "the phone's certificate has expired", text,
			"Set \"phone-certificate expired permit\" in the phone-proxy, or give the phone a new LSC. If it has not expired, set the box's clock.")
	case phoneproxy.FaultNoCert:
		d.fault("TLS", "the phone has no certificate", text, "Give it an LSC: 7940 and 7960 have no MIC. Register it inside with CAPF first.")
	case phoneproxy.FaultCert:
		d.fault("TLS", "the phone's certificate is not accepted", text, "Give the phone a new LSC.")
	case phoneproxy.FaultCipher:
		d.fault("TLS", "the phone and the box share no cipher suite", text, "Add what the phone has to \"ssl encryption\": aes128-sha1 for the 7900 series.")
	case phoneproxy.FaultAlert:
		d.fault("TLS", "the phone holds another signer's CTL file", text, eraseCTL)
	case phoneproxy.FaultBusy:
		d.fault("TLS", "too many handshakes", text, "The phone tries again by itself; if it goes on, look who else connects: \"show conn\".")
	default:
		d.fault("TLS", "the TLS handshake breaks off", text, "\"debug tls-proxy\" shows the next; a phone that does not trust the box may just hang up: compare its trust list with \"show ctl-file\".")
	}
}

// booted returns how often the phone has received its configuration since its
// last TLS, and when last.
func (d *diagnosis) booted() (n int, last time.Time) {
	for k := range d.tale.Events {
		e := &d.tale.Events[k]
		switch {
		case e.Kind == phoneproxy.TLSDone || e.Kind == phoneproxy.TLSFailed:
			n = 0
		case e.Kind == phoneproxy.FileAsked && e.Done && e.Fault == phoneproxy.NoFault && e.Device != "" &&
			strings.HasSuffix(strings.ToLower(e.File), ".cnf.xml.sgn"):
			n, last = n+e.Count, e.Time
		}
	}
	return n, last
}

// addresses looks whether somebody else uses the addresses of the box: media
// termination first, for nothing else tells of that.
func (d *diagnosis) addresses() {
	asked := false
	for _, m := range d.plan.mtas {
		if m.on == nil {
			continue
		}
		l, ok := link.Unwrap(m.on.Link).(interface {
			Probe(netip.Addr) error
			Conflicts() []link.Conflict
		})
		if !ok {
			continue
		}
		asked = true
		if err := l.Probe(m.addr); err != nil {
			continue
		}
		if c := d.await(l.Conflicts, m); c != nil {
			d.fault("media address", "another host uses the media termination address",
				fmt.Sprintf("%v on %s is used by the station %s", m.addr, m.on, macText(c.MAC)),
				fmt.Sprintf("Give the media-termination an address that no host has, or take %v from that host.", m.addr))
			return
		}
	}
	if asked {
		d.ok("media address", "nobody else answers for it")
	} else {
		d.unknown("media address", "these links have no ARP, by which another host with it would show")
	}
}

// await waits a moment for somebody to say that the address of m is his.
func (d *diagnosis) await(conflicts func() []link.Conflict, m mta) *link.Conflict {
	for end := time.Now().Add(probeWait); ; time.Sleep(probeWait / 25) {
		for _, c := range conflicts() {
			if c.Addr == m.addr && c.Age < time.Hour {
				return &c
			}
		}
		if time.Now().After(end) {
			return nil
		}
	}
}

// media judges what the streams of the phone's calls carry: of those that are
// open, or of the last one.
func (d *diagnosis) media() {
	if e := d.tale.Latest(phoneproxy.MediaFailed, phoneproxy.MediaOpened); e != nil && e.Kind == phoneproxy.MediaFailed {
		text := fmt.Sprintf("%s %s", at(e.Time), e.Text)
		if e.Fault == phoneproxy.FaultPorts {
			d.fault("media", "no media port is left", text, "Widen \"rtp-min-port\" and \"rtp-max-port\" of the media-termination.")
		} else {
			d.fault("media", "the phone's media is refused", text, "Check that the phone's profile is encrypted and the cluster nonsecure.")
		}
		return
	}
	streams, open := d.tale.Media, true
	if len(streams) == 0 {
		open = false
		if e := d.tale.Latest(phoneproxy.MediaClosed); e != nil && e.Stream != nil {
			streams = []phoneproxy.StreamReport{*e.Stream}
		}
	}
	if len(streams) == 0 {
		d.unknown("media", "no call to judge by")
		return
	}
	for k := range streams {
		d.stream(&streams[k], open)
	}
}

// stream judges one stream. (reference/asa-rules.md, 6.13.)
func (d *diagnosis) stream(m *phoneproxy.StreamReport, open bool) {
	text := fmt.Sprintf("call %s: from the phone %d packets, from the call manager's side %d", m.Call, m.Phone.Packets, m.UCM.Packets)
	if open && d.opt.Now().Sub(m.Opened) < oneWayTime {
		d.unknown("media", "%s; it has just begun", text)
		return
	}
	none := func(l, other media.LegStats) bool { return l.Packets == 0 && other.Packets >= oneWayLeast }
	switch {
	case none(m.Phone, m.UCM) && m.Phone.AuthFailed > 0:
		d.fault("media", "media is one way: the phone's does not authenticate", fmt.Sprintf("%s; %d failed authentication", text, m.Phone.AuthFailed),
			"The phone encrypts with another key than signaling says. Restart the call; if it goes on, capture signaling and report it.")
	case none(m.Phone, m.UCM):
		d.fault("media", "media is one way: nothing comes from the phone", text+d.tried(m),
			fmt.Sprintf("The phone, or a router or firewall before it, does not send to %s: check its route to the media termination address and that UDP to it is permitted on the way.", slashed(m.Phone.Local)))
	case none(m.UCM, m.Phone) && m.UCM.WrongSource > 0:
		d.fault("media", "media is one way: the far end sends from an address that it did not signal", fmt.Sprintf("%s; %d came from others", text, m.UCM.WrongSource),
			"Check for NAT between the far end and the box.")
	case none(m.UCM, m.Phone):
		d.fault("media", "media is one way: nothing comes from the far end", text,
			fmt.Sprintf("The far end, or what is before it, does not send to %s: check its route to the media termination address inside.", slashed(m.UCM.Local)))
	default:
		d.ok("media", "%s", text)
	}
}

// tried says what the box would do with a packet of the stream from the phone.
func (d *diagnosis) tried(m *phoneproxy.StreamReport) string {
	t := d.foresee(stack.Flow{Proto: stack.UDP, Src: netip.AddrPortFrom(d.addr, samplePort), Dst: m.Phone.Local})
	switch {
	case t.hole != nil || t.conn != nil:
		return "; the box would take it"
	case t.verdict != stack.Forward:
		return fmt.Sprintf("; the box would drop it: %s", t.verdict.Text())
	}
	return ""
}
