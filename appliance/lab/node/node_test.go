package node_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"patchbay/appliance/lab/node"
)

// program builds a static program that says hello.
func program(t *testing.T) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("needs to build a program for Linux and run it")
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() { println(\"hello\") }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "hello")
	c := exec.Command("go", "build", "-o", file, source)
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}

func read(t *testing.T, elem ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	image := filepath.Join(dir, "vm.qcow2")
	if err := os.WriteFile(image, append([]byte("QFI\xfb"), bytes.Repeat([]byte{7}, 1000)...), 0o600); err != nil {
		t.Fatal(err)
	}
	o := node.Options{Program: program(t), Version: "1.2", Image: image, Config: []byte("hostname box\n: end\n")}
	files, err := node.Write(filepath.Join(dir, "out"), o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		rel, err := filepath.Rel(filepath.Join(dir, "out"), f)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, filepath.ToSlash(rel))
	}
	want := []string{"containerlab/flash/.keep", "containerlab/patchbay.clab.yml", "containerlab/patchbay.cfg", "containerlab/patchbay-image.tar", "eve-ng/patchbay.yml", "gns3/patchbay.gns3a"}
	if !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if got := string(read(t, dir, "out", "containerlab", "patchbay.cfg")); !strings.HasPrefix(got, "hostname box\nusername lab ") || !strings.HasSuffix(got, "\n: end\n") {
		t.Errorf("configuration %q", got)
	}
	t.Run("containerlab", func(t *testing.T) { checkClab(t, filepath.Join(dir, "out", "containerlab")) })
	t.Run("GNS3", func(t *testing.T) { checkGNS3(t, read(t, dir, "out", "gns3", "patchbay.gns3a")) })
	t.Run("EVE-NG", func(t *testing.T) { checkEVE(t, read(t, dir, "out", "eve-ng", "patchbay.yml")) })

	// Without the disk there is nothing for GNS3, and what is written again is the
	// same.
	before := read(t, dir, "out", "containerlab", "patchbay-image.tar")
	o.Image = ""
	files, err = node.Write(filepath.Join(dir, "out"), o)
	if err != nil || len(files) != 5 {
		t.Errorf("without an image: %v, %v", files, err)
	}
	if !bytes.Equal(before, read(t, dir, "out", "containerlab", "patchbay-image.tar")) {
		t.Error("two container images of one program differ")
	}
}

// checkClab reads the example as containerlab does.
func checkClab(t *testing.T, dir string) {
	var c struct {
		Name     string
		Topology struct {
			Nodes map[string]struct {
				Kind, Image, Cmd string
				Binds, Exec      []string
			}
			Links []struct{ Endpoints []string }
		}
	}
	d := yaml.NewDecoder(bytes.NewReader(read(t, dir, "patchbay.clab.yml")))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	box := c.Topology.Nodes["box"]
	if c.Name == "" || box.Kind != "linux" || box.Image != "patchbay:latest" {
		t.Errorf("name %q, box %+v", c.Name, box)
	}
	for _, b := range box.Binds {
		host, _, _ := strings.Cut(b, ":")
		if _, err := os.Stat(filepath.Join(dir, host)); err != nil {
			t.Errorf("bind %s: %v", b, err)
		}
	}
	used := make(map[string]bool)
	for _, l := range c.Topology.Links {
		if len(l.Endpoints) != 2 {
			t.Errorf("link %v", l.Endpoints)
		}
		for _, e := range l.Endpoints {
			name, device, _ := strings.Cut(e, ":")
			if _, ok := c.Topology.Nodes[name]; !ok || !regexp.MustCompile(`^eth[1-9]$`).MatchString(device) || used[e] {
				t.Errorf("endpoint %q", e)
			}
			used[e] = true
			if name == "box" && !strings.Contains(box.Cmd, "=packet:"+device) {
				t.Errorf("the box does not open %s: %q", device, box.Cmd)
			}
		}
	}
	if !strings.HasPrefix(box.Cmd, "run ") || strings.Contains(box.Cmd, "\n") {
		t.Errorf("command %q", box.Cmd)
	}
}

