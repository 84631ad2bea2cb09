package ctl_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"patchbay/appliance/ctl"
	"patchbay/appliance/pki"
)

// A CTL file for one call manager at 203.0.113.10, and a configuration file that
// a phone with it accepts.
func Example() {
	dir, err := os.MkdirTemp("", "flash")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := pki.Open(dir, pki.Options{})
	if err != nil {
		log.Fatal(err)
	}
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	ucm, err := store.Enroll(pki.EnrollRequest{Name: "ucm", Subject: "CN=ucm,O=Example", Bits: 1024, Now: now})
	if err != nil {
		log.Fatal(err)
	}
	tokens, err := ctl.Tokens(store, "myctl", 1, "example.com", now)
	if err != nil {
		log.Fatal(err)
	}
	records, err := ctl.Assemble([]ctl.Entry{
		{Role: ctl.CCMTFTP, Cert: ucm.Cert, Addr: netip.MustParseAddr("203.0.113.10"), Domain: "example.com"},
	}, nil, tokens.Internal)
	if err != nil {
		log.Fatal(err)
	}
	signer, _ := tokens.Signer(nil)
	data, err := ctl.Build(ctl.Params{SASTs: tokens.Certs(), Records: records, Signer: signer, Time: now})
	if err != nil {
		log.Fatal(err)
	}

	file, err := ctl.Parse(data)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range file.Records {
		fmt.Println(r.Role, r.SubjectName, r.IP)
	}
	sgn, err := ctl.BuildSigned("SEP001122334455.cnf.xml.sgn", []byte("<device/>"), tokens.Internal, now, ctl.SHA1)
	if err != nil {
		log.Fatal(err)
	}
	signed, err := ctl.ParseSigned(sgn)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(signed.Header.FileName, file.Verify(), signed.VerifyBy(file))
	// Output:
	// System Administrator Security Token CN=_internal_PP_myctl_SAST_0 invalid IP
	// CCM+TFTP CN=_internal_PP_myctl 203.0.113.10
	// CCM+TFTP CN=ucm;O=Example 203.0.113.10
	// SEP001122334455.cnf.xml.sgn <nil> <nil>
}
