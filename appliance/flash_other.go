//go:build !linux

package appliance

// diskSpace is not known elsewhere.
func diskSpace(string) (total, free uint64, ok bool) { return 0, 0, false }