// What GNS3 wants of an appliance. (schemas/appliance_v6.json.)
func checkGNS3(t *testing.T, text []byte) {
	var top, qemu map[string]any
	if err := json.Unmarshal(text, &top); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"appliance_id", "name", "category", "description", "vendor_name", "vendor_url", "product_name", "registry_version", "status", "maintainer", "maintainer_email"} {
		if top[key] == nil || top[key] == "" {
			t.Errorf("no %q", key)
		}
	}
	qemu, _ = top["qemu"].(map[string]any)
	for _, key := range []string{"adapter_type", "adapters", "ram", "arch", "console_type", "kvm"} {
		if qemu[key] == nil {
			t.Errorf("no qemu %q", key)
		}
	}
	for key, allowed := range map[string][]string{
		"adapter_type": {"virtio-net-pci"}, "arch": {"x86_64"}, "console_type": {"telnet"}, "kvm": {"require", "allow", "disable"},
		"hda_disk_interface": {"ide", "virtio", "sata"}, "boot_priority": {"c", "d", "cd"}, "on_close": {"power_off", "shutdown_signal", "save_vm_state"},
	} {
		if v, _ := qemu[key].(string); !slices.Contains(allowed, v) {
			t.Errorf("qemu %s is %q, want one of %v", key, v, allowed)
		}
	}
	if !regexp.MustCompile(`^[a-f0-9]{8}(-[a-f0-9]{4}){3}-[a-f0-9]{12}$`).MatchString(fmt.Sprint(top["appliance_id"])) {
		t.Errorf("appliance_id %v", top["appliance_id"])
	}
	var typed struct {
		Qemu struct {
			Adapters int
			RAM      int
			Custom   []struct {
				Number *int   `json:"adapter_number"`
				Port   string `json:"port_name"`
			} `json:"custom_adapters"`
		}
		Images []struct {
			Filename, Version, MD5sum string
			Filesize                  int
		}
		Versions []struct {
			Name   string
			Images map[string]string
		}
	}
	if err := json.Unmarshal(text, &typed); err != nil {
		t.Fatal(err)
	}
	if typed.Qemu.Adapters != 3 || typed.Qemu.RAM != 512 || len(typed.Qemu.Custom) != 3 {
		t.Errorf("machine %+v", typed.Qemu)
	}
	for i, want := range []string{"Management0/0", "GigabitEthernet0/0", "GigabitEthernet0/1"} {
		if a := typed.Qemu.Custom[i]; a.Number == nil || *a.Number != i || a.Port != want {
			t.Errorf("adapter %d is %+v, want %s", i, a, want)
		}
	}
	if len(typed.Images) != 1 || typed.Images[0].Filesize != 1004 || typed.Images[0].MD5sum != "2d16978f622a86d15df59b6853d6ee24" {
		t.Errorf("images %+v", typed.Images)
	}
	if len(typed.Versions) != 1 || typed.Versions[0].Images["hda_disk_image"] != typed.Images[0].Filename || typed.Versions[0].Name != typed.Images[0].Version {
		t.Errorf("versions %+v", typed.Versions)
	}
}

func checkEVE(t *testing.T, text []byte) {
	var e struct {
		Type, Name, Description, Icon, Console string
		Cpulimit, CPU, RAM, Ethernet, Shutdown int
		EthName                                []string `yaml:"eth_name"`
		Arch                                   string   `yaml:"qemu_arch"`
		NIC                                    string   `yaml:"qemu_nic"`
		Options                                string   `yaml:"qemu_options"`
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "qemu" || e.Console != "telnet" || e.RAM != 512 || e.Ethernet != 3 || e.NIC != "virtio-net-pci" || e.Arch != "x86_64" ||
		!strings.Contains(e.Options, "-serial mon:stdio") || e.Name == "" || e.Icon == "" || e.CPU == 0 {
		t.Errorf("template %+v", e)
	}
	if !slices.Equal(e.EthName, []string{"Management0/0", "GigabitEthernet0/0", "GigabitEthernet0/1"}) {
		t.Errorf("interfaces %q", e.EthName)
	}
}

// unpack reads a tar archive.
func unpack(t *testing.T, data []byte) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = b
	}
}

