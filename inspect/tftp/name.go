package tftp

import (
	"errors"
	"fmt"
	"strings"
)

// MaxName is the longest file name that is served, in bytes. (No phone asks
// for more than about 60. reference/tftp-boot-sequence.md, section 1.)
const MaxName = 255

var errName = errors.New("name refused")

// CleanName returns name as a path of plain components joined by "/", with
// backslashes turned, or an error if it could mean anything outside the root:
// an absolute path, a drive, "." or ".." or an empty component, a control
// character, or over MaxName bytes.
func CleanName(name string) (string, error) {
	if name == "" || len(name) > MaxName {
		return "", fmt.Errorf("tftp: name of %d bytes: %w", len(name), errName)
	}
	for i := range len(name) {
		if c := name[i]; c < 0x20 || c == 0x7f {
			return "", fmt.Errorf("tftp: name %q: byte %#02x: %w", name, c, errName)
		}
	}
	clean := strings.ReplaceAll(name, `\`, "/")
	for part := range strings.SplitSeq(clean, "/") {
		if part == "" || part == "." || part == ".." || strings.HasSuffix(part, ":") {
			return "", fmt.Errorf("tftp: name %q: component %q: %w", name, part, errName)
		}
	}
	if len(clean) > 1 && clean[1] == ':' { // C:file
		return "", fmt.Errorf("tftp: name %q: drive: %w", name, errName)
	}
	return clean, nil
}
