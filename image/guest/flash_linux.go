package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"patchbay/image/disk"
)

const (
	// ext4ResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64). (linux/ext4.h.)
	ext4ResizeFS = 0x40086610

	blkpg       = 0x1269 // BLKPG (linux/blkpg.h)
	blkpgResize = 3      // BLKPG_RESIZE_PARTITION

	maxLogBlock = 6 // EXT4_MAX_BLOCK_LOG_SIZE, over 1 KiB (fs/ext4/ext4.h)

	align = 2048 // sectors; partitions end where a MiB does

	shortPercent = 5        // of the flash free: that is said
	maxSalvaged  = 4 << 20  // bytes of one file that is taken off a damaged flash
	allSalvaged  = 12 << 20 // of all of them
)

// A block is a block device.
type block struct {
	name    string // in /dev
	disk    string // the device it is a partition of; "": none
	part    string // the name of the partition
	sectors uint64
	first   uint64 // sector of disk
	number  int    // of the partition
}

// blocks lists the block devices.
func blocks() (list []block) {
	devs, _ := filepath.Glob("/sys/class/block/*")
	for _, dev := range devs {
		name := filepath.Base(dev)
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") {
			continue
		}
		b := block{name: name, sectors: number(dev + "/size"), first: number(dev + "/start"), number: int(number(dev + "/partition"))}
		if b.number > 0 {
			if at, err := filepath.EvalSymlinks(dev); err == nil {
				b.disk = filepath.Base(filepath.Dir(at))
			}
			text, _ := os.ReadFile(dev + "/uevent")
			for line := range strings.Lines(string(text)) {
				if v, ok := strings.CutPrefix(line, "PARTNAME="); ok {
					b.part = strings.TrimSpace(v)
				}
			}
		}
		list = append(list, b)
	}
	return list
}

// number reads a number of sysfs, 0 if it is not there.
func number(file string) uint64 {
	text, _ := os.ReadFile(file)
	n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return n
}

// partition returns the partition of a name, waiting for it if there is a
// controller that could have it.
func partition(name string, wait time.Duration) *block {
	classes, _ := filepath.Glob("/sys/bus/pci/devices/*/class")
	controller := false
	for _, c := range classes {
		text, _ := os.ReadFile(c)
		controller = controller || strings.HasPrefix(string(text), "0x01") // mass storage
	}
	for end := time.Now().Add(wait); ; time.Sleep(10 * time.Millisecond) {
		for _, b := range blocks() {
			if b.part == name {
				return &b
			}
		}
		if !controller || time.Now().After(end) {
			return nil
		}
	}
}

// beside returns the partition of a name that is on the same disk as another, by
// its device.
func beside(list []block, other, name string) *block {
	for _, o := range list {
		for _, b := range list {
			if o.name == other && b.part == name && b.disk == o.disk && b.disk != "" {
				return &b
			}
		}
	}
	return nil
}

// mountFlash mounts what the box keeps, as large as the disk is. If that does not
// go, the box works with a copy in memory of what can be read, or with nothing.
func (m *machine) mountFlash() {
	b := partition(disk.FlashName, deviceWait)
	err := errors.New("no disk has a partition of the name disk0")
	if b != nil {
		if e := grow(b); e != nil {
			m.say(warning, "the flash keeps its size: %v", e)
		}
		if err = unix.Mount("/dev/"+b.name, flashDir, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, mountOptions("ext4", false)); err == nil {
			m.flash = b.name
			if e := growFS(b); e != nil {
				m.say(warning, "the flash keeps its size: %v", e)
			}
			m.checkSpace()
			return
		}
	}
	m.say(alarm, "disk0: cannot be used (%v): what the box writes is lost when it ends", err)
	if err := unix.Mount("tmpfs", flashDir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=24m"); err != nil {
		m.say(alarm, "memory for disk0: %v", err)
		return
	}
	if b != nil {
		m.salvage(b)
	}
}

// mountOptions are those of a file system that may be damaged: whatever its own
// superblock says, an error is none that the kernel panics for; and where it is only
// read its journal is left alone. (Linux, Documentation/admin-guide/ext4.rst.)
func mountOptions(kind string, readOnly bool) string {
	switch {
	case kind != "ext4":
		return ""
	case readOnly:
		return "norecovery,errors=continue"
	}
	return "errors=remount-ro"
}

