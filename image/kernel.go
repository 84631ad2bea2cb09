package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed kernel.lock
var kernelLock string

// A lock is which kernel package is used.
type lock struct{ pkg, version, sha256 string }

// newestPackage depends on the newest kernel there is.
const newestPackage = "linux-image-cloud-amd64"

// parseLock reads a lock file.
func parseLock(text string) (l lock, err error) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 2 {
			return l, fmt.Errorf("image: kernel.lock: %q: want a name and a value", strings.TrimSpace(line))
		}
		switch f[0] {
		case "package":
			l.pkg = f[1]
		case "version":
			l.version = f[1]
		case "sha256":
			l.sha256 = f[1]
		default:
			return l, fmt.Errorf("image: kernel.lock: %q is not known", f[0])
		}
	}
	if b, err := hex.DecodeString(l.sha256); err != nil || len(b) != sha256.Size || l.pkg == "" || l.version == "" {
		return l, errors.New("image: kernel.lock: want package, version and sha256")
	}
	return l, nil
}

func (l lock) String() string {
	return fmt.Sprintf("package %s\nversion %s\nsha256 %s", l.pkg, l.version, l.sha256)
}

// A kernel is what is needed of a kernel's package.
type kernel struct {
	lock
	vmlinuz []byte
	modules []module // in the order to load
	notice  []byte   // the package's copyright file
}

// A module is one of a kernel's.
type module struct {
	name string // as in its file's name, with _ for -
	data []byte
	deps []string
}

// wantedModules are those of the image; what they depend on comes with them. Disks,
// cards and what a hypervisor offers; the file systems of a configuration drive and
// of the ESP; the power button; what stack/link has the kernel drop packets with.
var wantedModules = []string{
	"virtio_pci", "virtio_blk", "virtio_scsi", "virtio_net", "virtio_rng", "virtio_balloon",
	"ata_piix", "vmw_pvscsi", "vmxnet3", "hv_storvsc", "hv_netvsc", "ena", "gve", "sd_mod", "sr_mod",
	"isofs", "nls_cp437", "nls_ascii", "vfat", "qemu_fw_cfg", "button", "evdev",
	"sch_ingress", "cls_bpf", "cls_matchall", "act_gact", "tun",
}

// fetchKernel returns the locked kernel out of the cache or Debian's archive, or a
// newer one, of which warn hears, if the archive does not have it any more.
func fetchKernel(ctx context.Context, cache string, warn func(string)) (*kernel, error) {
	l, err := parseLock(kernelLock)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	deb := filepath.Join(cache, l.sha256+".deb")
	if sum, err := fileSum(deb); err == nil && sum == l.sha256 {
		warnNewer(ctx, l, warn)
		return openKernel(ctx, deb, l)
	}
	got, err := download(ctx, cache, l.pkg+"="+l.version)
	if err == nil {
		defer os.Remove(got)
		sum, err := fileSum(got)
		if err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		if sum != l.sha256 {
			return nil, fmt.Errorf("image: %s %s has the SHA-256 %s, and image/kernel.lock says %s: it is not the package that was locked", l.pkg, l.version, sum, l.sha256)
		}
		if err := os.Rename(got, deb); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		warnNewer(ctx, l, warn)
		return openKernel(ctx, deb, l)
	}
	gone := err
	newest, err := newestKernel(ctx)
	if err != nil {
		return nil, fmt.Errorf("image: the kernel %s %s: %w; and what the newest is: %w; \"apt-get update\" may help", l.pkg, l.version, gone, err)
	}
	if got, err = download(ctx, cache, newest.pkg+"="+newest.version); err != nil {
		return nil, fmt.Errorf("image: the kernel %s: %w", newest.pkg, err)
	}
	if newest.sha256, err = fileSum(got); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	deb = filepath.Join(cache, newest.sha256+".deb")
	if err := os.Rename(got, deb); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	warn(fmt.Sprintf("the kernel of image/kernel.lock, %s %s, is not in the archive (%v); this image has another. To lock it write:\n%v", l.pkg, l.version, gone, newest))
	return openKernel(ctx, deb, newest)
}

// warnNewer warns if the archive has a newer kernel than l.
func warnNewer(ctx context.Context, l lock, warn func(string)) {
	if n, err := newestKernel(ctx); err == nil && n.version != l.version {
		warn(fmt.Sprintf("the archive has the kernel %s %s; this image has %s %s of image/kernel.lock", n.pkg, n.version, l.pkg, l.version))
	}
}

