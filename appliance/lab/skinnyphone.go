package lab

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"
)

// A skinnyPhone is a phone's SCCP side. (reference/skinny.md.)
type skinnyPhone struct {
	p *Phone

	version  byte // agreed on; 0 before RegisterAck
	keep     *keepAlive
	ref      uint32 // callReference of the call
	pass     uint32 // passThruPartyId of the open receive channel
	sendPass uint32 // and of the transmission
	dialed   string // digits for when the dial tone comes
}

func (s *skinnyPhone) port(m DeviceManager, secure bool) int {
	if secure {
		return m.SCCP + sccpSecurePlus
	}
	return m.SCCP
}

// send sends a message in the version agreed on.
func (s *skinnyPhone) send(id uint32, data fields) {
	m := sccpMessage{version: headerVersion(s.version), id: id, data: data}
	if s.p.session != nil {
		s.p.session.send(m.bytes())
	}
}

func (s *skinnyPhone) start() {
	s.version = 0
	s.ref, s.pass, s.sendPass = 0, 0, 0
	alarm := make(fields, 92)
	alarm.put(0, 2) // informational
	copy(alarm[4:84], fmt.Sprintf("25: Name=%s Load= Last=Initialized", s.p.name))
	alarm.putAddr4(88, s.p.config.Host.Addr())
	s.send(msgAlarm, alarm)
	s.send(msgRegister, s.register())
}

// register is Register. Protocol 11 and older end after the MAC address, newer
// after the load name. (reference/skinny.md, section 5.)
func (s *skinnyPhone) register() fields {
	c := &s.p.config
	n := 124
	switch {
	case c.Version <= 5:
		n = 52
	case c.Version <= 11:
		n = 68
	}
	f := make(fields, n)
	copy(f[0:16], s.p.name)
	f.put(20, 1)
	f.putAddr4(24, c.Host.Addr())
	f.put(28, deviceType)
	f.put(32, 1)
	f[40] = c.Version
	f[42], f[43] = 0x70, 0x85 // the features of a 7961, without ports on request
	f.put(44, 1)
	if n >= 68 {
		mac, _ := hex.DecodeString(c.MAC) // checked by NewPhone
		copy(f[52:], mac)
	}
	if n >= 124 {
		f.put(68, 6)
		copy(f[92:124], "SCCP41.9-4-2SR3-1S")
	}
	return f
}

// run reads messages until the connection ends.
func (s *skinnyPhone) run(r io.Reader) error {
	defer s.endKeepAlive()
	b := bufio.NewReader(r)
	for {
		m, err := readSCCP(b)
		if err != nil {
			return err
		}
		s.p.mu.Lock()
		err = s.handle(m)
		s.p.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *skinnyPhone) endKeepAlive() {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	if s.keep != nil {
		close(s.keep.stop)
		s.keep = nil
	}
}

// A keepAlive sends KeepAlive and ends the connection that leaves two of them
// without an answer.
type keepAlive struct {
	stop chan struct{}

	mu    sync.Mutex
	asked int
}

func (s *skinnyPhone) keepAlive(k *keepAlive, sess *session, every time.Duration) {
	defer s.p.wg.Done()
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-k.stop:
			return
		case <-sess.done:
			return
		case <-t.C:
		}
		k.mu.Lock()
		k.asked++
		silent := k.asked > 2
		k.mu.Unlock()
		if silent {
			s.p.logf("no answer to KeepAlive")
			sess.close()
			sess.conn.Close()
			return
		}
		sess.send(sccpMessage{id: msgKeepAlive}.bytes())
	}
}

// handle does what one message of the call manager asks for.
func (s *skinnyPhone) handle(m sccpMessage) error {
	d := m.data
	if v := uint32(s.version); m.version != 0 && s.version != 0 && m.version != v {
		return fmt.Errorf("message 0x%04x has header version %d, agreed was %d", m.id, m.version, v)
	}
	switch m.id {
	case msgRegisterAck, msgRegisterReject, msgCapabilitiesReq, msgButtonTemplate,
		msgSoftKeyTemplate, msgSoftKeySet, msgLineStat, msgLineStatDynamic, msgDefineTimeDate,
		msgKeepAliveAck, msgUnregisterAck, msgReset:
		return s.handleRegistration(m.id, d)
	case msgCallState:
		return s.callState(d.u32(0), d.u32(8))
	case msgCallInfo:
		if d.u32(136) == 1 { // to us
			s.p.caller = d.text(40, 24)
		}
	case msgCallInfoDynamic:
		if d.u32(8) == 1 && len(d) > 32 {
			s.p.caller = d.text(32, 64)
		}
	case msgStartTone:
		s.startTone(d.u32(0), d.u32(12))
	case msgOpenReceive:
		return s.openReceive(d)
	case msgStartMedia:
		return s.startMedia(d)
	case msgCloseReceive:
		if d.u32(4) == s.pass && s.p.media != nil {
			s.p.media.deafen()
			s.pass = 0
		}
	case msgStopMedia:
		if d.u32(4) == s.sendPass && s.p.media != nil {
			s.p.media.silence()
			s.sendPass = 0
		}
	case msgConnectionStatReq:
		s.statistics(d)
	}
	return nil
}

