//go:build linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"patchbay/appliance/lab/topology"
)

const (
	// startup is how long the appliance may take to come up: it makes its keys.
	startup = 90 * time.Second
	// showLog is how much of the appliance's log an error shows, in bytes.
	showLog = 2000
	// isUp is what the appliance logs when it is.
	isUp = "box is up"
)

// Options says what Up is to build.
type Options struct {
	Name     string // of the lab
	Topology *topology.Topology
	Text     []byte // of the topology
	Config   []byte // of the appliance
	Driver   string // of its links: "packet", "tun", "xdp"
	Program  string // path of patchbay
	// Ready is called before the appliance starts, to put keys on its flash.
	Ready func(r *Rig) error
}

// Up builds a rig and returns when the appliance is up. On an error nothing is
// left of it. ctx is for the time of building.
func Up(ctx context.Context, o Options) (_ *Rig, err error) {
	if os.Geteuid() != 0 {
		return nil, errRoot
	}
	if !topology.ValidName(o.Name) {
		return nil, fmt.Errorf("%q cannot be the name of a lab: a lower-case letter, then lower-case letters, digits and _, up to 11; give another with --name", o.Name)
	}
	if of := devicesOf("self"); of != "" {
		return nil, fmt.Errorf("this is a shell in %s: nobody outside of it would see the names of another lab's namespaces; leave it first", of)
	}
	r := &Rig{Name: o.Name, Topology: o.Topology, Driver: o.Driver, dir: filepath.Join(Dir, o.Name)}
	unlock, err := r.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	spaces, err := namespaces(r.Namespace(""))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(r.dir); err == nil || len(spaces) > 0 {
		return nil, fmt.Errorf("lab %s is there already, or what is left of it: see \"patchbay lab list\", and take it away with \"patchbay lab down %s\"", o.Name, o.Name)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.clear(context.WithoutCancel(ctx)))
		}
	}()
	if err := r.files(o); err != nil {
		return nil, err
	}
	if err := shareNamed(); err != nil {
		return nil, err
	}
	if err := r.wire(ctx); err != nil {
		return nil, err
	}
	if o.Ready != nil {
		if err := o.Ready(r); err != nil {
			return nil, err
		}
	}
	if err := r.startBox(ctx, o.Program); err != nil {
		return nil, err
	}
	if r.Driver == "tun" {
		if err := r.attachTUN(); err != nil {
			return nil, err
		}
	}
	r.Up = true
	return r, r.save()
}

var errRoot = errors.New("this needs root: it makes network namespaces")

// files makes the rig's directory.
func (r *Rig) files(o Options) error {
	if err := os.MkdirAll(filepath.Join(r.dir, membersDir), 0o700); err != nil {
		return err
	}
	if err := os.Chmod(r.dir, 0o700); err != nil { // keys are in it
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(r.dir, topologyFile), o.Text, 0o600),
		os.WriteFile(filepath.Join(r.dir, configFile), o.Config, 0o600),
		r.save())
}

// lock keeps others from building or taking away a lab of that name.
func (r *Rig) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(r.dir), 0o755); err != nil {
		return nil, err
	}
	for limit := time.Now().Add(killed); ; {
		file := r.dir + ".lock"
		f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			// Nothing can be made there, and what is there can be taken away.
			if d, no := os.Open(r.dir); no == nil {
				f, err, file = d, nil, r.dir
			}
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, file) {
			return func() {
				if file != r.dir {
					os.Remove(file) // who waits for it sees that it is gone
				}
				f.Close()
			}, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if time.Now().After(limit) {
			return nil, fmt.Errorf("lab %s is being built or taken away by another process, which holds %s", r.Name, file)
		}
		select {
		case <-time.After(lookout):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sameFile reports whether f is what has that name still.
func sameFile(f *os.File, name string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(name)
	return err == nil && os.SameFile(a, b)
}

// startBox starts the appliance and waits until it is up.
func (r *Rig) startBox(ctx context.Context, program string) error {
	args := []string{"run", "--config", filepath.Join(r.dir, configFile), "--flash", r.Flash(), "--console=false", "--log-level", "info"}
	for _, b := range r.Topology.Box {
		args = append(args, "--link", fmt.Sprintf("%s=%s:%s", b.Nameif, r.Driver, b.Net))
	}
	log, err := os.OpenFile(r.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = log, log
	c.Dir = "/"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // it stays when this process goes
	if err := r.Start(topology.BoxName, c); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for limit := time.After(startup); ; {
		if r.logged(isUp) {
			return nil
		}
		select {
		case err := <-ended:
			if err == nil {
				err = errors.New("it ended")
			}
			return fmt.Errorf("the appliance did not come up: %w; its log:\n%s", err, r.lastLog())
		case <-limit:
			return fmt.Errorf("the appliance was not up after %v; its log:\n%s", startup, r.lastLog())
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookout):
		}
	}
}

// logged reports whether the appliance has logged what.
func (r *Rig) logged(what string) bool {
	b, err := os.ReadFile(r.Log())
	return err == nil && bytes.Contains(b, []byte(what))
}

// lastLog is the end of the appliance's log.
func (r *Rig) lastLog() string {
	f, err := os.Open(r.Log())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-showLog):]))
}

// Processes are the rig's processes: those in its namespaces, and those that have
// joined it. Not this one.
func (r *Rig) Processes() ([]int, error) {
	spaces, err := namespaces(r.Namespace(""))
	if err != nil {
		return nil, err
	}
	return processes(r.dir, spaces, r.named), nil
}

// BoxProcesses are those in the appliance's namespace, the appliance among them
// unless it has ended.
func (r *Rig) BoxProcesses() []int {
	name := r.Namespace(topology.BoxName)
	return processes("", []string{name}, func(other string) bool { return other == name })
}
