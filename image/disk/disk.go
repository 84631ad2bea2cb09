// Package disk is what the VM image's build and the machine that runs from it
// must agree on: how the disk is divided, where GRUB notes which of two systems to
// start, and the file by which a new system comes.
//
// What a reader may get wrong: whatever is written here may be cut short by the
// power. Both copies of the partition table are whole by themselves, the
// environment is one sector pair in place, and a bundle is believed only when its
// sums are right.
package disk

// Partitions of the disk, by the names in its table.
const (
	BootName  = "bios"  // GRUB's core image, for a BIOS
	ESPName   = "esp"   // FAT: GRUB for UEFI, its configuration, the two systems
	FlashName = "disk0" // ext4, the last one: what the box keeps
)

// Files on the ESP.
const (
	EnvFile    = "grub/grubenv"
	SlotDir    = "slots" // holds a directory for each slot
	KernelFile = "vmlinuz"
	InitrdFile = "initrd"
)

// The slots: places for a system on the ESP.
const (
	SlotA = "a" // what the image is built with
	SlotB = "b"
)

// Other returns the slot that slot is not.
func Other(slot string) string {
	if slot == SlotA {
		return SlotB
	}
	return SlotA
}

// Variables of GRUB's environment, and of the kernel's command line.
const (
	EnvGood  = "good"  // the slot that is known to work
	EnvTry   = "try"   // one that is to be tried, or nothing
	EnvTries = "tries" // how often it may be yet

	SlotArg   = "patchbay.slot"   // on the command line: the slot that was started
	DriverArg = "patchbay.driver" // on the command line: one of Drivers
)

// Drivers are what may carry packets in the machine; the first does where nothing
// is said. (link.Open: "auto" is "xdp", or where that cannot be "packet".)
var Drivers = []string{"packet", "auto", "xdp"}

// Tries is how often a new system may begin before the old one is back.
const Tries = 2
