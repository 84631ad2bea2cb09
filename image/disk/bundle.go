package disk

import (
	"archive/tar"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// A bundle is a system as a file, by which "boot system" replaces another: a tar
// archive of the sums, the kernel, the initramfs, which has the keys that the new
// system will trust, the version and the signature. The last two need not be there.
// Patchbays from before there were signatures read nothing behind the initramfs.
const (
	sumsFile      = "SHA256SUMS" // of what follows but the signature, as sha256sum(1) writes them
	versionFile   = "VERSION"    // a line of text
	signatureFile = "SIGNATURE"

	maxSums      = 4096      // bytes
	maxSystem    = 128 << 20 // bytes of one file
	maxVersion   = 100       // bytes, without the end of the line
	maxSignature = 256       // bytes of the file

	tarBlock   = 512
	tarTrailer = 2 * tarBlock
)

// A System is the kernel and the initramfs that boot together, and what the two are
// called: a line of printable ASCII, "" for no name.
type System struct {
	Kernel, Initrd []byte
	Version        string
}

// sums is the text of a bundle's sums.
func (s System) sums() string {
	text := fmt.Sprintf("%x  %s\n%x  %s\n", sha256.Sum256(s.Kernel), KernelFile, sha256.Sum256(s.Initrd), InitrdFile)
	if s.Version != "" {
		text += fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(s.Version+"\n")), versionFile)
	}
	return text
}

// ID is by what a system is known: the SHA-256 of its sums, in hexadecimal.
func (s System) ID() string { return systemID(s.sums()) }

func systemID(sums string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.TrimSuffix(sums, "\n"))))
}

// WriteBundle writes a bundle, the same bytes each time, signed by key if that is
// not nil.
func WriteBundle(w io.Writer, s System, key ed25519.PrivateKey) error {
	type file struct {
		name string
		data []byte
	}
	sums := s.sums()
	files := []file{{sumsFile, []byte(sums)}, {KernelFile, s.Kernel}, {InitrdFile, s.Initrd}}
	if s.Version != "" {
		if err := CheckVersion(s.Version); err != nil {
			return err
		}
		files = append(files, file{versionFile, []byte(s.Version + "\n")})
	}
	if key != nil {
		files = append(files, file{signatureFile, sign(key, sums).text()})
	}
	t := tar.NewWriter(w)
	for _, f := range files {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("disk: bundle: %w", err)
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("disk: bundle: %w", err)
		}
	}
	return t.Close()
}

// CheckVersion says what is wrong with the Version of a System, which is shown on
// consoles. "" is wrong, too.
func CheckVersion(v string) error {
	if v == "" || len(v) > maxVersion || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fmt.Errorf("the version %.200q: want a line of printable ASCII, at most %d characters", v, maxVersion)
	}
	return nil
}

var (
	errBundle = errors.New("this is no image of Patchbay's")
	errCut    = fmt.Errorf("%w, or it is cut short", errBundle)
	errAdded  = fmt.Errorf("%w, or something was added to its end", errBundle)
)

// A Bundle is what ReadBundle has found in one. Who wrote it is not known before
// Authentic says so.
type Bundle struct {
	ID      string // of its System
	Version string // of its System
	Signer  string // ID of the key that it says it is signed by; "": it is not signed

	sums string
	sig  signature
}

// ReadBundle reads a bundle to its end and gives put the system in it, a file at a
// time: its name, its bytes and their SHA-256, which has been compared with the sums
// when put's reader ends without error. An error from put ends it. The error tells
// of a file that is cut short, damaged or goes on behind its end.
//
// What put gets is not to be used before ReadBundle has returned and Authentic was
// asked: the signature stands behind it.
func ReadBundle(r io.Reader, put func(name string, size int64, data io.Reader) error) (*Bundle, error) {
	n := &counted{r: r}
	b := &bundleReader{t: tar.NewReader(n)}
	found, err := b.read(put)
	if err != nil {
		return nil, err
	}
	// The archive's reader is content without the end, and looks at nothing behind
	// it.
	if _, err := io.Copy(io.Discard, io.LimitReader(n, 1)); err != nil {
		return nil, err
	}
	switch {
	case n.n < b.length+tarTrailer:
		return nil, errCut
	case n.n > b.length+tarTrailer:
		return nil, errAdded
	}
	return found, nil
}

