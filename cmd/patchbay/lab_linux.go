package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/appliance/lab/rig"
	"patchbay/appliance/lab/topology"
	"patchbay/appliance/pki"
	"patchbay/stack/link"
)

// The files of a lab's CA, which issues its phones' certificates.
const (
	labCAFile  = "ca.pem"
	labKeyFile = "ca.key"
)

// labFlags are those of all subcommands.
type labFlags struct {
	name string
}

func labCommand() *cobra.Command {
	fl := new(labFlags)
	c := &cobra.Command{
		Use:   "lab",
		Short: "Build a network of namespaces around the box, and make calls in it",
		Long: `Builds topologies of hosts, home routers and firewalls in network namespaces,
with the box among them, and has phones and call managers talk there. As root.

  patchbay lab up home           # phones at home, behind a router
  patchbay lab call              # they boot, register and call
  patchbay lab shell home        # a shell on the phones' host
  patchbay lab capture wan x.pcap
  patchbay lab down home         # nothing is left

A topology is one that comes with the program, as "patchbay lab topologies" lists
them, or the path of a file of your own. A lab has its topology's name, or --name.
Its files are in ` + rig.Dir + `/NAME: the box's log and flash, and its
configuration. Namespaces are pblab-NAME-HOST, for "ip netns exec" as well.`,
	}
	c.PersistentFlags().StringVar(&fl.name, "name", "", "of the lab; default: its topology's, or the only lab there is")
	for _, sub := range []*cobra.Command{fl.upCommand(), fl.callCommand(), fl.shellCommand(), fl.captureCommand(), fl.execCommand(), fl.listCommand(), fl.downCommand()} {
		sub.PreRunE = needsRoot
		c.AddCommand(sub)
	}
	c.AddCommand(topologiesCommand(), nodesCommand())
	return c
}

// needsRoot refuses to begin without.
func needsRoot(*cobra.Command, []string) error {
	if os.Geteuid() != 0 {
		return errors.New("this needs root: a lab is made of network namespaces, and its keys are root's alone")
	}
	return nil
}

// open finds the lab that is meant: name, else --name, else the only one.
func (fl *labFlags) open(name string) (*rig.Rig, error) {
	if name == "" {
		name = fl.name
	}
	if name == "" {
		names, err := rig.List()
		if err != nil {
			return nil, err
		}
		switch len(names) {
		case 0:
			return nil, errors.New("there is no lab: build one with \"patchbay lab up TOPOLOGY\"")
		case 1:
			name = names[0]
		default:
			return nil, fmt.Errorf("which lab? --name is one of %s", strings.Join(names, ", "))
		}
	}
	r, err := rig.Open(name)
	if err != nil {
		return nil, err
	}
	if !r.Up {
		return nil, fmt.Errorf("lab %s was not built to the end: \"patchbay lab down %s\" takes away what is there", name, name)
	}
	return r, nil
}

// openWithBox is open for what the box is needed for.
func (fl *labFlags) openWithBox(name string) (*rig.Rig, error) {
	r, err := fl.open(name)
	if err == nil && len(r.BoxProcesses()) == 0 {
		return nil, fmt.Errorf("lab %s: the box has ended, and its log is %s: take the lab away with \"patchbay lab down %s\" and build it anew", r.Name, r.Log(), r.Name)
	}
	return r, err
}

func (fl *labFlags) upCommand() *cobra.Command {
	var driver string
	c := &cobra.Command{
		Use:   "up TOPOLOGY",
		Short: "Build a topology and start the box in it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return fl.up(cmd, args[0], driver)
		},
	}
	c.Flags().StringVar(&driver, "driver", "packet", "of the box's links: packet, tun or xdp")
	return c
}

