package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/console"
	"patchbay/appliance/pki"
	"patchbay/image/disk"
	"patchbay/stack"
	"patchbay/stack/link"
)

// runFlags are what "patchbay run" is told.
type runFlags struct {
	file, flash, level, socket, ssh, machine string
	links                                    []string
	lenient, console                         bool
	wait                                     time.Duration
	processors                               func(readers int)

	findings []config.Finding // lines of the configuration that were left out
}

// errReload ends a box that is to begin anew.
var errReload = errors.New("reload")

// errorsLevel is what goes to standard error in any case: severity errors.
const errorsLevel = 3

// processors returns what gives Go its own processors, and one for each goroutine
// that reads a device: it keeps one while it waits for its next packet. The own
// ones are those Go began with: of the machine, the container or $GOMAXPROCS.
func processors(own int) func(readers int) {
	return func(readers int) { runtime.GOMAXPROCS(own + readers) }
}

func runCommand() *cobra.Command {
	var fl runFlags
	c := &cobra.Command{
		Use:   "run [--config FILE] --flash DIR --link NAMEIF=DRIVER:DEVICE ...",
		Short: "Be the box that a configuration describes",
		Long: `Brings up the interfaces of an ASA running configuration and serves phones until
SIGINT or SIGTERM. Each interface with a nameif needs a link, by its nameif or by
the name of the interface:

  outside=packet:eth0   the NIC or veth itself, by AF_PACKET; the kernel must have
                        no address on it and is kept from answering there
  outside=xdp:eth0      the same by AF_XDP, past the kernel's stack: in the driver if
                        that can, else in the kernel; MTU up to 3498. Options follow,
                        each after a comma: mode=native, mode=generic, zerocopy,
                        queues=N (give the device N queues, each read on its own)
  outside=auto:eth0     xdp: or, where that is not to be had, packet:; the log and
                        "show interface" say why
  inside=tun:pb0        a TUN device, made if it is not there
  GigabitEthernet0/2=packet:eth2   for an interface that is yet to be configured

Without --config the box begins with what "write memory" has put into the flash
directory, and if there is nothing with an empty configuration. "reload" does too.

On a terminal the box has its console there; Ctrl-\ ends the box. SSH is served on
the box's own addresses as its "ssh" lines say, and with --ssh on one of the host.

The flash directory holds the keys. Back it up: phones trust them. A socket there
takes the commands of "patchbay exec" from the user that runs the box.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			term, err := openTerminal(os.Stdin, fl.console)
			if err != nil {
				return fmt.Errorf("--console: %w", err)
			}
			defer term.Close()
			fl.processors = processors(runtime.GOMAXPROCS(0))
			ctx, stop := term.stopped(cmd.Context())
			defer stop()
			for {
				err := fl.run(ctx, cmd, term)
				if !errors.Is(err, errReload) {
					return err
				}
				if fl.machine != "" { // which is what starts again
					return notify("X_PATCHBAY_RELOAD=1")
				}
				if _, err := console.OpenStartup(fl.flash).Read(); err == nil {
					fl.file = "" // what was written since is what it begins with
				}
			}
		},
	}
	f := c.Flags()
	f.StringVar(&fl.file, "config", "", "ASA running configuration; default: the startup configuration in the flash directory")
	f.StringVar(&fl.flash, "flash", "", "directory for keys and certificates; made if it is not there")
	f.StringArrayVar(&fl.links, "link", nil, "NAMEIF=DRIVER:DEVICE; once for each interface")
	f.StringVar(&fl.socket, "socket", "", "where \"patchbay exec\" reaches the box; default: "+controlName+" in the flash directory")
	f.StringVar(&fl.ssh, "ssh", "", "also serve SSH on ADDRESS:PORT of the host")
	f.DurationVar(&fl.wait, "wait", 0, "how long to wait for devices that are not there yet, as in a container")
	f.BoolVar(&fl.console, "console", true, "the console is on standard input, if that is a terminal")
	f.StringVar(&fl.machine, "machine", "", "a FIFO from which lines are logged: the box has a machine to itself, links may come later and \"reload\" ends the program")
	f.BoolVar(&fl.lenient, "lenient", false, "leave out the lines that would be refused, and what depends on them")
	f.StringVar(&fl.level, "log-level", "", "debug, info, warn or error: all that is logged goes to standard error; default: what \"logging console\" says, and errors")
	require(c, "flash")
	return c
}

// run is one life of the box. It is errReload that it is to begin another.
func (fl *runFlags) run(ctx context.Context, cmd *cobra.Command, term *hostTerminal) error {
	store, err := pki.Open(fl.flash, pki.Options{})
	if err != nil {
		return err
	}
	startup := console.OpenStartup(fl.flash)
	text, err := fl.text(cmd, startup, store)
	if err != nil {
		return err
	}
	r, _ := text.Running()
	links, err := newLinks(fl.links)
	if err != nil {
		return err
	}
	links.patient = fl.machine != ""
	links.devices.OnReaders(fl.processors)
	if err := links.await(ctx, fl.wait); err != nil {
		return err
	}
	opt := appliance.Options{Open: links.open, Hardware: slices.Sorted(maps.Keys(links.of)), Store: store, Console: os.Stderr, ConsoleLevel: errorsLevel}
	if fl.level != "" {
		opt.Console = nil
		if opt.Log, err = logger(fl.level); err != nil {
			return err
		}
	}
	a, err := appliance.New(r, opt)
	if err != nil {
		return err
	}
	log := a.Log()
	for _, err := range store.Damaged() {
		log.Error("flash", "reason", err)
	}
	links.tell(r, log)
	if fl.machine != "" {
		for _, f := range fl.findings {
			log.Error("startup configuration", "reason", f)
		}
		end, err := hearMachine(fl.machine, log)
		if err != nil {
			return errors.Join(err, a.Close())
		}
		defer end()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	keys := ""
	if fl.machine != "" {
		keys = "/" + disk.KeysFile
	}
	box, err := console.NewBox(console.Options{App: a, Text: text, Startup: startup, Store: store, Log: log, Keys: keys,
		Space: func() (total, free uint64) { return space(fl.flash) }, Reload: func() { cancel(errReload) }})
	if err != nil {
		return errors.Join(err, a.Close())
	}
	if fl.socket == "" {
		fl.socket = filepath.Join(fl.flash, controlName)
	}
	control, err := listenControl(fl.socket, box.Exec, a.WatchDebug, log)
	if err != nil {
		return errors.Join(err, a.Close())
	}
	stop, err := fl.consoles(ctx, a, box, term)
	if err != nil {
		return errors.Join(err, control.Close(), a.Close())
	}
	alive, err := announce(ctx, a)
	if err == nil {
		err = a.Run(ctx)
		alive()
	}
	if errors.Is(context.Cause(ctx), errReload) {
		err = errReload
	}
	cancel(nil)
	return errors.Join(err, control.Close(), stop())
}

// consoles serves who commands the box, until ctx ends and stop has returned.
func (fl *runFlags) consoles(ctx context.Context, a *appliance.Appliance, box *console.Box, term *hostTerminal) (stop func() error, err error) {
	server, err := box.SSH()
	if err != nil {
		return nil, err
	}
	a.HandleSSH(server.ServeConn)
	ended := make(chan error, 2)
	serving := 0
	if fl.ssh != "" {
		ln, err := net.Listen("tcp", fl.ssh)
		if err != nil {
			return nil, fmt.Errorf("--ssh: %w", err)
		}
		serving++
		go func() { ended <- server.Serve(ctx, ln) }()
	}
	if term.in != nil {
		serving++
		go func() { ended <- box.Console(ctx, term.transport()) }()
	}
	return func() error {
		var errs []error
		for range serving {
			errs = append(errs, <-ended)
		}
		return errors.Join(errs...)
	}, nil
}

// text is the configuration that the box begins with.
func (fl *runFlags) text(cmd *cobra.Command, startup *console.Startup, store *pki.Store) (config.Text, error) {
	name, read := fl.file, func() ([]byte, error) { return os.ReadFile(fl.file) }
	if fl.file == "" {
		name, read = filepath.Join(fl.flash, "startup-config"), startup.Read
	}
	data, err := read()
	if fl.file == "" && errors.Is(err, fs.ErrNotExist) {
		return config.Text{}, nil
	}
	if err != nil {
		return config.Text{}, err
	}
	text, findings := config.Load(name, bytes.NewReader(data), fl.lenient)
	fl.findings = slices.DeleteFunc(slices.Clone(findings), func(f config.Finding) bool { return !f.LeftOut })
	return text, tell(cmd, name, config.WithKeyPairs(findings, store.HasKey))
}

// load reads a configuration and prints what is wrong with it. One with errors
// does not run, but lenient what is left of it without them.
func load(cmd *cobra.Command, file string, lenient bool) (*config.Running, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, findings := check(file, f, lenient)
	if err := tell(cmd, file, findings); err != nil {
		return nil, err
	}
	return r, nil
}

// tell prints what is wrong with a configuration; errors are the error.
func tell(cmd *cobra.Command, file string, findings []config.Finding) error {
	for _, x := range findings {
		if x.Severity >= config.Warning {
			fmt.Fprintln(cmd.ErrOrStderr(), x)
		}
	}
	if n := config.Errors(findings); n > 0 {
		return fmt.Errorf("%s: %d errors: the configuration is refused as a whole", file, n)
	}
	return nil
}

// check is config.Check, or with lenient what it says of the configuration that
// is left when all that is refused is left out.
func check(file string, r io.Reader, lenient bool) (*config.Running, []config.Finding) {
	if !lenient {
		running, findings := config.Check(file, r)
		findings = append(findings, console.CheckPrivileges(running)...)
		slices.SortStableFunc(findings, func(a, b config.Finding) int { return a.Line - b.Line })
		return running, findings
	}
	text, findings := config.Load(file, r, true)
	running, _ := text.Running()
	return running, findings
}

// hostLinks opens the links that --link names, as interfaces come to need them.
type hostLinks struct {
	of      map[string]string // by nameif or hardware, "DRIVER:DEVICE"
	devices link.Devices      // sub-interfaces share one
	patient bool              // devices may come later, see link.Patient

	mu     sync.Mutex
	log    *slog.Logger // nil: there is none yet, and what is to be logged is in unsaid
	unsaid []func(*slog.Logger)
}

// newLinks reads the flags.
func newLinks(args []string) (*hostLinks, error) {
	l := &hostLinks{of: make(map[string]string)}
	for _, arg := range args {
		name, device, err := pair(arg)
		if err == nil && l.of[name] != "" {
			err = fmt.Errorf("two links for %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("--link %s: %w", arg, err)
		}
		l.of[name] = device
	}
	return l, nil
}

// devicePoll is how often it is looked for a device.
const devicePoll = 100 * time.Millisecond

// await waits until all devices are there that a driver does not make itself. One
// that is not there in time is told by the driver.
func (l *hostLinks) await(ctx context.Context, wait time.Duration) error {
	limit := time.Now().Add(wait)
	for _, of := range l.of {
		driver, device, _ := strings.Cut(of, ":")
		if driver == "tun" {
			continue
		}
		for {
			if _, err := net.InterfaceByName(device); err == nil || !time.Now().Before(limit) {
				break
			}
			select {
			case <-time.After(devicePoll):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// tell logs the links of interfaces that r does not have: they may be configured
// yet, or their names be written wrong.
func (l *hostLinks) tell(r *config.Running, log *slog.Logger) {
	l.mu.Lock()
	l.log = log
	for _, f := range l.unsaid {
		f(log)
	}
	l.unsaid = nil
	l.mu.Unlock()
	if l.patient {
		return // a machine names all that there could be
	}
	for name, device := range l.of {
		if r.Interface(name) == nil && !slices.ContainsFunc(r.Interfaces, func(i config.Interface) bool { return i.Hardware == name }) {
			log.Warn("--link is for an interface that the configuration does not have", "link", name+"="+device)
		}
	}
}

// open opens the link of an interface.
func (l *hostLinks) open(i *config.Interface) (stack.Link, error) {
	device := l.of[i.Name]
	if device == "" {
		device = l.of[i.Hardware]
	}
	if device == "" {
		return nil, fmt.Errorf("there is no link for it: run the box with --link %s=DRIVER:DEVICE", i.Name)
	}
	open := func() (stack.Link, error) {
		opened, err := l.devices.Open(device, link.Options{MTU: i.MTU, VLAN: uint16(i.VLAN)})
		if err != nil {
			return nil, fmt.Errorf("--link %s: %w", device, err)
		}
		return opened, nil
	}
	if !l.patient {
		return open()
	}
	hardware := i.Hardware
	noted := func() (stack.Link, error) {
		opened, err := open()
		if e, ok := opened.(*link.Ethernet); ok && e.Note() != nil { // of others the appliance says it
			l.say(func(log *slog.Logger) {
				log.Warn("the link is not as it might be", "interface", hardware, "driver", e.Driver(), "mode", e.Mode(), "reason", e.Note())
			})
		}
		return opened, err
	}
	return link.NewPatient(noted, i.MTU, func(up bool, err error) { l.changed(hardware, up, err) }), nil
}

// changed logs that the device of an interface has come, or is not there.
func (l *hostLinks) changed(hardware string, up bool, err error) {
	l.say(func(log *slog.Logger) {
		if up {
			log.Warn("%ASA-4-411001: Line protocol on Interface " + hardware + ", changed state to up")
			return
		}
		log.Warn("%ASA-4-411002: Line protocol on Interface "+hardware+", changed state to down", "reason", err)
	})
}

// say logs something, once there is a log.
func (l *hostLinks) say(what func(*slog.Logger)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		l.unsaid = append(l.unsaid, what)
		return
	}
	what(l.log)
}

func checkCommand() *cobra.Command {
	var all, lenient bool
	c := &cobra.Command{
		Use:   "check FILE",
		Short: "Say what would become of each line of a configuration",
		Long: `Prints every finding at once: errors, for which the configuration would be
refused, and warnings. With --all also the lines that are known and have no effect
here. With --lenient what would be refused is left out with what depends on it, and
listed; the rest is a configuration that "patchbay run --lenient" runs. Exits 1 if
there is an error.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			r, findings := check(args[0], f, lenient)
			out := cmd.OutOrStdout()
			warnings, left := 0, 0
			for _, x := range findings {
				fmt.Fprintln(out, x)
				switch {
				case x.LeftOut:
					left++
				case x.Severity == config.Warning:
					warnings++
				}
			}
			if all {
				for _, x := range r.Inert() {
					fmt.Fprintln(out, x)
				}
			}
			n := config.Errors(findings)
			fmt.Fprintf(out, "%s: %d lines, %d errors, %d warnings, %d lines without effect here\n",
				args[0], len(r.Lines), n, warnings, len(r.Inert()))
			if lenient {
				fmt.Fprintf(out, "%s: %d findings of lines left out; the lines counted are those that are left, in the order of the ASA\n", args[0], left)
			}
			if n > 0 {
				return errReported
			}
			return nil
		},
	}
	c.Flags().BoolVar(&lenient, "lenient", false, "leave out the lines that would be refused, and list them")
	c.Flags().BoolVar(&all, "all", false, "also list the lines without effect")
	return c
}
