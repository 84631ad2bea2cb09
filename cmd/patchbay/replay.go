package main

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"patchbay/appliance/cli"
	"patchbay/appliance/pki"
	"patchbay/appliance/replay"
	"patchbay/stack"
	"patchbay/stack/link"
)

// replayFlags are what a replay is made of.
type replayFlags struct {
	config, out, seed, flash string
	in, split, show          []string
	fixChecksums, pickUp     bool
	noText                   bool
}

func replayCommand() *cobra.Command {
	var fl replayFlags
	c := &cobra.Command{
		Use:   "replay --config FILE --in NAMEIF=CAPTURE ... --out DIR",
		Short: "Run captures through the box that a configuration describes",
		Long: `Has the packets of captures (pcap or pcapng; Ethernet with VLAN tags, Linux cooked,
raw IP, BSD loopback) arrive at a box, interleaved by their time stamps, on the
captures' own clock and as fast as the machine can. The same input gives the same
bytes everywhere. DIR gets

  NAMEIF.pcapng   what arrived and what left by each interface; a comment on what
                  was dropped says why
  packets.txt     a line for each packet that arrived or left
  log.txt         what the box logged
  conn.txt, ...   what it knew at the end: a file for each "show" command (--show);
                  conn.json for "conn | json"

With --split one capture that holds both directions of a conversation is taken
apart: packets from an address in the prefix arrive on that interface, others on
the one that --in names. The answers are addressed to what NAT showed of the
other end, and messages of SIP and Skinny name it so. A TCP conversation that
an inspection ends goes through both of the box's halves as messages: the
acknowledgements of the captures become those of what the box has sent. What the
box would end otherwise (TLS, its TFTP server) is admitted and goes no further.`,
		Example: `  patchbay replay --config box.cfg --in outside=call.pcap --split inside=10.0.0.0/8 --out result`,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return replayCaptures(cmd, fl) },
	}
	f := c.Flags()
	f.StringVar(&fl.config, "config", "", "ASA running configuration")
	f.StringArrayVar(&fl.in, "in", nil, "NAMEIF=CAPTURE; once for each interface with a capture")
	f.StringVar(&fl.out, "out", "", "directory for the results; made if it is not there")
	f.StringArrayVar(&fl.split, "split", nil, "NAMEIF=PREFIX: packets from PREFIX arrive on NAMEIF")
	f.StringVar(&fl.seed, "keys", "", "seed of every choice by chance")
	f.StringVar(&fl.flash, "flash", "", "directory of keys and certificates; default: one that goes away, with new keys")
	f.StringSliceVar(&fl.show, "show", []string{"conn", "xlate", "nat", "asp drop"}, "\"show\" commands to do at the end, such as \"conn detail\"")
	f.BoolVar(&fl.fixChecksums, "fix-checksums", false, "make checksums right first: captures taken on a host often have wrong ones")
	f.BoolVar(&fl.pickUp, "pick-up", false, "with --split, make up the handshake of TCP conversations whose beginning the capture lacks")
	f.BoolVar(&fl.noText, "no-text", false, "leave out packets.txt")
	require(c, "config", "in", "out")
	return c
}

// results are the files of a replay.
type results struct {
	dir   string
	close []func() error
}

// create makes a file that close closes.
func (r *results) create(name string) (*os.File, error) {
	f, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		return nil, err
	}
	r.close = append(r.close, f.Close)
	return f, nil
}

