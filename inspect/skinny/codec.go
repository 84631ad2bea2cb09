package skinny

import "patchbay/inspect"

// firstDynamic is the first payload type that signaling gives a meaning.
// (RFC 3551, section 3.)
const firstDynamic = 96

// comfortNoise may stand in for any codec that is silent; no message names it.
// (RFC 3389, section 4.)
const comfortNoise = 13

// payloadTypes returns the RTP payload types that go with the codec of a
// message, and with its telephone events. A codec that has none of its own may
// have any of the dynamic ones, for no message says which; one that is unknown
// gives none. (reference/skinny.md, section 8.)
func (v view) payloadTypes() inspect.PayloadTypes {
	var p inspect.PayloadTypes
	switch codec := v.number(v.codec); {
	case codec < 2 || codec >= 299:
		return p
	case codec == 2 || codec == 3: // G.711 A-law
		p.Add(8)
	case codec == 4 || codec == 5: // G.711 µ-law
		p.Add(0)
	case 6 <= codec && codec <= 8: // G.722
		p.Add(9)
	case codec == 9: // G.723.1
		p.Add(4)
	case codec == 10: // G.728
		p.Add(15)
	case codec == 11 || codec == 12 || codec == 15 || codec == 16 || codec == 85: // G.729
		p.Add(18)
	case 18 <= codec && codec <= 20 || codec == 80: // GSM
		p.Add(3)
		p.AddRange(firstDynamic, 127)
	case codec == 25: // wideband
		p.Add(25)
	case 82 <= codec && codec <= 84: // G.726
		p.Add(2)
		p.AddRange(firstDynamic, 127)
	case codec == 100: // H.261
		p.Add(31)
	case codec == 101: // H.263
		p.Add(34)
		p.AddRange(firstDynamic, 127)
	case 105 <= codec && codec <= 108: // T.120, H.224, T.38, TOTE: no RTP of a kind we know
		return p
	default:
		p.AddRange(firstDynamic, 127)
	}
	p.Add(comfortNoise)
	if t := v.number(v.dtmf); t > 0 && t < 128 {
		p.Add(uint8(t))
	}
	return p
}