func (fl *labFlags) up(cmd *cobra.Command, name, driver string) error {
	switch driver {
	case "packet", "tun", "xdp":
	default:
		return fmt.Errorf("--driver %q: want packet, tun or xdp", driver)
	}
	t, text, cfg, err := topology.Read(name)
	if err != nil {
		return err
	}
	// What is wrong with the configuration itself the box says.
	if running, findings := config.Check(t.Config, bytes.NewReader(cfg)); config.Errors(findings) == 0 {
		if err := t.Match(running); err != nil {
			return err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if fl.name == "" {
		fl.name = t.Name
	}
	start := time.Now()
	r, err := rig.Up(cmd.Context(), rig.Options{
		Name: fl.name, Topology: t, Text: text, Config: cfg, Driver: driver, Program: program,
		Ready: func(r *rig.Rig) error { return fillFlash(r, t) },
	})
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("interrupted, and lab %s is taken away again: %w", fl.name, err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "lab %s is up after %.1f s: %s; the box has %s: links\nhosts: %s\nnets:  %s\nlog:   %s\n",
		r.Name, time.Since(start).Seconds(), t.Title, driver, strings.Join(t.Names(), " "), netNames(t), r.Log())
	return nil
}

func netNames(t *topology.Topology) string {
	var b strings.Builder
	for i, n := range t.Nets {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s %v", n.Name, n.Prefix)
	}
	return b.String()
}

// fillFlash makes the CA of the lab's phones and has the box trust it.
func fillFlash(r *rig.Rig, t *topology.Topology) error {
	ca, err := lab.NewCA(lab.CAName, 2048, x509.SHA1WithRSA, nil, nil)
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(r.File(labCAFile), ca.PEM(), 0o600),
		os.WriteFile(r.File(labKeyFile), ca.KeyPEM(), 0o600)); err != nil {
		return err
	}
	store, err := pki.Open(r.Flash(), pki.Options{})
	if err != nil {
		return err
	}
	for _, trustpoint := range t.CAs {
		if _, err := store.Authenticate(trustpoint, ca.Cert.Raw); err != nil {
			return fmt.Errorf("trustpoint %s: %w", trustpoint, err)
		}
	}
	return nil
}

// lines are the phones of a topology.
func lines(t *topology.Topology) string {
	var all []string
	for _, p := range t.Phones {
		all = append(all, p.Line+" ("+p.Protocol+")")
	}
	return strings.Join(all, ", ")
}

// callFlags are how calls are wanted.
type callFlags struct {
	json     bool
	hold     bool
	duration time.Duration
	verbose  bool
}

func (fl *labFlags) callCommand() *cobra.Command {
	var cf callFlags
	c := &cobra.Command{
		Use:   "call [LAB] [FROM TO]",
		Short: "Have the lab's phones boot, register and call",
		Long: `Has the phones and call managers of the lab, as its topology names them, come up
on the sockets of their hosts' namespaces; phones boot by TFTP, check what they get
as real phones do, register, and call as the topology says, or FROM calls TO, lines
both. Each step prints what was measured, and whether anything passed a public net
in the clear. Exits 1 if a step failed.`,
		Args: cobra.MaximumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args)%2 == 1 {
				name, args = args[0], args[1:]
			}
			if len(args) == 2 && topology.ValidName(args[0]) {
				return fmt.Errorf("%q is no phone's line, which is digits: it is two lines, or none, behind the lab's name", args[0])
			}
			r, err := fl.openWithBox(name)
			if err != nil {
				return err
			}
			acts := r.Topology.Acts
			if len(args) == 2 {
				if err := r.Topology.CanCall(args[0], args[1]); err != nil {
					return fmt.Errorf("lab %s: %w; its phones are %s", r.Name, err, lines(r.Topology))
				}
				acts = []topology.Act{{Verb: "call", Args: args}}
			}
			return labCall(cmd, r, acts, cf)
		},
	}
	f := c.Flags()
	f.BoolVar(&cf.json, "json", false, "print the results as JSON lines")
	f.BoolVar(&cf.hold, "hold", true, "with hold and resume by both ends")
	f.DurationVar(&cf.duration, "duration", time.Second, "how long the phones talk in each step")
	f.BoolVar(&cf.verbose, "verbose", false, "print what phones and call managers do to standard error")
	return c
}