// finish closes what was opened, the last first.
func (r *results) finish() error {
	var errs []error
	for _, f := range slices.Backward(r.close) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func replayCaptures(cmd *cobra.Command, fl replayFlags) (err error) {
	r, err := load(cmd, fl.config, false)
	if err != nil {
		return err
	}
	if fl.flash == "" {
		if fl.flash, err = os.MkdirTemp("", "patchbay-replay-"); err != nil {
			return err
		}
		defer os.RemoveAll(fl.flash)
	}
	store, err := pki.Open(fl.flash, pki.Options{})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(fl.out, 0o755); err != nil {
		return err
	}
	files := &results{dir: fl.out}
	defer func() { err = errors.Join(err, files.finish()) }()

	log, err := files.create("log.txt")
	if err != nil {
		return err
	}
	captures := make(map[*stack.Interface]*link.PCAPNG)
	opt := replay.Options{
		Store: store, Seed: fl.seed, Log: slog.NewTextHandler(log, nil),
		Seen: func(p *stack.Packet, dir link.Direction, v stack.Verdict) {
			i, comment := p.In, ""
			if dir == link.Out {
				i = p.Out
			}
			if v.Dropped() {
				comment = "drop " + v.String()
			}
			if w := captures[i]; w != nil {
				w.Packet(0, dir, p, comment)
			}
		},
	}
	if !fl.noText {
		text, err := files.create("packets.txt")
		if err != nil {
			return err
		}
		opt.Text = text
	}
	box, err := replay.New(r, opt)
	if err != nil {
		return err
	}
	files.close = append(files.close, box.Close)
	for _, i := range box.Appliance().Interfaces() {
		f, err := files.create(i.Name + ".pcapng")
		if err != nil {
			return err
		}
		w := link.NewPCAPNG(f)
		w.AddInterface(i.Name)
		captures[i] = w
		files.close = append(files.close, w.Close)
	}

	sources := replay.Captures{FixChecksums: fl.fixChecksums, PickUp: fl.pickUp}
	if sources.Split, err = box.ParseSplit(fl.split); err != nil {
		return err
	}
	for _, arg := range fl.in {
		src, f, err := openCapture(box, arg)
		if err != nil {
			return fmt.Errorf("--in %s: %w", arg, err)
		}
		defer f.Close()
		sources.Sources = append(sources.Sources, src)
	}
	if err := box.Run(sources); err != nil {
		return err
	}
	for _, what := range fl.show {
		var out bytes.Buffer
		if err := box.Appliance().Exec(&out, "show "+what); err != nil {
			return fmt.Errorf("--show %q: %w", what, err)
		}
		f, err := files.create(showFile(what))
		if err != nil {
			return err
		}
		if _, err := f.Write(out.Bytes()); err != nil {
			return err
		}
	}
	if err := box.WriteCount(cmd.OutOrStdout()); err != nil {
		return err
	}
	c := box.Count()
	if n := c.Terminated - c.Served; n > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: %d packets are for what the box ends itself and is not replayed (TLS, its TFTP server)\n", n)
	}
	if c.Truncated > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the captures hold only a part of %d packets\n", c.Truncated)
	}
	return nil
}

// showFile names the file for a show command: its words, with a dash for
// whatever else is in them. A name that is too long is cut.
func showFile(what string) string {
	ending := ".txt"
	if command, ok := cli.CutJSON("show " + what); ok {
		what, ending = strings.TrimPrefix(command, "show "), ".json"
	}
	name := strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '_':
			return r
		}
		return '-'
	}, strings.Join(strings.Fields(what), " "))
	const longest = 100 // bytes
	return strings.TrimLeft(name[:min(len(name), longest)], ".") + ending
}

// openCapture opens the capture of "NAMEIF=CAPTURE".
func openCapture(box *replay.Box, arg string) (*replay.Source, *os.File, error) {
	name, file, ok := strings.Cut(arg, "=")
	if !ok || name == "" || file == "" {
		return nil, nil, errors.New("want NAMEIF=CAPTURE, such as outside=call.pcap")
	}
	i := box.Interface(name)
	if i == nil {
		return nil, nil, fmt.Errorf("the configuration has no interface %q that is up and has an address", name)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, err
	}
	reader, err := link.NewReader(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", file, err), f.Close())
	}
	return &replay.Source{Name: file, In: i, Reader: reader}, f, nil
}
