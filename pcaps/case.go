// Package pcaps is the regression suite: a folder for each case, with the
// configuration of a box, packets that arrive at it, and what must come of them,
// all as text.
//
// What a reader may get wrong: nothing here waits. The box runs on the time in
// the packet list, so an hour's timeout is tested in no time, and the wanted
// text is the same on every machine.
package pcaps

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"patchbay/appliance/config"
	"patchbay/appliance/pki"
	"patchbay/appliance/replay"
	"patchbay/stack"
	"patchbay/stack/link"
)

// Names of the files of a case.
const (
	ConfigFile = "config.cfg" // of the box
	StepsFile  = "in.txt"     // the packet list; or captures named in.NAMEIF.pcap or .pcapng
	SplitFile  = "split.txt"  // NAMEIF=PREFIX, one a line, if packets are assigned by address
	WantFile   = "want.txt"   // the text dump
	ShowFile   = "show.txt"   // what the box knows in the end
)

// Begin is when packet lists begin.
var Begin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// A Result is what came of a case.
type Result struct {
	Dump, Show []byte
	Captures   map[string][]byte    // pcapng of each interface, by nameif
	Left       map[string][]byte    // the same, of what left only
	Messages   map[string][]Message // that left
	Said       map[string][]Message // that arrived, as their senders said them
	box        *box
	said       map[netip.Addr]bool
	Drops      map[stack.Verdict]uint64
	Count      replay.Count
}

// Run replays the case in dir. flash is an empty directory for the keys of the
// box.
func Run(dir, flash string) (*Result, error) {
	text, err := os.ReadFile(filepath.Join(dir, ConfigFile))
	if err != nil {
		return nil, fmt.Errorf("pcaps: %w", err)
	}
	b, err := newBox(text, flash, "pcaps")
	if err != nil {
		return nil, err
	}
	err = b.play(dir)
	res, ferr := b.finish()
	if err != nil {
		return nil, fmt.Errorf("pcaps: %s: %w", dir, err)
	}
	return res, ferr
}

// A Crossing says how one capture, which was taken without a box, is to be led
// through one.
type Crossing struct {
	In      string // nameif of those that Split has not
	Capture string // file
	Split   string // NAMEIF=PREFIX words
	// Rename gives ends of the capture other addresses, with port 0 whole hosts:
	// where its packets have been given other addresses than its messages, or
	// both ends are one host.
	Rename map[netip.AddrPort]netip.Addr
	Seed   string
}

// RunCapture leads a capture through the box of a configuration. Checksums are
// made right first, for they often are not, and handshakes that the capture
// lacks are made up.
func RunCapture(config []byte, flash string, c Crossing) (*Result, error) {
	b, err := newBox(config, flash, cmp.Or(c.Seed, "pcaps"))
	if err != nil {
		return nil, err
	}
	err = b.playCapture(c)
	res, ferr := b.finish()
	if err != nil {
		return nil, fmt.Errorf("pcaps: %w", err)
	}
	return res, ferr
}

// playCapture is RunCapture with the box.
func (b *box) playCapture(c Crossing) error {
	i := b.Interface(c.In)
	if i == nil {
		return fmt.Errorf("no interface %q", c.In)
	}
	prefixes, err := b.ParseSplit(strings.Fields(c.Split))
	if err != nil {
		return err
	}
	f, err := os.Open(c.Capture)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := link.NewReader(f)
	if err != nil {
		return err
	}
	return b.Run(replay.Captures{
		Sources: []*replay.Source{{Name: filepath.Base(c.Capture), In: i, Reader: r}},
		Split:   prefixes, FixChecksums: true, PickUp: true, Edit: c.rename,
	})
}

// rename gives the ends of p the addresses that c says. Its checksums are made
// right later. Of a fragment without ports only whole hosts are renamed.
func (c *Crossing) rename(p *stack.Packet) {
	const src, dst, end = 12, 16, 20 // of an IPv4 header; RFC 791, section 3.1
	d := p.Data()
	if len(c.Rename) == 0 || len(d) < end || d[0]>>4 != 4 {
		return
	}
	p.ChecksumVouched = true
	p.Parse()
	f := p.Flow()
	for at, a := range map[int]netip.AddrPort{src: f.Src, dst: f.Dst} {
		to, ok := c.Rename[a]
		if !ok {
			to, ok = c.Rename[netip.AddrPortFrom(a.Addr(), 0)]
		}
		if ok {
			b := to.As4()
			copy(d[at:], b[:])
		}
	}
}