func (s *skinnyPhone) handleRegistration(id uint32, d fields) error {
	switch id {
	case msgRegisterAck:
		if len(d) != 20 {
			return fmt.Errorf("RegisterAck of %d bytes", len(d))
		}
		s.version = d[16]
		if s.version > s.p.config.Version || s.version < 3 {
			return fmt.Errorf("RegisterAck with version %d, we have %d", s.version, s.p.config.Version)
		}
		every := time.Duration(d.u32(0)) * time.Second
		if every <= 0 || every > time.Hour {
			return fmt.Errorf("RegisterAck with keepalive %v", every)
		}
		s.keep = &keepAlive{stop: make(chan struct{})}
		s.p.wg.Add(1)
		go s.keepAlive(s.keep, s.p.session, every)
	case msgRegisterReject:
		return fmt.Errorf("register rejected: %q", d.text(0, 33))
	case msgCapabilitiesReq:
		caps := make(fields, 4+2*16)
		caps.put(0, 2)
		caps.put(4, codecPCMU)
		caps.put(8, 40) // ms
		caps.put(20, codecRFC2833)
		caps.put(24, 0)
		s.send(msgCapabilitiesRes, caps)
		s.send(msgButtonTemplateReq, nil)
	case msgButtonTemplate:
		s.send(msgSoftKeyTemplateReq, nil)
	case msgSoftKeyTemplate:
		s.send(msgSoftKeySetReq, nil)
	case msgSoftKeySet:
		s.send(msgLineStatReq, words(mainLine))
	case msgLineStat, msgLineStatDynamic:
		at := 4
		if id == msgLineStatDynamic {
			at = 8
		}
		if got := d.text(at, 24); got != s.p.config.Line {
			s.p.complainLocked("line 1 is %q, configured %q", got, s.p.config.Line)
		}
		s.send(msgTimeDateReq, nil)
	case msgDefineTimeDate:
		if s.p.state == Unregistered {
			s.p.setLocked(Idle)
		}
	case msgKeepAliveAck:
		if s.keep != nil {
			s.keep.mu.Lock()
			s.keep.asked = 0
			s.keep.mu.Unlock()
		}
	case msgUnregisterAck:
		s.p.session.close()
		return errors.New("unregistered")
	case msgReset:
		return fmt.Errorf("reset %d by the call manager", d.u32(0))
	}
	return nil
}

// callState follows the call. (reference/skinny.md, section 6.)
func (s *skinnyPhone) callState(state, ref uint32) error {
	p := s.p
	if s.ref != 0 && ref != s.ref {
		if state != sccpOnHook {
			p.complainLocked("CallState %d for call %d during call %d", state, ref, s.ref)
		}
		return nil
	}
	switch state {
	case sccpOffHook:
		s.ref = ref
	case sccpRingOut:
		p.setLocked(Ringback)
	case sccpRingIn:
		s.ref = ref
		p.last = Report{}
		p.failure = nil
		p.setLocked(Ringing)
		if p.config.AutoAnswer {
			return s.answer()
		}
	case sccpConnected:
		p.setLocked(Connected)
	case sccpHold:
		p.setLocked(Held)
	case sccpBusy:
		p.failure = errors.New("busy")
	case sccpOnHook:
		if p.failure == nil { // who hangs up does not look at it
			p.failure = errors.New("the call was ended")
		}
		s.ref, s.pass, s.sendPass, s.dialed = 0, 0, 0, ""
		p.endMediaLocked()
		p.setLocked(Idle)
	}
	return nil
}

