package image

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"patchbay/image/disk"
)

// GRUB's parts for both kinds of firmware, as Debian has them.
const (
	grubBIOS = "/usr/lib/grub/i386-pc"
	grubEFI  = "/usr/lib/grub/x86_64-efi"
)

// The partitions, in sectors: GRUB's core, the ESP with room for two systems, and
// the rest for disk0.
const (
	biosFirst = 2048
	biosLast  = 4095
	espFirst  = 4096
	espSize   = 160 << 20 / disk.SectorSize
	dataFirst = espFirst + espSize

	minFlash    = 32 << 20 // bytes
	minDiskSize = dataFirst*disk.SectorSize + minFlash + 1<<20
)

// What is random elsewhere is the same in every image.
const (
	diskGUID  disk.GUID = "5041544D-4220-4159-8000-000000000001"
	biosGUID  disk.GUID = "5041544D-4220-4159-8000-000000000002"
	espGUID   disk.GUID = "5041544D-4220-4159-8000-000000000003"
	flashGUID disk.GUID = "5041544D-4220-4159-8000-000000000004"

	flashUUID = "5041544d-4220-4159-8000-000000000005"
	espSerial = "50425a49" // hexadecimal
)

// epoch is the time of all files.
var epoch = time.Unix(1577836800, 0) // 2020-01-01

// driverArg is what the kernel's command line has of Spec.Driver.
func (b *builder) driverArg() string {
	if b.spec.Driver == "" {
		return ""
	}
	return disk.DriverArg + "=" + b.spec.Driver + " "
}

//go:embed grub.cfg
var grubConfig []byte

// earlyConfig is what GRUB does before it can read its configuration.
const earlyConfig = `search --no-floppy --label ESP --set=root
set prefix=($root)/grub
configfile $prefix/grub.cfg
`

// grubModules are those of GRUB that are in its core.
var grubModules = strings.Fields("part_gpt fat ext2 normal configfile search search_label linux loadenv test echo serial terminal reboot sleep minicmd")

// disks makes the disk in all formats that are wanted.
func (b *builder) disks(sys disk.System, notices, startup []byte) {
	b.grub()
	b.esp(sys, notices)
	b.flash(startup)
	b.assemble()
	b.convert()
}

// grub makes GRUB's core for BIOS and UEFI.
func (b *builder) grub() {
	if b.err != nil {
		return
	}
	b.err = os.WriteFile(filepath.Join(b.tmp, "early.cfg"), []byte(earlyConfig), 0o644)
	b.run(nil, "grub-mkimage", slices.Concat([]string{"-O", "i386-pc", "-d", grubBIOS, "-p", "/grub", "-c", "early.cfg", "-o", "core.img", "biosdisk"}, grubModules)...)
	b.run(nil, "grub-mkimage", slices.Concat([]string{"-O", "x86_64-efi", "-d", grubEFI, "-p", "/grub", "-c", "early.cfg", "-o", "BOOTX64.EFI", "efi_gop"}, grubModules)...)
}

// esp makes the FAT file system that firmware and GRUB read.
func (b *builder) esp(sys disk.System, notices []byte) {
	if b.err != nil {
		return
	}
	env, err := disk.Env{disk.EnvGood: disk.SlotA}.Bytes()
	if b.err = err; err != nil {
		return
	}
	efi, err := os.ReadFile(filepath.Join(b.tmp, "BOOTX64.EFI"))
	if b.err = err; err != nil {
		return
	}
	slot := disk.SlotDir + "/" + disk.SlotA + "/"
	files := []struct {
		name string
		data []byte
	}{
		{"EFI/BOOT/BOOTX64.EFI", efi},
		{"grub/grub.cfg", bytes.Replace(grubConfig, []byte(" gpt "), []byte(" gpt "+b.driverArg()), 1)},
		{disk.EnvFile, env},
		{slot + disk.KernelFile, sys.Kernel},
		{slot + disk.InitrdFile, sys.Initrd},
		{slot + "system.id", []byte(sys.ID()[:32] + " 0\n")},
		{"NOTICES.txt", notices},
	}
	fat := []string{"SOURCE_DATE_EPOCH=" + fmt.Sprint(epoch.Unix()), "MTOOLS_SKIP_CHECK=1"}
	img := filepath.Join(b.tmp, "esp.img")
	if b.err = os.WriteFile(img, nil, 0o644); b.err == nil {
		b.err = os.Truncate(img, espSize*disk.SectorSize)
	}
	b.run(fat, "mformat", "-i", "esp.img", "-F", "-T", fmt.Sprint(espSize), "-h", "255", "-s", "63", "-H", fmt.Sprint(espFirst), "-v", "ESP", "-N", espSerial, "::")
	made := make(map[string]bool)
	for _, f := range files {
		for i, c := range f.name {
			if c == '/' && !made[f.name[:i]] {
				made[f.name[:i]] = true
				b.run(fat, "mmd", "-i", "esp.img", "::"+f.name[:i])
			}
		}
		if b.err != nil {
			return
		}
		tmp := filepath.Join(b.tmp, "file")
		if b.err = os.WriteFile(tmp, f.data, 0o644); b.err == nil {
			b.err = os.Chtimes(tmp, epoch, epoch)
		}
		b.run(fat, "mcopy", "-m", "-i", "esp.img", "file", "::"+f.name)
	}
}