// A box is a replay.Box with everything it says kept.
type box struct {
	*replay.Box
	dump, log, shown bytes.Buffer
	captures         map[string]*capture
	cast             *cast
}

// A capture is what is kept of one interface.
type capture struct {
	all, out recording
	reader   reader // of what left
	said     reader // of what arrived
}

// A recording is a pcapng.
type recording struct {
	buf bytes.Buffer
	w   *link.PCAPNG
}

func (r *recording) begin(name string) {
	r.w = link.NewPCAPNG(&r.buf)
	r.w.AddInterface(name)
}

// newBox makes the box of a configuration.
func newBox(text []byte, flash, seed string) (*box, error) {
	r, findings := config.Check(ConfigFile, bytes.NewReader(text))
	if config.Errors(findings) > 0 {
		return nil, fmt.Errorf("pcaps: %v", findings)
	}
	store, err := pki.Open(flash, pki.Options{})
	if err != nil {
		return nil, fmt.Errorf("pcaps: %w", err)
	}
	b := &box{captures: make(map[string]*capture)}
	b.cast = newCast(b)
	b.Box, err = replay.New(r, replay.Options{
		Store: store, Seed: seed, Text: &b.dump, Seen: b.record,
		Log: slog.NewTextHandler(&b.log, nil),
	})
	if err != nil {
		return nil, err
	}
	for _, i := range b.Appliance().Interfaces() {
		c := &capture{}
		c.all.begin(i.Name)
		c.out.begin(i.Name)
		b.captures[i.Name] = c
	}
	return b, nil
}

// record keeps p in the capture of its interface.
func (b *box) record(p *stack.Packet, dir link.Direction, v stack.Verdict) {
	i, comment := p.In, ""
	if dir == link.Out {
		i = p.Out
		b.cast.deliver(p)
	}
	if v.Dropped() {
		comment = "drop " + v.String()
	}
	c := b.captures[i.String()]
	if c == nil {
		return
	}
	c.all.w.Packet(0, dir, p, comment)
	c.reader.see(p)
	if dir == link.Out {
		c.out.w.Packet(0, dir, p, "")
		c.reader.read(p)
		return
	}
	c.said.see(p)
	c.said.read(p)
}

