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
	"path"
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
	want := []string{"README.md", "containerlab/flash/.keep", "containerlab/patchbay.clab.yml", "containerlab/patchbay.cfg", "containerlab/patchbay-image.tar", "eve-ng/patchbay.yml", "gns3/patchbay.gns3a"}
	if !slices.Equal(names, want) {
		t.Errorf("files %v, want %v", names, want)
	}
	if got := string(read(t, dir, "out", "containerlab", "patchbay.cfg")); !strings.HasPrefix(got, "hostname box\nusername lab ") || !strings.HasSuffix(got, "\n: end\n") {
		t.Errorf("configuration %q", got)
	}
	checkReadme(t, string(read(t, dir, "out", "README.md")), want)
	t.Run("containerlab", func(t *testing.T) { checkClab(t, filepath.Join(dir, "out", "containerlab")) })
	t.Run("GNS3", func(t *testing.T) { checkGNS3(t, read(t, dir, "out", "gns3", "patchbay.gns3a")) })
	t.Run("EVE-NG", func(t *testing.T) { checkEVE(t, read(t, dir, "out", "eve-ng", "patchbay.yml")) })

	// Without the disk there is nothing for GNS3, and what is written again is the
	// same.
	before := read(t, dir, "out", "containerlab", "patchbay-image.tar")
	o.Image = ""
	files, err = node.Write(filepath.Join(dir, "out"), o)
	if err != nil || len(files) != 6 {
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

// checkReadme looks for every file that somebody must do something with, by its name.
func checkReadme(t *testing.T, text string, files []string) {
	for _, f := range files {
		if name := path.Base(f); name != "README.md" && name != ".keep" && !strings.Contains(text, name) {
			t.Errorf("README.md does not say what to do with %s", f)
		}
	}
	if strings.Contains(text, "docs/") || strings.Contains(text, "](") {
		t.Error("README.md sends its reader elsewhere")
	}
}

// A rule is what GNS3's schema says of a field. The schema allows fields that it does
// not name, which GNS3 passes over: one that is spelled wrong.
type rule struct {
	needed bool
	kind   string   // "string", "integer", "object" or "array"
	form   string   // a regular expression, "" is any
	one    []string // of which it is one; none: any
}

const address = `^https?://[^ ]+$`

var (
	adapterTypes = []string{"e1000", "i82550", "i82551", "i82557a", "i82557b", "i82557c", "i82558a", "i82558b", "i82559a", "i82559b", "i82559c", "i82559er", "i82562", "i82801", "igb", "ne2k_pci", "pcnet", "rtl8139", "virtio", "virtio-net-pci", "vmxnet3"}
	disks        = []string{"ide", "scsi", "sd", "mtd", "floppy", "pflash", "virtio", "sata"}

	// (schemas/appliance_v6.json, without what is of other emulators.)
	ofAppliance = map[string]rule{
		"appliance_id": {true, "string", `^[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}$`, nil},
		"name":         {true, "string", `.`, nil}, "category": {true, "string", ``, []string{"router", "multilayer_switch", "firewall", "guest"}},
		"description": {true, "string", `.`, nil}, "vendor_name": {true, "string", `.`, nil}, "vendor_url": {true, "string", address, nil},
		"vendor_logo_url": {false, "string", address, nil}, "documentation_url": {false, "string", address, nil},
		"product_name": {true, "string", `.`, nil}, "product_url": {false, "string", address, nil},
		"registry_version": {true, "integer", `^[1-6]$`, nil}, "status": {true, "string", ``, []string{"stable", "experimental", "broken"}},
		"availability": {false, "string", ``, []string{"free", "with-registration", "free-to-try", "service-contract"}},
		"maintainer":   {true, "string", `.`, nil}, "maintainer_email": {true, "string", `^[^@ ]+@[^@ ]+\.[^@ ]+$`, nil},
		"usage": {false, "string", ``, nil}, "symbol": {false, "string", ``, nil}, "first_port_name": {false, "string", ``, nil},
		"port_name_format": {false, "string", `\{`, nil}, "port_segment_size": {false, "integer", ``, nil},
		"qemu": {true, "object", ``, nil}, "images": {true, "array", ``, nil}, "versions": {true, "array", ``, nil},
	}
	ofQEMU = map[string]rule{
		"adapter_type": {true, "string", ``, adapterTypes}, "adapters": {true, "integer", ``, nil}, "custom_adapters": {false, "array", ``, nil},
		"ram": {true, "integer", ``, nil}, "cpus": {false, "integer", ``, nil},
		"hda_disk_interface": {false, "string", ``, disks}, "hdb_disk_interface": {false, "string", ``, disks},
		"arch": {true, "string", ``, []string{"aarch64", "i386", "x86_64"}}, "console_type": {true, "string", ``, []string{"telnet", "vnc", "spice", "spice+agent", "none"}},
		"boot_priority":       {false, "string", ``, []string{"d", "c", "dc", "cd", "n", "nc", "nd", "cn", "dn"}},
		"kernel_command_line": {false, "string", ``, nil}, "kvm": {true, "string", ``, []string{"require", "allow", "disable"}},
		"options": {false, "string", ``, nil}, "on_close": {false, "string", ``, []string{"power_off", "shutdown_signal", "save_vm_state"}},
	}
	ofAdapter = map[string]rule{
		"adapter_number": {true, "integer", ``, nil}, "port_name": {false, "string", `.`, nil}, "adapter_type": {false, "string", ``, adapterTypes},
		"mac_address": {false, "string", `^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$`, nil},
	}
	ofImage = map[string]rule{
		"filename": {true, "string", `^[^/]+$`, nil}, "version": {true, "string", `.`, nil}, "md5sum": {true, "string", `^[a-f0-9]{32}$`, nil},
		"filesize": {true, "integer", ``, nil}, "download_url": {false, "string", address, nil}, "direct_download_url": {false, "string", address, nil},
	}
	ofVersion = map[string]rule{"name": {true, "string", `.`, nil}, "images": {true, "object", ``, nil}}
	ofFiles   = map[string]rule{"hda_disk_image": {true, "string", `.`, nil}}
)

// checkRules complains of what an object has that its rules do not allow.
func checkRules(t *testing.T, what string, object any, rules map[string]rule) {
	t.Helper()
	fields, ok := object.(map[string]any)
	if !ok {
		t.Errorf("%s is no object", what)
		return
	}
	for name, r := range rules {
		if _, ok := fields[name]; !ok && r.needed {
			t.Errorf("%s has no %s", what, name)
		}
	}
	for name, v := range fields {
		r, ok := rules[name]
		kind := ""
		switch v.(type) {
		case string:
			kind = "string"
		case json.Number:
			kind = "integer"
		case map[string]any:
			kind = "object"
		case []any:
			kind = "array"
		}
		switch text := fmt.Sprint(v); {
		case !ok:
			t.Errorf("%s has a %s, which GNS3 does not know", what, name)
		case kind != r.kind || kind == "integer" && strings.Trim(text, "0123456789") != "":
			t.Errorf("%s: %s is %v, want one %s", what, name, v, r.kind)
		case !regexp.MustCompile(r.form).MatchString(text):
			t.Errorf("%s: %s is %q, want %s", what, name, text, r.form)
		case r.one != nil && !slices.Contains(r.one, text):
			t.Errorf("%s: %s is %q, want one of %q", what, name, text, r.one)
		}
	}
}

// What GNS3 wants of an appliance.
func checkGNS3(t *testing.T, text []byte) {
	var top map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&top); err != nil {
		t.Fatal(err)
	}
	list := func(v any) []any { all, _ := v.([]any); return all }
	qemu, _ := top["qemu"].(map[string]any)
	checkRules(t, "the appliance", top, ofAppliance)
	checkRules(t, "qemu", top["qemu"], ofQEMU)
	for _, a := range list(qemu["custom_adapters"]) {
		checkRules(t, "an adapter", a, ofAdapter)
	}
	for _, i := range list(top["images"]) {
		checkRules(t, "an image", i, ofImage)
	}
	for _, v := range list(top["versions"]) {
		checkRules(t, "a version", v, ofVersion)
		version, _ := v.(map[string]any)
		checkRules(t, "the images of a version", version["images"], ofFiles)
	}
	// The ports that are more than custom_adapters go on where those end.
	if top["first_port_name"] != "Management0/0" || top["port_name_format"] != "GigabitEthernet0/{0}" {
		t.Errorf("ports %v, then %v", top["first_port_name"], top["port_name_format"])
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
		EthFormat                              string   `yaml:"eth_format"`
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
	if !slices.Equal(e.EthName, []string{"Management0/0"}) || e.EthFormat != "GigabitEthernet0/{0}" {
		t.Errorf("interfaces %q, then %q", e.EthName, e.EthFormat)
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
