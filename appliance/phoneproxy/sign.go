package phoneproxy

import (
	"fmt"
	"time"

	"patchbay/appliance/ctl"
	"patchbay/appliance/pki"
)

// Sign appends to dst what a phone gets for name, a request that ends in ".sgn":
// payload behind a header signed by id. The phone refuses a header that holds
// another name than it asked for. digest is SHA-1 if zero.
// (reference/signed-files.md, section 1.)
func Sign(dst []byte, name string, payload []byte, id *pki.Identity, now time.Time, digest ctl.Digest) ([]byte, error) {
	dst, err := ctl.AppendSigned(dst, name, payload, id, now, digest)
	if err != nil {
		return nil, fmt.Errorf("phoneproxy: %w", err)
	}
	return dst, nil
}

// VerifySigned returns the payload of file if a phone that asked for name and
// holds the CTL file list would take it. The payload is a slice of file.
func VerifySigned(file []byte, name string, list *ctl.File) ([]byte, error) {
	s, err := ctl.ParseSigned(file)
	if err != nil {
		return nil, fmt.Errorf("phoneproxy: %w", err)
	}
	if s.Header.FileName != name {
		return nil, fmt.Errorf("phoneproxy: verifying %q: header is of %q", name, s.Header.FileName)
	}
	if err := s.VerifyBy(list); err != nil {
		return nil, fmt.Errorf("phoneproxy: %w", err)
	}
	return s.Payload, nil
}
