// Package image builds the machine that is a Patchbay: Debian's kernel, our program
// as its init and as everything else, and a disk that boots by BIOS and by UEFI.
// It needs no root and mounts nothing.
//
// What a reader may get wrong: two builds of the same sources give the same bytes.
// Nothing may come in that differs: no time, no random number, no name of a
// directory, no number of threads.
package image

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"patchbay/appliance/config"
	"patchbay/image/disk"
)

// The formats of a disk.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
	VMDK  = "vmdk"
	OVA   = "ova"
)

// Formats are all of them.
var Formats = []string{Raw, QCOW2, VMDK, OVA}

// A Spec says what to build.
type Spec struct {
	Out     string   // directory; made if it is not there
	Formats []string // nil: Raw
	Config  string   // file with the startup configuration; "": none

	// Sign is a file with the private key that signs the bundle, PKCS #8 in PEM; "":
	// nothing is signed, and the image installs any bundle. One that is signed
	// installs only bundles signed by this key or by one of Trust, files with public
	// keys in PEM.
	Sign  string
	Trust []string
	// Version is what the system is called; "" is "devel". The kernel's version is
	// added.
	Version string

	// Driver is what carries packets in the machine, one of disk.Drivers; "": the
	// first of them.
	Driver string
	// Program is the patchbay for the image, a static ELF file for x86-64; ""
	// builds it from the module in the working directory.
	Program string
	// DiskSize is that of the disk in bytes; 0 is DefaultDiskSize. The machine
	// makes its flash as large as the disk that it finds.
	DiskSize int64
	// Cache keeps the kernel's package; "" is a directory of the user's.
	Cache string

	Warn func(string) // hears what the builder should know; nil: nobody
}

// DefaultDiskSize is that of a disk, in bytes.
const DefaultDiskSize = 1 << 30

// A Result says what was built.
type Result struct {
	Files  []File
	Kernel string // package and version
	Signer string // the ID of the key that signed the bundle; "": none
	Trusts disk.Keys
}

// A File is one of a Result.
type File struct {
	Name   string // in Spec.Out
	Size   int64  // bytes
	SHA256 string
}

// tools are the programs that a build runs, and the Debian packages they are in.
var tools = []struct{ program, pkg string }{
	{"apt-get", "apt"}, {"dpkg-deb", "dpkg"}, {"zstd", "zstd"}, {"grub-mkimage", "grub-common"},
	{"mformat", "mtools"}, {"mke2fs", "e2fsprogs"}, {"qemu-img", "qemu-utils"},
}

// Missing returns the Debian packages that a build of these formats wants and that
// are not installed here.
func Missing(formats []string) (pkgs []string) {
	for _, t := range tools {
		if t.program == "qemu-img" && !slices.ContainsFunc(formats, func(f string) bool { return f != Raw }) {
			continue
		}
		if _, err := exec.LookPath(t.program); err != nil {
			if _, err := os.Stat("/sbin/" + t.program); err != nil {
				pkgs = append(pkgs, t.pkg)
			}
		}
	}
	for dir, pkg := range map[string]string{grubBIOS: "grub-pc-bin", grubEFI: "grub-efi-amd64-bin"} {
		if _, err := os.Stat(filepath.Join(dir, "normal.mod")); err != nil {
			pkgs = append(pkgs, pkg)
		}
	}
	slices.Sort(pkgs)
	return slices.Compact(pkgs)
}

