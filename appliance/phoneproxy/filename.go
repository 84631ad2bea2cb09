package phoneproxy

import "strings"

// A fileKind says what a name stands for and so what is done about it.
// (reference/tftp-boot-sequence.md, section 4.)
type fileKind uint8

const (
	fileRefused  fileKind = iota // no phone outside gets it
	fileCTL                      // the CTL file
	fileITL                      // the ITL file, which there is not
	fileConfig                   // a phone's configuration
	fileDefault                  // the configuration of phones without one
	fileFirmware                 // relayed as it is, signed by Cisco
	fileOther                    // signed if asked for signed, else relayed as it is
)

// A fileName is what a requested name says.
type fileName struct {
	kind   fileKind
	base   string // the name at the UCM: as asked, without ".sgn" but of firmware
	signed bool   // asked for with ".sgn"
	device string // DeviceName's form, of a CTL file or a configuration
}

// canonical is how a UCM spells the names that phones spell in more than one
// way. (reference/tftp-boot-sequence.md, sections 1 and 2.)
var canonical = []string{
	"XMLDefault.cnf.xml", "Ringlist.xml", "DistinctiveRingList.xml", "RINGLIST.DAT",
	"dialplan.xml", "AppDialRules.xml", "OS79XX.TXT",
}

const (
	signedSuffix = ".sgn"
	configSuffix = ".cnf.xml"
)

// parseFileName says what name stands for. Case is ignored throughout: models
// differ, and the UCM ignores it too.
func parseFileName(name string) fileName {
	lower := asciiLower(name)
	f := fileName{kind: fileOther, base: name}
	last := lower[strings.LastIndexByte(lower, '/')+1:]
	if isFirmware(last) {
		f.kind = fileFirmware
		f.signed = strings.HasSuffix(last, signedSuffix)
	} else if strings.HasSuffix(lower, signedSuffix) {
		f.signed = true
		f.base = name[:len(name)-len(signedSuffix)]
		lower = lower[:len(f.base)]
		last = strings.TrimSuffix(last, signedSuffix)
	}
	switch {
	case strings.HasSuffix(last, ".enc") || strings.Contains(last, ".enc."):
		f.kind = fileRefused // encrypted configurations do not pass (reference/signed-files.md, section 4)
	case strings.HasPrefix(last, "ctl") && strings.HasSuffix(last, ".tlv"):
		f.kind = fileRefused
		device, ok := DeviceName(f.base[min(3, len(f.base)):max(3, len(f.base)-len(".tlv"))])
		if last == lower && !f.signed && (ok || last == "ctlfile.tlv") {
			f.kind, f.device = fileCTL, device
		}
	case strings.HasPrefix(last, "itl") && strings.HasSuffix(last, ".tlv"):
		f.kind = fileITL
	case lower == "xmldefault"+configSuffix:
		f.kind = fileDefault
	case strings.Contains(last, configSuffix) || isDeviceFile(last):
		// A configuration under any name but its own would leave unchanged.
		f.kind = fileRefused
		if device, ok := DeviceName(f.base[:min(deviceLen, len(f.base))]); ok && lower[deviceLen:] == configSuffix {
			f.kind, f.device = fileConfig, device
		}
	}
	return f
}

// asciiLower returns s with ASCII letters in lower case and every other byte as
// it is, so that offsets stay true.
func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// isFirmware reports whether a file in lower case is a load or a part of one,
// which Cisco has signed: foo.loads, foo.sbn, foo.bin3.sgn.
// (reference/signed-files.md, sections 2 and 3.)
func isFirmware(last string) bool {
	last = strings.TrimSuffix(last, signedSuffix)
	ext := last[strings.LastIndexByte(last, '.')+1:]
	switch ext {
	case "loads", "sbn", "sb2", "zz":
		return len(ext) < len(last)
	}
	digits, ok := strings.CutPrefix(ext, "bin")
	return ok && len(ext) < len(last) && strings.Trim(digits, "0123456789") == ""
}

// isDeviceFile reports whether a file in lower case carries the name of one
// device: SEP and a MAC, or the text file of a phone that cannot be secure,
// with its password. (reference/tftp-boot-sequence.md, section 2.)
func isDeviceFile(last string) bool {
	if len(last) >= deviceLen {
		if _, ok := DeviceName(last[:deviceLen]); ok {
			return true
		}
	}
	return strings.HasPrefix(last, "sip") && strings.HasSuffix(last, ".cnf")
}

// spellings returns the names to ask the UCM for: as the phone spelled it, and
// as the UCM does.
func (f fileName) spellings() []string {
	other := f.base
	if f.kind == fileConfig {
		other = f.device + configSuffix
	}
	for _, c := range canonical {
		if strings.EqualFold(c, f.base) {
			other = c
		}
	}
	if other == f.base {
		return []string{f.base}
	}
	return []string{f.base, other}
}
