package appliance

import "syscall"

// diskSpace returns how many bytes the file system of a directory has, and how many
// of them are free.
func diskSpace(dir string) (total, free uint64, ok bool) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, 0, false
	}
	return s.Blocks * uint64(s.Bsize), s.Bavail * uint64(s.Bsize), true
}
