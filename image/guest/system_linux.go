package guest

import (
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

// withESP does f while the ESP is mounted.
func withESP(f func() error) (err error) {
	b := partition(disk.ESPName, 0)
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
	return f()
}

// changeEnv changes GRUB's environment in place: no metadata of the file system is
// touched.
func changeEnv(change func(disk.Env)) error {
	f, err := os.OpenFile(filepath.Join(bootDir, disk.EnvFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, disk.EnvSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return err
	}
	env, err := disk.ParseEnv(b)
	if err != nil {
		return err
	}
	change(env)
	if b, err = env.Bytes(); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// readEnv reads GRUB's environment.
func readEnv() (disk.Env, error) {
	b, err := os.ReadFile(filepath.Join(bootDir, disk.EnvFile))
	if err != nil {
		return nil, err
	}
	return disk.ParseEnv(b)
}

// makeGood makes the system that runs the one that is started from now on.
func (m *machine) makeGood() {
	slot := m.args[disk.SlotArg]
	err := withESP(func() error {
		return changeEnv(func(e disk.Env) {
			e[disk.EnvGood] = slot
			delete(e, disk.EnvTry)
			delete(e, disk.EnvTries)
			delete(e, envFailed)
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
	err := withESP(func() error {
		return changeEnv(func(e disk.Env) {
			slot := e[disk.EnvTry]
			id, _ := os.ReadFile(filepath.Join(bootDir, disk.SlotDir, slot, sumsFile))
			e[envFailed] = strings.TrimSpace(string(id))
			delete(e, disk.EnvTry)
			delete(e, disk.EnvTries)
			m.say(alarm, "the system in slot %s did not come up: the one before is back, in slot %s", slot, m.args[disk.SlotArg])
		})
	})
	if err != nil {
		m.say(alarm, "a system that did not come up: %v", err)
	}
}

// installSystem installs the system that the startup configuration's "boot system"
// names, if it is another than the one that runs, in the slot that is not used, and
// reports whether the machine is to start again for it. A system that did not come
// up is installed again only from a file that is newer.
func (m *machine) installSystem() (restart bool) {
	text, err := os.ReadFile(startupFile)
	if err != nil {
		return false
	}
	name, err := bootSystem(string(text))
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
	f, err := os.Open(filepath.Join(flashDir, name))
	if err != nil {
		m.say(alarm, "boot system disk0:/%s: %v; the box goes on with the system it has", name, err)
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return false
	}
	id, err := bundleID(f)
	if err != nil {
		m.say(alarm, "boot system disk0:/%s: %v; the box goes on with the system it has", name, err)
		return false
	}
	id = fmt.Sprintf("%s %d", id[:32], info.ModTime().Unix())
	err = withESP(func() error {
		env, err := readEnv()
		if err != nil {
			return err
		}
		own, _ := os.ReadFile(filepath.Join(bootDir, disk.SlotDir, slot, sumsFile))
		if sameSystem(string(own), id) {
			return nil
		}
		if env[envFailed] == id {
			m.say(alarm, "boot system disk0:/%s: it did not come up, and is not tried again; copy another", name)
			return nil
		}
		if env[disk.EnvTry] != "" {
			return nil // it is being tried
		}
		m.say(warning, "boot system disk0:/%s: installing it in slot %s", name, disk.Other(slot))
		if err := install(f, disk.Other(slot), id); err != nil {
			return err
		}
		if err := changeEnv(func(e disk.Env) {
			e[disk.EnvTry] = disk.Other(slot)
			e[disk.EnvTries] = fmt.Sprint(disk.Tries)
		}); err != nil {
			return err
		}
		restart = true
		return nil
	})
	if err != nil {
		m.say(alarm, "boot system disk0:/%s: %v; the box goes on with the system it has", name, err)
		return false
	}
	return restart
}

// sameSystem reports whether two ids are of the same system, whenever it was copied.
func sameSystem(a, b string) bool {
	x, _, _ := strings.Cut(strings.TrimSpace(a), " ")
	y, _, _ := strings.Cut(b, " ")
	return x == y
}

// bundleID reads a bundle to its end and returns its id.
func bundleID(f *os.File) (string, error) {
	id, err := disk.ReadBundle(f, func(_ string, _ int64, r io.Reader) error {
		_, err := io.Copy(io.Discard, r)
		return err
	})
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	return id, err
}

// install writes the system of a bundle to a slot, reads it again, and says last
// what is there.
func install(f *os.File, slot, id string) error {
	dir := filepath.Join(bootDir, disk.SlotDir, slot)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, sumsFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, name := range []string{disk.KernelFile, disk.InitrdFile} { // room for the new ones
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	sums := make(map[string][sha256.Size]byte)
	if _, err := disk.ReadBundle(f, func(name string, _ int64, r io.Reader) error {
		sum, err := writeSynced(filepath.Join(dir, name), r)
		sums[name] = sum
		return err
	}); err != nil {
		return err
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
	_, err := writeSynced(filepath.Join(dir, sumsFile), strings.NewReader(id+"\n"))
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
