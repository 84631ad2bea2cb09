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
//
// To be woken costs more than to forward, too: on a virtual machine as much as ten
// packets, on both cores. Where packets come one by one and fast it is cheaper to
// rest for a moment and find several. Whether they do is tried; where they do not,
// as when each is the answer to one sent before, it is tried ever less often.
type waiter struct {
	fds     []unix.PollFd
	pending func() int // how many there are to be read, as far as two
	soon    bool       // the last wait was short
	skip    int        // waits before the next try
	failed  int        // tries in a row
	idle    bool       // nothing happened in the last wait
}

// patient is how long a waiter may keep its processor while nothing comes, and
// soon how long a wait is short. The runtime takes the processor of who has had it
// for 10 ms, so that patient is for one that was told not to (asyncpreemptoff);
// a timer nearer than the kernel's tick would cost more than the wait.
const (
	patient = 20 * time.Millisecond
	soon    = 5 * time.Millisecond
)

// idle is how long a wait is in which nothing happens. Not each kernel tells those
// who wait that their device is gone, or tells them once it really is: they look.
const idle = time.Second

// rest is how long a waiter rests for several packets to come: what it adds to
// their delay, at most. After a try that failed it waits firstSkip times without,
// then twice as often, up to maxSkip.
const (
	rest      = 100 * time.Microsecond
	firstSkip = 16
	maxSkip   = 1024
)

// newWaiter returns a waiter for what can be read from fds, of which pending
// tells how much there is already, as far as two.
func newWaiter(pending func() int, fds ...int) waiter {
	w := waiter{pending: pending}
	for _, fd := range fds {
		w.fds = append(w.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return w
}

// wait waits until something can be read, or happened, or for no reason at all.
func (w *waiter) wait() error {
	w.idle = false
	if w.soon {
		if w.skip > 0 {
			w.skip--
		} else if w.rest() {
			return nil
		}
		limit := unix.NsecToTimespec(int64(patient))
		n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&w.fds[0])), uintptr(len(w.fds)),
			uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
		w.soon = errno == 0 && n > 0
		if w.soon {
			return nil
		}
	}
	start := time.Now()
	n, err := unix.Poll(w.fds, int(idle.Milliseconds()))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	w.idle = err == nil && n == 0
	w.soon = time.Since(start) < soon
	return nil
}

// rest lets a moment pass and reports whether there is something to be read.
func (w *waiter) rest() bool {
	moment := unix.NsecToTimespec(int64(rest))
	unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&moment)), 0, 0)
	n := w.pending()
	if n > 1 {
		w.failed = 0
		return true
	}
	w.skip = min(firstSkip<<min(w.failed, 16), maxSkip)
	w.failed++
	return n > 0
}

// broken reports whether the descriptor i has an error or is gone.
func (w *waiter) broken(i int) bool {
	return w.fds[i].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
}
