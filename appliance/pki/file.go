package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A file of the store is a first line that says what it holds, PEM blocks that
// other tools can read too, and a last line with the SHA-256 of all above it,
// so that a file cut at a block's end is noticed as well:
//
//	patchbay-trustpoint 1 "ucm" "ucm-key" identity ca
//	-----BEGIN CERTIFICATE-----
//	...
//	sha256 5f70bf18...
const (
	keyHead   = "patchbay-key 1 "
	trustHead = "patchbay-trustpoint 1 "
	sumHead   = "sha256 "
	sumLine   = len(sumHead) + 2*sha256.Size + 1 // bytes, with the newline

	pemKey  = "PRIVATE KEY" // PKCS #8
	pemCert = "CERTIFICATE"
)

var errTruncated = errors.New("truncated or changed: checksum does not match")

// fileName returns the file for a name. Letters, digits, '-' and '_' stand for
// themselves and all else is %XX, so no name leaves the directory or clashes.
func fileName(prefix, name string) string {
	var b strings.Builder
	b.WriteString(prefix)
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	b.WriteString(fileSuffix)
	return b.String()
}

func seal(b *bytes.Buffer) []byte {
	sum := sha256.Sum256(b.Bytes())
	fmt.Fprintf(b, "%s%x\n", sumHead, sum)
	return b.Bytes()
}

// unseal checks the last line and returns the words after head in the first
// one, and what stands between.
func unseal(data []byte, head string) (words, body string, err error) {
	n := len(data) - sumLine
	if n < 0 {
		return "", "", errTruncated
	}
	sum := sha256.Sum256(data[:n])
	if string(data[n:]) != sumHead+hex.EncodeToString(sum[:])+"\n" {
		return "", "", errTruncated
	}
	first, body, ok := strings.Cut(string(data[:n]), "\n")
	words, is := strings.CutPrefix(first, head)
	if !ok || !is {
		return "", "", fmt.Errorf("first line is not %q", strings.TrimSpace(head))
	}
	return words, body, nil
}

// quoted cuts one quoted word from s.
func quoted(s string) (word, rest string, err error) {
	q, err := strconv.QuotedPrefix(s)
	if err != nil {
		return "", "", fmt.Errorf("first line: %w", err)
	}
	word, err = strconv.Unquote(q)
	return word, strings.TrimSpace(s[len(q):]), err
}

func formatKey(label string, key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, errors.New("key cannot be encoded")
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%q\n", keyHead, label)
	b.Write(pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}))
	return seal(&b), nil
}

func parseKey(data []byte) (label string, key crypto.Signer, err error) {
	words, body, err := unseal(data, keyHead)
	if err != nil {
		return "", nil, err
	}
	label, rest, err := quoted(words)
	if err != nil {
		return "", nil, err
	}
	block, after := pem.Decode([]byte(body))
	if rest != "" || block == nil || block.Type != pemKey || len(after) != 0 {
		return "", nil, errors.New("does not hold one private key")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", nil, errors.New("private key does not parse") // the cause may quote it
	}
	switch key := k.(type) {
	case *rsa.PrivateKey:
		return label, key, nil
	case *ecdsa.PrivateKey:
		return label, key, nil
	}
	return "", nil, errors.New("private key is neither RSA nor ECDSA")
}

func formatTrustpoint(tp Trustpoint) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%q %q", trustHead, tp.Name, tp.KeyPair)
	if tp.Identity != nil {
		b.WriteString(" identity")
	}
	if tp.CA != nil {
		b.WriteString(" ca")
	}
	b.WriteByte('\n')
	for _, c := range []*x509.Certificate{tp.Identity, tp.CA} {
		if c != nil {
			b.Write(pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: c.Raw}))
		}
	}
	return seal(&b)
}

func parseTrustpoint(data []byte) (tp Trustpoint, err error) {
	words, body, err := unseal(data, trustHead)
	if err != nil {
		return tp, err
	}
	if tp.Name, words, err = quoted(words); err != nil {
		return tp, err
	}
	if tp.KeyPair, words, err = quoted(words); err != nil {
		return tp, err
	}
	rest := []byte(body)
	for _, what := range strings.Fields(words) {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != pemCert {
			return tp, fmt.Errorf("%s certificate is missing", what)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return tp, fmt.Errorf("%s certificate: %w", what, err)
		case what == "identity" && tp.Identity == nil:
			tp.Identity = cert
		case what == "ca" && tp.CA == nil:
			tp.CA = cert
		default:
			return tp, fmt.Errorf("first line: %q not known here", what)
		}
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return tp, errors.New("more than the first line says")
	}
	return tp, nil
}

// openFile opens a file to be read by nobody else from then on.
func openFile(dir, name string) (*os.File, fs.FileInfo, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = errors.New("not a regular file")
	case info.Mode().Perm() != fileMode:
		err = f.Chmod(fileMode)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func readFile(dir, name string) ([]byte, error) {
	f, _, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("over %d bytes", maxFile)
	}
	return data, err
}

// createFile writes a file that must not exist.
func createFile(dir, name string, data []byte) error {
	if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, name), ErrExists)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return replaceFile(dir, name, data)
}

// replaceFile writes a file whole or not at all: after a power failure the name
// has the old bytes or the new ones.
func replaceFile(dir, name string, data []byte) error {
	return writeFile(dir, name, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// writeFile is replaceFile for what write writes.
func writeFile(dir, name string, write func(w io.Writer) error) (err error) {
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := f.Chmod(fileMode); err != nil {
		return err
	}
	if err := write(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func removeFile(dir, name string) error {
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename or removal in dir last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
