package link

import (
	"errors"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A waiter waits for the descriptors of one reader.
//
// To the Go runtime a system call that may wait is one to work around: its
// monitor wakes up to give the processor to somebody else, who is woken too, and
// who comes back has to find another. While packets keep coming that costs more
// than to forward them. So a reader that was last woken soon waits the next time
// without the runtime's knowing, and keeps its processor.
// The runtime can still interrupt it, by the signal it has for that.
type waiter struct {
	fds  []unix.PollFd
	soon bool // the last wait was short
}

// patient is how long a waiter may keep its processor while nothing comes, and
// soon how long a wait is short. The runtime takes the processor of who has had it
// for 10 ms, so that patient is for one that was told not to (asyncpreemptoff);
// a timer nearer than the kernel's tick would cost more than the wait.
const (
	patient = 20 * time.Millisecond
	soon    = 5 * time.Millisecond
)

// newWaiter returns a waiter for what can be read from fds.
func newWaiter(fds ...int) waiter {
	var w waiter
	for _, fd := range fds {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return w
}

// wait waits until something can be read, or happened, or for no reason at all.
func (w *waiter) wait() error {
	if w.soon {
		limit := unix.NsecToTimespec(int64(patient))
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.fds[0])), uintptr(len(w.fds)),
			uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		w.soon = errno == 0 && n > 0
		if w.soon {
			return nil
		}
	}
	start := time.Now()
	if _, err := unix.Poll(w.fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	w.soon = time.Since(start) < soon
	return nil
}

// failed reports whether the descriptor i has an error or is gone.
func (w *waiter) failed(i int) bool {
	return w.fds[i].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}