// Build makes the image: disks in the formats of s, the kernel and the initramfs
// for a direct boot, the bundle for an upgrade, the licences, and SHA256SUMS of all.
func Build(ctx context.Context, s Spec) (*Result, error) {
	if s.Warn == nil {
		s.Warn = func(string) {}
	}
	if s.Formats == nil {
		s.Formats = []string{Raw}
	}
	for _, f := range s.Formats {
		if !slices.Contains(Formats, f) {
			return nil, fmt.Errorf("image: format %q: want %s", f, strings.Join(Formats, ", "))
		}
	}
	if s.Driver != "" && !slices.Contains(disk.Drivers, s.Driver) {
		return nil, fmt.Errorf("image: driver %q: want %s", s.Driver, strings.Join(disk.Drivers, ", "))
	}
	if missing := Missing(s.Formats); len(missing) > 0 {
		return nil, fmt.Errorf("image: this needs programs that are not here; as root: apt-get install --no-install-recommends %s", strings.Join(missing, " "))
	}
	if s.DiskSize == 0 {
		s.DiskSize = DefaultDiskSize
	}
	if s.DiskSize < minDiskSize || s.DiskSize%(1<<20) != 0 {
		return nil, fmt.Errorf("image: a disk of %d bytes: want a multiple of 1 MiB, at least %d", s.DiskSize, minDiskSize)
	}
	if s.Cache == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("image: no directory for the kernel's package: %w", err)
		}
		s.Cache = filepath.Join(dir, "patchbay", "kernel")
	}
	startup, err := startupConfig(s.Config)
	if err != nil {
		return nil, err
	}
	if s.Version != "" {
		if err := disk.CheckVersion(s.Version); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
	}
	key, trusted, err := s.keys()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Out, 0o755); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	tmp, err := os.MkdirTemp(s.Out, ".build-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(tmp)

	program, err := s.program(ctx, tmp)
	if err != nil {
		return nil, err
	}
	k, err := fetchKernel(ctx, s.Cache, s.Warn)
	if err != nil {
		return nil, err
	}
	initrd, err := compress(ctx, initramfs(program, k.modules, trusted.PEM()))
	if err != nil {
		return nil, err
	}
	sys := disk.System{Kernel: k.vmlinuz, Initrd: initrd, Version: cmp.Or(s.Version, "devel") + ", kernel " + k.version}
	notices, err := notices(ctx, k, s.Program == "")
	if err != nil {
		return nil, err
	}
	var bundle bytes.Buffer
	if err := disk.WriteBundle(&bundle, sys, key); err != nil {
		return nil, err
	}
	b := &builder{ctx: ctx, spec: s, tmp: tmp, res: &Result{Kernel: k.pkg + " " + k.version, Trusts: trusted}}
	if key != nil {
		b.res.Signer = disk.KeyID(trusted[0])
	}
	b.write("vmlinuz", k.vmlinuz)
	b.write("initrd", initrd)
	b.write("patchbay.bin", bundle.Bytes())
	b.write("NOTICES.txt", notices)
	b.disks(sys, notices, startup)
	return b.finish()
}

// keys reads the key that signs, nil for none, and the keys that the image trusts,
// that one first.
func (s *Spec) keys() (key ed25519.PrivateKey, trusted disk.Keys, err error) {
	if s.Sign == "" {
		if len(s.Trust) > 0 {
			return nil, nil, errors.New("image: an image that trusts keys must be signed itself: say with which key")
		}
		return nil, nil, nil
	}
	text, err := os.ReadFile(s.Sign)
	if err != nil {
		return nil, nil, fmt.Errorf("image: the key that signs: %w", err)
	}
	if key, err = disk.ParseSigningKey(text); err != nil {
		return nil, nil, fmt.Errorf("image: %s: %w", s.Sign, err)
	}
	trusted = trusted.With(key.Public().(ed25519.PublicKey))
	for _, name := range s.Trust {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, nil, fmt.Errorf("image: a key that is trusted: %w", err)
		}
		more, err := disk.ParseKeys(text)
		if err != nil {
			return nil, nil, fmt.Errorf("image: %s: %w", name, err)
		}
		for _, k := range more {
			trusted = trusted.With(k)
		}
	}
	if _, err := disk.ParseKeys(trusted.PEM()); err != nil {
		return nil, nil, fmt.Errorf("image: %w", err)
	}
	return key, trusted, nil
}