// flash makes the file system of disk0:, with the startup configuration if there is
// one.
func (b *builder) flash(startup []byte) {
	if b.err != nil {
		return
	}
	dir := filepath.Join(b.tmp, "disk0")
	if b.err = os.Mkdir(dir, 0o700); b.err != nil {
		return
	}
	if startup != nil {
		name := filepath.Join(dir, "startup-config")
		if b.err = os.WriteFile(name, startup, 0o600); b.err == nil {
			b.err = os.Chtimes(name, epoch, epoch)
		}
	}
	if b.err == nil {
		b.err = os.Chtimes(dir, epoch, epoch)
	}
	mke2fs := "mke2fs"
	if _, err := os.Stat("/sbin/mke2fs"); err == nil {
		mke2fs = "/sbin/mke2fs"
	}
	b.run([]string{"E2FSPROGS_FAKE_TIME=" + fmt.Sprint(epoch.Unix())}, mke2fs, "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "1",
		"-L", disk.FlashName, "-U", flashUUID, "-E", "hash_seed="+flashUUID+",root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard",
		"-d", "disk0", "disk0.img", fmt.Sprintf("%dk", b.flashSectors()*disk.SectorSize/1024))
}

// flashSectors is how many sectors disk0: has.
func (b *builder) flashSectors() uint64 {
	end := (disk.LastUsable(uint64(b.spec.DiskSize)/disk.SectorSize) + 1) / 2048 * 2048
	return end - dataFirst
}

// Where GRUB's boot sector has the sector of its core, and what a BIOS must not skip;
// where the core's first sector has that of its second. (GRUB, boot.S, diskboot.S,
// and util/setup.c.)
const (
	bootCode       = 440 // bytes of the MBR that are code
	bootCoreSector = 0x5c
	bootDriveCheck = 0x66
	coreNextSector = 0x1f4
)

// assemble puts the disk together.
func (b *builder) assemble() {
	if b.err != nil {
		return
	}
	b.err = b.assembled()
}

func (b *builder) assembled() (err error) {
	f, err := os.Create(filepath.Join(b.tmp, "patchbay.raw"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(b.spec.DiskSize); err != nil {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(grubBIOS, "boot.img"))
	if err != nil {
		return err
	}
	core, err := os.ReadFile(filepath.Join(b.tmp, "core.img"))
	if err != nil {
		return err
	}
	if len(boot) < disk.SectorSize || len(core) < 2*disk.SectorSize || len(core) > (biosLast-biosFirst+1)*disk.SectorSize {
		return fmt.Errorf("GRUB's boot.img has %d bytes and its core %d", len(boot), len(core))
	}
	binary.LittleEndian.PutUint64(boot[bootCoreSector:], biosFirst)
	boot[bootDriveCheck], boot[bootDriveCheck+1] = 0x90, 0x90
	binary.LittleEndian.PutUint64(core[coreNextSector:], biosFirst+1)
	if _, err := f.WriteAt(boot[:bootCode], 0); err != nil {
		return err
	}
	if _, err := f.WriteAt(core, biosFirst*disk.SectorSize); err != nil {
		return err
	}
	t := disk.Table{GUID: diskGUID, Sectors: uint64(b.spec.DiskSize) / disk.SectorSize, Partitions: []disk.Partition{
		{Name: disk.BootName, Type: disk.TypeBIOSBoot, GUID: biosGUID, First: biosFirst, Last: biosLast},
		{Name: disk.ESPName, Type: disk.TypeESP, GUID: espGUID, First: espFirst, Last: dataFirst - 1},
		{Name: disk.FlashName, Type: disk.TypeLinux, GUID: flashGUID, First: dataFirst, Last: dataFirst + b.flashSectors() - 1},
	}}
	if err := t.WriteTo(f); err != nil {
		return err
	}
	if err := copyAt(f, espFirst*disk.SectorSize, espSize*disk.SectorSize, filepath.Join(b.tmp, "esp.img")); err != nil {
		return err
	}
	return copyAt(f, dataFirst*disk.SectorSize, int64(b.flashSectors())*disk.SectorSize, filepath.Join(b.tmp, "disk0.img"))
}
