package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"patchbay/image/disk"
)

// A cpio is an archive in the format "newc", as the kernel unpacks it: the same
// bytes for the same files. (Linux, Documentation/driver-api/early-userspace/
// buffer-format.rst.)
//
//	0      6       14     22    30    38     46     54     62           78           94        102      110
//	+------+-------+------+-----+-----+------+------+------+------------+------------+---------+--------+------+
//	|070701| inode | mode | uid | gid | links| mtime| size | dev (two)  | rdev (two) | name len| check  | name |
//	+------+-------+------+-----+-----+------+------+------+------------+------------+---------+--------+------+
//
// All numbers are eight hexadecimal digits; name and data end on multiples of four.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

// Modes of what a cpio holds. (stat(2).)
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

func (c *cpio) add(name string, mode int, data []byte, major, minor int) {
	c.inode++
	fmt.Fprintf(&c.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		c.inode, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0, name)
	c.pad()
	c.buf.Write(data)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

// bytes returns the whole archive.
func (c *cpio) bytes() []byte {
	c.inode = -1 // the trailer's is 0
	c.add("TRAILER!!!", 0, nil, 0, 0)
	return c.buf.Bytes()
}

// initramfs returns what the kernel unpacks into memory: the program, which is
// /init too, the keys that the machine trusts, and the modules with their order. It
// is not compressed.
func initramfs(program []byte, modules []module, trusted []byte) []byte {
	var c cpio
	for _, dir := range []string{"dev", "proc", "sys", "run", "boot", "disk0", "modules"} {
		c.add(dir, modeDir|0o755, nil, 0, 0)
	}
	c.add("dev/console", modeChar|0o600, nil, 5, 1) // before /dev is mounted it is standard output
	c.add("patchbay", modeFile|0o755, program, 0, 0)
	c.add("init", modeLink|0o777, []byte("patchbay"), 0, 0)
	if len(trusted) > 0 {
		c.add(disk.KeysFile, modeFile|0o444, trusted, 0, 0)
	}
	var order strings.Builder
	for _, m := range modules {
		c.add("modules/"+m.name+".ko", modeFile|0o644, m.data, 0, 0)
		fmt.Fprintln(&order, m.name+".ko")
	}
	c.add("modules/modules.order", modeFile|0o644, []byte(order.String()), 0, 0)
	return c.bytes()
}

// compress returns data as zstd has it; one thread, for the bytes depend on how
// many there are.
func compress(ctx context.Context, data []byte) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "zstd", "-q", "-c", "-19", "--single-thread")
	cmd.Stdin = bytes.NewReader(data)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("image: zstd: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	if out.Len() == 0 {
		return nil, errors.New("image: zstd wrote nothing")
	}
	return out.Bytes(), nil
}
