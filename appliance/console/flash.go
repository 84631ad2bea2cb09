package console

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"patchbay/appliance"
	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/pki"
)

// flashCommands are of files on flash. (The ASA's command reference: copy, delete,
// dir, more, show flash.)
var flashCommands = []cli.Rule[command]{
	{Syntax: "dir [disk0:|flash:|<path:flash>]", Help: "List files on flash", Do: command{viewPrivilege, show(showFlash)}},
	{Syntax: "show {flash:|disk0:}", Help: "Files on flash", Do: command{viewPrivilege, show(showFlash)}},
	{Syntax: "more <path:flash>", Help: "Show a file", Do: command{maxPrivilege, show(moreFile)}},
	{Syntax: "delete [/noconfirm] <path:flash>", Help: "Delete a file", Do: command{maxPrivilege, deleteFile}},
	{Syntax: "copy [/noconfirm] {running-config|startup-config} <path:flash>", Help: "Copy from one file to another", Do: command{maxPrivilege, copyToFlash}},
	{Syntax: "copy [/noconfirm] <path:flash> {running-config|startup-config}", Help: "Copy from one file to another", Do: command{maxPrivilege, copyFromFlash}},
	{Syntax: "copy [/noconfirm] <url:fileurl> {running-config|startup-config}", Help: "Copy from one file to another", Do: command{maxPrivilege, copyFromFlash}},
	{Syntax: "copy [/noconfirm] <url:fileurl> <path:flash>", Help: "Copy from one file to another", Do: command{maxPrivilege, copyURL}},
	{Syntax: "configure replace <path:flash> [noconfirm]", Help: "Replace the running configuration as a whole", Do: command{maxPrivilege, replaceFromFlash}},
}

// checkFlash is the cli.Check of "flash": the name of a file there.
func checkFlash(word string) error {
	for _, device := range []string{"disk0:", "flash:"} {
		if name, ok := strings.CutPrefix(strings.ToLower(word), device); ok && strings.Trim(name, "/") != "" {
			return nil
		}
	}
	return fmt.Errorf("%.80s is no file as disk0:/NAME is", word)
}

// plainFile returns the name of a file, if it is nobody's but the operator's.
func plainFile(path string) (string, error) {
	name := strings.TrimLeft(path[strings.IndexByte(path, ':')+1:], "/")
	if private(name) {
		return "", fmt.Errorf("%%Error opening disk0:/%s (that is the box's own file)", name)
	}
	return name, nil
}

// private reports whether a file is of the console itself: the startup
// configuration, which has commands of its own, and the keys that clients know
// the box by, which are nobody's to see. Those of pki it hides itself.
func private(name string) bool {
	base := strings.TrimSuffix(name, halfName)
	for _, k := range hostKeyFiles {
		if base == k.name {
			return true
		}
	}
	return base == startupName || base == predecessorName
}

// flash returns the store of files.
func (s *Session) flash() (*pki.Store, error) {
	if s.box.opt.Store == nil {
		return nil, errors.New("%Error opening disk0:/ (there is no flash)")
	}
	return s.box.opt.Store, nil
}

// flashFile returns the store of files and the name of the one that is meant.
func (s *Session) flashFile(a cli.Args) (store *pki.Store, name string, err error) {
	if store, err = s.flash(); err == nil {
		name, err = plainFile(a.Get("path"))
	}
	return store, name, err
}

// opening says in the ASA's words why a file cannot be had.
func opening(name string, err error) error {
	if errors.Is(err, pki.ErrNotFound) {
		return fmt.Errorf("%%Error opening disk0:/%s (No such file or directory)", name)
	}
	return fmt.Errorf("%%Error opening disk0:/%s (%w)", name, err)
}

// readFlash returns a file.
func (s *Session) readFlash(a cli.Args) (name string, data []byte, err error) {
	store, name, err := s.flashFile(a)
	if err != nil {
		return name, nil, err
	}
	if data, err = store.ReadFlash(name); err != nil {
		return name, nil, opening(name, err)
	}
	return name, data, nil
}

// shownFlash are files on flash.
type shownFlash struct {
	Files cli.List[flashEntry] `json:"files"`
	Used  int64                `json:"used_bytes"`
	Total uint64               `json:"total_bytes,omitzero"` // of the file system, where that is known
	Free  uint64               `json:"free_bytes,omitzero"`
}

// A flashEntry is a file.
type flashEntry struct {
	Name     string    `json:"name"`
	Size     int64     `json:"bytes"`
	Modified time.Time `json:"modified"`
	number   int
}

