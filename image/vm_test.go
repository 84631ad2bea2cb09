package image_test

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"patchbay/image"
)

var (
	boots   = flag.Bool("boot", false, "build the image and boot it in QEMU")
	ofBuild = flag.String("image", "", "directory with an image that is built already, in all formats; default: one is built, signed by a key of the test's")
)

// patience is for a machine that is emulated on a computer that is busy.
const patience = 4 * time.Minute

// built is the image that all tests boot, made once.
var built = sync.OnceValues(func() (string, error) {
	if *ofBuild != "" {
		return *ofBuild, nil
	}
	dir, err := os.MkdirTemp("", "patchbay-image-")
	if err != nil {
		return "", err
	}
	builtDir = dir
	key := filepath.Join(dir, "key.pem")
	if err := writeKey(key, signingKey(1)); err != nil {
		return "", err
	}
	_, err = image.Build(ctx, image.Spec{Out: dir, Formats: image.Formats, Sign: key, Version: "test", Warn: func(text string) { fmt.Println("WARNING:", text) }})
	return dir, err
})

// signingKey is a key of a number; the image is signed by the first.
func signingKey(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func writeKey(name string, key ed25519.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

var builtDir string

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if builtDir != "" {
		os.RemoveAll(builtDir)
	}
	os.Exit(code)
}

// needsBoot skips a test that boots machines unless that was asked for.
func needsBoot(t *testing.T) {
	t.Helper()
	if !*boots {
		t.Skip("boots virtual machines, which takes minutes: run make image-test")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Skip("needs qemu-system-x86_64, of the Debian package qemu-system-x86")
	}
	if missing := image.Missing(nil); len(missing) > 0 {
		t.Skipf("needs the Debian packages %s", strings.Join(missing, " "))
	}
}

// imageDir builds the image.
func imageDir(t *testing.T) string {
	t.Helper()
	needsBoot(t)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// accelerator is KVM if a kernel gets as far as our process 1 under it in a short
// trial, for a device node alone proves nothing; else emulation.
var accelerator = sync.OnceValue(func() []string {
	tcg := []string{"-accel", "tcg,thread=multi", "-cpu", "max"}
	dir, err := built()
	if err != nil {
		return tcg
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		fmt.Println("accelerator: TCG;", err)
		return tcg
	}
	f.Close()
	kvm := []string{"-accel", "kvm", "-cpu", "host"}
	cmd := exec.Command("qemu-system-x86_64", append(kvm, "-nodefaults", "-display", "none", "-m", "256", "-no-reboot", "-serial", "stdio",
		"-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyS0 quiet panic=-1")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return tcg
	}
	heard, done := make(chan struct{}), make(chan struct{})
	if startDying(cmd, heard, done) != nil {
		return tcg
	}
	defer func() {
		cmd.Process.Kill()
		<-done
	}()
	alive := make(chan bool, 1)
	go func() {
		defer close(heard)
		for s := bufio.NewScanner(out); s.Scan(); {
			if strings.Contains(s.Text(), "machine:") {
				alive <- true
				return
			}
		}
		alive <- false
	}()
	select {
	case ok := <-alive:
		if ok {
			fmt.Println("accelerator: KVM")
			return kvm
		}
	case <-time.After(10 * time.Second):
	}
	fmt.Println("accelerator: TCG; a trial under KVM did not boot")
	return tcg
})

// startDying starts c so that it dies with the test process, however that ends. When
// heard is closed, for all of its output has been read, it waits for it, and closes
// done when it has ended.
func startDying(c *exec.Cmd, heard <-chan struct{}, done chan<- struct{}) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		started <- err
		if err == nil {
			<-heard
			c.Wait()
			close(done)
		}
	}()
	return <-started
}

// A machine is QEMU.
type machine struct {
	t       *testing.T
	cmd     *exec.Cmd
	began   time.Time
	in      io.Writer
	qmpPath string
	done    chan struct{} // QEMU has ended

	mu      sync.Mutex
	changed *sync.Cond
	out     []byte // of the serial console
	from    int    // what await has not looked at
}

// machineOptions are what varies.
type machineOptions struct {
	disk     string
	format   string   // of disk; "": raw
	bus      string   // of disk: "virtio" (also ""), "ide", "nvme"
	firmware string   // "direct", "bios", "uefi"
	memory   int      // MB; 0: 256
	cables   []*cable // of its network cards
	more     []string // arguments
	restarts bool     // it may; else a restart ends QEMU
}

