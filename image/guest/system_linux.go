package guest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"patchbay/image/disk"
)

const (
	sumsFile  = "system.id" // in a slot: the id of the system there, written last
	envFailed = "failed"    // in GRUB's environment: which system did not come up
)

// An esp is the ESP while it is mounted, on a directory.
type esp string

// withESP does f while the ESP is mounted: that of the flash's disk if it has one.
func (m *machine) withESP(f func(esp) error) (err error) {
	b := partition(disk.ESPName, 0)
	if m.flash != "" {
		if x := beside(blocks(), m.flash, disk.ESPName); x != nil {
			b = x
		}
	}
	if b == nil {
		return errors.New("no disk has a partition of the name esp")
	}
	if err := unix.Mount("/dev/"+b.name, bootDir, "vfat", unix.MS_DIRSYNC|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting the ESP: %w", err)
	}
	defer func() {
		unix.Sync()
		if e := unix.Unmount(bootDir, 0); e != nil && err == nil {
			err = fmt.Errorf("unmounting the ESP: %w", e)
		}
	}()
	return f(bootDir)
}

// slot is the directory of a slot.
func (e esp) slot(slot string) string { return filepath.Join(string(e), disk.SlotDir, slot) }

// id returns what is in a slot, "" if that is nothing or not whole.
func (e esp) id(slot string) string {
	id, _ := os.ReadFile(filepath.Join(e.slot(slot), sumsFile))
	return strings.TrimSpace(string(id))
}

// change changes GRUB's environment in place: no metadata of the file system is
// touched. One that is damaged, which GRUB takes for an empty one, is made anew for
// the slot that runs.
func (e esp) change(running string, change func(disk.Env)) error {
	f, err := os.OpenFile(filepath.Join(string(e), disk.EnvFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, disk.EnvSize+1)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	env, err := disk.ParseEnv(b[:n])
	if err != nil {
		env = disk.Env{disk.EnvGood: running}
		if err := f.Truncate(disk.EnvSize); err != nil {
			return err
		}
	}
	change(env)
	now, err := env.Bytes()
	if err != nil || bytes.Equal(now, b[:n]) {
		return err
	}
	if _, err := f.WriteAt(now, 0); err != nil {
		return err
	}
	return f.Sync()
}

// makeGood makes the system that runs the one that is started from now on.
func (m *machine) makeGood() {
	slot := m.args[disk.SlotArg]
	err := m.withESP(func(e esp) error {
		return e.change(slot, func(env disk.Env) {
			env[disk.EnvGood] = slot
			delete(env, disk.EnvTry)
			delete(env, disk.EnvTries)
			delete(env, envFailed)
		})
	})
	if err != nil {
		m.say(alarm, "the new system in slot %s is well, but that could not be noted: %v", slot, err)
		return
	}
	m.healthy = true
	m.say(warning, "the new system in slot %s is well: it is started from now on", slot)
}

// trialFailed notes that a system was tried and did not come up.
func (m *machine) trialFailed() {
	slot := m.args[disk.SlotArg]
	err := m.withESP(func(e esp) error {
		return e.change(slot, func(env disk.Env) {
			tried := env[disk.EnvTry]
			env[envFailed] = e.id(tried)
			delete(env, disk.EnvTry)
			delete(env, disk.EnvTries)
			m.say(alarm, "the system in slot %s did not come up: the one before is back, in slot %s", tried, slot)
		})
	})
	if err != nil {
		m.say(alarm, "a system that did not come up: %v", err)
	}
}

// otherStarted notes that the system which should have been started cannot be read.
func (m *machine) otherStarted() {
	slot := m.args[disk.SlotArg]
	m.say(alarm, "the system in slot %s cannot be read: the one in slot %s is started from now on; install another by \"boot system\"", disk.Other(slot), slot)
	err := m.withESP(func(e esp) error {
		return e.change(slot, func(env disk.Env) {
			env[disk.EnvGood] = slot
			delete(env, disk.EnvTry)
			delete(env, disk.EnvTries)
		})
	})
	if err != nil {
		m.say(alarm, "a system that cannot be read: %v", err)
	}
}

// installSystem installs the system that the startup configuration's "boot system"
// names, if it is another than the one that runs, in the slot that is not used, and
// reports whether the machine is to start again for it. A system that did not come
// up is installed again only from a file that is newer.
func (m *machine) installSystem() (restart bool) {
	text, err := readStartup(startupFile)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			m.say(alarm, "the startup configuration: %v", err)
		}
		return false
	}
	name, err := bootSystem(text)
	if err != nil {
		m.say(alarm, "%v", err)
		return false
	}
	if name == "" {
		return false
	}
	slot := m.args[disk.SlotArg]
	if slot == "" {
		m.say(warning, "boot system disk0:/%s: the machine's host gives it its system, and this one is left alone", name)
		return false
	}
	f, err := openRegular(filepath.Join(flashDir, name))
	if err == nil {
		defer f.Close()
		restart, err = m.upgrade(m.withESP, slot, "disk0:/"+name, f)
	}
	if err != nil {
		m.say(alarm, "boot system disk0:/%s: %v; the box goes on with the system it has", name, err)
		return false
	}
	return restart
}