// salvage copies to memory what a damaged flash still gives.
func (m *machine) salvage(b *block) {
	const at = runDir + "/old"
	os.Mkdir(at, 0o700)
	if err := unix.Mount("/dev/"+b.name, at, "ext4", unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, mountOptions("ext4", true)); err != nil {
		m.say(alarm, "disk0: nothing of it can be read: %v", err)
		return
	}
	defer unix.Unmount(at, 0)
	list, err := os.ReadDir(at)
	if err != nil {
		m.say(alarm, "disk0: %v", err)
	}
	left, copied := int64(allSalvaged), 0
	for _, e := range list {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() || info.Size() > maxSalvaged || info.Size() > left {
			continue
		}
		data, err := os.ReadFile(filepath.Join(at, e.Name()))
		if err == nil {
			err = os.WriteFile(filepath.Join(flashDir, e.Name()), data, 0o600)
		}
		if err != nil {
			m.say(alarm, "disk0: %s: %v", e.Name(), err)
			continue
		}
		left -= info.Size()
		copied++
	}
	m.say(warning, "disk0: %d files of the damaged flash are in memory", copied)
}

// grow makes the partition b, if it is the last of its disk, as large as that is.
func grow(b *block) error {
	f, err := os.OpenFile("/dev/"+b.disk, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	sectors := number("/sys/class/block/" + b.disk + "/size")
	t, err := disk.ReadTable(f, sectors)
	if err != nil {
		return err
	}
	i := t.Find(disk.FlashName)
	if i < 0 {
		return errors.New("it is not in the partition table")
	}
	for _, p := range t.Partitions {
		if p.First > t.Partitions[i].First {
			return nil // there is another behind it
		}
	}
	last := (disk.LastUsable(sectors)+1)/align*align - 1
	if t.Partitions[i].Last >= last && t.Sectors == sectors || last <= t.Partitions[i].First {
		return nil
	}
	t.Partitions[i].Last = max(last, t.Partitions[i].Last)
	t.Sectors = sectors
	if err := t.WriteTo(f); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	b.sectors = t.Partitions[i].Sectors()
	// struct blkpg_partition and struct blkpg_ioctl_arg.
	part := struct {
		start, length int64 // bytes
		number        int32
		names         [128]byte
	}{int64(b.first) * disk.SectorSize, int64(b.sectors) * disk.SectorSize, int32(b.number), [128]byte{}}
	arg := struct {
		op, flags, size int32
		data            unsafe.Pointer
	}{blkpgResize, 0, int32(unsafe.Sizeof(part)), unsafe.Pointer(&part)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), blkpg, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("resizing partition %s: %w", b.name, errno)
	}
	return nil
}

// growFS makes the file system, which is mounted, as large as its partition.
func growFS(b *block) error {
	f, err := os.Open("/dev/" + b.name)
	if err != nil {
		return err
	}
	s := make([]byte, 1024)
	_, err = f.ReadAt(s, 1024)
	f.Close()
	if err != nil {
		return err
	}
	has, want, size, err := extent(s, b.sectors)
	if err != nil || want <= has {
		return err
	}
	dir, err := os.Open(flashDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&want))); errno != 0 {
		return fmt.Errorf("growing from %d to %d blocks of %d bytes: %w", has, want, size, errno)
	}
	return nil
}

// extent returns how many blocks a file system has by its superblock, how many it
// could have on so many sectors, and how long one is. (Linux,
// Documentation/filesystems/ext4/super.rst: s_log_block_size, s_blocks_count.)
func extent(super []byte, sectors uint64) (has, want, size uint64, err error) {
	le := binary.LittleEndian
	log := le.Uint32(super[24:])
	if log > maxLogBlock {
		return 0, 0, 0, fmt.Errorf("the superblock says that a block has 2^%d KiB", log)
	}
	size = 1024 << log
	has = uint64(le.Uint32(super[4:])) | uint64(le.Uint32(super[0x150:]))<<32
	return has, sectors * disk.SectorSize / size, size, nil
}

// checkSpace says when the flash is nearly full, and when it is not any more; and
// when it is not writable.
func (m *machine) checkSpace() {
	var s unix.Statfs_t
	if unix.Statfs(flashDir, &s) != nil || s.Blocks == 0 {
		return
	}
	short := s.Bavail*100 < s.Blocks*shortPercent
	switch {
	case short && !m.short:
		m.say(alarm, "disk0: is full: %d KB of %d MB are free; delete captures and images that are not needed", s.Bavail*uint64(s.Bsize)>>10, s.Blocks*uint64(s.Bsize)>>20)
	case !short && m.short:
		m.say(notice, "disk0: has room again")
	}
	m.short = short
	if s.Flags&unix.ST_RDONLY != 0 && m.flash != "" {
		m.say(alarm, "disk0: went read-only after an error: nothing can be saved until the machine starts again")
		m.flash = ""
	}
}

