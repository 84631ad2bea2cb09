package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/appliance/config"
	"patchbay/appliance/lab"
	"patchbay/appliance/pki"
	"patchbay/stack"
	"patchbay/stack/link"
)

//go:embed demo.cfg
var demoConfig []byte

// demoFlags are how a demo is wanted.
type demoFlags struct {
	json     bool
	pcap     string
	protocol string
	duration time.Duration
	level    string
}

func demoCommand() *cobra.Command {
	var fl demoFlags
	c := &cobra.Command{
		Use:   "demo",
		Short: "Boot phones in a lab in memory and have them talk through the box",
		Long: `Builds a lab in memory, without root or network: a call manager with its TFTP
server and plain phones inside; phones outside, one of each protocol straight on
the Internet and one behind a home router doing PAT. The phones outside boot by
TFTP, check what they get as real phones do, register over TLS, and place calls
both ways and among each other, with a tone of its own in each direction, hold,
resume and hang up. Each step prints what was measured. Exits 1 if one failed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), cmd.OutOrStdout(), fl)
		},
	}
	f := c.Flags()
	f.BoolVar(&fl.json, "json", false, "print the results as JSON lines")
	f.StringVar(&fl.pcap, "pcap", "", "write DIR/outside.pcap and DIR/inside.pcap, as seen on the wire")
	f.StringVar(&fl.protocol, "protocol", "both", "sip, sccp or both")
	f.DurationVar(&fl.duration, "duration", time.Second, "how long the phones talk in each step")
	f.StringVar(&fl.level, "log-level", "error", "of the box: debug, info, warn or error")
	return c
}

func demo(ctx context.Context, out io.Writer, fl demoFlags) (err error) {
	var protocols []lab.Protocol
	switch fl.protocol {
	case "sip":
		protocols = []lab.Protocol{lab.SIP}
	case "sccp", "skinny":
		protocols = []lab.Protocol{lab.SCCP}
	case "both":
	default:
		return fmt.Errorf("--protocol %q: want sip, sccp or both", fl.protocol)
	}
	if fl.duration < 200*time.Millisecond {
		return fmt.Errorf("--duration %v: at least 200ms are needed to tell a tone", fl.duration)
	}
	// Version 17 is what loads of the 8.5 generation speak, and what protocol
	// analyzers read without complaint.
	l, err := lab.NewMemoryLab(lab.Options{SCCPVersion: 17})
	if err != nil {
		return err
	}
	defer l.Close()
	links := map[string]stack.Link{"outside": l.Outside(), "inside": l.Inside()}
	if fl.pcap != "" {
		finish, err := record(fl.pcap, links)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, finish()) }()
	}
	stop, err := startBox(ctx, l, links, fl.level)
	if err != nil {
		return err
	}
	if !fl.json {
		fmt.Fprintln(out, "a call manager and plain phones inside, secure phones outside, and Patchbay between them")
	}
	failed := 0
	enc := json.NewEncoder(out)
	results := lab.RunCalls(ctx, l, lab.CallOptions{Protocols: protocols, Talk: fl.duration, Step: func(r lab.StepResult) {
		if !r.OK {
			failed++
		}
		if fl.json {
			if e := enc.Encode(r); e != nil {
				failed++
			}
			return
		}
		fmt.Fprintln(out, r)
	}})
	if err := stop(); err != nil {
		return err
	}
	if !fl.json {
		fmt.Fprintf(out, "%d steps, %d failed\n", len(results), failed)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d steps failed", failed, len(results))
	}
	return nil
}

// startBox runs the demo's configuration between the lab's networks, with keys
// of its own in a directory that goes with it.
func startBox(ctx context.Context, l *lab.Lab, links map[string]stack.Link, level string) (stop func() error, err error) {
	log, err := logger(level)
	if err != nil {
		return nil, err
	}
	r, findings := config.Check("demo.cfg", bytes.NewReader(demoConfig))
	if n := config.Errors(findings); n > 0 {
		return nil, fmt.Errorf("demo.cfg: %v", findings)
	}
	flash, err := os.MkdirTemp("", "patchbay-demo-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(flash)
		}
	}()
	store, err := pki.Open(flash, pki.Options{})
	if err != nil {
		return nil, err
	}
	if _, err := store.Authenticate("phone_ca", l.CA.Cert.Raw); err != nil {
		return nil, err
	}
	a, err := appliance.New(r, appliance.Options{Links: links, Store: store, Log: log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	return func() error {
		cancel()
		return errors.Join(<-done, os.RemoveAll(flash))
	}, nil
}

// record puts a tap on each link that writes what passes to dir.
func record(dir string, links map[string]stack.Link) (finish func() error, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var finishers []func() error
	finish = func() error {
		var errs []error
		for _, f := range finishers {
			errs = append(errs, f())
		}
		return errors.Join(errs...)
	}
	for name, l := range links {
		f, err := os.Create(filepath.Join(dir, name+".pcap"))
		if err != nil {
			return nil, errors.Join(err, finish())
		}
		rec, err := link.NewRecorder(f)
		if err != nil {
			return nil, errors.Join(err, f.Close(), finish())
		}
		finishers = append(finishers, func() error { return errors.Join(rec.Close(), f.Close()) })
		links[name] = link.Tap(l, func(_ link.Direction, p *stack.Packet) { rec.Packet(p) })
	}
	return finish, nil
}
