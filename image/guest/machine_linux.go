package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"patchbay/image/disk"
)

// Main is process 1 of the machine. It does not return: in the end the machine is
// off, or starts again.
func Main() {
	m := &machine{known: make(map[string]string), program: program, run: runDir}
	m.look = m.nameCards
	how := unix.LINUX_REBOOT_CMD_RESTART
	func() {
		defer func() {
			if r := recover(); r != nil { // else the kernel panics, and nothing is unmounted
				m.say(alarm, "process 1: %v", r)
				time.Sleep(firstBackoff)
			}
		}()
		how = m.live()
	}()
	m.end(how)
}

// Priorities of what the machine says, as in the kernel's log.
const (
	alarm   = 3
	warning = 4
	notice  = 6
)

// keptLines bounds what a new appliance is told again.
const keptLines = 200

// A machine is what process 1 knows. Its goroutine alone uses it.
type machine struct {
	program string // the appliance
	run     string // runDir
	look    func() // at the network cards

	args    map[string]string // of the kernel
	keys    disk.Keys         // whose bundles are installed; nil: anybody's
	keysErr error             // keys cannot be read: nobody's
	driver  string            // what carries packets
	console *os.File
	termios *unix.Termios // of console as it was; nil: it is no terminal
	said    []string      // for the log of an appliance that is yet to begin
	fifo    int           // to the appliance's log; 0: there is none yet

	cards   cards
	known   map[string]string // interfaces that are there, and the kernel's name of each
	flash   string            // the device that is mounted on flashDir; "": memory
	notify  *net.UnixConn
	child   child
	short   bool            // space on flash was said to be short
	healthy bool            // the system that runs was made the good one, or is it
	power   <-chan struct{} // the power button
}

// plain replaces what would do something to a terminal: what is said may quote a
// file of somebody else's.
func plain(r rune) rune {
	if unicode.IsControl(r) || r == utf8.RuneError {
		return '?'
	}
	return r
}

// say tells the operator something: on the console, and in the box's log.
func (m *machine) say(priority int, format string, args ...any) {
	text := strings.Map(plain, strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; "))
	if m.console != nil && (priority <= warning || !m.child.ready) {
		fmt.Fprintf(m.console, "machine: %s\n", text)
	}
	line := fmt.Sprintf("<%d>%s\n", priority, text)
	if len(m.said) == keptLines { // how it began is of use, and what was last
		m.said = slices.Delete(m.said, keptLines/2, keptLines/2+1)
	}
	m.said = append(m.said, line)
	if m.fifo != 0 {
		unix.Write(m.fifo, []byte(line)) // full: nobody reads, and the next one gets all
	}
}

// live is from the kernel's start of process 1 until the machine is to be turned
// off or to start again; it returns which.
func (m *machine) live() int {
	m.mountAll()
	text, _ := os.ReadFile("/proc/cmdline")
	m.args = commandLine(string(text))
	m.openConsole()
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGPWR)
	unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) // Ctrl-Alt-Del is SIGINT
	m.loadModules(modulesDir)
	m.power = watchPower() // a press is kept until somebody looks
	links := m.watchLinks()
	m.awaitCards()
	m.mountFlash()
	m.setClock()
	m.keys, m.keysErr = disk.ReadKeys("/" + disk.KeysFile)
	switch m.args[trialArg] {
	case "failed":
		m.trialFailed()
	case "other":
		m.otherStarted()
	}
	if m.installSystem() {
		return m.unlessPressed(unix.LINUX_REBOOT_CMD_RESTART)
	}
	config := m.firstConfig()
	var err error
	if m.driver, err = driver(m.args); err != nil {
		m.say(alarm, "the kernel's command line: %v; it is %s", err, m.driver)
	}
	m.say(notice, "slot %s, flash %s, %d interfaces", orNone(m.args["patchbay.slot"]), orNone(m.flash), len(m.known))
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		m.say(warning, "/ stays writable: %v", err)
	}
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notifyName, Net: "unixgram"}); err != nil {
		m.say(alarm, "%v", err)
	}
	return m.watch(config, signals, links)
}

