//go:build linux

package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"patchbay/appliance/lab/topology"
)

// Down takes away a rig, or what is left of one: its processes, devices,
// namespaces and files.
func Down(ctx context.Context, name string) error {
	if os.Geteuid() != 0 {
		return errRoot
	}
	if !topology.ValidName(name) {
		return fmt.Errorf("lab %q: %w", name, ErrNone)
	}
	r := &Rig{Name: name, dir: filepath.Join(Dir, name)}
	unlock, err := r.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	spaces, err := namespaces(r.Namespace(""))
	if err != nil {
		return err
	}
	if _, err := os.Stat(r.dir); err != nil && len(spaces) == 0 {
		return fmt.Errorf("lab %q: %w", name, ErrNone)
	}
	return r.clear(ctx)
}

// clear takes everything away that can be found.
func (r *Rig) clear(ctx context.Context) error {
	spaces, err := namespaces(r.Namespace(""))
	if err != nil {
		return err
	}
	errs := []error{end(ctx, func() []int { return processes(r.dir, spaces, r.named) })}
	for _, s := range spaces {
		// A namespace lasts as long as somebody has a socket in it; its devices,
		// and programs attached to them, are to go now.
		errs = append(errs, removeDevices(s), removeNamespace(s))
	}
	errs = append(errs, os.RemoveAll(r.dir))
	return errors.Join(errs...)
}

// removeDevices removes the devices of a namespace. One that was being made is no
// namespace yet.
func removeDevices(name string) error {
	if inode(filepath.Join(namedDir, name)) == 0 {
		return nil
	}
	return within(name, func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return fmt.Errorf("devices of namespace %s: %w", name, err)
		}
		for _, l := range links {
			// A veth goes with its peer, which may have gone before.
			if err := netlink.LinkDel(l); err != nil && l.Attrs().Name != "lo" && l.Type() == "veth" && !gone(err) {
				return fmt.Errorf("device %s of namespace %s: %w", l.Attrs().Name, name, err)
			}
		}
		return nil
	})
}

// gone reports whether an error says that there is no such device.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL)
}