// play replays what the case in dir has.
func (b *box) play(dir string) error {
	prefixes, err := b.split(dir)
	if err != nil {
		return err
	}
	f, err := os.Open(filepath.Join(dir, StepsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return b.playCaptures(dir, prefixes)
	}
	if err != nil {
		return fmt.Errorf("pcaps: %w", err)
	}
	defer f.Close()
	steps, err := ParseSteps(f, os.DirFS(dir))
	if err != nil {
		return err
	}
	if prefixes != nil {
		return b.playSplit(steps, prefixes)
	}
	return b.playSteps(steps)
}

// split reads the prefixes of the case, nil if it has none.
func (b *box) split(dir string) ([]replay.SplitPrefix, error) {
	text, err := os.ReadFile(filepath.Join(dir, SplitFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pcaps: %w", err)
	}
	return b.ParseSplit(strings.Fields(string(text)))
}

// playSteps replays a packet list.
func (b *box) playSteps(steps []Step) error {
	p := stack.NewPacket(stack.MaxPacket)
	for _, s := range steps {
		at := Begin.Add(s.At)
		if s.host != nil {
			if err := b.cast.play(s, at); err != nil {
				return fmt.Errorf("pcaps: at %v: %w", s.At, err)
			}
			continue
		}
		b.cast.flush()
		b.cast.now = at
		if s.In == "" {
			b.Mute(false)
			b.Advance(at)
			if err := b.cast.settle(); err != nil {
				return fmt.Errorf("pcaps: at %v: %w", s.At, err)
			}
			b.cast.flush()
			if s.Exec == "" {
				continue
			}
			out, err := b.exec(s.Exec)
			if err != nil {
				return fmt.Errorf("pcaps: at %v: %w", s.At, err)
			}
			b.Note(fmt.Sprintf("-- %s %s", at.Format("15:04:05.000000"), s.Exec))
			if out != "" {
				b.Note(strings.TrimSuffix(out, "\n"))
			}
			continue
		}
		in := b.Interface(s.In)
		if in == nil {
			return fmt.Errorf("pcaps: no interface %q", s.In)
		}
		for _, data := range s.Packets {
			b.Mute(s.Quiet)
			p.Reset()
			p.SetData(data)
			p.Time, p.In = at, in
			b.Handle(p)
			if err := b.cast.settle(); err != nil {
				return fmt.Errorf("pcaps: at %v: %w", s.At, err)
			}
		}
	}
	b.cast.flush()
	return nil
}

// exec returns the output of a command, without the legend of flags, which is
// always the same.
func (b *box) exec(line string) (string, error) {
	var out bytes.Buffer
	if err := b.Appliance().Exec(&out, line); err != nil {
		return "", err
	}
	var kept strings.Builder
	legend := false
	for line := range strings.Lines(out.String()) {
		if legend = strings.HasPrefix(line, "Flags: ") || legend && line[0] == ' '; !legend {
			kept.WriteString(line)
		}
	}
	return kept.String(), nil
}

// playSplit replays the packets of a list as one capture.
func (b *box) playSplit(steps []Step, prefixes []replay.SplitPrefix) error {
	var file bytes.Buffer
	w := link.NewPCAPNG(&file)
	w.AddInterface("any")
	var other *stack.Interface
	p := stack.NewPacket(stack.MaxPacket)
	for _, s := range steps {
		i := b.Interface(s.In)
		if i == nil || other != nil && i != other {
			return fmt.Errorf("pcaps: with %s all packets arrive on one interface, not %q", SplitFile, s.In)
		}
		other = i
		for _, data := range s.Packets {
			p.SetData(data)
			p.Time = Begin.Add(s.At)
			w.Packet(0, link.In, p, "")
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	r, err := link.NewReader(&file)
	if err != nil {
		return err
	}
	return b.Run(replay.Captures{
		Sources: []*replay.Source{{Name: StepsFile, In: other, Reader: r}}, Split: prefixes, PickUp: true,
	})
}

// playCaptures replays the captures of the case together.
func (b *box) playCaptures(dir string, prefixes []replay.SplitPrefix) error {
	files, err := filepath.Glob(filepath.Join(dir, "in.*.pcap*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("pcaps: %s has neither %s nor in.NAMEIF.pcapng", dir, StepsFile)
	}
	c := replay.Captures{Split: prefixes, PickUp: true}
	for _, file := range files {
		name := strings.Split(filepath.Base(file), ".")[1]
		i := b.Interface(name)
		if i == nil {
			return fmt.Errorf("pcaps: %s: no interface %q", file, name)
		}
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("pcaps: %w", err)
		}
		defer f.Close()
		r, err := link.NewReader(f)
		if err != nil {
			return fmt.Errorf("pcaps: %s: %w", file, err)
		}
		c.Sources = append(c.Sources, &replay.Source{Name: filepath.Base(file), In: i, Reader: r})
	}
	return b.Run(c)
}

// finish writes the lists at the end, and ends the box.
func (b *box) finish() (*Result, error) {
	var errs []error
	for _, line := range []string{"show conn detail", "show xlate", "show nat", "show asp drop frame"} {
		out, err := b.exec(line)
		fmt.Fprintf(&b.shown, "-- %s\n%s", line, out)
		errs = append(errs, err)
	}
	fmt.Fprintln(&b.shown, "-- packets")
	errs = append(errs, b.WriteCount(&b.shown))
	if b.log.Len() > 0 {
		fmt.Fprintf(&b.shown, "-- log\n%s", b.log.Bytes())
	}
	res := &Result{
		box: b, Show: b.shown.Bytes(), Captures: make(map[string][]byte),
		Left: make(map[string][]byte), Messages: make(map[string][]Message),
		Said:  make(map[string][]Message),
		Drops: b.Appliance().Drops(), Count: b.Count(),
	}
	errs = append(errs, b.Close())
	for name, c := range b.captures {
		errs = append(errs, c.all.w.Close(), c.out.w.Close())
		res.Captures[name], res.Left[name] = c.all.buf.Bytes(), c.out.buf.Bytes()
		res.Messages[name], res.Said[name] = c.reader.messages, c.said.messages
	}
	res.Dump = b.dump.Bytes()
	return res, errors.Join(errs...)
}
