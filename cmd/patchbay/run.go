package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

// errorsLevel is what goes to standard error in any case: severity errors.
const errorsLevel = 3

func runCommand() *cobra.Command {
	var file, flash, level, socket string
	var links []string
	var lenient bool
	c := &cobra.Command{
		Use:   "run --config FILE --flash DIR --link NAMEIF=DRIVER:DEVICE ...",
		Short: "Be the box that a configuration describes",
		Long: `Brings up the interfaces of an ASA running configuration and serves phones until
SIGINT or SIGTERM. Each interface with a nameif needs a link:

  outside=packet:eth0   the NIC or veth itself, by AF_PACKET; the kernel must have
                        no address on it and is kept from answering there
  inside=tun:pb0        a TUN device, made if it is not there

The flash directory holds the keys. Back it up: phones trust them. A socket there
takes the commands of "patchbay exec" from the user that runs the box.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := load(cmd, file, lenient)
			if err != nil {
				return err
			}
			opt := appliance.Options{Console: os.Stderr, ConsoleLevel: errorsLevel}
			if level != "" {
				opt.Console = nil
				if opt.Log, err = logger(level); err != nil {
					return err
				}
			}
			store, err := pki.Open(flash, pki.Options{})
			if err != nil {
				return err
			}
			opened, err := openLinks(r, links)
			if err != nil {
				return err
			}
			opt.Links, opt.Store = opened, store
			a, err := appliance.New(r, opt)
			if err != nil {
				closeLinks(opened)
				return err
			}
			for _, err := range store.Damaged() {
				a.Log().Error("flash", "reason", err)
			}
			if socket == "" {
				socket = filepath.Join(flash, controlName)
			}
			exec := func(ctx context.Context, w io.Writer, line string) error { return a.ExecContext(ctx, w, line, nil) }
			control, err := listenControl(socket, exec, a.Log())
			if err != nil {
				return errors.Join(err, a.Close())
			}
			err = a.Run(cmd.Context())
			return errors.Join(err, control.Close())
		},
	}
	f := c.Flags()
	f.StringVar(&file, "config", "", "ASA running configuration")
	f.StringVar(&flash, "flash", "", "directory for keys and certificates; made if it is not there")
	f.StringArrayVar(&links, "link", nil, "NAMEIF=DRIVER:DEVICE; once for each interface")
	f.StringVar(&socket, "socket", "", "where \"patchbay exec\" reaches the box; default: "+controlName+" in the flash directory")
	f.BoolVar(&lenient, "lenient", false, "leave out the lines that would be refused, and what depends on them")
	f.StringVar(&level, "log-level", "", "debug, info, warn or error: all that is logged goes to standard error; default: what \"logging console\" says, and errors")
	for _, name := range []string{"config", "flash", "link"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // a flag of that name is defined above
		}
	}
	return c
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
	for _, x := range findings {
		if x.Severity >= config.Warning {
			fmt.Fprintln(cmd.ErrOrStderr(), x)
		}
	}
	if n := config.Errors(findings); n > 0 {
		return nil, fmt.Errorf("%s: %d errors: the configuration is refused as a whole", file, n)
	}
	return r, nil
}

// check is config.Check, or with lenient what it says of the configuration that
// is left when all that is refused is left out.
func check(file string, r io.Reader, lenient bool) (*config.Running, []config.Finding) {
	if !lenient {
		return config.Check(file, r)
	}
	text, findings := config.Load(file, r, true)
	running, _ := text.Running()
	return running, findings
}

func openLinks(r *config.Running, args []string) (map[string]stack.Link, error) {
	opened := make(map[string]stack.Link)
	var devices link.Devices // sub-interfaces share one
	for _, arg := range args {
		name, device, err := pair(arg)
		if err == nil && opened[name] != nil {
			err = fmt.Errorf("two links for %q", name)
		}
		var l stack.Link
		if err == nil {
			opt := link.Options{}
			if i := r.Interface(name); i != nil {
				opt.MTU, opt.VLAN = i.MTU, uint16(i.VLAN)
			}
			l, err = devices.Open(device, opt)
		}
		if err != nil {
			closeLinks(opened)
			return nil, fmt.Errorf("--link %s: %w", arg, err)
		}
		opened[name] = l
	}
	return opened, nil
}

func closeLinks(links map[string]stack.Link) {
	for _, l := range links {
		l.Close()
	}
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
