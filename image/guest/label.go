package guest

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
)

// fsKind says which file system is on a device, as mount(2) names it, and its
// label; "" if it is none of those that are looked for.
func fsKind(r io.ReaderAt) (kind, label string) {
	b := make([]byte, 2048)
	read := func(at int64, n int) []byte {
		b := b[:n]
		if _, err := r.ReadAt(b, at); err != nil {
			clear(b)
		}
		return b
	}
	// The superblock of ext4 is at 1024: its magic at 56, its label at 120.
	// (Linux, Documentation/filesystems/ext4/super.rst.)
	if s := read(1024, 1024); binary.LittleEndian.Uint16(s[56:]) == 0xef53 {
		return "ext4", string(bytes.TrimRight(s[120:136], "\x00"))
	}
	// The primary volume descriptor of ISO 9660 is sector 16. (ECMA-119, section
	// 9.4.)
	if s := read(16*2048, 2048); s[0] == 1 && string(s[1:6]) == "CD001" {
		return "iso9660", strings.TrimRight(string(s[40:72]), " \x00")
	}
	// FAT has its label in the boot sector, behind the signature 0x29, and its
	// type in text: at 38 for FAT12 and 16, at 66 for FAT32. (Microsoft, FAT
	// specification 1.03.)
	s := read(0, 512)
	if s[510] == 0x55 && s[511] == 0xaa {
		for _, at := range []int{38, 66} {
			if s[at] == 0x29 && strings.HasPrefix(string(s[at+16:at+24]), "FAT") {
				return "vfat", strings.TrimRight(string(s[at+5:at+16]), " \x00")
			}
		}
	}
	return "", ""
}
