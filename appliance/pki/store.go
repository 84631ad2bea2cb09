package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

const (
	// DefaultRSABits is the modulus of a key pair that names none.
	DefaultRSABits = 2048 // bits; the ASA's own default was 1024

	maxName     = 64      // bytes of a trustpoint's or key pair's name (reference/asa-cli.md, section 7)
	maxFile     = 1 << 20 // bytes of one file on flash or of one import; a certificate is near 1 KB
	maxStore    = 1000    // files of one kind in the store; a box has tens
	dirMode     = 0o700
	fileMode    = 0o600
	tempPrefix  = ".new-" // files being written; a rename makes them real
	keyPrefix   = "key-"
	trustPrefix = "trustpoint-"
	fileSuffix  = ".pem"
)

// Why the Store refused. A caller asks with errors.Is.
var (
	// ErrNotFound: there is no trustpoint, certificate or key pair of that name.
	ErrNotFound = errors.New("not found")
	// ErrExists: the name is taken; nothing was changed.
	ErrExists = errors.New("already exists")
	// ErrInUse: a trustpoint still needs the key pair.
	ErrInUse = errors.New("in use")
	// ErrDamaged: the file on flash cannot be read. It stays as it is, and
	// its name stays taken, until an operator restores or removes it.
	ErrDamaged = errors.New("file is damaged")
)

// Options are the sources of chance of a Store. The zero value takes both from
// the system.
type Options struct {
	// Rand gives serial numbers.
	Rand io.Reader
	// NewKey makes an RSA key pair. It is a function and not a reader
	// because Go 1.26's rsa.GenerateKey ignores the reader it is given
	// (unless GODEBUG has cryptocustomrand=1), so a test that wants the same
	// keys each time must bring them.
	NewKey func(bits int) (*rsa.PrivateKey, error)
}

// A Store is a directory on flash with one file for each key pair and one for
// each trustpoint. It may be used by many goroutines at once, and by one process.
type Store struct {
	dir    string
	rand   io.Reader
	newKey func(bits int) (*rsa.PrivateKey, error)

	anchors atomic.Pointer[[]Anchor] // what Anchors returns; never written in place

	mu          sync.RWMutex
	keys        map[string]crypto.Signer // by label; *rsa.PrivateKey or *ecdsa.PrivateKey
	trustpoints map[string]Trustpoint    // by name
	damaged     map[string]error         // by file name
}

// A Trustpoint is a named place for a CA certificate, an identity certificate,
// or both. (reference/asa-cli.md, section 7.)
type Trustpoint struct {
	Name     string
	KeyPair  string            // label of the identity certificate's key pair, also of one asked for; "" without one
	Identity *x509.Certificate // what the box shows; nil before enrollment
	CA       *x509.Certificate // whom the box trusts; nil before authentication
}

// An Identity is a certificate of the box with its private key. It never prints
// the key.
type Identity struct {
	Trustpoint string
	Cert       *x509.Certificate
	DER        []byte        // Cert as it stands; not to be changed
	Key        crypto.Signer // an *rsa.PrivateKey, so a crypto.Decrypter too; or an *ecdsa.PrivateKey
}

// String returns the trustpoint and the subject.
func (id *Identity) String() string {
	if id == nil || id.Cert == nil {
		return "no identity"
	}
	return id.Trustpoint + " (" + Name(id.Cert.RawSubject) + ")"
}

// GoString is String, so that %#v hides the key too.
func (id *Identity) GoString() string { return id.String() }

// An Anchor is a CA certificate that an administrator installed.
type Anchor struct {
	Trustpoint string
	Cert       *x509.Certificate
}

// Open reads the store in dir, which it creates if need be. A damaged file does
// not fail Open: it is listed by Damaged, and whatever asks for its name gets
// the error. What a crash left half-written under a temporary name is removed.
func Open(dir string, opt Options) (*Store, error) {
	s := &Store{
		dir: dir, rand: opt.Rand, newKey: opt.NewKey,
		keys:        make(map[string]crypto.Signer),
		trustpoints: make(map[string]Trustpoint),
		damaged:     make(map[string]error),
	}
	if s.rand == nil {
		s.rand = rand.Reader
	}
	if s.newKey == nil {
		s.newKey = func(bits int) (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, bits) }
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("pki: opening the store: %w", err)
	}
	if err := os.Chmod(dir, dirMode); err != nil {
		return nil, fmt.Errorf("pki: opening the store: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("pki: opening the store: %w", err)
	}
	var trust []string // after the keys, whose public halves they must match
	n := 0
	for _, e := range entries {
		file := e.Name()
		switch {
		case strings.HasPrefix(file, tempPrefix):
			if err := os.Remove(filepath.Join(dir, file)); err != nil {
				return nil, fmt.Errorf("pki: opening the store: %w", err)
			}
			continue
		case !strings.HasSuffix(file, fileSuffix):
			continue
		case strings.HasPrefix(file, keyPrefix):
			s.load(file, s.loadKey)
		case strings.HasPrefix(file, trustPrefix):
			trust = append(trust, file)
		}
		if n++; n > maxStore {
			return nil, fmt.Errorf("pki: opening the store: %s holds over %d files", dir, maxStore)
		}
	}
	for _, file := range trust {
		s.load(file, s.loadTrustpoint)
	}
	s.setAnchorsLocked()
	return s, nil
}

// Dir returns the directory of the store, which is the box's flash.
func (s *Store) Dir() string { return s.dir }

