// Package node writes what other lab programs want to know of the appliance to have
// it as a node: containerlab, GNS3 and EVE-NG.
//
// What a reader may get wrong: the container is the program alone, on the host's
// kernel; GNS3 and EVE-NG run the virtual machine, whose disk "patchbay image build"
// makes.
package node

import (
	"archive/tar"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"debug/elf"
	_ "embed" // for readme
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// The virtual machine, as GNS3 and EVE-NG are told.
const (
	memory = 512 // MB
	disk   = "patchbay.qcow2"
	nic    = "virtio-net-pci"
)

// ports are the machine's interfaces, in the order of its network cards.
var ports = []string{"Management0/0", "GigabitEthernet0/0", "GigabitEthernet0/1"}

// portFormat is how GNS3 and EVE-NG name all but the first, also those that are more.
const portFormat = "GigabitEthernet0/{0}"

// Options says what to write.
type Options struct {
	Program string // path of a static patchbay for Linux
	Version string
	Image   string // path of the machine's disk in qcow2; "" leaves GNS3 out, which wants its checksum
	Config  []byte // that the container of the example begins with, up to ": end"
}

// Write writes the definitions to folders in dir, which is made if it is not there,
// and returns the paths of the files.
func Write(dir string, o Options) ([]string, error) {
	w := &writer{dir: dir}
	w.file("README.md", readme)
	w.file("containerlab/flash/.keep", nil) // what is bound must be there
	w.file("containerlab/patchbay.clab.yml", []byte(clab))
	w.file("containerlab/patchbay.cfg", bytes.Replace(o.Config, []byte(": end\n"), []byte(clabUser+": end\n"), 1))
	w.write("containerlab/patchbay-image.tar", func(f io.Writer) error { return Container(f, o.Program) })
	w.file("eve-ng/patchbay.yml", eveNG())
	if o.Image != "" {
		w.write("gns3/patchbay.gns3a", func(f io.Writer) error { return gns3(f, o) })
	}
	if w.err != nil {
		return nil, fmt.Errorf("node: %w", w.err)
	}
	return w.files, nil
}

// readme says what to do with the files to who has nothing but them.
//
//go:embed nodes.md
var readme []byte

// A writer writes files until the first error.
type writer struct {
	dir   string
	files []string
	err   error
}

func (w *writer) file(name string, data []byte) {
	w.write(name, func(f io.Writer) error {
		_, err := f.Write(data)
		return err
	})
}

// write puts a file in place whole.
func (w *writer) write(name string, f func(io.Writer) error) {
	if w.err != nil {
		return
	}
	path := filepath.Join(w.dir, filepath.FromSlash(name))
	if w.err = os.MkdirAll(filepath.Dir(path), 0o755); w.err != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		w.err = err
		return
	}
	err = errors.Join(f(tmp), tmp.Chmod(0o644), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		w.err = fmt.Errorf("%s: %w", path, err)
		return
	}
	w.files = append(w.files, path)
}

// clab is an example for containerlab: the box, a phones' host and a call
// manager's. eth0 is containerlab's own network, for SSH; links are eth1 on.
// (containerlab.dev, "Nodes" and "Topology definition".)
const clab = `# A box between two hosts, for containerlab. First
#   docker load -i patchbay-image.tar
#   containerlab deploy -t patchbay.clab.yml
# The box's console: ssh lab@clab-patchbay-box, with the password patchbay.
name: patchbay
topology:
  nodes:
    box:
      kind: linux
      image: patchbay:latest
      # Links come after the container has started: --wait is for them.
      cmd: >-
        run --flash /flash --config /startup.cfg --wait 60s --ssh 0.0.0.0:22
        --link outside=packet:eth1 --link inside=packet:eth2
      binds:
        - patchbay.cfg:/startup.cfg:ro
        - flash:/flash
    phones:
      kind: linux
      image: ghcr.io/srl-labs/network-multitool:latest
      exec:
        - ip addr add 203.0.113.1/24 dev eth1
        - ip addr add 198.51.100.7/32 dev lo
    ucm:
      kind: linux
      image: ghcr.io/srl-labs/network-multitool:latest
      exec:
        - ip addr add 10.20.0.11/24 dev eth1
        - ip route replace 203.0.113.0/24 via 10.20.0.1
        - ip route replace 198.51.100.0/24 via 10.20.0.1
  links:
    - endpoints: ["box:eth1", "phones:eth1"]
    - endpoints: ["box:eth2", "ucm:eth1"]
`

// clabUser may log in to the example by SSH.
const clabUser = `username lab password patchbay privilege 15
aaa authentication ssh console LOCAL
aaa authorization exec LOCAL auto-enable
`

// entrypoint and command are what the container runs.
var (
	entrypoint = []string{"/patchbay"}
	command    = []string{"help"}
)

