// Package guest is process 1 of the VM image: what stands between the kernel and
// the appliance, which is a program of its own that it starts again if that dies.
// It mounts, loads modules, names the network cards, keeps the flash, installs and
// tries new systems, and turns the machine off in order. There is no shell and no
// other service.
//
// What a reader may get wrong: nothing here may end. A step that fails is said on
// the console and in the box's log, and the next one is done with what there is, so
// that somebody can reach the box and mend it.
package guest

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"patchbay/image/disk"
)

// Paths in the machine.
const (
	program    = "/patchbay"     // which is /init, too
	modulesDir = "/modules"      // of the initramfs; goes when they are loaded
	orderFile  = "modules.order" // in modulesDir: their files in the order to load
	flashDir   = "/disk0"
	bootDir    = "/boot" // the ESP, mounted only while something is written there
	runDir     = "/run"
	fifoName   = "machine" // in runDir
	notifyName = runDir + "/notify"
	execSocket = runDir + "/exec.sock"
	day0File   = runDir + "/day0.cfg"
	safeName   = "safe.cfg" // in runDir

	startupFile = flashDir + "/startup-config"
)

// Times.
const (
	deviceWait   = 5 * time.Second  // for NICs and disks that the buses promise
	stopWait     = 20 * time.Second // for the appliance to end in order
	healthyAfter = 20 * time.Second // after READY a new system is good
	trialWait    = 4 * time.Minute  // for READY of a new system; TCG is slow
	watchdog     = 90 * time.Second // without a sign of life the appliance is ended
	steadyAfter  = time.Minute      // a life this long was no failure
	firstBackoff = time.Second
	lastBackoff  = 30 * time.Second
	spaceEvery   = 30 * time.Second
	settleWait   = 500 * time.Millisecond // for sysfs to be as the kernel has told
)

// safeAfter is after how many lives in a row that ended before they were ready the
// appliance gets only what makes it reachable.
const safeAfter = 3

// hardware are the names of the interfaces, in the order of the cards. (As on an
// ASAv, which has ten.)
var hardware = []string{
	"Management0/0", "GigabitEthernet0/0", "GigabitEthernet0/1", "GigabitEthernet0/2", "GigabitEthernet0/3",
	"GigabitEthernet0/4", "GigabitEthernet0/5", "GigabitEthernet0/6", "GigabitEthernet0/7", "GigabitEthernet0/8",
}

// trialArg is what GRUB says of the start on the kernel's command line: "1" for one of
// a system that is tried, "failed" for one after that did not come up, "other" for
// one of a system that was not meant, as the other cannot be read. (image/grub.cfg.)
const trialArg = "patchbay.trial"

// oldest is when there were no machines of this kind: what the files of an image are
// dated, too.
var oldest = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// newest is after which a time of a file is taken for wrong.
var newest = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// leastTime returns the time that it must at least be, by when files were written.
func leastTime(written []time.Time) time.Time {
	least := oldest
	for _, t := range written {
		if t.After(least) && t.Before(newest) {
			least = t
		}
	}
	return least
}

// device returns the name that the kernel is told for interface n.
func device(n int) string {
	if n == 0 {
		return "mgmt0"
	}
	return fmt.Sprintf("gi%d", n-1)
}

// driver is what carries packets in the guest, by what the kernel's command line
// says.
func driver(args map[string]string) (string, error) {
	said := args[disk.DriverArg]
	if slices.Contains(disk.Drivers, said) {
		return said, nil
	}
	if said == "" {
		return disk.Drivers[0], nil
	}
	return disk.Drivers[0], fmt.Errorf("%s=%.20s is none of %s", disk.DriverArg, said, strings.Join(disk.Drivers, ", "))
}

// arguments are those of the appliance: config is the configuration to begin with,
// "" the one on flash.
func arguments(program, config, driver string) []string {
	args := []string{program, "run", "--flash", flashDir, "--socket", execSocket, "--machine", path.Join(runDir, fifoName), "--lenient"}
	if config != "" {
		args = append(args, "--config", config)
	}
	for n, name := range hardware {
		args = append(args, "--link", name+"="+driver+":"+device(n))
	}
	return args
}

