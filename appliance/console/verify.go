package console

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/image/disk"
)

// verifyCommands are of what files on flash are. (The ASA's command reference:
// verify.)
var verifyCommands = []cli.Rule[command]{
	{Syntax: "verify [/md5|/sha-512|/signature] <path:flash> [<sum:word>]", Help: "Verify a file", Do: command{maxPrivilege, show(verifyFile)}},
}

// A shownSums is what a file on flash is known by, and who has signed it if it is a
// system that "boot system" could install.
type shownSums struct {
	Name    string `json:"name"`
	Bytes   int64  `json:"bytes"`
	SHA256  string `json:"sha256"`
	SHA512  string `json:"sha512"`
	MD5     string `json:"md5"`
	Version string `json:"version,omitempty"`
	Signer  string `json:"signed_by,omitempty"` // the ID of the key that the file names
	Trusted bool   `json:"trusted"`             // it is signed by a key that the box trusts
	Fault   string `json:"fault,omitempty"`     // why it is not

	only string // the one thing that is shown; "": all
	want string // the sum that was typed
}

// verifyFile reads a file to its end.
func verifyFile(s *Session, a cli.Args) (v shownSums, _ error) {
	store, name, err := s.flashFile(a)
	if err != nil {
		return v, err
	}
	f, _, err := store.OpenFlash(name)
	if err != nil {
		return v, opening(name, err)
	}
	defer f.Close()
	v.Name, v.want = name, strings.ToLower(a.Get("sum"))
	for _, only := range []string{"/md5", "/sha-512", "/signature"} {
		if a.Has(only) {
			v.only = only
		}
	}
	if v.want != "" && v.only != "/md5" && v.only != "/sha-512" {
		return v, errors.New("% A sum is compared by \"verify /md5\" and \"verify /sha-512\"")
	}
	sums := []hash.Hash{sha256.New(), sha512.New(), md5.New()}
	all := &counter{r: f, ctx: s.t.running, to: io.MultiWriter(sums[0], sums[1], sums[2])}
	bundle, fault := disk.ReadBundle(all, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if _, err := io.Copy(io.Discard, all); err != nil {
		if s.t.running.Err() != nil {
			return v, context.Cause(s.t.running)
		}
		return v, opening(name, err)
	}
	v.Bytes = all.n
	v.SHA256, v.SHA512, v.MD5 = fmt.Sprintf("%x", sums[0].Sum(nil)), fmt.Sprintf("%x", sums[1].Sum(nil)), fmt.Sprintf("%x", sums[2].Sum(nil))
	if fault == nil {
		v.Version, v.Signer = bundle.Version, bundle.Signer
		fault = s.box.authentic(bundle)
	}
	if v.Trusted = fault == nil; !v.Trusted {
		v.Fault = fault.Error()
	}
	return v, nil
}

// authentic returns why a system is not to be trusted.
func (b *Box) authentic(bundle *disk.Bundle) error {
	if b.opt.Keys == "" {
		return errors.New("this box does not install systems, and trusts no key")
	}
	keys, err := disk.ReadKeys(b.opt.Keys)
	if err == nil && len(keys) == 0 {
		err = errors.New("bundles are not authenticated: the image of this box has no key that could have signed them")
	}
	if err == nil {
		err = bundle.Authentic(keys)
	}
	return err
}

// A counter reads until its context ends, and hands on and counts what it reads.
type counter struct {
	r   io.Reader
	ctx context.Context
	to  io.Writer
	n   int64
}

func (c *counter) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(b)
	c.to.Write(b[:n]) // hashes take all
	c.n += int64(n)
	return n, err
}

func (v shownSums) Text(w *bufio.Writer) {
	if v.only == "/md5" || v.only == "/sha-512" {
		v.compared(w)
		return
	}
	fmt.Fprintf(w, "Verifying file integrity of disk0:/%s\n", v.Name)
	if v.only == "" {
		inLines(w, "Computed Hash   SHA2: ", v.SHA512)
		inLines(w, "Computed Hash SHA256: ", v.SHA256)
	}
	if v.Version != "" {
		fmt.Fprintf(w, "Version: %s\n", v.Version)
	}
	if v.Signer != "" {
		fmt.Fprintf(w, "Signed by the key: %s\n", v.Signer)
	}
	if v.Trusted {
		fmt.Fprintf(w, "Digital signature successfully validated\n")
	} else {
		fmt.Fprintf(w, "%%ERROR: Signature of disk0:/%s not validated: %s\n", v.Name, v.Fault)
	}
}

// compared shows one sum, and whether it is the one that was typed.
func (v shownSums) compared(w *bufio.Writer) {
	sum := v.SHA512
	if v.only == "/md5" {
		sum = v.MD5
	}
	switch v.want {
	case "":
		fmt.Fprintf(w, "verify %s (disk0:/%s) = %s\n", v.only, v.Name, sum)
	case sum:
		fmt.Fprintf(w, "Verified (disk0:/%s) = %s\n", v.Name, sum)
	default:
		fmt.Fprintf(w, "%%Error verifying disk0:/%s\nComputed signature  = %s\nSubmitted signature = %s\n", v.Name, sum, v.want)
	}
}

// inLines shows a sum, 32 digits a line.
func inLines(w *bufio.Writer, title, sum string) {
	for ; sum != ""; sum = sum[32:] {
		fmt.Fprintf(w, "%s%s\n", title, sum[:32])
		title = strings.Repeat(" ", len(title))
	}
}
