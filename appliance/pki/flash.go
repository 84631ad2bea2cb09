package pki

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// flashFile returns the name on flash of a path as a configuration has it:
// "disk0:/old.tlv", "flash:old.tlv" or "old.tlv". Flash has no directories.
func flashFile(path string) (string, error) {
	name := path
	for _, device := range []string{"disk0:", "flash:"} {
		if rest, ok := strings.CutPrefix(name, device); ok {
			name = strings.TrimPrefix(rest, "/")
			break
		}
	}
	if !filepath.IsLocal(name) || name != filepath.Base(name) || strings.ContainsAny(name, `/\:`) || strings.HasPrefix(name, ".") {
		return "", fmt.Errorf("pki: %q is not the name of a file on flash as in disk0:/old.tlv", path)
	}
	if strings.HasSuffix(name, fileSuffix) && (strings.HasPrefix(name, keyPrefix) || strings.HasPrefix(name, trustPrefix)) {
		return "", fmt.Errorf("pki: %q holds keys or certificates", path)
	}
	return name, nil
}

// ReadFlash returns a file beside the key pairs and trustpoints, at most 1 MiB.
// The error wraps ErrNotFound if there is none.
func (s *Store) ReadFlash(path string) ([]byte, error) {
	name, err := flashFile(path)
	if err != nil {
		return nil, err
	}
	data, err := readFile(s.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: %s: %w on flash", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", path, err)
	}
	return data, nil
}

// OpenFlash opens a file beside the key pairs and trustpoints, of any length. The
// error wraps ErrNotFound if there is none.
func (s *Store) OpenFlash(path string) (io.ReadCloser, error) {
	name, err := flashFile(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: %s: %w on flash", path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("pki: %s: %w", path, err)
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("pki: %s is no ordinary file", path))
	}
	return f, nil
}

// WriteFlash writes a file beside the key pairs and trustpoints, whole or not at
// all.
func (s *Store) WriteFlash(path string, data []byte) error {
	name, err := flashFile(path)
	if err != nil {
		return err
	}
	if err := replaceFile(s.dir, name, data); err != nil {
		return fmt.Errorf("pki: %s: %w", path, err)
	}
	return nil
}

// ReceiveFlash writes a file beside the key pairs and trustpoints as it comes, of
// any length, whole or not at all. It returns how many bytes came.
func (s *Store) ReceiveFlash(path string, body io.Reader) (n int64, err error) {
	name, err := flashFile(path)
	if err != nil {
		return 0, err
	}
	err = writeFile(s.dir, name, func(w io.Writer) error {
		n, err = io.Copy(w, body)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("pki: %s: %w", path, err)
	}
	return n, nil
}

// RenameTrustpoint gives a trustpoint with an identity certificate another name,
// which must be free. Its key pair keeps its label. After a power failure it may
// have both; the same call again ends that.
func (s *Store) RenameTrustpoint(from, to string) error {
	if err := checkName(to); err != nil {
		return fmt.Errorf("pki: trustpoint %q: %w", to, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	tp, err := s.trustpointLocked(from)
	if err != nil {
		return err
	}
	if _, err := s.identityLocked(tp); err != nil {
		return err
	}
	at, old, err := s.openTrustpointLocked(to)
	if err != nil {
		return err
	}
	if old && (at.Identity == nil || !at.Identity.Equal(tp.Identity)) {
		return fmt.Errorf("pki: trustpoint %q: %w", to, ErrExists)
	}
	tp.Name = to
	if err := s.putLocked(tp, old); err != nil {
		return err
	}
	return s.removeTrustpointLocked(from)
}

// FlashFiles returns the files beside the key pairs and trustpoints, by name.
func (s *Store) FlashFiles() ([]fs.FileInfo, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("pki: flash: %w", err)
	}
	var list []fs.FileInfo
	for _, e := range entries {
		if _, err := flashFile(e.Name()); err != nil || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil { // else it has just gone
			list = append(list, info)
		}
	}
	return list, nil
}

// RemoveFlash removes a file beside the key pairs and trustpoints. The error wraps
// ErrNotFound if there is none.
func (s *Store) RemoveFlash(path string) error {
	name, err := flashFile(path)
	if err != nil {
		return err
	}
	err = removeFile(s.dir, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w on flash", ErrNotFound)
	}
	if err != nil {
		return fmt.Errorf("pki: %s: %w", path, err)
	}
	return nil
}