// commandLine is what the kernel was started with, "a=b c" as a map.
func commandLine(text string) map[string]string {
	m := make(map[string]string)
	for _, w := range strings.Fields(text) {
		k, v, _ := strings.Cut(w, "=")
		m[k] = v
	}
	return m
}

// A card is a network card: where it is on its bus, and the kernel's name for it.
type card struct{ bus, name string }

// cards gives cards their numbers: those that have one keep it, by their place on
// the bus, and others get the next in the order of the bus. They are numbers in
// hardware.
type cards struct{ at []string }

// number returns the number of the card at a place; -1: there are names for no
// more.
func (c *cards) number(bus string) int {
	for n, at := range c.at {
		if at == bus {
			return n
		}
	}
	if len(c.at) == len(hardware) {
		return -1
	}
	c.at = append(c.at, bus)
	return len(c.at) - 1
}

// busAddress returns the last PCI address in the path of a device in sysfs, which
// orders as the bus does, or all of the path for a device on another bus.
func busAddress(dev string) string {
	parts := strings.Split(path.Clean(dev), "/")
	for i := len(parts) - 1; i >= 0; i-- {
		if isPCI(parts[i]) {
			return parts[i]
		}
	}
	return "~" + path.Clean(dev) // after all that are on PCI
}

// isPCI reports whether s is an address like 0000:00:03.0.
func isPCI(s string) bool {
	return len(s) == len("0000:00:03.0") && s[4] == ':' && s[7] == ':' && s[10] == '.' &&
		strings.Trim(s, "0123456789abcdef:.") == ""
}

// backoff returns how long to wait before the appliance is started again, after so
// many short lives.
func backoff(failures int) time.Duration {
	d := firstBackoff
	for ; failures > 1 && d < lastBackoff; failures-- {
		d *= 2
	}
	return min(d, lastBackoff)
}

// bootSystem returns the file on flash that a configuration's first "boot system"
// line names, or "" if there is none. Files elsewhere are not for this machine.
func bootSystem(config string) (string, error) {
	for line := range strings.Lines(config) {
		f := strings.Fields(line)
		if len(f) != 3 || line[0] == ' ' || f[0] != "boot" || f[1] != "system" {
			continue
		}
		return flashFile(f[2])
	}
	return "", nil
}

var errNotFlash = errors.New("want a file on flash, as in disk0:/patchbay.bin")

// flashFile returns the name on flash of "disk0:/NAME". Flash has no directories.
func flashFile(name string) (string, error) {
	base, ok := strings.CutPrefix(name, "disk0:")
	if !ok {
		base, ok = strings.CutPrefix(name, "flash:")
	}
	base = strings.TrimPrefix(base, "/")
	if !ok || base == "" || base[0] == '.' || strings.ContainsAny(base, "/\\\x00") {
		return "", fmt.Errorf("boot system %.80s: %w", name, errNotFlash)
	}
	return base, nil
}

// safe is what of a configuration makes the box reachable: its name, its
// management interface with the routes there, who may log in and how.
func safe(config string) string {
	var b strings.Builder
	nameif, within := "", false
	keep := []string{"hostname", "domain-name", "enable", "username", "passwd", "aaa authentication"}
	var later []string
	for line := range strings.Lines(config) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, " ") {
			if within {
				fmt.Fprintln(&b, line)
				if name, ok := strings.CutPrefix(strings.TrimSpace(line), "nameif "); ok {
					nameif = name
				}
			}
			continue
		}
		within = line == "interface "+hardware[0]
		if within {
			fmt.Fprintln(&b, line)
			continue
		}
		for _, k := range keep {
			if strings.HasPrefix(line, k+" ") {
				fmt.Fprintln(&b, line)
			}
		}
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "ssh" || f[0] == "route" || f[0] == "icmp") {
			later = append(later, line)
		}
	}
	for _, line := range later {
		f := strings.Fields(line)
		if nameif != "" && (f[0] == "route" && f[1] == nameif || f[0] != "route" && f[len(f)-1] == nameif) {
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}