// A counted counts what is read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}

// A bundleReader reads the archive of a bundle.
type bundleReader struct {
	t      *tar.Reader
	length int64 // that the archive must have up to here, in bytes
}

// next goes to the file of a name, of at most so many bytes.
func (b *bundleReader) next(name string, limit int64) (size int64, err error) {
	h, err := b.t.Next()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, fmt.Errorf("%s is not in it, or not whole: %w", name, err)
	}
	if err != nil && !errors.Is(err, tar.ErrHeader) {
		return 0, fmt.Errorf("reading %s: %w", name, err)
	}
	if err != nil || h.Name != name || h.Typeflag != tar.TypeReg || h.Size <= 0 || h.Size > limit {
		return 0, errBundle
	}
	b.length += tarBlock + (h.Size+tarBlock-1)/tarBlock*tarBlock
	return h.Size, nil
}

// small reads the file of a name, of at most so many bytes.
func (b *bundleReader) small(name string, limit int64) ([]byte, error) {
	if _, err := b.next(name, limit); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(b.t)
	if err != nil {
		return nil, fmt.Errorf("%s is not whole: %w", name, err)
	}
	return text, nil
}

func (b *bundleReader) read(put func(name string, size int64, data io.Reader) error) (*Bundle, error) {
	text, err := b.small(sumsFile, maxSums)
	if err != nil && !errors.Is(err, errBundle) {
		err = fmt.Errorf("%w: %w", errBundle, err)
	}
	if err != nil {
		return nil, err
	}
	sums, err := parseSums(string(text))
	if err != nil {
		return nil, err
	}
	found := &Bundle{ID: systemID(string(text)), sums: string(text)}
	for _, name := range []string{KernelFile, InitrdFile} {
		size, err := b.next(name, maxSystem)
		if err != nil {
			return nil, err
		}
		x := &summed{r: b.t, sum: sha256.New(), want: sums[name], name: name}
		if err := put(name, size, x); err != nil {
			return nil, err
		}
		if _, err := io.Copy(io.Discard, x); err != nil { // put may have left something
			return nil, err
		}
	}
	if want, ok := sums[versionFile]; ok {
		line, err := b.small(versionFile, maxVersion+1)
		if err != nil {
			return nil, err
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(line)); got != want {
			return nil, fmt.Errorf("%s is damaged: its SHA-256 is %s, want %s", versionFile, got, want)
		}
		version, ended := strings.CutSuffix(string(line), "\n")
		if err := CheckVersion(version); err != nil || !ended {
			return nil, errBundle
		}
		found.Version = version
	}
	line, err := b.small(signatureFile, maxSignature)
	if errors.Is(err, io.EOF) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	if found.sig, err = parseSignature(line); err != nil {
		return nil, err
	}
	found.Signer = found.sig.key
	switch _, err := b.t.Next(); {
	case errors.Is(err, io.EOF):
		return found, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return nil, errCut
	}
	return nil, errAdded
}

// parseSums reads a bundle's sums: of each file one, in their order.
func parseSums(text string) (map[string]string, error) {
	names := []string{KernelFile, InitrdFile, versionFile}
	sums := make(map[string]string)
	for line := range strings.Lines(text) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != sha256.Size || len(names) == 0 || name != names[0] {
			return nil, errBundle
		}
		sums[name], names = sum, names[1:]
	}
	if sums[InitrdFile] == "" || !strings.HasSuffix(text, "\n") {
		return nil, errBundle
	}
	return sums, nil
}

// A summed reads a file of a bundle. At its end it compares the sum.
type summed struct {
	r          io.Reader
	sum        hash.Hash
	want, name string
}

func (x *summed) Read(b []byte) (int, error) {
	n, err := x.r.Read(b)
	x.sum.Write(b[:n])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return n, fmt.Errorf("%s is not whole: %w", x.name, err)
	}
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(x.sum.Sum(nil)); got != x.want {
			return n, fmt.Errorf("%s is damaged: its SHA-256 is %s, want %s", x.name, got, x.want)
		}
	}
	return n, err
}
