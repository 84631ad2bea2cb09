//go:build unix

package main

import "syscall"

// private has the files that f makes be their owner's only. It is for the start
// of the program: the mask is that of all of it.
func private(f func() error) error {
	defer syscall.Umask(syscall.Umask(0o177))
	return f()
}
