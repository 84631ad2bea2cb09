//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package appliance

import (
	"syscall"
	"time"
)

// cpuUsed returns the processor time that the program has used. (getrusage(2).)
func cpuUsed() (time.Duration, bool) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, false
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), true
}