// unlessPressed returns how the machine is to end, which is otherwise if the power
// button was pressed.
func (m *machine) unlessPressed(how int) int {
	select {
	case <-m.power:
		return unix.LINUX_REBOOT_CMD_POWER_OFF
	default:
		return how
	}
}

// setClock sets a clock that cannot be right, as that of a machine without one: what
// is signed with it, as certificates, would be of no use later. It gets the time at
// which the box last wrote something.
func (m *machine) setClock() {
	now := time.Now()
	var written []time.Time
	list, _ := os.ReadDir(flashDir)
	for _, e := range list {
		if info, err := e.Info(); err == nil {
			written = append(written, info.ModTime())
		}
	}
	least := leastTime(written)
	if !now.Before(least) {
		return
	}
	tv := unix.NsecToTimeval(least.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		m.say(alarm, "the clock says %s, and cannot be set: %v", now.UTC().Format(time.DateOnly), err)
		return
	}
	m.say(alarm, "the clock said %s, which cannot be: it is %s now; give the machine a clock that is right", now.UTC().Format(time.DateOnly), least.UTC().Format(time.DateOnly))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// watch keeps the appliance alive and does what the machine is asked for.
func (m *machine) watch(config string, signals <-chan os.Signal, links <-chan netlink.LinkUpdate) (how int) {
	told := m.hearNotify()
	space := time.NewTicker(spaceEvery)
	defer space.Stop()
	trial := m.args[trialArg] == "1"
	m.healthy = !trial
	deadline := time.After(trialWait)
	m.child.config = config
	m.start()
	var settled <-chan time.Time // when to look at the cards again
	var again <-chan time.Time   // when to ask anew to be told of them
	stopping := false
	stop := func(next int, why string) {
		if stopping {
			return
		}
		stopping, how = true, next
		m.say(notice, "%s: shutting down", why)
		m.child.end(unix.SIGTERM)
	}
	for {
		if stopping && m.child.pid == 0 { // or it waits to be started again
			return how
		}
		select { // a timer that is nil never comes
		case s := <-signals:
			switch s {
			case unix.SIGCHLD:
				status, died := m.reap()
				if !died {
					continue
				}
				m.restoreConsole()
				if stopping {
					continue
				}
				if m.child.reload {
					return unix.LINUX_REBOOT_CMD_RESTART
				}
				m.died(status)
			case unix.SIGINT:
				stop(unix.LINUX_REBOOT_CMD_RESTART, "Ctrl-Alt-Del")
			default:
				stop(unix.LINUX_REBOOT_CMD_POWER_OFF, s.String())
			}
		case <-m.power:
			stop(unix.LINUX_REBOOT_CMD_POWER_OFF, "power button")
		case text := <-told:
			m.heard(text)
			if m.child.reload && m.child.pid == 0 { // its end was seen first
				return unix.LINUX_REBOOT_CMD_RESTART
			}
		case <-m.child.again:
			m.child.again = nil
			m.start()
		case <-m.child.silent:
			m.say(alarm, "the appliance gives no sign of life for %v: it is ended", watchdog)
			m.child.end(unix.SIGKILL)
		case <-m.child.good:
			m.child.good = nil
			m.tellMemory()
			if trial && !m.healthy && !m.child.safe {
				m.makeGood()
			}
		case <-m.child.late:
			m.child.end(unix.SIGKILL)
		case <-deadline:
			if !m.healthy && !stopping {
				m.say(alarm, "the new system was not ready for %v: the machine starts again", trialWait)
				stop(unix.LINUX_REBOOT_CMD_RESTART, "trial")
			}
		case _, ok := <-links:
			if !ok { // the kernel told more than was read
				links, again = nil, time.After(firstBackoff)
			}
			m.look()
			// The kernel tells of a card that goes before it is gone from sysfs.
			settled = time.After(settleWait)
		case <-again:
			again = nil
			links = m.watchLinks()
			m.look()
		case <-settled:
			settled = nil
			m.look()
		case <-space.C:
			m.checkSpace()
			m.look()
		}
	}
}

// tellMemory notes how much memory is in use.
func (m *machine) tellMemory() {
	total, available := memory()
	m.say(notice, "memory: %d of %d MB are in use", (total-available)>>20, total>>20)
}

// memory returns how much the machine has, and how much is not in use, in bytes; 0:
// not known.
func memory() (total, available int64) {
	text, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(text)) {
		fmt.Sscanf(line, "MemTotal: %d kB", &total)
		fmt.Sscanf(line, "MemAvailable: %d kB", &available)
	}
	return total << 10, available << 10
}