// newestKernel asks apt which kernel newestPackage stands for.
func newestKernel(ctx context.Context) (l lock, err error) {
	out, err := run(ctx, "", nil, "apt-cache", "show", "--no-all-versions", newestPackage)
	if err != nil {
		return l, err
	}
	for line := range strings.Lines(string(out)) {
		if deps, ok := strings.CutPrefix(line, "Depends: "); ok {
			for dep := range strings.SplitSeq(deps, ",") {
				name, version, ok := strings.Cut(strings.TrimSpace(dep), " (= ")
				if ok && strings.HasPrefix(name, "linux-image-") {
					return lock{pkg: name, version: strings.TrimRight(version, ")\n ")}, nil
				}
			}
		}
	}
	return l, fmt.Errorf("apt knows no package %s", newestPackage)
}

// download has apt fetch a package, which any user may, and returns the file.
func download(ctx context.Context, cache, pkg string) (string, error) {
	dir, err := os.MkdirTemp(cache, "apt-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	if _, err := run(ctx, dir, nil, "apt-get", "download", "-q", pkg); err != nil {
		return "", err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download %s left %d packages", pkg, len(debs))
	}
	to := filepath.Join(cache, filepath.Base(debs[0]))
	return to, os.Rename(debs[0], to)
}

// openKernel takes what is needed out of a package.
func openKernel(ctx context.Context, deb string, l lock) (*kernel, error) {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fmt.Errorf("image: dpkg-deb: %w", err)
	}
	k := &kernel{lock: l}
	all := make(map[string]*module)
	err = k.read(tar.NewReader(out), all)
	if err != nil {
		cmd.Process.Kill()
	}
	if e := cmd.Wait(); err == nil && e != nil {
		err = fmt.Errorf("dpkg-deb: %w: %s", e, strings.TrimSpace(stderr.String()))
	}
	if err == nil {
		k.modules, err = order(all, wantedModules)
	}
	if err == nil && (k.vmlinuz == nil || k.notice == nil) {
		err = errors.New("it has no kernel, or no copyright file")
	}
	if err != nil {
		return nil, fmt.Errorf("image: %s %s: %w", l.pkg, l.version, err)
	}
	return k, nil
}

// maxModule bounds a file of a package, in bytes.
const maxModule = 64 << 20

func (k *kernel) read(t *tar.Reader, all map[string]*module) error {
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Base(h.Name)
		wanted := strings.HasPrefix(name, "vmlinuz-") || strings.HasSuffix(name, ".ko") ||
			name == "copyright" && strings.Contains(h.Name, "/"+k.pkg+"/")
		if h.Typeflag != tar.TypeReg || !wanted {
			continue
		}
		if h.Size > maxModule {
			return fmt.Errorf("%s has %d bytes", name, h.Size)
		}
		data := make([]byte, h.Size)
		if _, err := io.ReadFull(t, data); err != nil {
			return err
		}
		switch {
		case name == "copyright":
			k.notice = data
		case strings.HasPrefix(name, "vmlinuz-"):
			k.vmlinuz = data
		default:
			m, err := parseModule(name, data)
			if err != nil {
				return err
			}
			all[m.name] = m
		}
	}
}

// moduleName is the name of a module, where - and _ are the same.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_")
}

// parseModule reads what a module depends on from its section .modinfo: strings
// with a zero behind each. (Linux, include/linux/moduleparam.h.)
func parseModule(file string, data []byte) (*module, error) {
	m := &module{name: moduleName(file), data: data}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", file, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return nil, fmt.Errorf("module %s: no .modinfo", file)
	}
	info, err := s.Data()
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", file, err)
	}
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if deps, ok := strings.CutPrefix(string(entry), "depends="); ok && deps != "" {
			for d := range strings.SplitSeq(deps, ",") {
				m.deps = append(m.deps, moduleName(d))
			}
		}
	}
	return m, nil
}

// order returns the modules wanted, each behind those it depends on.
func order(all map[string]*module, wanted []string) (list []module, err error) {
	const open, done = 1, 2
	state := make(map[string]int)
	var visit func(name, by string) error
	visit = func(name, by string) error {
		switch state[name] {
		case done:
			return nil
		case open:
			return fmt.Errorf("modules %s and %s depend on each other", name, by)
		}
		m := all[name]
		if m == nil {
			return fmt.Errorf("there is no module %s, which %s wants", name, by)
		}
		state[name] = open
		for _, d := range m.deps {
			if err := visit(d, name); err != nil {
				return err
			}
		}
		state[name] = done
		list = append(list, *m)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name, "the image"); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// fileSum returns the SHA-256 of a file.
func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// run runs a program in dir with more environment, and returns what it prints.
func run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), []string{"LC_ALL=C", "TZ=UTC"}, env)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, lastLine(stderr.String()))
	}
	return out.Bytes(), nil
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
