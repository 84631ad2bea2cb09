package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"unicode/utf16"
)

// SectorSize is that of all tables here, in bytes.
const SectorSize = 512

// Types of partitions. (UEFI 2.10, section 5.3.3; GRUB manual, "BIOS
// installation"; Linux.)
const (
	TypeBIOSBoot GUID = "21686148-6449-6E6F-744E-656564454649"
	TypeESP      GUID = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	TypeLinux    GUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// A GPT header, little-endian, in sector 1 and in the last one; the entries follow
// the first and are in front of the second. (UEFI 2.10, section 5.3.2.)
//
//	0         8          12     16    20   24    32      40      48     56     72        80      84    88
//	+---------+----------+------+-----+----+-----+-------+-------+------+------+---------+-------+-----+-----+
//	| EFI PART| revision | size | CRC | 0  | own | other | first | last | GUID | entries | count | len | CRC |
//	+---------+----------+------+-----+----+-----+-------+-------+------+------+---------+-------+-----+-----+
const (
	gptSignature = "EFI PART"
	gptRevision  = 0x00010000
	gptHeader    = 92 // bytes
	gptEntries   = 128
	gptEntry     = 128                                // bytes: type, GUID, first, last, attributes, name
	gptArray     = gptEntries * gptEntry / SectorSize // sectors
	gptNameLen   = 36                                 // UTF-16 units

	// FirstSector is the first that a partition may have; as many are taken at
	// the end, but one.
	FirstSector = 2 + gptArray
)

// A GUID is in the usual text form, in capitals.
type GUID string

// bytes returns the 16 bytes of g, of which the first three groups are
// little-endian. (UEFI 2.10, appendix A.)
func (g GUID) bytes() ([]byte, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(string(g), "-", ""))
	if err != nil || len(b) != 16 {
		return nil, fmt.Errorf("disk: %q is no GUID", string(g))
	}
	swapGUID(b)
	return b, nil
}

func swapGUID(b []byte) {
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5], b[6], b[7] = b[5], b[4], b[7], b[6]
}

func guidOf(b []byte) GUID {
	c := append([]byte(nil), b[:16]...)
	swapGUID(c)
	return GUID(strings.ToUpper(fmt.Sprintf("%x-%x-%x-%x-%x", c[0:4], c[4:6], c[6:8], c[8:10], c[10:16])))
}

// A Partition is one entry of a Table. First and Last are its sectors.
type Partition struct {
	Name        string
	Type, GUID  GUID
	First, Last uint64
}

// Sectors is how many sectors p has.
func (p Partition) Sectors() uint64 { return p.Last - p.First + 1 }

// A Table is a GUID partition table.
type Table struct {
	GUID       GUID
	Sectors    uint64 // of the disk that the table is for
	Partitions []Partition
}

// LastUsable is the last sector that a partition may have on a disk of n sectors.
func LastUsable(n uint64) uint64 { return n - gptArray - 2 }

// Find returns the index of the partition of a name, -1 if there is none.
func (t *Table) Find(name string) int {
	for i, p := range t.Partitions {
		if p.Name == name {
			return i
		}
	}
	return -1
}

// ReadTable reads the table of a disk of so many sectors: the first copy, or if it
// is damaged the one at the end.
func ReadTable(r io.ReaderAt, sectors uint64) (*Table, error) {
	t, err := readTable(r, 1, sectors)
	if err == nil || sectors < FirstSector {
		return t, err
	}
	if t, err2 := readTable(r, sectors-1, sectors); err2 == nil {
		return t, nil
	}
	return nil, err
}

var errNoTable = errors.New("disk: no GUID partition table")

