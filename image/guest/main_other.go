//go:build !linux

package guest

// Main is for Linux only.
func Main() { panic("guest: the VM image is Linux") }
