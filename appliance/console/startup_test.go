package console

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"patchbay/appliance/config"
)

var errPower = errors.New("the power is cut")

// A frailDisk is a directory whose power is cut at a step. What was not synced
// is then lost or there, in whole or in half.
type frailDisk struct {
	steps int               // until the cut; negative: never
	names map[string]*inode // as the program sees them
	disk  map[string]*inode // as they were at the last SyncDir
	done  []map[string]*inode
}

type inode struct {
	data   []byte
	synced []byte
}

func newFrailDisk() *frailDisk {
	return &frailDisk{steps: -1, names: make(map[string]*inode), disk: make(map[string]*inode)}
}

func (d *frailDisk) step() error {
	if d.steps == 0 {
		return errPower
	}
	d.steps--
	return nil
}

func (d *frailDisk) ReadFile(name string) ([]byte, error) {
	f := d.names[name]
	if f == nil {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(f.data), nil
}

// changed notes a state of the directory that may be what the disk has.
func (d *frailDisk) changed() { d.done = append(d.done, maps.Clone(d.names)) }

func (d *frailDisk) Create(name string) (File, error) {
	if err := d.step(); err != nil {
		return nil, err
	}
	f := &inode{}
	d.names[name] = f
	d.changed()
	return &frailFile{d, f}, nil
}

func (d *frailDisk) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	d.changed()
	return nil
}

func (d *frailDisk) Remove(name string) error {
	if err := d.step(); err != nil {
		return err
	}
	delete(d.names, name)
	d.changed()
	return nil
}

func (d *frailDisk) SyncDir() error {
	if err := d.step(); err != nil {
		return err
	}
	d.disk, d.done = maps.Clone(d.names), nil
	return nil
}

type frailFile struct {
	d *frailDisk
	f *inode
}

func (f *frailFile) Write(b []byte) (int, error) {
	if err := f.d.step(); err != nil {
		f.f.data = append(f.f.data, b[:len(b)/2]...)
		return len(b) / 2, err
	}
	f.f.data = append(f.f.data, b...)
	return len(b), nil
}

func (f *frailFile) Sync() error {
	if err := f.d.step(); err != nil {
		return err
	}
	f.f.synced = bytes.Clone(f.f.data)
	return nil
}

func (f *frailFile) Close() error { return f.d.step() }

// after returns what may be found when the power is back: each state that the
// directory may be in, with the files as synced or as written.
func (d *frailDisk) after() []*frailDisk {
	var list []*frailDisk
	for _, names := range append([]map[string]*inode{d.disk}, d.done...) {
		for _, written := range []bool{false, true} {
			x := newFrailDisk()
			for name, f := range names {
				data := f.synced
				if written {
					data = f.data
				}
				x.names[name] = &inode{data: data, synced: data}
			}
			list = append(list, x)
		}
	}
	return list
}

// TestPowerCut cuts the power at every step of writing and erasing: the old
// configuration is there or the new one, whole.
func TestPowerCut(t *testing.T) {
	first, second, third := []byte("hostname first\n"), []byte("hostname second\n"), []byte("hostname third\n")
	ready := func() *frailDisk {
		d := newFrailDisk()
		s := NewStartup(d)
		for _, text := range [][]byte{first, second} {
			if err := s.Write(text); err != nil {
				t.Fatal(err)
			}
		}
		return d
	}
	for cut := 0; ; cut++ {
		d := ready()
		d.steps = cut
		err := NewStartup(d).Write(third)
		for i, x := range d.after() {
			got, readErr := NewStartup(x).Read()
			switch {
			case readErr != nil || !bytes.Equal(got, second) && !bytes.Equal(got, third):
				t.Errorf("cut at step %d, disk %d: the configuration is %q, %v", cut, i, got, readErr)
			case err == nil && !bytes.Equal(got, third):
				t.Errorf("Write succeeded, and on disk %d is %q", i, got)
			}
			if old, err := NewStartup(x).Predecessor(); err != nil || !bytes.Equal(old, first) && !bytes.Equal(old, second) {
				t.Errorf("cut at step %d, disk %d: the predecessor is %q, %v", cut, i, old, err)
			}
		}
		if err == nil {
			if cut < 10 {
				t.Errorf("a write has %d steps only", cut)
			}
			break
		}
	}
	for cut := 0; ; cut++ {
		d := ready()
		d.steps = cut
		err := NewStartup(d).Erase()
		for i, x := range d.after() {
			got, readErr := NewStartup(x).Read()
			old, oldErr := NewStartup(x).Predecessor()
			if !bytes.Equal(got, second) && !(errors.Is(readErr, fs.ErrNotExist) && oldErr == nil && bytes.Equal(old, second)) {
				t.Errorf("erase cut at step %d, disk %d: the configuration is %q, %v; before it %q, %v", cut, i, got, readErr, old, oldErr)
			}
		}
		if err == nil {
			break
		}
	}
}

func TestStartupOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := OpenStartup(dir)
	if _, err := s.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of none: %v", err)
	}
	for i := range 3 {
		if err := s.Write(fmt.Appendf(nil, "hostname h%d\n", i)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Read()
	old, oldErr := s.Predecessor()
	if string(got) != "hostname h2\n" || err != nil || string(old) != "hostname h1\n" || oldErr != nil {
		t.Errorf("Read = %q, %v; Predecessor = %q, %v", got, err, old, oldErr)
	}
	info, err := os.Stat(filepath.Join(dir, startupName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v; its owner only may read it", info.Mode(), err)
	}
	if err := s.Erase(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read after Erase: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left in the directory: %v", entries)
	}
}

// TestMergeInterface merges an interface that is not there yet: it is as the file
// has it, up unless it says "shutdown".
func TestMergeInterface(t *testing.T) {
	b := newTestBox(t, "hostname pb\n")
	text, found := config.Load("saved", strings.NewReader("interface GigabitEthernet0/0\n nameif outside\n ip address 203.0.113.2 255.255.255.0\n"+
		"interface GigabitEthernet0/1\n shutdown\n nameif inside\n ip address 10.20.0.1 255.255.255.0\n"), false)
	if config.Errors(found) > 0 {
		t.Fatal(found)
	}
	if err := b.Merge(text); err != nil {
		t.Fatal(err)
	}
	r := b.running()
	if len(r.Interfaces) != 2 || r.Interfaces[0].Down || !r.Interfaces[1].Down {
		t.Errorf("merged is\n%s", b.Text())
	}
}
