package topology

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Ending is that of the names of topologies' files.
const Ending = ".topo"

// maxConfig is how long a configuration may be, in bytes, as in appliance/config.
const maxConfig = 16 << 20

//go:embed library
var library embed.FS

// Library are the names of the topologies that come with the program, in order.
func Library() []string {
	files, err := fs.Glob(library, "library/*"+Ending)
	if err != nil {
		panic(err) // the pattern is constant
	}
	var names []string
	for _, f := range files {
		names = append(names, strings.TrimSuffix(filepath.Base(f), Ending))
	}
	slices.Sort(names)
	return names
}

// Read reads a topology, with its text, and the configuration it names: one of the
// Library by its name, any other by the path of its file, which has a "/" or the
// Ending in it.
func Read(name string) (t *Topology, text, config []byte, err error) {
	open := func(file string, _ int) ([]byte, error) { return library.ReadFile("library/" + file) }
	file := name + Ending
	if strings.ContainsRune(name, filepath.Separator) || strings.HasSuffix(name, Ending) {
		dir := filepath.Dir(name)
		file = filepath.Base(name)
		open = func(file string, limit int) ([]byte, error) {
			if !filepath.IsAbs(file) {
				file = filepath.Join(dir, file)
			}
			return readFile(file, limit)
		}
	}
	text, err = open(file, maxText)
	if errors.Is(err, fs.ErrNotExist) && file == name+Ending {
		return nil, nil, nil, fmt.Errorf("there is no topology %q; there are %s, and files ending in %s", name, strings.Join(Library(), ", "), Ending)
	}
	if err != nil {
		return nil, nil, nil, err
	}
	if t, err = Parse(file, bytes.NewReader(text)); err != nil {
		return nil, nil, nil, err
	}
	if config, err = open(t.Config, maxConfig); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: config %s: %w", file, t.Config, err)
	}
	return t, text, config, nil
}

// readFile reads a file of up to limit bytes: one that does not end is not read to
// its end.
func readFile(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err == nil && len(b) > limit {
		err = fmt.Errorf("%s: longer than %d bytes", name, limit)
	}
	return b, err
}
