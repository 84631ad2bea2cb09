//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package appliance

import "time"

// cpuUsed returns the processor time that the program has used: it is not known.
func cpuUsed() (time.Duration, bool) { return 0, false }