// The image is whole by its own hashes, and the program in it runs where there is
// nothing else.
func TestContainer(t *testing.T) {
	file := program(t)
	var b bytes.Buffer
	if err := node.Container(&b, file); err != nil {
		t.Fatal(err)
	}
	files := unpack(t, b.Bytes())
	var manifest []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 {
		t.Fatalf("manifest %s: %v", files["manifest.json"], err)
	}
	m := manifest[0]
	var conf struct {
		OS, Architecture string
		Config           struct{ Entrypoint []string }
		RootFS           struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(files[m.Config], &conf); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%x.json", sha256.Sum256(files[m.Config])); got != m.Config {
		t.Errorf("configuration %s has the hash %s", m.Config, got)
	}
	if conf.OS != "linux" || conf.Architecture != runtime.GOARCH || !slices.Equal(m.RepoTags, []string{"patchbay:latest"}) ||
		!slices.Equal(conf.Config.Entrypoint, []string{"/patchbay"}) {
		t.Errorf("image %+v, %+v", m, conf)
	}
	if len(m.Layers) != 1 || len(conf.RootFS.DiffIDs) != 1 {
		t.Fatalf("layers %v, %v", m.Layers, conf.RootFS.DiffIDs)
	}
	layer := files[m.Layers[0]]
	if got := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); got != conf.RootFS.DiffIDs[0] {
		t.Errorf("layer has the hash %s, want %s", got, conf.RootFS.DiffIDs[0])
	}
	inside := unpack(t, layer)
	if !bytes.Equal(inside["patchbay"], read(t, file)) {
		t.Error("the program in the image is another one")
	}

	t.Run("runs alone", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("needs root for chroot")
		}
		root := t.TempDir()
		if err := os.WriteFile(filepath.Join(root, "patchbay"), inside["patchbay"], 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chroot", root, "/patchbay").CombinedOutput(); err != nil || string(out) != "hello\n" {
			t.Errorf("in a root of its own: %v, %q", err, out)
		}
	})
	t.Run("skopeo reads it", func(t *testing.T) {
		if _, err := exec.LookPath("skopeo"); err != nil {
			t.Skip("needs skopeo")
		}
		dir := t.TempDir()
		archive := filepath.Join(dir, "image.tar")
		if err := os.WriteFile(archive, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		// A copy verifies every hash.
		out, err := exec.Command("skopeo", "--insecure-policy", "copy", "docker-archive:"+archive+":patchbay:latest", "dir:"+filepath.Join(dir, "copy")).CombinedOutput()
		if err != nil {
			t.Errorf("skopeo copy: %v\n%s", err, out)
		}
	})
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(raw, make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	static := program(t)
	for _, tt := range []struct {
		name string
		o    node.Options
		want string
	}{
		{"no program", node.Options{Program: filepath.Join(dir, "none")}, "no such file"},
		{"no ELF", node.Options{Program: raw}, "is no program for Linux"},
		{"no qcow2", node.Options{Program: static, Image: raw}, "is no disk in qcow2"},
		{"no image", node.Options{Program: static, Image: filepath.Join(dir, "none")}, "no such file"},
	} {
		if _, err := node.Write(filepath.Join(dir, "out"), tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if sh, err := exec.LookPath("sh"); err == nil && dynamic(t, sh) {
		if err := node.Container(io.Discard, sh); err == nil || !strings.Contains(err.Error(), "is not static") {
			t.Errorf("%s: %v, want that it is not static", sh, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(dir, "out", "*", ".new-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files that are left: %v, %v", left, err)
	}
}

// dynamic reports whether a program wants a loader.
func dynamic(t *testing.T, file string) bool {
	t.Helper()
	f, err := elf.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}