// Container writes a container image with the program and nothing else, as "docker
// load" and "podman load" read it. Two of the same program are the same bytes.
// (github.com/moby/moby, image/spec/v1.2.md.)
func Container(w io.Writer, program string) error {
	data, arch, err := static(program)
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	t := tar.NewWriter(&layer)
	for _, d := range []struct {
		name string
		mode int64
	}{{"flash/", 0o700}, {"tmp/", 0o1777}} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d.name, Mode: d.mode}); err != nil {
			return err
		}
	}
	if err := add(t, "patchbay", 0o755, data); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	type config struct {
		Entrypoint []string
		Cmd        []string
		Env        []string
	}
	type rootfs struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	}
	conf, err := json.Marshal(struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Created      string `json:"created"`
		Config       config `json:"config"`
		RootFS       rootfs `json:"rootfs"`
	}{arch, "linux", "1970-01-01T00:00:00Z", config{entrypoint, command, []string{"PATH=/"}},
		rootfs{"layers", []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}}})
	if err != nil {
		return err
	}
	id := fmt.Sprintf("%x", sha256.Sum256(conf))
	manifest, err := json.Marshal([]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{id + ".json", []string{"patchbay:latest"}, []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	out := tar.NewWriter(w)
	return errors.Join(
		add(out, "layer.tar", 0o644, layer.Bytes()),
		add(out, id+".json", 0o644, conf),
		add(out, "manifest.json", 0o644, manifest),
		out.Close())
}

// add adds a file without anything that depends on the machine.
func add(t *tar.Writer, name string, mode int64, data []byte) error {
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data))}); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

// static reads a program that needs no other file, and says what it runs on, as
// containers call it.
func static(program string) (data []byte, arch string, err error) {
	if data, err = os.ReadFile(program); err != nil {
		return nil, "", err
	}
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, "", fmt.Errorf("%s is no program for Linux: %w", program, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, "", fmt.Errorf("%s is not static, and a container has nothing else: build it with CGO_ENABLED=0, as \"make lab-nodes\" does", program)
		}
	}
	switch f.Machine {
	case elf.EM_X86_64:
		return data, "amd64", nil
	case elf.EM_AARCH64:
		return data, "arm64", nil
	}
	return nil, "", fmt.Errorf("%s is for %v", program, f.Machine)
}

// gns3 writes an appliance file for GNS3 2.2 and later. (github.com/GNS3/gns3-registry,
// schemas/appliance_v6.json; its README has the versions.)
func gns3(w io.Writer, o Options) error {
	f, err := os.Open(o.Image)
	if err != nil {
		return err
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "QFI\xfb" {
		return fmt.Errorf("%s is no disk in qcow2: build it with \"patchbay image build --format qcow2\"", o.Image)
	}
	sum := md5.New() // what the format has
	sum.Write(magic[:])
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	type adapter struct {
		Number int    `json:"adapter_number"`
		Port   string `json:"port_name"`
		Type   string `json:"adapter_type"`
	}
	var adapters []adapter
	for i, p := range ports {
		adapters = append(adapters, adapter{i, p, nic})
	}
	type object map[string]any
	b, err := json.MarshalIndent(object{
		"appliance_id":     "6f7d7f2e-9a53-4f0e-8a7b-2d1f5c0e9b14",
		"name":             "Patchbay",
		"category":         "firewall",
		"description":      "A firewall in userspace that reads the configuration of an ASA and has its Phone Proxy: IP phones on the Internet without a VPN.",
		"vendor_name":      "Patchbay",
		"vendor_url":       "https://example.com/",
		"product_name":     "Patchbay",
		"registry_version": 6,
		"status":           "experimental",
		"maintainer":       "Patchbay",
		"maintainer_email": "patchbay@example.com",
		"usage":            "The console is an ASA's; the password of enable is empty. What \"write memory\" has written is kept on the disk. The first network card is " + strings.Join(ports, ", then ") + ".",
		"first_port_name":  ports[0],
		"port_name_format": portFormat,
		"qemu": object{
			"adapter_type":       nic,
			"adapters":           len(ports),
			"custom_adapters":    adapters,
			"ram":                memory,
			"cpus":               2,
			"hda_disk_interface": "virtio",
			"arch":               "x86_64",
			"console_type":       "telnet",
			"boot_priority":      "c",
			"kvm":                "allow",
			"options":            "-nographic",
			"on_close":           "shutdown_signal",
		},
		"images": []object{{
			"filename": disk,
			"version":  o.Version,
			"md5sum":   fmt.Sprintf("%x", sum.Sum(nil)),
			"filesize": size + int64(len(magic)),
		}},
		"versions": []object{{
			"name":   o.Version,
			"images": object{"hda_disk_image": disk},
		}},
	}, "", "    ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// eve is a node template of EVE-NG: a file in html/templates/intel and amd, whose
// name begins the names of images' folders. Cards have the names of eth_name, and
// eth_format those that are more, from the number in it on. (Templates that users
// have published; EthFormat2val and createEthernets of UNetLab.)
var eve = template.Must(template.New("eve").Parse(`# The box as a node of EVE-NG; README.md, one folder up, says where this goes.
---
type: qemu
name: Patchbay
description: Patchbay
cpulimit: 1
icon: Firewall.png
cpu: 2
ram: {{.RAM}}
ethernet: {{.Cards}}
eth_name:
- {{.First}}
eth_format: {{.Format}}
console: telnet
shutdown: 1
qemu_arch: x86_64
qemu_nic: {{.NIC}}
qemu_options: -machine type=pc,accel=kvm -serial mon:stdio -nographic -no-user-config -nodefaults -display none -vga std -rtc base=utc
...
`))

func eveNG() []byte {
	var b bytes.Buffer
	err := eve.Execute(&b, struct {
		RAM, Cards         int
		First, Format, NIC string
	}{memory, len(ports), ports[0], portFormat, nic})
	if err != nil {
		panic(err) // the template is constant and its fields are there
	}
	return b.Bytes()
}
