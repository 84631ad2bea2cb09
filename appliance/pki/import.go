package pki

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

const maxCAFiles = 256 // files read from a directory of CA certificates

// Authenticate installs a CA certificate in a trustpoint, which it creates if
// need be: "crypto ca authenticate". data is PEM, bare base64 (a last line "quit"
// is not part of it) or DER. The same certificate again changes nothing; another
// one is refused with ErrExists.
func (s *Store) Authenticate(name string, data []byte) (*x509.Certificate, error) {
	if err := checkName(name); err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	cert, err := ParseCertificate(data)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	return cert, s.setCA(name, cert)
}

// ParseCertificate reads one certificate: PEM, bare base64 (a last line "quit" is
// not part of it) or DER.
func ParseCertificate(data []byte) (*x509.Certificate, error) {
	certs, err := parseCertificates(data)
	if err == nil && len(certs) != 1 {
		err = fmt.Errorf("%d certificates; a trustpoint takes one", len(certs))
	}
	if err != nil {
		return nil, err
	}
	return certs[0], nil
}

func (s *Store) setCA(name string, cert *x509.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	tp, old, err := s.openTrustpointLocked(name)
	if err != nil {
		return err
	}
	if tp.CA != nil {
		if tp.CA.Equal(cert) {
			return nil
		}
		return fmt.Errorf("pki: CA certificate of trustpoint %q: %w", name, ErrExists)
	}
	tp.CA = cert
	return s.putLocked(tp, old)
}

// ImportCADir installs the CA certificates that ReadCAs finds at path, and
// returns them. It stops at the first that a trustpoint refuses.
func (s *Store) ImportCADir(path string) ([]Anchor, error) {
	anchors, err := ReadCAs(path)
	if err != nil {
		return nil, err
	}
	for i, a := range anchors {
		if err := s.setCA(a.Trustpoint, a.Cert); err != nil {
			return anchors[:i], err
		}
	}
	return anchors, nil
}

// ReadCAs reads CA certificates, PEM, base64 or DER, from the file at path or
// from each file *.pem, *.crt, *.cer and *.der of the directory at path. A file's
// name without its ending is the trustpoint's; the second certificate of a file
// goes to a trustpoint with "_2" after its name, and so on.
func ReadCAs(path string) ([]Anchor, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("pki: reading CA certificates: %w", err)
	}
	files := []string{path}
	if st.IsDir() {
		if files, err = caFiles(path); err != nil {
			return nil, fmt.Errorf("pki: reading CA certificates: %w", err)
		}
	}
	var anchors []Anchor
	from := make(map[string]string) // file by trustpoint
	for _, file := range files {
		certs, err := readCertificates(file)
		if err != nil {
			return nil, fmt.Errorf("pki: reading CA certificates: %s: %w", file, err)
		}
		stem := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		for i, cert := range certs {
			name := stem
			if i > 0 {
				name = fmt.Sprintf("%s_%d", stem, i+1)
			}
			if err := checkName(name); err != nil {
				return nil, fmt.Errorf("pki: reading CA certificates: %s: %w", file, err)
			}
			if from[name] != "" {
				return nil, fmt.Errorf("pki: reading CA certificates: %s: trustpoint %q is from %s already", file, name, from[name])
			}
			from[name] = file
			anchors = append(anchors, Anchor{name, cert})
		}
	}
	return anchors, nil
}

func caFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		switch strings.ToLower(filepath.Ext(e.Name())) {
		case ".pem", ".crt", ".cer", ".der":
			if !e.IsDir() {
				files = append(files, filepath.Join(dir, e.Name()))
			}
		}
	}
	if len(files) > maxCAFiles {
		return nil, fmt.Errorf("%s holds over %d certificate files", dir, maxCAFiles)
	}
	return files, nil
}

func readCertificates(file string) ([]*x509.Certificate, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	return parseCertificates(data)
}

// parseCertificates reads PEM, base64 or DER, at least one certificate.
func parseCertificates(data []byte) ([]*x509.Certificate, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("over %d bytes", maxFile)
	}
	if bytes.Contains(data, []byte("-----BEGIN")) {
		return parsePEM(data)
	}
	if len(data) > 0 && data[0] == 0x30 { // SEQUENCE; base64 of one begins with 'M'
		return parseDER(data)
	}
	der, err := base64.StdEncoding.DecodeString(string(pastedText(data)))
	if err != nil || len(der) == 0 {
		return nil, errors.New("neither PEM, base64 nor DER")
	}
	return parseDER(der)
}

func parseDER(der []byte) ([]*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return []*x509.Certificate{cert}, nil
}

func parsePEM(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	begins := bytes.Count(data, []byte("-----BEGIN"))
	blocks := 0
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		blocks++
		data = rest
		if block.Type != pemCert && block.Type != "X509 CERTIFICATE" {
			return nil, fmt.Errorf("PEM block %q is not a certificate", block.Type)
		}
		cert, err := parseDER(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("PEM block %d: %w", blocks, err)
		}
		certs = append(certs, cert...)
	}
	if blocks != begins {
		return nil, fmt.Errorf("%d of %d PEM blocks are broken", begins-blocks, begins)
	}
	return certs, nil
}