// end unmounts everything and ends the machine.
func (m *machine) end(how int) {
	if m.child.pid > 0 {
		m.child.end(unix.SIGTERM)
		for t := time.Now().Add(stopWait); time.Now().Before(t); time.Sleep(50 * time.Millisecond) {
			if _, died := m.reap(); died {
				break
			}
		}
	}
	unix.Kill(-1, unix.SIGKILL)
	if how == unix.LINUX_REBOOT_CMD_RESTART {
		m.installSystem()
		how = m.unlessPressed(how)
	}
	unix.Sync()
	if m.flash != "" {
		if err := unix.Unmount(flashDir, 0); err != nil {
			m.say(alarm, "unmounting the flash: %v", err)
			unix.Mount("", flashDir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
	}
	unix.Sync()
	if m.console != nil {
		word := "restarts"
		if how == unix.LINUX_REBOOT_CMD_POWER_OFF {
			word = "is off"
		}
		fmt.Fprintf(m.console, "machine: %s\n", word)
		unix.IoctlSetInt(int(m.console.Fd()), unix.TCSBRK, 1) // until it is sent
	}
	unix.Reboot(how)
	for { // it has not worked, and process 1 must not end
		time.Sleep(time.Hour)
	}
}

// mountAll mounts what programs expect.
func (m *machine) mountAll() {
	for _, x := range []struct {
		kind, at, data string
		flags          uintptr
	}{
		{"proc", "/proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"sysfs", "/sys", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"devtmpfs", "/dev", "mode=0755", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"tmpfs", runDir, "mode=0700,size=32m", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
	} {
		os.MkdirAll(x.at, 0o755)
		if err := unix.Mount(x.kind, x.at, x.kind, x.flags, x.data); err != nil && !errors.Is(err, unix.EBUSY) {
			m.say(alarm, "mounting %s: %v", x.at, err)
		}
	}
	for _, dir := range []string{flashDir, bootDir} {
		os.MkdirAll(dir, 0o700)
	}
	os.Setenv("TMPDIR", runDir)
	os.Setenv("HOME", runDir)
}

// openConsole opens where the operator sits: the first serial port, or if there is
// none the screen.
func (m *machine) openConsole() {
	name := "/dev/tty1"
	// A port that is not there has the type 0. (linux/serial_core.h, PORT_UNKNOWN.)
	if kind, err := os.ReadFile("/sys/class/tty/ttyS0/type"); err == nil && strings.TrimSpace(string(kind)) != "0" {
		name = "/dev/ttyS0"
	}
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		if f, err = os.OpenFile("/dev/null", os.O_RDWR, 0); err != nil {
			return
		}
	}
	m.console = f
	if t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
		m.termios = t
	}
	for _, line := range m.said { // before there was a console
		io.WriteString(f, "machine: "+line[3:])
	}
}

// restoreConsole undoes what a program did to the terminal.
func (m *machine) restoreConsole() {
	if m.termios != nil {
		unix.IoctlSetTermios(int(m.console.Fd()), unix.TCSETS, m.termios)
	}
}

// loadModules loads the kernel's modules and removes their files, which take
// memory. One for hardware that is not there says so, which is no fault.
func (m *machine) loadModules(dir string) {
	order, err := os.ReadFile(filepath.Join(dir, orderFile))
	if err != nil {
		m.say(alarm, "modules: %v", err)
		return
	}
	for _, name := range strings.Fields(string(order)) {
		f, err := os.Open(filepath.Join(dir, name))
		if err == nil {
			err = unix.FinitModule(int(f.Fd()), "", 0)
			f.Close()
		}
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.ENOENT) {
			m.say(warning, "module %s: %v", name, err)
		}
	}
	os.RemoveAll(dir)
}