// startupConfig reads the configuration that the image begins with, which must
// have no errors.
func startupConfig(file string) ([]byte, error) {
	if file == "" {
		return nil, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	_, found := config.Load(file, bytes.NewReader(data), false)
	for _, f := range found {
		if f.Severity == config.Error {
			return nil, fmt.Errorf("image: %v\n%d errors: see \"patchbay check %s\"", f, config.Errors(found), file)
		}
	}
	return data, nil
}

// program returns the patchbay that goes into the image.
func (s *Spec) program(ctx context.Context, tmp string) ([]byte, error) {
	file := s.Program
	if file == "" {
		file = filepath.Join(tmp, "patchbay")
		env := []string{"CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOAMD64=v1", "GOFLAGS="}
		if _, err := run(ctx, "", env, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", file, "patchbay/cmd/patchbay"); err != nil {
			return nil, fmt.Errorf("image: building the program, for which the working directory must be Patchbay's sources, or --program name one: %w", err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("image: %s: %w", file, err)
	}
	if f.Machine != elf.EM_X86_64 {
		return nil, fmt.Errorf("image: %s is for %v; the image is x86-64", file, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("image: %s is not static: build it with CGO_ENABLED=0", file)
		}
	}
	return data, nil
}

// A builder writes the files of a Result. After an error it does nothing more.
type builder struct {
	ctx  context.Context
	spec Spec
	tmp  string
	res  *Result
	err  error
}

// path returns where a file of the Result is.
func (b *builder) path(name string) string { return filepath.Join(b.spec.Out, name) }

// write writes a file of the Result.
func (b *builder) write(name string, data []byte) {
	if b.err != nil {
		return
	}
	if b.err = os.WriteFile(filepath.Join(b.tmp, name), data, 0o644); b.err == nil {
		b.add(name)
	}
}

// add puts a file that was made in b.tmp in its place and notes it.
func (b *builder) add(name string) {
	if b.err != nil {
		return
	}
	made := filepath.Join(b.tmp, name)
	sum, err := fileSum(made)
	var info os.FileInfo
	if err == nil {
		info, err = os.Stat(made)
	}
	if err == nil {
		err = os.Rename(made, b.path(name))
	}
	if b.err = err; err == nil {
		b.res.Files = append(b.res.Files, File{name, info.Size(), sum})
	}
}

// run runs a program for the Result.
func (b *builder) run(env []string, name string, args ...string) {
	if b.err == nil {
		_, b.err = run(b.ctx, b.tmp, env, name, args...)
	}
}

// finish writes the sums.
func (b *builder) finish() (*Result, error) {
	slices.SortFunc(b.res.Files, func(x, y File) int { return strings.Compare(x.Name, y.Name) })
	var sums bytes.Buffer
	for _, f := range b.res.Files {
		fmt.Fprintf(&sums, "%s  %s\n", f.SHA256, f.Name)
	}
	b.write("SHA256SUMS", sums.Bytes())
	if b.err != nil {
		return nil, fmt.Errorf("image: %w", b.err)
	}
	return b.res, nil
}

// notices returns the licences of what is in the image.
func notices(ctx context.Context, k *kernel, modules bool) ([]byte, error) {
	var b bytes.Buffer
	part := func(title string, text []byte) {
		fmt.Fprintf(&b, "%s\n%s\n\n%s\n\n", title, strings.Repeat("=", len(title)), bytes.TrimSpace(text))
	}
	fmt.Fprintf(&b, `What is in this image, and under which licences.

The kernel is Debian's package %s %s, unchanged, under the GNU
General Public License, version 2. The boot loader is Debian's GRUB, under the
GNU General Public License, version 3. Debian gives out the sources of both, as
the source packages linux and grub2, at deb.debian.org and, for every version
there ever was, at snapshot.debian.org.

`, k.pkg, k.version)
	if text, err := os.ReadFile("LICENSE"); err == nil {
		part("Patchbay", text)
	}
	part("The kernel, "+k.pkg+" "+k.version, k.notice)
	grub, err := os.ReadFile("/usr/share/doc/grub-common/copyright")
	if err != nil {
		return nil, fmt.Errorf("image: GRUB's licence: %w", err)
	}
	part("GRUB", grub)
	if !modules {
		return b.Bytes(), nil
	}
	out, err := run(ctx, "", []string{"GOFLAGS=", "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64"}, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}", "patchbay/cmd/patchbay")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if root, err := run(ctx, "", nil, "go", "env", "GOROOT"); err == nil {
		out = fmt.Appendf(out, "\nthe Go runtime and standard library %s", strings.TrimSpace(string(root)))
	}
	list := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(list)
	for _, line := range slices.Compact(list) {
		j := strings.LastIndex(line, " ")
		if j < 0 {
			continue
		}
		title, dir := line[:j], line[j+1:]
		found := false
		for _, pattern := range []string{"LICENSE*", "COPYING*", "LICENCE*", "NOTICE*", "PATENTS"} {
			files, _ := filepath.Glob(filepath.Join(dir, pattern))
			for _, f := range files {
				if info, err := os.Stat(f); err == nil && info.IsDir() {
					continue
				}
				text, err := os.ReadFile(f)
				if err != nil {
					return nil, fmt.Errorf("image: the licence of %s: %w", title, err)
				}
				part(title+", "+filepath.Base(f), text)
				found = true
			}
		}
		if !found {
			return nil, fmt.Errorf("image: %s has no licence that could be shipped", title)
		}
	}
	return b.Bytes(), nil
}

// sumOf returns the SHA-256 of data in hexadecimal.
func sumOf(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

var errShort = errors.New("image: a file is longer than its place on the disk")

// copyAt copies the file name to w at an offset, leaving out what is zero, and must
// find room for it in size bytes.
func copyAt(w io.WriterAt, at, size int64, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	zero, buf := make([]byte, 1<<16), make([]byte, 1<<16)
	for off := int64(0); ; {
		n, err := io.ReadFull(f, buf)
		if off+int64(n) > size {
			return errShort
		}
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := w.WriteAt(buf[:n], at+off); err != nil {
				return err
			}
		}
		off += int64(n)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
