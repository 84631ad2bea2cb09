//go:build linux

package rig

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namedDir is where namespaces have names, as "ip netns" has it.
const namedDir = "/run/netns"

// namespaces returns the names of namespaces that begin with prefix, in order.
func namespaces(prefix string) ([]string, error) {
	entries, err := os.ReadDir(namedDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// sharing is held while namedDir is made.
var sharing sync.Mutex

// shareNamed makes namedDir a mount that is shared, as "ip netns" does, so that a
// namespace that loses its name here loses it for everybody who has a mount
// namespace of its own.
func shareNamed() error {
	sharing.Lock()
	defer sharing.Unlock()
	if err := os.MkdirAll(namedDir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", namedDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if errors.Is(err, unix.EINVAL) { // it is no mount yet
		if err = unix.Mount(namedDir, namedDir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = unix.Mount("", namedDir, "none", unix.MS_SHARED|unix.MS_REC, "")
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", namedDir, err)
	}
	return nil
}

// makeNamespace makes a namespace, and calls f in it.
func makeNamespace(name string, f func() error) error {
	return onThread(func() error {
		h, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("making namespace %s: %w", name, err)
		}
		defer h.Close()
		return f()
	})
}

// onThread runs f on a thread that is thrown away afterwards, so that f may
// change what namespaces it is in. The main thread cannot be thrown away, and is
// left alone. When onThread returns no thread is left in a namespace of f's: Down
// in another process would take this one for the rig's.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// As long as this goroutine has the thread, another cannot.
			done <- onThread(f)
			runtime.UnlockOSThread()
			return
		}
		done <- restoring(f) // and never unlock: the thread ends with the goroutine
	}()
	return <-done
}

// restoring runs f and puts the thread back into its network namespace.
func restoring(f func() error) error {
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("own namespace: %w", err)
	}
	defer home.Close()
	err = f()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, fmt.Errorf("leaving a namespace: %w", back))
	}
	return err
}

// within runs f on a thread in the namespace of that name. What f opens or starts
// stays there.
func within(name string, f func() error) error {
	return onThread(func() error {
		if err := enter(name); err != nil {
			return err
		}
		return f()
	})
}

// enter moves this thread, which must be locked, into a namespace.
func enter(name string) error {
	h, err := netns.GetFromName(name)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	defer h.Close()
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	return nil
}

// enterWithDevices is enter, and has /sys show the namespace's devices to what
// the thread starts.
func enterWithDevices(name string) error {
	if err := enter(name); err != nil {
		return err
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mounts of namespace %s: %w", name, err)
	}
	// What is unmounted outside is unmounted here, and not the other way.
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounts of namespace %s: %w", name, err)
	}
	if err := unix.Mount(name, "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("/sys of namespace %s: %w", name, err)
	}
	return nil
}

// removeNamespace takes away a namespace's name. One that was being made, and is
// no mount yet, goes too.
func removeNamespace(name string) error {
	file := filepath.Join(namedDir, name)
	if err := unix.Unmount(file, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("namespace %s: %w", name, err)
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// inode tells a namespace from others, 0 where a name is not one yet.
func inode(path string) uint64 {
	var s unix.Stat_t
	var f unix.Statfs_t
	const nsfs = 0x6e736673
	if unix.Statfs(path, &f) != nil || f.Type != nsfs || unix.Stat(path, &s) != nil {
		return 0
	}
	return s.Ino
}

// Start starts c in the namespace of a host or net.
func (r *Rig) Start(host string, c *exec.Cmd) error {
	if err := r.check(host); err != nil {
		return err
	}
	return onThread(func() error {
		if err := enterWithDevices(r.Namespace(host)); err != nil {
			return err
		}
		return c.Start()
	})
}

// Exec has another program take the place of this one, in the namespace of a host
// or net.
func (r *Rig) Exec(host string, args, env []string) error {
	if err := r.check(host); err != nil {
		return err
	}
	file, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return onThread(func() error {
		if err := enterWithDevices(r.Namespace(host)); err != nil {
			return err
		}
		return fmt.Errorf("%s: %w", file, unix.Exec(file, args, env))
	})
}
