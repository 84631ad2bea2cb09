package disk

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
)

// A bundle is a system as a file, by which "boot system" replaces another: a tar
// archive of the sums, as sha256sum(1) writes them, the kernel and the initramfs,
// in this order.
const (
	sumsFile = "SHA256SUMS"

	maxSums   = 4096      // bytes
	maxSystem = 128 << 20 // bytes of one file
)

// A System is the kernel and the initramfs that boot together.
type System struct{ Kernel, Initrd []byte }

// WriteBundle writes a bundle, the same bytes each time.
func WriteBundle(w io.Writer, s System) error {
	sums := fmt.Sprintf("%x  %s\n%x  %s\n", sha256.Sum256(s.Kernel), KernelFile, sha256.Sum256(s.Initrd), InitrdFile)
	t := tar.NewWriter(w)
	for _, f := range []struct {
		name string
		data []byte
	}{{sumsFile, []byte(sums)}, {KernelFile, s.Kernel}, {InitrdFile, s.Initrd}} {
		if err := t.WriteHeader(&tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("disk: bundle: %w", err)
		}
		if _, err := t.Write(f.data); err != nil {
			return fmt.Errorf("disk: bundle: %w", err)
		}
	}
	return t.Close()
}

var errBundle = errors.New("this is no image of Patchbay's")

// ReadBundle reads a bundle and gives put what is in it, a file at a time: its
// name, its bytes and their SHA-256, which has been compared with the sums when
// put's reader ends without error. It returns the sum of the sums, by which a
// system is known. An error from put ends it.
func ReadBundle(r io.Reader, put func(name string, size int64, data io.Reader) error) (id string, err error) {
	t := tar.NewReader(r)
	h, err := t.Next()
	if err != nil || h.Name != sumsFile || h.Size > maxSums {
		return "", errBundle
	}
	text, err := io.ReadAll(t)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBundle, err)
	}
	sums := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		sum, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != sha256.Size {
			return "", errBundle
		}
		sums[name] = sum
	}
	for _, name := range []string{KernelFile, InitrdFile} {
		h, err := t.Next()
		if err != nil {
			return "", fmt.Errorf("%s is not in it, or not whole: %w", name, err)
		}
		if h.Name != name || sums[name] == "" || h.Size <= 0 || h.Size > maxSystem {
			return "", errBundle
		}
		x := &summed{r: t, sum: sha256.New(), want: sums[name], name: name}
		if err := put(name, h.Size, x); err != nil {
			return "", err
		}
		if !x.ended { // put must have read it all
			if _, err := io.Copy(io.Discard, x); err != nil {
				return "", err
			}
		}
	}
	return fmt.Sprintf("%x", sha256.Sum256(bytes.TrimSpace(text))), nil
}

// SystemID returns the id that ReadBundle would for a system.
func SystemID(kernelSum, initrdSum [sha256.Size]byte) string {
	sums := fmt.Sprintf("%x  %s\n%x  %s", kernelSum, KernelFile, initrdSum, InitrdFile)
	return fmt.Sprintf("%x", sha256.Sum256([]byte(sums)))
}

// A summed reads a file of a bundle. At its end it compares the sum.
type summed struct {
	r          io.Reader
	sum        hash.Hash
	want, name string
	ended      bool
}

func (x *summed) Read(b []byte) (int, error) {
	n, err := x.r.Read(b)
	x.sum.Write(b[:n])
	if errors.Is(err, io.EOF) && !x.ended {
		x.ended = true
		if got := hex.EncodeToString(x.sum.Sum(nil)); got != x.want {
			return n, fmt.Errorf("%s is damaged: its SHA-256 is %s, want %s", x.name, got, x.want)
		}
	}
	return n, err
}
