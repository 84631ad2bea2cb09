package lab

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A sccpDevice is a phone that has connected to port 2000.
type sccpDevice struct {
	m       *CallManager
	session *session
	version byte         // agreed on; 0 before RegisterAck
	reg     Registration // Device is "" before Register
	leg     *sccpLeg
	digits  string // dialed so far, in a call not yet made
}

// A sccpLeg is one phone's end of a call. Each has a call reference of its
// own, which is the conference id as well, as UCM has it.
type sccpLeg struct {
	dev      *sccpDevice
	ref      uint32
	pass     uint32         // 0: no media
	receives netip.AddrPort // from OpenReceiveChannelAck
	sending  bool
	far      *sccpLeg
	ringing  bool
	talking  bool
	held     bool // by this phone
}

// serveSCCP reads one connection until it ends.
func (m *CallManager) serveSCCP(s *session) {
	d := &sccpDevice{m: m, session: s}
	b := bufio.NewReader(s.conn)
	if first, err := b.Peek(1); err == nil && looksSecret(first[0]) {
		m.mu.Lock()
		m.violateLocked("SCCP from %v begins with byte 0x%02x", s.remote(), first[0])
		m.mu.Unlock()
		return
	}
	for {
		s.conn.SetReadDeadline(time.Now().Add(4 * m.config.KeepAlive))
		msg, err := readSCCP(b)
		if err != nil {
			m.config.Log("ucm: sccp %v: %v", s.remote(), err)
			break
		}
		m.mu.Lock()
		err = d.handle(msg)
		m.mu.Unlock()
		if err != nil {
			m.config.Log("ucm: sccp %v: %v", s.remote(), err)
			break
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if d.leg != nil {
		d.leg.end()
	}
	if m.devices[d.reg.Number] == d {
		delete(m.devices, d.reg.Number)
		delete(m.registered, d.reg.Device)
	}
}

func (d *sccpDevice) send(id uint32, data fields) {
	d.session.send(sccpMessage{version: headerVersion(d.version), id: id, data: data}.bytes())
}

// sendEarly sends with header version 0, as before and during registration.
func (d *sccpDevice) sendEarly(id uint32, data fields) {
	d.session.send(sccpMessage{id: id, data: data}.bytes())
}

func (d *sccpDevice) handle(m sccpMessage) error {
	f := m.data
	if m.id == msgRegister {
		return d.register(f)
	}
	if m.id == msgAlarm {
		return nil
	}
	if m.id == msgKeepAlive {
		d.sendEarly(msgKeepAliveAck, nil)
		if r := d.m.registered[d.reg.Device]; r != nil {
			r.At = d.m.config.Now()
			r.Renewed++
		}
		return nil
	}
	if d.version == 0 {
		return fmt.Errorf("message 0x%04x before Register", m.id)
	}
	switch m.id {
	case msgCapabilitiesRes:
		if f.u32(0) == 0 || f.u32(4) != codecPCMU {
			d.m.violateLocked("%s: capabilities %d, first codec %d", d.reg.Device, f.u32(0), f.u32(4))
		}
	case msgButtonTemplateReq:
		f := make(fields, 12+42*2)
		f.put(4, 1)
		f.put(8, 1)
		f[12], f[13] = mainLine, 9 // a line button
		d.send(msgButtonTemplate, f)
	case msgSoftKeyTemplateReq:
		d.send(msgSoftKeyTemplate, softKeyTemplate())
	case msgSoftKeySetReq:
		f := make(fields, 12+16*48)
		f.put(4, 1)
		f.put(8, 1)
		d.send(msgSoftKeySet, f)
	case msgLineStatReq:
		d.lineStat(f.u32(0))
	case msgTimeDateReq:
		t := d.m.config.Now().UTC()
		d.send(msgDefineTimeDate, words(uint32(t.Year()), uint32(t.Month()), uint32(t.Weekday()),
			uint32(t.Day()), uint32(t.Hour()), uint32(t.Minute()), uint32(t.Second()), 0, uint32(t.Unix())))
	case msgUnregister:
		d.sendEarly(msgUnregisterAck, words(0))
		return errors.New("unregistered")
	case msgOffHook:
		d.offHook()
	case msgOnHook:
		if d.leg != nil {
			d.leg.end()
		}
	case msgKeypadButton:
		d.keypad(f.u32(0))
	case msgSoftKeyEvent:
		d.softKey(f.u32(0), f.u32(8))
	case msgOpenReceiveAck:
		return d.openReceiveAck(f)
	case msgStartMediaAck:
		return d.startMediaAck(f)
	case msgConnectionStatRes:
		n := numberLen(d.version)
		d.m.statistics = append(d.m.statistics, fmt.Sprintf("%s sent=%d received=%d lost=%d",
			d.reg.Device, f.u32(n+8), f.u32(n+16), f.u32(n+24)))
	}
	return nil
}

// register answers Register. (reference/skinny.md, section 5.)
func (d *sccpDevice) register(f fields) error {
	if len(f) < 44 {
		return fmt.Errorf("Register of %d bytes", len(f))
	}
	name := f.text(0, 16)
	refuse := func(why string) error {
		text := make(fields, 33)
		copy(text, why)
		d.sendEarly(msgRegisterReject, text)
		return fmt.Errorf("register of %q: %s", name, why)
	}
	line := d.m.line(name, SCCP)
	if line == nil {
		return refuse("Device is unknown")
	}
	station := netip.AddrPortFrom(f.addr4(24), 0)
	if station.Addr() != d.session.remote().Addr() {
		d.m.violateLocked("%s: Register says %v, connection is from %v", name, station.Addr(), d.session.remote())
		if d.m.config.RefuseUnreachable {
			return refuse("Address is unreachable")
		}
	}
	d.version = min(f[40], d.m.config.MaxVersion)
	d.reg = Registration{
		Device: name, Number: line.Number, Protocol: SCCP,
		Source: d.session.remote(), Local: d.session.local(), Station: station,
		Version: d.version, Offered: f[40], Load: f.text(92, 32), At: d.m.config.Now(),
	}
	if old := d.m.devices[line.Number]; old != nil {
		if old.leg != nil {
			old.leg.end()
		}
		old.session.close()
	}
	d.m.devices[line.Number] = d
	r := d.reg
	d.m.registered[name] = &r

	ack := make(fields, 20)
	ack.put(0, uint32(d.m.config.KeepAlive/time.Second))
	copy(ack[4:], "D/M/Y")
	ack.put(12, uint32(2*d.m.config.KeepAlive/time.Second))
	ack[16] = d.version
	copy(ack[17:], f[41:44])
	d.sendEarly(msgRegisterAck, ack)
	d.sendEarly(msgCapabilitiesReq, nil)
	d.m.config.Log("ucm: %s registered by SCCP %d from %v", name, d.version, d.reg.Source)
	return nil
}

// softKeyTemplate names the soft keys by number: label 16 bytes, event.
func softKeyTemplate() fields {
	labels := []string{"Redial", "NewCall", "Hold", "Trnsfer", "CFwdAll", "CFwdBusy",
		"CFwdNoAnswer", "<<", "EndCall", "Resume", "Answer"}
	f := make(fields, 12+32*20)
	f.put(4, uint32(len(labels)))
	f.put(8, uint32(len(labels)))
	for i, l := range labels {
		copy(f[12+20*i:12+20*i+16], l)
		f.put(12+20*i+16, uint32(i+1))
	}
	return f
}

func (d *sccpDevice) lineStat(line uint32) {
	if d.version >= firstDynamicVersion {
		f := words(line, 0)
		for _, s := range []string{d.reg.Number, "Lab " + d.reg.Number, d.reg.Number} {
			f = append(append(f, s...), 0)
		}
		d.send(msgLineStatDynamic, padded(f))
		return
	}
	f := make(fields, 4+24+40)
	f.put(0, line)
	copy(f[4:28], d.reg.Number)
	copy(f[28:68], "Lab "+d.reg.Number)
	d.send(msgLineStat, f)
}

// padded fills f up to a multiple of 4.
func padded(f fields) fields {
	for len(f)%4 != 0 {
		f = append(f, 0)
	}
	return f
}

// state sends CallState.
func (l *sccpLeg) state(state uint32) {
	l.dev.send(msgCallState, words(state, mainLine, l.ref, 0, 4, 0))
}

func (l *sccpLeg) tone(tone uint32) {
	l.dev.send(msgStartTone, words(tone, 0, mainLine, l.ref))
}

func (l *sccpLeg) stopTone() {
	f := words(mainLine, l.ref)
	if l.dev.version >= 11 {
		f = words(mainLine, l.ref, 0)
	}
	l.dev.send(msgStopTone, f)
}

// info sends CallInfo, or CallInfoDynamic. callType 1 is to the phone, 2 from
// it. security is 0 while it rings and 1, not authenticated, once connected.
// (reference/skinny.md, section 6.)
func (l *sccpLeg) info(calling, called string, callType, security uint32) {
	if l.dev.version >= firstDynamicVersion {
		f := words(mainLine, l.ref, callType, 0, 0, 1, security, 0)
		for _, s := range []string{calling, "", called, "", called, "", "", "",
			"Lab " + calling, "Lab " + called, "Lab " + called, "", "", ""} {
			f = append(append(f, s...), 0)
		}
		l.dev.send(msgCallInfoDynamic, padded(f))
		return
	}
	f := make(fields, 384)
	copy(f[0:40], "Lab "+calling)
	copy(f[40:64], calling)
	copy(f[64:104], "Lab "+called)
	copy(f[104:128], called)
	f.put(128, mainLine)
	f.put(132, l.ref)
	f.put(136, callType)
	f.put(372, 1)
	f.put(376, security)
	l.dev.send(msgCallInfo, f)
}

// offHook answers a call that rings, or begins one.
func (d *sccpDevice) offHook() {
	switch {
	case d.leg == nil:
		d.leg = d.m.newLegLocked(d)
		d.digits = ""
		d.leg.state(sccpOffHook)
		d.leg.tone(toneInsideDial)
	case d.leg.ringing:
		d.leg.answer()
	}
}

func (m *CallManager) newLegLocked(d *sccpDevice) *sccpLeg {
	m.nextRef++
	return &sccpLeg{dev: d, ref: m.nextRef}
}

// keypad collects digits until they are a number, or can become none.
func (d *sccpDevice) keypad(button uint32) {
	l := d.leg
	if l == nil || l.far != nil || button > 15 {
		return
	}
	if d.digits == "" {
		l.stopTone()
	}
	d.digits += string("0123456789....*#"[button])
	possible := false
	for _, line := range d.m.config.Lines {
		if line.Number == d.digits {
			l.call(d.digits)
			return
		}
		possible = possible || strings.HasPrefix(line.Number, d.digits)
	}
	if !possible {
		l.tone(toneReorder)
	}
}

// call rings the phone that has number.
func (l *sccpLeg) call(number string) {
	d := l.dev
	to := d.m.devices[number]
	l.state(sccpProceed)
	switch {
	case to == nil:
		l.tone(toneReorder)
		return
	case to.leg != nil:
		l.state(sccpBusy)
		l.tone(toneLineBusy)
		return
	}
	far := d.m.newLegLocked(to)
	to.leg = far
	l.far, far.far = far, l
	far.ringing = true
	l.info(d.reg.Number, number, 2, 0)
	l.state(sccpRingOut)
	l.tone(toneAlerting)
	far.state(sccpRingIn)
	far.info(d.reg.Number, number, 1, 0)
	to.send(msgSetRinger, words(2, 1, mainLine, far.ref)) // inside ring
}

// answer joins the two legs.
func (l *sccpLeg) answer() {
	if !l.ringing || l.far == nil {
		return
	}
	l.ringing = false
	l.dev.m.calls++
	l.dev.send(msgSetRinger, words(1, 1, mainLine, l.ref)) // off
	l.far.stopTone()
	l.state(sccpOffHook)
	for _, x := range []*sccpLeg{l, l.far} {
		x.talking = true
		x.state(sccpConnected)
	}
	l.far.info(l.far.dev.reg.Number, l.dev.reg.Number, 2, 1)
	l.info(l.far.dev.reg.Number, l.dev.reg.Number, 1, 1)
	l.openMedia()
	l.far.openMedia()
}

// openMedia asks the phone for a receive channel. The answer starts the far
// end's transmission.
func (l *sccpLeg) openMedia() {
	m := l.dev.m
	m.nextPass++
	l.pass = m.nextPass
	l.receives = netip.AddrPort{}
	c := channel{
		conf: l.ref, pass: l.pass, ref: l.ref, codec: codecPCMU,
		addr: netip.AddrPortFrom(l.far.dev.session.remote().Addr(), initialPort),
	}
	l.dev.send(msgOpenReceive, c.openReceive(l.dev.version))
}

// closeMedia stops both directions of the phone.
func (l *sccpLeg) closeMedia() {
	if l.pass == 0 {
		return
	}
	c := channel{conf: l.ref, pass: l.pass, ref: l.ref}
	l.dev.send(msgCloseReceive, c.stopMedia(l.dev.version))
	l.dev.send(msgStopMedia, c.stopMedia(l.dev.version))
	l.pass, l.receives, l.sending = 0, netip.AddrPort{}, false
}

// openReceiveAck tells the far end where this phone receives.
func (d *sccpDevice) openReceiveAck(f fields) error {
	c, status, err := parseOpenReceiveAck(f, d.version)
	if err != nil {
		return err
	}
	l := d.leg
	if l == nil || l.pass == 0 || c.pass != l.pass {
		return nil // of a channel that is closed by now
	}
	if d.version > 5 && c.ref != l.ref {
		d.m.violateLocked("%s: OpenReceiveChannelAck for call %d, want %d", d.reg.Device, c.ref, l.ref)
	}
	if status != 0 || !c.addr.IsValid() || c.addr.Port() == 0 {
		d.m.violateLocked("%s: OpenReceiveChannelAck with status %d and address %v", d.reg.Device, status, c.addr)
		l.end()
		return nil
	}
	d.m.checkMediaLocked(d.reg.Device, c.addr.Addr())
	l.receives = c.addr
	far := l.far
	if far == nil || far.pass == 0 {
		return nil
	}
	far.sending = true
	out := channel{conf: far.ref, pass: far.pass, ref: far.ref, codec: codecPCMU, addr: c.addr}
	far.dev.send(msgStartMedia, out.startMedia(far.dev.version))
	return nil
}

func (d *sccpDevice) startMediaAck(f fields) error {
	c, status, err := parseStartMediaAck(f, d.version)
	if err != nil {
		return err
	}
	if l := d.leg; l != nil && c.pass == l.pass {
		if status != 0 || c.ref != l.ref || c.conf != l.ref {
			d.m.violateLocked("%s: StartMediaTransmissionAck status %d, call %d, conference %d; want call %d",
				d.reg.Device, status, c.ref, c.conf, l.ref)
		}
		d.m.checkMediaLocked(d.reg.Device, c.addr.Addr())
	}
	return nil
}

func (d *sccpDevice) softKey(key, ref uint32) {
	l := d.leg
	if key == keyNewCall {
		d.offHook()
		return
	}
	if l == nil || ref != l.ref {
		return
	}
	switch key {
	case keyAnswer:
		l.answer()
	case keyEndCall:
		l.end()
	case keyHold:
		if l.talking && !l.held && !l.far.held {
			l.held = true
			l.closeMedia()
			l.far.closeMedia()
			l.state(sccpHold)
		}
	case keyResume:
		if l.held {
			l.held = false
			l.state(sccpConnected)
			l.openMedia()
			l.far.openMedia()
		}
	}
}

// end ends the call for both phones.
func (l *sccpLeg) end() {
	for _, x := range []*sccpLeg{l, l.far} {
		if x == nil {
			continue
		}
		x.stopTone()
		if x.ringing {
			x.dev.send(msgSetRinger, words(1, 1, mainLine, x.ref))
		}
		if x.talking {
			number := make(fields, numberLen(x.dev.version))
			copy(number, x.far.dev.reg.Number)
			x.dev.send(msgConnectionStatReq, append(number, words(x.ref, 0)...))
		}
		x.closeMedia()
		x.state(sccpOnHook)
		x.dev.leg = nil
		x.dev.digits = ""
	}
}