func readTable(r io.ReaderAt, at, sectors uint64) (*Table, error) {
	var h [SectorSize]byte
	if _, err := r.ReadAt(h[:], int64(at)*SectorSize); err != nil {
		return nil, fmt.Errorf("disk: partition table: %w", err)
	}
	if string(h[:8]) != gptSignature {
		return nil, errNoTable
	}
	le := binary.LittleEndian
	sum := le.Uint32(h[16:])
	le.PutUint32(h[16:], 0)
	if n := le.Uint32(h[12:]); n != gptHeader || crc32.ChecksumIEEE(h[:gptHeader]) != sum {
		return nil, fmt.Errorf("disk: partition table in sector %d: the sum of its header is wrong", at)
	}
	if n, size := le.Uint32(h[80:]), le.Uint32(h[84:]); n != gptEntries || size != gptEntry {
		return nil, fmt.Errorf("disk: partition table of %d entries of %d bytes; want %d of %d", n, size, gptEntries, gptEntry)
	}
	start := le.Uint64(h[72:])
	if start > sectors {
		return nil, fmt.Errorf("disk: partition table: its entries are in sector %d of %d", start, sectors)
	}
	entries := make([]byte, gptEntries*gptEntry)
	if _, err := r.ReadAt(entries, int64(start)*SectorSize); err != nil {
		return nil, fmt.Errorf("disk: partition table: %w", err)
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, fmt.Errorf("disk: partition table in sector %d: the sum of its entries is wrong", at)
	}
	t := &Table{GUID: guidOf(h[56:]), Sectors: max(at, le.Uint64(h[32:])) + 1}
	for ; len(entries) > 0; entries = entries[gptEntry:] {
		e := entries[:gptEntry]
		var used byte
		for _, b := range e[:16] {
			used |= b
		}
		if used == 0 {
			continue
		}
		p := Partition{Type: guidOf(e), GUID: guidOf(e[16:]), First: le.Uint64(e[32:]), Last: le.Uint64(e[40:])}
		if p.First < FirstSector || p.Last < p.First {
			return nil, fmt.Errorf("disk: a partition from sector %d to %d", p.First, p.Last)
		}
		var name []uint16
		for i := 56; i < gptEntry && (e[i] != 0 || e[i+1] != 0); i += 2 {
			name = append(name, le.Uint16(e[i:]))
		}
		p.Name = string(utf16.Decode(name))
		t.Partitions = append(t.Partitions, p)
	}
	return t, nil
}

// WriteTo writes both copies of t for a disk of t.Sectors, the one at the end
// first, and the protective MBR, whose first 440 bytes it leaves alone.
func (t *Table) WriteTo(w io.WriterAt) error {
	entries := make([]byte, gptEntries*gptEntry)
	le := binary.LittleEndian
	if len(t.Partitions) > gptEntries {
		return fmt.Errorf("disk: %d partitions", len(t.Partitions))
	}
	last := LastUsable(t.Sectors)
	for i, p := range t.Partitions {
		e := entries[i*gptEntry:]
		kind, err := p.Type.bytes()
		if err != nil {
			return err
		}
		id, err := p.GUID.bytes()
		if err != nil {
			return err
		}
		name := utf16.Encode([]rune(p.Name))
		if len(name) > gptNameLen || p.First < FirstSector || p.Last > last || p.Last < p.First {
			return fmt.Errorf("disk: partition %q from sector %d to %d does not fit in %d to %d", p.Name, p.First, p.Last, FirstSector, last)
		}
		copy(e, kind)
		copy(e[16:], id)
		le.PutUint64(e[32:], p.First)
		le.PutUint64(e[40:], p.Last)
		for k, u := range name {
			le.PutUint16(e[56+2*k:], u)
		}
	}
	id, err := t.GUID.bytes()
	if err != nil {
		return err
	}
	header := func(own, other, array uint64) []byte {
		h := make([]byte, SectorSize)
		copy(h, gptSignature)
		le.PutUint32(h[8:], gptRevision)
		le.PutUint32(h[12:], gptHeader)
		le.PutUint64(h[24:], own)
		le.PutUint64(h[32:], other)
		le.PutUint64(h[40:], FirstSector)
		le.PutUint64(h[48:], last)
		copy(h[56:], id)
		le.PutUint64(h[72:], array)
		le.PutUint32(h[80:], gptEntries)
		le.PutUint32(h[84:], gptEntry)
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:gptHeader]))
		return h
	}
	end := t.Sectors - 1
	write := func(sector uint64, b []byte) {
		if err == nil {
			_, err = w.WriteAt(b, int64(sector)*SectorSize)
		}
	}
	write(end-gptArray, append(append([]byte(nil), entries...), header(end, 1, end-gptArray)...))
	write(1, append(header(1, end, 2), entries...))
	if err == nil {
		_, err = w.WriteAt(protectiveMBR(t.Sectors), mbrTable)
	}
	if err != nil {
		return fmt.Errorf("disk: writing the partition table: %w", err)
	}
	return nil
}

// mbrTable is where in sector 0 the disk's signature begins; boot code is in
// front of it.
const mbrTable = 440

// protectiveMBR is sector 0 from mbrTable on: one partition that is the whole
// disk. It is marked active, without which some BIOSes do not boot. (UEFI 2.10,
// section 5.2.3.)
func protectiveMBR(sectors uint64) []byte {
	b := make([]byte, SectorSize-mbrTable)
	e := b[6:]
	e[0] = 0x80
	e[1], e[2], e[3] = 0x00, 0x02, 0x00
	e[4] = 0xee
	e[5], e[6], e[7] = 0xff, 0xff, 0xff
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(sectors-1, 0xffffffff)))
	b[len(b)-2], b[len(b)-1] = 0x55, 0xaa
	return b
}
