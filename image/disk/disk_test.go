package disk

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A memory is a disk.
type memory []byte

func (m memory) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(b, m[off:])
	if n < len(b) {
		return n, io.ErrUnexpectedEOF
	}
	return n, nil
}

func (m memory) WriteAt(b []byte, off int64) (int, error) {
	if off+int64(len(b)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], b), nil
}

const sectors = 4096

func testTable() *Table {
	return &Table{GUID: "00112233-4455-6677-8899-AABBCCDDEEFF", Sectors: sectors, Partitions: []Partition{
		{Name: "bios", Type: TypeBIOSBoot, GUID: "00000000-0000-0000-0000-000000000001", First: FirstSector, Last: 63},
		{Name: FlashName, Type: TypeLinux, GUID: "00000000-0000-0000-0000-000000000002", First: 64, Last: LastUsable(sectors)},
	}}
}

// Both copies say the same, and either is enough: a write that was cut short leaves
// a table.
func TestTable(t *testing.T) {
	m := make(memory, sectors*SectorSize)
	copy(m, "boot code")
	want := testTable()
	if err := want.WriteTo(m); err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(m, []byte("boot code")) || m[510] != 0x55 || m[511] != 0xaa || m[450] != 0xee {
		t.Errorf("sector 0: % x ... % x", m[:16], m[440:512])
	}
	for name, damage := range map[string]func(memory){
		"whole":            func(memory) {},
		"first header":     func(m memory) { m[SectorSize+20]++ },
		"first entries":    func(m memory) { m[2*SectorSize+40]++ },
		"first both, gone": func(m memory) { clear(m[SectorSize : FirstSector*SectorSize]) },
		"last":             func(m memory) { clear(m[LastUsable(sectors)*SectorSize+SectorSize:]) },
	} {
		c := bytes.Clone(m)
		damage(c)
		got, err := ReadTable(memory(c), sectors)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	clear(m)
	if _, err := ReadTable(m, sectors); !errors.Is(err, errNoTable) {
		t.Errorf("empty disk: %v, want %v", err, errNoTable)
	}
	for _, bad := range []func(*Table){
		func(t *Table) { t.Partitions[1].Last++ },
		func(t *Table) { t.Partitions[0].First = 1 },
		func(t *Table) { t.Partitions[0].Name = strings.Repeat("a", 40) },
		func(t *Table) { t.GUID = "x" },
	} {
		x := testTable()
		bad(x)
		if err := x.WriteTo(make(memory, sectors*SectorSize)); err == nil {
			t.Errorf("WriteTo(%+v): no error", x)
		}
	}
}

func TestEnv(t *testing.T) {
	e := Env{EnvGood: SlotA, EnvTry: "", EnvTries: "2", "failed": "0123 456"}
	b, err := e.Bytes()
	if err != nil || len(b) != EnvSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := ParseEnv(b)
	if diff := cmp.Diff(e, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []Env{{"a=b": ""}, {"a": "b\nc"}, {"a": strings.Repeat("x", EnvSize)}} {
		if _, err := bad.Bytes(); err == nil {
			t.Errorf("%v: no error", bad)
		}
	}
	for _, bad := range [][]byte{nil, b[:EnvSize-1], make([]byte, EnvSize)} {
		if _, err := ParseEnv(bad); err == nil {
			t.Errorf("ParseEnv of %d bytes: no error", len(bad))
		}
	}
}

func FuzzTable(f *testing.F) {
	m := make(memory, sectors*SectorSize)
	if err := testTable().WriteTo(m); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(m[:FirstSector*SectorSize]))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := ReadTable(memory(b), uint64(len(b)/SectorSize))
		if err != nil {
			return
		}
		for _, p := range got.Partitions {
			if p.First < FirstSector || p.Last < p.First {
				t.Errorf("partition %+v", p)
			}
		}
	})
}

func FuzzEnv(f *testing.F) {
	b, err := Env{"good": "a"}.Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEnv(b)
		if err != nil {
			return
		}
		if out, err := e.Bytes(); err == nil {
			if again, err := ParseEnv(out); err != nil || !cmp.Equal(e, again) {
				t.Errorf("%v becomes %v, %v", e, again, err)
			}
		}
	})
}
