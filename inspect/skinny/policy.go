package skinny

import (
	"fmt"

	"patchbay/inspect"
	"patchbay/nat"
)

// enforce does what the policy map says about a message.
// (reference/asa-cli-show-debug.md, section 5, messages 608002 to 608005.)
func (s *session) enforce(m Message, from nat.End) error {
	e := &s.engine
	for i := range e.Matches {
		x := &e.Matches[i]
		if found := x.From <= m.ID() && m.ID() <= x.To; found == x.Not {
			continue
		}
		if err := s.match(x, m, from); err != nil {
			return err
		}
	}
	length := uint32(len(m) - lengthFrom)
	switch id := m.ID(); {
	case length < e.MinLength:
		return s.refuse(m, from, 608002, fmt.Sprintf("SCCPPrefix length %d too small", length))
	case e.MaxLength != 0 && length > e.MaxLength:
		return s.refuse(m, from, 608003, fmt.Sprintf("SCCPPrefix length %d too large", length))
	case e.MaxID != 0 && id > e.MaxID:
		return s.refuse(m, from, 608004, fmt.Sprintf("message id 0x%x not allowed", id))
	case e.EnforceRegistration && !s.registered && needsRegistration(id, from):
		return s.refuse(m, from, 608005, fmt.Sprintf("message id 0x%x registration not complete", id))
	}
	return nil
}

// match does what x says about m, which it found.
func (s *session) match(x *Match, m Message, from nat.End) error {
	if x.Act&inspect.Log != 0 && s.engine.Log != nil {
		between := inspect.Between(s.binder, from)
		if x.Act.Ends() {
			s.engine.Log.Warn(fmt.Sprintf("%%ASA-4-608004: Dropping Skinny message for %s, message id 0x%x not allowed", between, m.ID()))
		} else { // the ASA has no message for it
			s.engine.Log.Info(fmt.Sprintf("Skinny message for %s, message id 0x%x matched", between, m.ID()))
		}
	}
	if !x.Act.Ends() {
		return nil
	}
	return x.Act.Refuse(fmt.Errorf("skinny: %s from %v: message id 0x%x not allowed", Name(m.ID()), from, m.ID()))
}

// refuse drops m, and logs it as the ASA does.
func (s *session) refuse(m Message, from nat.End, number int, what string) error {
	if s.engine.Log != nil {
		s.engine.Log.Warn(fmt.Sprintf("%%ASA-4-%d: Dropping Skinny message for %s, %s", number, inspect.Between(s.binder, from), what))
	}
	return inspect.Drop.Refuse(fmt.Errorf("skinny: %s from %v: %s", Name(m.ID()), from, what))
}

// needsRegistration reports whether a message belongs to a call: what opens
// media at the phone, and what the phone places a call with.
func needsRegistration(id uint32, from nat.End) bool {
	if from == nat.Server {
		switch id {
		case idOpenReceive, idStartTransmission, idOpenMultiReceive, idStartMultiTransmission, idPortRequest:
			return true
		}
		return false
	}
	switch id {
	case idKeypadButton, idEnblocCall, idStimulus, idOffHook, idHookFlash, idOffHookCalling, idSoftKeyEvent:
		return true
	}
	return false
}
