package main

import "syscall"

// space returns how many bytes the file system of a directory has, and how many of
// them are free; 0 where it does not tell.
func space(dir string) (total, free uint64) {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return 0, 0
	}
	return s.Blocks * uint64(s.Bsize), s.Bavail * uint64(s.Bsize)
}