// showFlash finds all files, or one.
func showFlash(s *Session, a cli.Args) (f shownFlash, _ error) {
	store, err := s.flash()
	if err != nil {
		return f, err
	}
	files, err := store.FlashFiles()
	if err != nil {
		return f, err
	}
	only := ""
	if a.Has("path") {
		if only, err = plainFile(a.Get("path")); err != nil {
			return f, err
		}
	}
	for i, x := range files {
		if only == "" && !private(x.Name()) || only != "" && x.Name() == only {
			f.Files = append(f.Files, flashEntry{x.Name(), x.Size(), x.ModTime().UTC().Truncate(time.Second), i + 1})
			f.Used += x.Size()
		}
	}
	if only != "" && len(f.Files) == 0 {
		return f, opening(only, pki.ErrNotFound)
	}
	if s.box.opt.Space != nil {
		f.Total, f.Free = s.box.opt.Space()
	}
	return f, nil
}

func (f shownFlash) Text(w *bufio.Writer) {
	fmt.Fprintf(w, "\nDirectory of disk0:/\n\n")
	for _, e := range f.Files {
		fmt.Fprintf(w, "%-6d -rwx  %-12d %s  %s\n", e.number, e.Size, e.Modified.Format("15:04:05 Jan 02 2006"), e.Name)
	}
	fmt.Fprintf(w, "\n%d bytes used\n", f.Used)
	if f.Total > 0 {
		fmt.Fprintf(w, "%d bytes total (%d bytes free)\n", f.Total, f.Free)
	}
}

// A shownFile is what a file of text says.
type shownFile struct {
	Name string `json:"name"`
	Data string `json:"text"`
}

func (f shownFile) Text(w *bufio.Writer) { w.WriteString(f.Data) }

// moreFile finds a file of text. What is none would do things to the terminal.
func moreFile(s *Session, a cli.Args) (f shownFile, _ error) {
	name, data, err := s.readFlash(a)
	if err != nil {
		return f, err
	}
	if !utf8.Valid(data) || slices.ContainsFunc(data, func(b byte) bool { return b < ' ' && b != '\n' && b != '\r' && b != '\t' || b == 0x7f }) {
		return f, fmt.Errorf("%% disk0:/%s is not text: %d bytes", name, len(data))
	}
	return shownFile{name, strings.ReplaceAll(string(data), "\r\n", "\n")}, nil
}

func deleteFile(s *Session, _ io.Writer, a cli.Args) error {
	store, name, err := s.flashFile(a)
	if err != nil {
		return err
	}
	if !a.Has("/noconfirm") {
		if yes, err := s.t.confirm("Delete disk0:/" + name + "?"); err != nil || !yes {
			return err
		}
	}
	if err := store.RemoveFlash(name); err != nil {
		return fmt.Errorf("%%Error deleting disk0:/%s (%w)", name, err)
	}
	return nil
}

// configuration returns the one that a command copies, and its name.
func (s *Session) configuration(a cli.Args) (name string, text []byte, err error) {
	if a.Has("startup-config") {
		if text, err = s.box.opt.Startup.Read(); err != nil {
			return "", nil, notExist(err)
		}
		return startupName, text, nil
	}
	return "running-config", []byte(s.box.Text().String()), nil
}

// copyToFlash writes a configuration to a file.
func copyToFlash(s *Session, w io.Writer, a cli.Args) error {
	store, name, err := s.flashFile(a)
	if err != nil {
		return err
	}
	_, text, err := s.configuration(a)
	if err != nil {
		return err
	}
	if ok, err := s.mayWrite(store, name, a.Has("/noconfirm")); err != nil || !ok {
		return err
	}
	if err := store.WriteFlash(name, text); err != nil {
		return fmt.Errorf("%%Error writing disk0:/%s (%w)", name, err)
	}
	_, err = fmt.Fprintf(w, "\n%d bytes copied\n", len(text))
	return err
}

// maxConfig bounds a configuration that comes from elsewhere, in bytes.
const maxConfig = 16 << 20

// fetch has take what stands at a URL.
func (s *Session) fetch(url string, take func(body io.Reader) error) error {
	fmt.Fprintf(s.t, "\nAccessing %s...", url)
	err := s.box.opt.App.Fetch(s.t.running, url, func(body io.Reader) error { return take(&marked{r: body, w: s.t}) })
	fmt.Fprintln(s.t)
	if err != nil {
		return s.elsewhere("opening", url, err)
	}
	return nil
}