// labCall makes calls in a lab.
func labCall(cmd *cobra.Command, r *rig.Rig, acts []topology.Act, cf callFlags) (err error) {
	if cf.duration < 200*time.Millisecond {
		return fmt.Errorf("--duration %v: at least 200ms are needed to tell a tone", cf.duration)
	}
	ca, err := loadLabCA(r)
	if err != nil {
		return err
	}
	leave, err := r.Join()
	if err != nil {
		return err
	}
	defer leave()
	o := lab.Options{Cast: labCast(r.Topology), CA: ca, SCCPVersion: 17}
	if cf.verbose {
		o.Log = func(format string, args ...any) {
			fmt.Fprintf(cmd.ErrOrStderr(), time.Now().Format("15:04:05.000 ")+format+"\n", args...)
		}
	}
	l, err := lab.NewLab(o, func(_ lab.Place, addr netip.Addr) (lab.Host, error) {
		ns, err := r.HostOf(addr)
		if err != nil {
			return nil, err
		}
		return lab.NewKernelHost(ns, addr)
	})
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: is there another \"patchbay lab call\" in lab %s?", err, r.Name)
	}
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	unwatch, err := watchPublic(ctx, r, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unwatch()) }()
	failed := 0
	enc := json.NewEncoder(cmd.OutOrStdout())
	results := lab.Play(ctx, l, playOf(acts), lab.CallOptions{Talk: cf.duration, NoHold: !cf.hold, Step: func(s lab.StepResult) {
		if !s.OK {
			failed++
		}
		if cf.json {
			if enc.Encode(s) != nil {
				failed++
			}
			return
		}
		fmt.Fprintln(cmd.OutOrStdout(), s)
	}})
	if !cf.json {
		fmt.Fprintf(cmd.OutOrStdout(), "%d steps, %d failed\n", len(results), failed)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps failed; the box's log is %s", failed, len(results), r.Log())
	}
	return nil
}

func loadLabCA(r *rig.Rig) (*lab.CA, error) {
	cert, err := os.ReadFile(r.File(labCAFile))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(r.File(labKeyFile))
	if err != nil {
		return nil, err
	}
	return lab.LoadCA(cert, key)
}

// tftpPort is where phones fetch their files.
const tftpPort = 69

// labCast is who there is in a topology.
func labCast(t *topology.Topology) *lab.Cast {
	c := new(lab.Cast)
	place := func(addr netip.Addr) lab.Place { return lab.Place(t.HostOf(addr)) }
	addrs := make(map[string]netip.Addr)
	for _, m := range t.Managers {
		addrs[m.Name] = m.Addr
	}
	for _, m := range t.Managers {
		part := lab.ManagerPart{Name: m.Name, Place: place(m.Addr), Addr: m.Addr, MediaNets: m.Media, Backup: addrs[m.Backup], TFTP: m.TFTP}
		if part.MediaNets == nil {
			for _, n := range t.Nets {
				if n.Prefix.Contains(m.Addr) {
					part.MediaNets = []netip.Prefix{n.Prefix}
				}
			}
		}
		c.Managers = append(c.Managers, part)
	}
	for _, p := range t.Phones {
		c.Phones = append(c.Phones, lab.PhonePart{
			Place: place(p.Addr), Protocol: lab.Protocol(p.Protocol), Addr: p.Addr, Line: p.Line, Secure: p.Secure,
			TFTP: netip.AddrPortFrom(p.TFTP, tftpPort),
		})
	}
	for _, s := range t.Sites {
		c.Sites = append(c.Sites, lab.SitePart{Place: place(s.Addr), Addr: netip.AddrPortFrom(s.Addr, s.Port), Proxy: s.Proxy})
	}
	return c
}

// playOf is what a topology has happen.
func playOf(acts []topology.Act) []lab.Act {
	var all []lab.Act
	for _, a := range acts {
		switch a.Verb {
		case "call":
			all = append(all, lab.Act{Call: &[2]string{a.Args[0], a.Args[1]}})
		case "services":
			all = append(all, lab.Act{Services: a.Args[0]})
		case "stop":
			all = append(all, lab.Act{Stop: a.Args[0]})
		}
	}
	return all
}

// watchPublic has the lab look at what passes its public nets. The error of stop is
// that it could not.
func watchPublic(ctx context.Context, r *rig.Rig, l *lab.Lab) (stop func() error, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	stop = func() error {
		cancel()
		wg.Wait()
		return errors.Join(errs...)
	}
	for _, n := range r.Topology.Nets {
		if !n.Public {
			continue
		}
		c, err := r.Capture(n.Name)
		if err != nil {
			return nil, errors.Join(err, stop())
		}
		wg.Go(func() {
			defer c.Close()
			err := c.Run(ctx, func(_ time.Time, frame []byte) {
				if p := rig.IPv4(frame); p != nil {
					l.Watch(p)
				}
			})
			if err == nil && c.Dropped() > 0 {
				err = fmt.Errorf("%d frames came too fast to be looked at", c.Dropped())
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("watching net %s: %w", n.Name, err))
			}
		})
	}
	return stop, nil
}