// replaceFile writes a file on flash so that whenever the power is cut there is the
// old one or the new one.
func replaceFile(name string, data []byte) (err error) {
	half := name + ".new"
	defer func() {
		if err != nil {
			os.Remove(half)
		}
	}()
	f, err := os.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(half, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// firstConfig gives a box that has no configuration the one that its machine was
// started with, and returns the file that it begins with, "" for its own.
func (m *machine) firstConfig() string {
	if _, err := os.Stat(startupFile); err == nil {
		return ""
	}
	text, from, err := m.findDay0()
	if err != nil {
		m.say(alarm, "configuration drive %s: %v", from, err)
		return ""
	}
	if from == "" {
		m.say(notice, "there is no startup configuration, and no configuration drive: the box begins empty")
		return ""
	}
	m.say(notice, "first configuration: %s", from)
	bad := faults(text)
	if len(bad) == 0 {
		if err := replaceFile(startupFile, []byte(text)); err == nil {
			return ""
		} else {
			m.say(alarm, "keeping the configuration of %s: %v", from, err)
		}
	}
	for i, f := range bad {
		if i == 5 {
			m.say(alarm, "%s: %d more lines are refused", from, len(bad)-i)
			break
		}
		m.say(alarm, "%s", f)
	}
	if len(bad) > 0 {
		m.say(alarm, "%s: the box begins with what is left of it, and does not keep it: mend it, or \"write memory\"", from)
	}
	if err := os.WriteFile(day0File, []byte(text), 0o600); err != nil {
		m.say(alarm, "%v", err)
		return ""
	}
	return day0File
}

// findDay0 looks where a first configuration may be; from is "" if it is nowhere.
func (m *machine) findDay0() (text, from string, err error) {
	total, _ := memory()
	limit := day0Limit(total)
	if f, err := os.Open(fwCfg); err == nil {
		defer f.Close()
		text, err := readDay0(f, limit)
		return text, "fw_cfg opt/patchbay/day0-config", err
	}
	var firstErr error
	for _, b := range blocks() {
		if b.part == disk.ESPName || b.part == disk.FlashName || b.part == disk.BootName || b.sectors == 0 {
			continue
		}
		text, ok, err := m.readDrive(b.name, limit)
		if err != nil && firstErr == nil {
			firstErr, from = err, b.name
		}
		if ok && err == nil {
			return text, b.name, nil
		}
	}
	return "", from, firstErr
}

// readDrive reads a first configuration from a block device; ok is that it is meant
// to have one.
func (m *machine) readDrive(name string, limit int64) (text string, ok bool, err error) {
	f, err := os.Open("/dev/" + name)
	if err != nil {
		return "", false, nil // a drive without a medium
	}
	defer f.Close()
	kind, label := fsKind(f)
	if kind == "" {
		head := make([]byte, 512)
		if n, _ := io.ReadFull(f, head); n < len(head) || !looksLikeConfig(head) {
			return "", false, nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return "", true, err
		}
		text, err := readDay0(&untilZero{r: f}, limit)
		return text, true, err
	}
	labelled := false
	for _, l := range driveLabels {
		labelled = labelled || strings.EqualFold(label, l)
	}
	if kind == "ext4" && !labelled {
		return "", false, nil
	}
	const at = runDir + "/drive"
	os.Mkdir(at, 0o700)
	if err := unix.Mount("/dev/"+name, at, kind, unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, mountOptions(kind, true)); err != nil {
		if !labelled {
			return "", false, nil
		}
		return "", true, fmt.Errorf("%s labelled %q: %w", kind, label, err)
	}
	defer unix.Unmount(at, 0)
	if text, file, err := driveConfig(at, limit); file != "" {
		return text, true, err
	}
	if labelled {
		return "", true, fmt.Errorf("it has none of the files %s", strings.Join(day0Names, ", "))
	}
	return "", false, nil
}

// driveConfig reads the configuration that a drive has which is mounted on a
// directory; file is "" if there is none.
func driveConfig(dir string, limit int64) (text, file string, err error) {
	for _, file := range day0Names {
		f, err := openRegular(filepath.Join(dir, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			text, err = readDay0(f, limit)
			f.Close()
		}
		if err != nil {
			return "", file, fmt.Errorf("%s: %w", file, err)
		}
		return text, file, nil
	}
	return "", "", nil
}

// readStartup reads a startup configuration, of no more bytes than there could be.
func readStartup(name string) (string, error) {
	f, err := openRegular(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxDay0+1))
	if err == nil && len(b) > maxDay0 {
		err = fmt.Errorf("%s: more than %d MB are no configuration", name, maxDay0>>20)
	}
	if err != nil {
		return "", err
	}
	return string(b), nil
}

// openRegular opens a file that somebody else has made: a link could lead anywhere,
// and a FIFO would never open.
func openRegular(name string) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, errors.New("it is no ordinary file"))
	}
	return f, nil
}