// elsewhere says in the ASA's words why a file of another's is not read or written.
func (s *Session) elsewhere(doing, url string, err error) error {
	if s.t.running.Err() != nil {
		return context.Cause(s.t.running)
	}
	var refused *appliance.Refusal
	if errors.As(err, &refused) {
		return err
	}
	return fmt.Errorf("%%Error %s %s (%w)", doing, url, err)
}

// copied says how many bytes were copied, in which time.
func copied(w io.Writer, n int64, took time.Duration) error {
	secs := max(took.Seconds(), 0.001)
	_, err := fmt.Fprintf(w, "%d bytes copied in %.3f secs (%.0f bytes/sec)\n", n, secs, float64(n)/secs)
	return err
}

// A marked shows a "!" for every so many bytes that are read, and at their end.
type marked struct {
	r    io.Reader
	w    io.Writer
	n    int // bytes since the last
	done bool
}

const markEvery = 256 << 10 // bytes

func (m *marked) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.n += n
	if m.n >= markEvery || errors.Is(err, io.EOF) && !m.done {
		m.n, m.done = 0, err != nil
		if _, err := io.WriteString(m.w, "!"); err != nil {
			return n, err
		}
	}
	return n, err
}

// copyURL fetches a file to flash.
func copyURL(s *Session, w io.Writer, a cli.Args) error {
	store, name, err := s.flashFile(a)
	if err != nil {
		return err
	}
	if ok, err := s.mayWrite(store, name, a.Has("/noconfirm")); err != nil || !ok {
		return err
	}
	began, n := s.box.opt.Now(), int64(0)
	err = s.fetch(a.Get("url"), func(body io.Reader) (err error) {
		n, err = store.ReceiveFlash(name, body)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Writing file disk0:/%s...\n", name)
	return copied(w, n, s.box.opt.Now().Sub(began))
}

// mayWrite asks whether a file may be written over, if there is one.
func (s *Session) mayWrite(store *pki.Store, name string, confirmed bool) (bool, error) {
	files, err := store.FlashFiles()
	if err != nil || confirmed || !slices.ContainsFunc(files, func(f fs.FileInfo) bool { return f.Name() == name }) {
		return true, err
	}
	return s.t.confirm("%Warning: There is a file already existing with this name. Do you want to over write?")
}

// flashText returns the configuration in a file on flash or on a TFTP server,
// which must be without error.
func (s *Session) flashText(a cli.Args) (config.Text, error) {
	var name string
	var data []byte
	var err error
	if url := a.Get("url"); url != "" {
		name = url
		err = s.fetch(url, func(body io.Reader) (err error) {
			if data, err = io.ReadAll(io.LimitReader(body, maxConfig+1)); err == nil && len(data) > maxConfig {
				err = fmt.Errorf("a configuration of more than %d bytes", maxConfig)
			}
			return err
		})
	} else {
		name, data, err = s.readFlash(a)
		name = "disk0:/" + name
	}
	if err != nil {
		return config.Text{}, err
	}
	text, found := config.Load(name, bytes.NewReader(data), false)
	for _, f := range found {
		if f.Severity == config.Error {
			return config.Text{}, fmt.Errorf("%v\n%d errors: the configuration is refused as a whole", f, config.Errors(found))
		}
	}
	return text, nil
}

// copyFromFlash merges a file into what runs, as the ASA does, or makes it what
// the box starts with.
func copyFromFlash(s *Session, w io.Writer, a cli.Args) error {
	text, err := s.flashText(a)
	if err != nil {
		return err
	}
	if a.Has("startup-config") {
		data := []byte(text.String())
		s.box.changing.Lock()
		err := s.box.opt.Startup.Write(data)
		s.box.changing.Unlock()
		if err == nil {
			_, err = fmt.Fprintf(w, "\n%d bytes copied\n", len(data))
		}
		return err
	}
	if err := s.box.Merge(text); err != nil {
		return err
	}
	s.changed("merged " + a.Get("path") + a.Get("url"))
	_, err = fmt.Fprintf(w, "\n%d lines copied\n", strings.Count(text.String(), "\n"))
	return err
}

func replaceFromFlash(s *Session, w io.Writer, a cli.Args) error {
	text, err := s.flashText(a)
	if err != nil {
		return err
	}
	return s.replace(w, text, a.Get("path"), a.Has("noconfirm"))
}