// boot starts a machine, which ends with the test.
func boot(t *testing.T, o machineOptions) *machine {
	t.Helper()
	dir := imageDir(t)
	tmp := shortDir(t)
	m := &machine{t: t, qmpPath: filepath.Join(tmp, "qmp"), done: make(chan struct{})}
	m.changed = sync.NewCond(&m.mu)
	if o.memory == 0 {
		o.memory = 256
	}
	if o.format == "" {
		o.format = "raw"
	}
	args := append([]string{}, accelerator()...)
	args = append(args, "-nodefaults", "-display", "none", "-m", fmt.Sprint(o.memory), "-smp", "1", "-serial", "stdio",
		"-qmp", "unix:"+m.qmpPath+",server=on,wait=off", "-rtc", "base=utc")
	if !o.restarts {
		args = append(args, "-no-reboot")
	}
	switch o.firmware {
	case "direct":
		args = append(args, "-kernel", filepath.Join(dir, "vmlinuz"), "-initrd", filepath.Join(dir, "initrd"), "-append", "console=ttyS0 quiet panic=-1 gpt")
	case "uefi":
		vars := filepath.Join(tmp, "vars.fd")
		copyFile(t, "/usr/share/OVMF/OVMF_VARS_4M.fd", vars)
		args = append(args, "-M", "q35", "-drive", "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd",
			"-drive", "if=pflash,format=raw,file="+vars)
	}
	if o.disk != "" {
		drive := "file=" + o.disk + ",format=" + o.format + ",cache=writeback"
		switch o.bus {
		case "", "virtio":
			args = append(args, "-drive", drive+",if=none,id=flash", "-device", "virtio-blk-pci,drive=flash,bootindex=1")
		case "nvme":
			args = append(args, "-drive", drive+",if=none,id=flash", "-device", "nvme,drive=flash,serial=1,bootindex=1")
		case "ide":
			args = append(args, "-drive", drive+",if=ide")
		}
	}
	for n, c := range o.cables {
		args = append(args, c.netdev(n)...)
	}
	m.cmd = exec.Command("qemu-system-x86_64", append(args, o.more...)...)
	in, err := m.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	m.cmd.Stderr = &stderr
	m.in, m.began = in, time.Now()
	heard := make(chan struct{})
	if err := startDying(m.cmd, heard, m.done); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-m.done
		m.changed.Broadcast()
	}()
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			m.mu.Lock()
			m.out = append(m.out, buf[:n]...)
			m.mu.Unlock()
			m.changed.Broadcast()
			if err != nil {
				close(heard)
				return
			}
		}
	}()
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			m.mu.Lock()
			text := m.out
			m.mu.Unlock()
			if len(text) > 12000 {
				text = text[len(text)-12000:]
			}
			t.Logf("console:\n%s\n%s", text, stderr.String())
		}
	})
	return m
}

// kill pulls the power.
func (m *machine) kill() {
	m.cmd.Process.Kill()
	<-m.done
}

// await waits for text on the console behind what was awaited before, and returns
// what came up to its end.
func (m *machine) await(pattern string) string {
	m.t.Helper()
	text, err := m.wait(pattern, patience)
	if err != nil {
		m.t.Fatal(err)
	}
	return text
}

func (m *machine) wait(pattern string, within time.Duration) (string, error) {
	re := regexp.MustCompile(pattern)
	end := time.Now().Add(within)
	alarm := time.AfterFunc(within, m.changed.Broadcast)
	defer alarm.Stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		if at := re.FindIndex(m.out[m.from:]); at != nil {
			text := string(m.out[m.from : m.from+at[1]])
			m.from += at[1]
			return text, nil
		}
		select {
		case <-m.done:
			return "", fmt.Errorf("the machine has ended, and %q is not on its console", pattern)
		default:
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("%q is not on the console after %v", pattern, within)
		}
		m.changed.Wait()
	}
}

// typed types a line at the console's prompt and returns what it answers, up to the
// next prompt.
func (m *machine) typed(line string) string {
	m.t.Helper()
	if _, err := io.WriteString(m.in, line+"\r"); err != nil {
		m.t.Fatal(err)
	}
	m.await(regexp.QuoteMeta(line) + `\r?\n`)
	return m.await(prompt)
}

const prompt = `patchbay(\([a-z-]+\))?[#>] $`

// privileged has the console in privileged mode, without pages.
func (m *machine) privileged() {
	m.t.Helper()
	m.await(`patchbay> `)
	io.WriteString(m.in, "enable\r")
	m.await("Password: ")
	io.WriteString(m.in, "\r")
	m.await(`patchbay# `)
	m.typed("terminal pager 0")
}

// ended waits for QEMU to end by itself.
func (m *machine) ended() {
	m.t.Helper()
	select {
	case <-m.done:
	case <-time.After(patience):
		m.t.Fatal("the machine does not end")
	}
}

// qmp has QEMU do a command. (QEMU, docs/interop/qmp-spec.txt.)
func (m *machine) qmp(command string, arguments any) error {
	c, err := net.Dial("unix", m.qmpPath)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	dec, enc := json.NewDecoder(c), json.NewEncoder(c)
	var greeting, answer map[string]any
	if err := dec.Decode(&greeting); err != nil {
		return err
	}
	for _, cmd := range []map[string]any{{"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}} {
		if cmd["arguments"] == nil {
			delete(cmd, "arguments")
		}
		if err := enc.Encode(cmd); err != nil {
			return err
		}
		for answer = nil; answer["return"] == nil; {
			answer = nil
			if err := dec.Decode(&answer); err != nil {
				return err
			}
			if answer["error"] != nil {
				return fmt.Errorf("%s: %v", command, answer["error"])
			}
		}
	}
	return nil
}

// took says how long the machine runs, and how much of that QEMU has computed, which
// depends less on what else the computer does.
func (m *machine) took() string {
	s := fmt.Sprintf("%.1f s", time.Since(m.began).Seconds())
	// utime and stime are fields 14 and 15, in hundredths. (proc(5).)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid))
	if err != nil {
		return s
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(f) < 13 {
		return s
	}
	var user, system float64
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return fmt.Sprintf("%s, %.1f s of computing", s, (user+system)/100)
}

// hostMemory is what QEMU itself takes, in MB.
func (m *machine) hostMemory() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var kb int
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			fmt.Sscan(rest, &kb)
		}
	}
	return kb >> 10
}

// shortDir is a directory whose name is short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pbvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