func (s *Store) load(file string, parse func(file string, data []byte) error) {
	data, err := readFile(s.dir, file)
	if err == nil {
		err = parse(file, data)
	}
	if err != nil {
		s.damaged[file] = fmt.Errorf("pki: %s: %w: %w", filepath.Join(s.dir, file), ErrDamaged, err)
	}
}

func (s *Store) loadKey(file string, data []byte) error {
	label, key, err := parseKey(data)
	if err != nil {
		return err
	}
	if fileName(keyPrefix, label) != file {
		return fmt.Errorf("holds key pair %q", label)
	}
	s.keys[label] = key
	return nil
}

func (s *Store) loadTrustpoint(file string, data []byte) error {
	tp, err := parseTrustpoint(data)
	if err != nil {
		return err
	}
	if fileName(trustPrefix, tp.Name) != file {
		return fmt.Errorf("holds trustpoint %q", tp.Name)
	}
	if key := s.keys[tp.KeyPair]; key != nil && tp.Identity != nil && !samePublic(key.Public(), tp.Identity.PublicKey) {
		return fmt.Errorf("its certificate is not of key pair %q", tp.KeyPair)
	}
	s.trustpoints[tp.Name] = tp
	return nil
}

// Damaged returns an error for each file that could not be read, in the order
// of their names. Each wraps ErrDamaged and names its file.
func (s *Store) Damaged() []error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var errs []error
	for _, file := range sortedKeys(s.damaged) {
		errs = append(errs, s.damaged[file])
	}
	return errs
}

// Anchors returns every CA certificate in the store, ordered by trustpoint. The
// slice is shared: it must not be changed, and it does not change.
func (s *Store) Anchors() []Anchor { return *s.anchors.Load() }

func (s *Store) setAnchorsLocked() {
	var list []Anchor
	for _, name := range sortedKeys(s.trustpoints) {
		if ca := s.trustpoints[name].CA; ca != nil {
			list = append(list, Anchor{name, ca})
		}
	}
	s.anchors.Store(&list)
}

// Trustpoints returns every trustpoint that can be read, ordered by name.
func (s *Store) Trustpoints() []Trustpoint {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Trustpoint, 0, len(s.trustpoints))
	for _, name := range sortedKeys(s.trustpoints) {
		list = append(list, s.trustpoints[name])
	}
	return list
}

// Trustpoint returns the trustpoint of that name, or an error wrapping
// ErrNotFound or ErrDamaged.
func (s *Store) Trustpoint(name string) (Trustpoint, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.trustpointLocked(name)
}

func (s *Store) trustpointLocked(name string) (Trustpoint, error) {
	if tp, ok := s.trustpoints[name]; ok {
		return tp, nil
	}
	if err := s.damaged[fileName(trustPrefix, name)]; err != nil {
		return Trustpoint{}, err
	}
	return Trustpoint{}, fmt.Errorf("pki: trustpoint %q: %w", name, ErrNotFound)
}

// Identity returns the identity certificate of a trustpoint and its key, or an
// error wrapping ErrNotFound or ErrDamaged.
func (s *Store) Identity(name string) (*Identity, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	tp, err := s.trustpointLocked(name)
	if err != nil {
		return nil, err
	}
	return s.identityLocked(tp)
}

func (s *Store) identityLocked(tp Trustpoint) (*Identity, error) {
	if tp.Identity == nil {
		return nil, fmt.Errorf("pki: identity certificate of trustpoint %q: %w", tp.Name, ErrNotFound)
	}
	key, err := s.keyLocked(tp.KeyPair)
	if err != nil {
		return nil, fmt.Errorf("pki: trustpoint %q: %w", tp.Name, err)
	}
	return &Identity{tp.Name, tp.Identity, tp.Identity.Raw, key}, nil
}

// RemoveTrustpoint deletes a trustpoint with its certificates; its key pair stays.
func (s *Store) RemoveTrustpoint(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.trustpointLocked(name); err != nil {
		return err
	}
	return s.removeTrustpointLocked(name)
}

func (s *Store) removeTrustpointLocked(name string) error {
	if err := removeFile(s.dir, fileName(trustPrefix, name)); err != nil {
		return fmt.Errorf("pki: trustpoint %q: %w", name, err)
	}
	delete(s.trustpoints, name)
	s.setAnchorsLocked()
	return nil
}

// putLocked writes tp, over the file of that name if old is set.
func (s *Store) putLocked(tp Trustpoint, old bool) error {
	put := createFile
	if old {
		put = replaceFile
	}
	if err := put(s.dir, fileName(trustPrefix, tp.Name), formatTrustpoint(tp)); err != nil {
		return fmt.Errorf("pki: trustpoint %q: %w", tp.Name, err)
	}
	s.trustpoints[tp.Name] = tp
	s.setAnchorsLocked()
	return nil
}

// openTrustpointLocked returns the trustpoint to change, and whether it exists.
func (s *Store) openTrustpointLocked(name string) (tp Trustpoint, old bool, err error) {
	tp, err = s.trustpointLocked(name)
	if errors.Is(err, ErrNotFound) {
		return Trustpoint{Name: name}, false, nil
	}
	return tp, err == nil, err
}

// checkName holds names to what a command line can carry.
func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("empty name")
	case len(name) > maxName:
		return fmt.Errorf("name of %d bytes, over %d", len(name), maxName)
	case !utf8.ValidString(name):
		return errors.New("name is not UTF-8")
	}
	if strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) {
		return errors.New("name holds a space or control character")
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