// A systemFile is a bundle as a file.
type systemFile interface {
	io.ReadSeeker
	Stat() (os.FileInfo, error)
}

// upgrade installs the bundle f, which is called name, in the slot that running is
// not, if it is another system than that of running and may be installed. It reports
// whether the machine is to start again for it. withESP mounts the ESP. Whenever the
// power is cut, what GRUB starts by its environment is whole, or is tried no more than
// disk.Tries times.
func (m *machine) upgrade(withESP func(func(esp) error) error, running, name string, f systemFile) (restart bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	bundle, err := disk.ReadBundle(f, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return false, err
	}
	err = withESP(func(e esp) (err error) {
		restart, err = m.place(e, running, name, f, bundle, fmt.Sprintf("%s %d", bundle.ID[:32], info.ModTime().Unix()))
		return err
	})
	return restart && err == nil, err
}

// place is upgrade once f, of that id, was read: it is a whole bundle.
func (m *machine) place(e esp, running, name string, f io.Reader, bundle *disk.Bundle, id string) (restart bool, err error) {
	if sameSystem(e.id(running), id) {
		return false, nil
	}
	var env disk.Env
	err = e.change(running, func(now disk.Env) {
		if now[disk.EnvTry] == "" {
			now[disk.EnvGood] = running // or GRUB could start what is half written
		}
		env = now
	})
	switch {
	case err != nil:
		return false, err
	case env[envFailed] == id:
		return false, errors.New("it did not come up, and is not tried again; copy another")
	case env[disk.EnvTry] != "":
		return false, nil // it is being tried
	case m.keysErr != nil:
		return false, m.keysErr
	case len(m.keys) == 0:
		m.say(warning, "boot system %s: bundles are not authenticated: this image has no key that could have signed them", name)
	default:
		if err := bundle.Authentic(m.keys); err != nil {
			return false, err
		}
	}
	to := disk.Other(running)
	m.say(warning, "boot system %s: installing it in slot %s%s", name, to, described(bundle))
	if err := e.install(f, to, bundle.ID, id); err != nil {
		return false, err
	}
	err = e.change(running, func(env disk.Env) {
		env[disk.EnvTry] = to
		env[disk.EnvTries] = fmt.Sprint(disk.Tries)
	})
	return err == nil, err
}

// described is what a bundle says of itself, to be appended.
func described(b *disk.Bundle) (text string) {
	if b.Version != "" {
		text += ": " + b.Version
	}
	if b.Signer != "" {
		text += ", signed by the key " + b.Signer
	}
	return text
}

// sameSystem reports whether two ids are of the same system, whenever it was copied.
func sameSystem(a, b string) bool {
	x, _, _ := strings.Cut(strings.TrimSpace(a), " ")
	y, _, _ := strings.Cut(b, " ")
	return x == y
}

// install writes the system of a bundle, which must have the ID want, to a slot,
// reads it again, and says last what is there.
func (e esp) install(f io.Reader, slot, want, id string) error {
	dir := e.slot(slot)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range []string{sumsFile, disk.KernelFile, disk.InitrdFile} { // room for the new ones
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	sums := make(map[string][sha256.Size]byte)
	bundle, err := disk.ReadBundle(f, func(name string, _ int64, r io.Reader) error {
		sum, err := writeSynced(filepath.Join(dir, name), r)
		sums[name] = sum
		return err
	})
	if err != nil {
		return err
	}
	if bundle.ID != want {
		return errors.New("it changed while it was installed")
	}
	unix.Sync()
	for name, want := range sums {
		got, err := sumFromDisk(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s in slot %s is not what was written", name, slot)
		}
	}
	_, err = writeSynced(filepath.Join(dir, sumsFile), strings.NewReader(id+"\n"))
	unix.Sync()
	return err
}

// writeSynced writes a file and returns its sum.
func writeSynced(name string, r io.Reader) (sum [sha256.Size]byte, err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return sum, err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

// sumFromDisk returns the sum of a file as the disk has it, not memory.
func sumFromDisk(name string) (sum [sha256.Size]byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, err
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}
