package console

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// The files of a Startup, in its directory.
const (
	startupName     = "startup-config"
	predecessorName = "startup-config.old" // what it was before the last write
	halfName        = ".new"               // the end of the name of a file being written
	maxStartup      = 16 << 20             // bytes; the largest ASA configurations are near 10 MB
)

// A Startup is the configuration on flash that the box starts with. It is
// replaced whole: whenever the power is cut, there is the old one or the new one.
type Startup struct{ files Files }

// Files is a directory. What a File was given is certain to be there after its
// Sync, a name after SyncDir.
type Files interface {
	ReadFile(name string) ([]byte, error)
	Create(name string) (File, error) // for its owner only
	Rename(from, to string) error
	Remove(name string) error
	SyncDir() error
}

// A File is being written.
type File interface {
	Write(b []byte) (int, error)
	Sync() error
	Close() error
}

// OpenStartup returns the Startup in a directory.
func OpenStartup(dir string) *Startup { return NewStartup(dirFiles(dir)) }

// NewStartup returns the Startup in files.
func NewStartup(files Files) *Startup { return &Startup{files} }

// Read returns the configuration. It is fs.ErrNotExist that there is none.
func (s *Startup) Read() ([]byte, error) { return s.read(startupName) }

// Predecessor returns the configuration before the last Write.
func (s *Startup) Predecessor() ([]byte, error) { return s.read(predecessorName) }

func (s *Startup) read(name string) ([]byte, error) {
	text, err := s.files.ReadFile(name)
	if err == nil && len(text) > maxStartup {
		err = fmt.Errorf("%s: %d bytes are no configuration", name, len(text))
	}
	if err != nil {
		return nil, err
	}
	return text, nil
}

// Write makes text the configuration, and keeps its predecessor. On error the
// configuration is as it was.
func (s *Startup) Write(text []byte) error {
	old, err := s.read(startupName)
	switch {
	case err == nil && string(old) == string(text):
		return nil
	case err == nil:
		if err := s.replace(predecessorName, old); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return s.replace(startupName, text)
}

// Erase removes the configuration. Its predecessor is that which was erased.
func (s *Startup) Erase() error {
	old, err := s.read(startupName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = s.replace(predecessorName, old)
	}
	if err == nil {
		err = s.files.Remove(startupName)
	}
	if err == nil {
		err = s.files.SyncDir()
	}
	return err
}

// replace makes data the content of a file: under another name first, and that
// is on the disk before it takes the file's.
func (s *Startup) replace(name string, data []byte) (err error) {
	half := name + halfName
	f, err := s.files.Create(half)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.files.Remove(half)
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := s.files.Rename(half, name); err != nil {
		return err
	}
	return s.files.SyncDir()
}

// dirFiles is the directory of a name.
type dirFiles string

func (d dirFiles) path(name string) string { return filepath.Join(string(d), name) }

func (d dirFiles) ReadFile(name string) ([]byte, error) { return os.ReadFile(d.path(name)) }

func (d dirFiles) Create(name string) (File, error) {
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
}

func (d dirFiles) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d dirFiles) Remove(name string) error     { return os.Remove(d.path(name)) }

func (d dirFiles) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
