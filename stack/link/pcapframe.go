package link

import "encoding/binary"

// Link types of captures. (draft-ietf-opsawg-pcaplinktype.)
const (
	linkNull     = 0 // BSD loopback, family in the byte order of its host
	linkEthernet = 1
	linkRawBSD   = 12 // raw IP as some systems number it
	linkRawOpen  = 14
	linkRaw      = 101
	linkLoop     = 108 // OpenBSD loopback, family in network order
	linkCooked   = 113 // Linux cooked, version 1
	linkIPv4     = 228
	linkIPv6     = 229
	linkCooked2  = 276
)

// EtherTypes. (IEEE 802 numbers of IANA; RFC 2516, section 4.)
const (
	etherIPv4    = 0x0800
	etherVLAN    = 0x8100
	etherIPv6    = 0x86dd
	etherPPPoE   = 0x8864 // session stage
	etherService = 0x88a8 // 802.1ad
	etherQinQ    = 0x9100 // its forerunner

	pppoeHeader = 6 // bytes, then the PPP protocol
	pppIPv4     = 0x0021
	pppIPv6     = 0x0057

	maxTags = 8 // VLAN tags looked through
)

// cookedOutgoing is the packet type of what the capturing host sent.
const cookedOutgoing = 4

func knownLinkType(t uint16) bool {
	switch t {
	case linkNull, linkEthernet, linkRawBSD, linkRawOpen, linkRaw, linkLoop, linkCooked, linkIPv4, linkIPv6, linkCooked2:
		return true
	}
	return false
}

// network returns the IP packet in the frame b of info.LinkType, to the end of
// the frame, and notes what the link header says; nil if there is none.
func network(b []byte, info *Info) []byte {
	switch info.LinkType {
	case linkEthernet:
		if len(b) < 14 {
			return nil
		}
		return inner(binary.BigEndian.Uint16(b[12:]), b[14:], info)
	case linkCooked:
		if len(b) < 16 {
			return nil
		}
		info.Outgoing = binary.BigEndian.Uint16(b) == cookedOutgoing
		return inner(binary.BigEndian.Uint16(b[14:]), b[16:], info)
	case linkCooked2:
		if len(b) < 20 {
			return nil
		}
		info.Outgoing = b[10] == cookedOutgoing
		return inner(binary.BigEndian.Uint16(b), b[20:], info)
	case linkNull, linkLoop:
		if len(b) < 4 {
			return nil
		}
		family := binary.LittleEndian.Uint32(b)
		if family > 0xffff {
			family = binary.BigEndian.Uint32(b)
		}
		switch family {
		case 2, 10, 24, 28, 30: // AF_INET; AF_INET6 of Linux and the BSDs
			return version(b[4:])
		}
		return nil
	}
	return version(b)
}

// version returns b if it begins like an IP packet.
func version(b []byte) []byte {
	if len(b) > 0 && (b[0]>>4 == 4 || b[0]>>4 == 6) {
		return b
	}
	return nil
}

// inner returns the IP packet in b, which an EtherType announces.
func inner(typ uint16, b []byte, info *Info) []byte {
	for tag := range maxTags {
		switch typ {
		case etherIPv4, etherIPv6:
			if len(b) == 0 {
				return nil
			}
			return b
		case etherVLAN, etherService, etherQinQ:
			if len(b) < 4 {
				return nil
			}
			if tag == 0 {
				info.VLAN = binary.BigEndian.Uint16(b) & 0x0fff
			}
			typ, b = binary.BigEndian.Uint16(b[2:]), b[4:]
		case etherPPPoE:
			if len(b) < pppoeHeader+2 {
				return nil
			}
			proto := binary.BigEndian.Uint16(b[pppoeHeader:])
			if proto != pppIPv4 && proto != pppIPv6 {
				return nil
			}
			return version(b[pppoeHeader+2:])
		default:
			return nil
		}
	}
	return nil
}