func (fl *labFlags) shellCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "shell HOST [COMMAND ...]",
		Short: "Run a shell or a command in the namespace of a host or net",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := fl.open("")
			if err != nil {
				return err
			}
			host, args := args[0], args[1:]
			if len(args) > 0 && args[0] == "--" {
				args = args[1:]
			}
			env := os.Environ()
			if len(args) == 0 {
				shell := os.Getenv("SHELL")
				if shell == "" {
					shell = "/bin/sh"
				}
				args = []string{shell}
				env = append(env, fmt.Sprintf("PS1=%s@%s# ", host, r.Name))
			}
			return r.Exec(host, args, append(env, "PATCHBAY_LAB="+r.Name, "PATCHBAY_HOST="+host))
		},
	}
	c.Flags().SetInterspersed(false) // what follows the host is the command's
	return c
}

func (fl *labFlags) captureCommand() *cobra.Command {
	var duration time.Duration
	c := &cobra.Command{
		Use:   "capture {NET | HOST | HOST:NET} FILE",
		Short: "Write what passes a net or a host's devices to a pcap file",
		Long: `Writes Ethernet frames until it is interrupted, or for --duration. A net shows each
frame once. A router with two devices shows a packet on each, which is how to see what
it has translated; HOST:NET is one of them.`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := fl.open("")
			if err != nil {
				return err
			}
			return labCapture(cmd, r, args[0], args[1], duration)
		},
	}
	c.Flags().DurationVar(&duration, "duration", 0, "how long; default: until it is interrupted")
	return c
}

func labCapture(cmd *cobra.Command, r *rig.Rig, of, file string, duration time.Duration) (err error) {
	ctx := cmd.Context()
	if duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, duration)
		defer cancel()
	}
	leave, err := r.Join()
	if err != nil {
		return err
	}
	defer leave()
	c, err := r.Capture(of)
	if err != nil {
		return err
	}
	defer c.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	rec, err := link.NewFrameRecorder(f)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "capturing %s\n", of)
	frames := 0
	err = c.Run(ctx, func(at time.Time, frame []byte) {
		frames++
		rec.Frame(at, frame)
	})
	if err := errors.Join(err, rec.Close()); err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%d frames in %s", frames, file)
	if n := c.Dropped(); n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), ", %d more came too fast", n)
	}
	fmt.Fprintln(cmd.ErrOrStderr())
	return nil
}

func (fl *labFlags) execCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "exec COMMAND ...",
		Short:   "Have the lab's box do a command of EXEC mode, as \"patchbay exec\"",
		Example: "  patchbay lab exec show phone-proxy secure-phones",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := fl.openWithBox("")
			if err != nil {
				return err
			}
			return execIn(cmd, filepath.Join(r.Flash(), controlName), args)
		},
	}
	c.Flags().SetInterspersed(false)
	return c
}

func (fl *labFlags) listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the labs there are",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, err := rig.List()
			if err != nil {
				return err
			}
			for _, name := range names {
				r, err := rig.Open(name)
				state := "up"
				switch {
				case err != nil:
					fmt.Fprintf(cmd.OutOrStdout(), "%-12s left over: patchbay lab down %s\n", name, name)
					continue
				case !r.Up:
					state = "not built to the end"
				case len(r.BoxProcesses()) == 0:
					state = "the box has ended"
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-12s %s, %s, %s: %s\n", name, r.Topology.Name, r.Driver, state, strings.Join(r.Topology.Names(), " "))
			}
			return nil
		},
	}
}

func (fl *labFlags) downCommand() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "down [LAB ...]",
		Short: "Take a lab away, whatever state it is in",
		Long: `Ends the lab's processes and removes its devices, namespaces and files, keys
among them. They are found by name: it does not matter what has crashed before.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			names := args
			if len(names) == 0 && fl.name != "" {
				names = []string{fl.name}
			}
			if len(names) == 0 {
				found, err := rig.List()
				if err != nil {
					return err
				}
				if len(found) > 1 && !all {
					return fmt.Errorf("which lab? There are %s; --all is all of them", strings.Join(found, ", "))
				}
				if len(found) == 0 && !all {
					return errors.New("there is no lab")
				}
				names = found
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, rig.Down(cmd.Context(), name))
			}
			return errors.Join(errs...)
		},
	}
	c.Flags().BoolVar(&all, "all", false, "all labs there are")
	return c
}

func topologiesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "topologies [NAME]",
		Short: "List the topologies that come with the program, or print one",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				_, text, cfg, err := topology.Read(args[0])
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n%s", text, cfg)
				return err
			}
			for _, name := range topology.Library() {
				t, _, _, err := topology.Read(name)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%-10s %s\n", name, t.Title)
			}
			return nil
		},
	}
}
