//go:build linux

// Package rig builds a topology of network namespaces around an appliance and
// takes it away again. Each host, router and net is a namespace; a net's holds a
// bridge, and every host has a veth to it. The appliance runs in a namespace of
// its own, as a process that outlives who has built the rig.
//
// What a reader may get wrong: a rig is not remembered, it is found. Namespaces
// have the lab's name in theirs, no device is outside of them, and processes are
// whoever is in one of them or has signed itself in. So Down works after anything,
// also on what a builder that was killed has left.
package rig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"patchbay/appliance/lab/topology"
)

// Dir is where rigs have their files: gone after a reboot, as they are. There is
// one for the machine, as there is one list of namespaces' names.
const Dir = "/run/patchbay/lab"

// prefix begins the name of every namespace of a rig: "pblab-NAME-HOST". Names
// have no "-" in them, so that no rig's names begin with another's.
const prefix = "pblab-"

// The files in a rig's directory.
const (
	aboutFile    = "rig.json"
	topologyFile = "topology" + topology.Ending
	configFile   = "box.cfg"
	logFile      = "box.log"
	flashDir     = "flash"
	membersDir   = "processes"
)

// A Rig is a topology that stands.
type Rig struct {
	Name     string
	Topology *topology.Topology
	Driver   string // of the appliance's links: "packet", "tun", "xdp"
	Up       bool   // whether it was built to the end

	dir string // of its files
}

// about is what aboutFile holds.
type about struct {
	Topology string `json:"topology"`
	Driver   string `json:"driver"`
	Up       bool   `json:"up"`
}

// ErrNone is the cause where there is no rig of a name.
var ErrNone = errors.New("there is no such lab")

// Open finds a rig by its name.
func Open(name string) (*Rig, error) {
	if !topology.ValidName(name) {
		return nil, fmt.Errorf("lab %q: %w", name, ErrNone)
	}
	r := &Rig{Name: name, dir: filepath.Join(Dir, name)}
	b, err := os.ReadFile(filepath.Join(r.dir, aboutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("lab %q: %w", name, ErrNone)
	}
	if err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	var a about
	if err := json.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("lab %q: %s: %w", name, aboutFile, err)
	}
	text, err := os.ReadFile(filepath.Join(r.dir, topologyFile))
	if err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	if r.Topology, err = topology.Parse(a.Topology+topology.Ending, bytes.NewReader(text)); err != nil {
		return nil, fmt.Errorf("lab %q: %w", name, err)
	}
	r.Driver, r.Up = a.Driver, a.Up
	return r, nil
}

// save writes what Open reads.
func (r *Rig) save() error {
	b, err := json.Marshal(about{r.Topology.Name, r.Driver, r.Up})
	if err != nil {
		return err
	}
	file := filepath.Join(r.dir, aboutFile)
	if err := os.WriteFile(file+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// List returns the names of the rigs that stand or have left something, in order.
func List() ([]string, error) {
	var names []string
	entries, err := os.ReadDir(Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && topology.ValidName(e.Name()) {
			names = append(names, e.Name())
		}
	}
	spaces, err := namespaces(prefix)
	if err != nil {
		return nil, err
	}
	for _, s := range spaces {
		if name, _, ok := strings.Cut(strings.TrimPrefix(s, prefix), "-"); ok && topology.ValidName(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Namespace is the name of the namespace of a host, router or net, as "ip netns"
// knows it.
func (r *Rig) Namespace(of string) string { return prefix + r.Name + "-" + of }

// named reports whether a namespace has a name of this rig's.
func (r *Rig) named(namespace string) bool { return strings.HasPrefix(namespace, r.Namespace("")) }

// Flash is the appliance's flash directory.
func (r *Rig) Flash() string { return filepath.Join(r.dir, flashDir) }

// File is the path of a file of the rig's owner, beside the rig's own.
func (r *Rig) File(name string) string { return filepath.Join(r.dir, name) }

// Log is the file with what the appliance has printed.
func (r *Rig) Log() string { return filepath.Join(r.dir, logFile) }

// known reports whether a host, router or net has that name.
func (r *Rig) known(name string) bool {
	return r.Topology.Net(name) != nil || slices.Contains(r.Topology.Names(), name)
}

// Places are the names of all that has a namespace.
func (r *Rig) Places() []string {
	names := r.Topology.Names()
	for _, n := range r.Topology.Nets {
		names = append(names, n.Name)
	}
	return names
}

// check complains of a name that has no namespace.
func (r *Rig) check(name string) error {
	if !r.known(name) {
		return fmt.Errorf("lab %s has no host or net %q; it has %s", r.Name, name, strings.Join(r.Places(), ", "))
	}
	return nil
}

// HostOf is the namespace of the host that has addr.
func (r *Rig) HostOf(addr netip.Addr) (namespace string, err error) {
	host := r.Topology.HostOf(addr)
	if host == "" {
		return "", fmt.Errorf("lab %s: no host has %v", r.Name, addr)
	}
	return r.Namespace(host), nil
}