// watchLinks returns where the kernel tells of network devices.
func (m *machine) watchLinks() <-chan netlink.LinkUpdate {
	ch := make(chan netlink.LinkUpdate, 64)
	err := netlink.LinkSubscribeWithOptions(ch, make(chan struct{}), netlink.LinkSubscribeOptions{
		ErrorCallback: func(error) {}, // what it missed shows at the next one
	})
	if err != nil {
		m.say(warning, "a network card that comes late will not be seen: %v", err)
	}
	return ch
}

// awaitCards waits until each card that the PCI bus has is a network device, and
// names them.
func (m *machine) awaitCards() {
	var promised []string
	all, _ := filepath.Glob("/sys/bus/pci/devices/*")
	for _, dev := range all { // Glob sorts
		class, _ := os.ReadFile(filepath.Join(dev, "class"))
		if bytes.HasPrefix(class, []byte("0x0200")) { // an Ethernet controller (PCI code and ID assignment)
			promised = append(promised, filepath.Base(dev))
		}
	}
	for _, bus := range promised {
		m.cards.number(bus)
	}
	for end := time.Now().Add(deviceWait); ; time.Sleep(5 * time.Millisecond) {
		m.nameCards()
		if len(m.known) >= min(len(promised), len(hardware)) {
			break
		}
		if time.Now().After(end) {
			for n, bus := range m.cards.at {
				if m.known[hardware[n]] == "" {
					m.say(alarm, "%s: the card at %s has no driver, or does not work yet", hardware[n], bus)
				}
			}
			break
		}
	}
	if len(promised) > len(hardware) {
		m.say(warning, "%d network cards: only the first %d are used", len(promised), len(hardware))
	}
	if len(m.known) == 0 {
		m.say(alarm, "the machine has no network card")
	}
}

// nameCards gives network devices that are new the names of their interfaces, and
// notes those that are gone.
func (m *machine) nameCards() {
	there := make(map[string]bool)
	devs, _ := filepath.Glob("/sys/class/net/*/device")
	var found []card
	for _, dev := range devs {
		at, err := filepath.EvalSymlinks(dev)
		if err == nil {
			found = append(found, card{busAddress(at), filepath.Base(filepath.Dir(dev))})
		}
	}
	for _, c := range found {
		n := m.cards.number(c.bus)
		if n < 0 {
			continue
		}
		there[hardware[n]] = true
		if m.known[hardware[n]] != "" {
			continue
		}
		if want := device(n); c.name != want {
			l, err := netlink.LinkByName(c.name)
			if err == nil {
				err = netlink.LinkSetName(l, want)
			}
			if err != nil {
				m.say(alarm, "%s: naming %s: %v", hardware[n], c.name, err)
				continue
			}
		}
		m.known[hardware[n]] = device(n)
		mac, _ := os.ReadFile("/sys/class/net/" + device(n) + "/address")
		m.say(notice, "%s is the card at %s, %s", hardware[n], c.bus, strings.TrimSpace(string(mac)))
	}
	for name := range m.known {
		if !there[name] {
			delete(m.known, name)
			m.say(alarm, "%s: its card is gone", name)
		}
	}
}