// startTone dials when the dial tone comes, and gives up on a busy tone.
func (s *skinnyPhone) startTone(tone, ref uint32) {
	switch tone {
	case toneInsideDial:
		s.ref = ref
		for _, d := range s.dialed {
			b := uint32(d - '0')
			switch d {
			case '*':
				b = 14
			case '#':
				b = 15
			}
			s.send(msgKeypadButton, words(b, mainLine, ref))
		}
		s.dialed = ""
	case toneReorder, toneLineBusy:
		s.p.failure = fmt.Errorf("tone 0x%02x instead of an answer", tone)
		s.send(msgSoftKeyEvent, words(keyEndCall, mainLine, ref))
	}
}

// openReceive opens the receive side and says where it is.
func (s *skinnyPhone) openReceive(d fields) error {
	c, err := parseOpenReceive(d, s.version)
	if err != nil {
		return err
	}
	if err := s.checkKey("OpenReceiveChannel", c); err != nil {
		return err
	}
	m, err := s.p.openMediaLocked()
	if err != nil {
		return err
	}
	if err := m.listen(c.key); err != nil {
		return err
	}
	s.pass = c.pass
	c.addr = m.addr
	s.send(msgOpenReceiveAck, c.openReceiveAck(s.version))
	return nil
}

// startMedia begins to send.
func (s *skinnyPhone) startMedia(d fields) error {
	c, err := parseStartMedia(d, s.version)
	if err != nil {
		return err
	}
	if err := s.checkKey("StartMediaTransmission", c); err != nil {
		return err
	}
	if !c.addr.IsValid() || c.addr.Addr().IsUnspecified() || c.addr.Port() == 0 {
		return fmt.Errorf("StartMediaTransmission to %v", c.addr)
	}
	m, err := s.p.openMediaLocked()
	if err != nil {
		return err
	}
	if err := m.send(c.addr, c.key); err != nil {
		return err
	}
	s.sendPass = c.pass
	s.p.logf("sends to %v", c.addr)
	if s.version >= firstWideAddressVersion {
		c.addr = netip.AddrPortFrom(m.addr.Addr(), m.addr.Port())
		s.send(msgStartMediaAck, c.startMediaAck(s.version))
	}
	return nil
}

// checkKey insists on a key for a secure phone and none for a plain one.
func (s *skinnyPhone) checkKey(what string, c channel) error {
	switch keyed := c.key != (mediaKey{}); {
	case c.codec != codecPCMU:
		return fmt.Errorf("%s with codec %d", what, c.codec)
	case s.p.Secure() && !keyed:
		return fmt.Errorf("%s without a key", what)
	case !s.p.Secure() && keyed:
		return fmt.Errorf("%s with a key for a plain phone", what)
	}
	return nil
}

// statistics answers ConnectionStatisticsReq with what was counted.
func (s *skinnyPhone) statistics(d fields) {
	n := numberLen(s.version)
	if len(d) < n+8 {
		s.p.complainLocked("ConnectionStatisticsReq of %d bytes", len(d))
		return
	}
	r := s.p.reportLocked()
	f := append(fields{}, d[:n+8]...)
	for _, v := range []uint32{
		uint32(r.Sent), uint32(r.Sent * frameLen), uint32(r.Received), uint32(r.Received * frameLen),
		uint32(max(0, r.Lost)), uint32(r.Jitter.Milliseconds()), 0,
	} {
		f = binary.LittleEndian.AppendUint32(f, v)
	}
	s.send(msgConnectionStatRes, f)
}

func (s *skinnyPhone) dial(number string) error {
	for _, d := range number {
		if d != '*' && d != '#' && (d < '0' || d > '9') {
			return fmt.Errorf("digit %q", d)
		}
	}
	s.dialed = number
	s.send(msgOffHook, words(mainLine, 0))
	return nil
}

func (s *skinnyPhone) key(key uint32) error {
	s.send(msgSoftKeyEvent, words(key, mainLine, s.ref))
	return nil
}

func (s *skinnyPhone) answer() error { return s.key(keyAnswer) }
func (s *skinnyPhone) hold() error   { return s.key(keyHold) }
func (s *skinnyPhone) resume() error { return s.key(keyResume) }

func (s *skinnyPhone) hangUp() error {
	if s.p.state == Ringing {
		return s.key(keyEndCall)
	}
	s.send(msgOnHook, words(mainLine, s.ref))
	return nil
}

func (s *skinnyPhone) unregister() { s.send(msgUnregister, nil) }
