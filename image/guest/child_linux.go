package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A child is the appliance as a process.
type child struct {
	config   string // what it is given to begin with; "": what is on flash
	pid      int    // 0: it does not run
	began    time.Time
	ready    bool
	safe     bool // it has got only what makes it reachable
	reload   bool // it has ended, or will, for the machine to start again
	failures int  // lives in a row that were short

	again  <-chan time.Time // when to start it
	good   <-chan time.Time // when it has been ready long enough
	silent <-chan time.Time // when it has been without a sign of life for too long
	late   <-chan time.Time // when it has taken too long to end
}

// start begins a life of the appliance.
func (m *machine) start() {
	c := &m.child
	config := c.config
	if c.safe = c.failures >= safeAfter; c.safe {
		config = m.safeConfig()
	}
	m.openFIFO()
	env := []string{"PATH=/", "HOME=" + runDir, "TMPDIR=" + runDir, "TERM=vt100", "NOTIFY_SOCKET=" + notifyName,
		fmt.Sprintf("WATCHDOG_USEC=%d", watchdog.Microseconds())}
	fd := m.console.Fd()
	args := arguments(m.program, config, m.driver)
	// Without a terminal that controls it no key of the console is a signal.
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		Dir: "/", Env: env, Files: []uintptr{fd, fd, fd}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	c.began, c.ready, c.reload, c.good, c.silent, c.late = time.Now(), false, false, nil, nil, nil
	if err != nil {
		m.say(alarm, "starting the appliance: %v", err)
		c.failures++
		c.again = time.After(backoff(c.failures))
		return
	}
	c.pid = pid
	c.silent = time.After(trialWait)
}

// openFIFO makes the way to the appliance's log anew, and puts into it what a new
// appliance must be told.
func (m *machine) openFIFO() {
	if m.fifo != 0 {
		unix.Close(m.fifo)
		m.fifo = 0
	}
	name := filepath.Join(m.run, fifoName)
	os.Remove(name)
	if err := unix.Mkfifo(name, 0o600); err != nil {
		m.say(alarm, "%s: %v", name, err)
		return
	}
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		m.say(alarm, "%s: %v", name, err)
		return
	}
	for _, line := range m.said {
		unix.Write(fd, []byte(line))
	}
	m.fifo = fd
}

// end asks the appliance to end, or has it ended.
func (c *child) end(s syscall.Signal) {
	if c.pid == 0 {
		return
	}
	unix.Kill(c.pid, s)
	c.silent, c.good = nil, nil
	if s != unix.SIGKILL && c.late == nil {
		c.late = time.After(stopWait)
	}
}

// reap takes leave of processes that have ended, and reports whether the appliance
// is one of them.
func (m *machine) reap() (status unix.WaitStatus, died bool) {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return status, died
		}
		if pid == m.child.pid {
			m.child.pid, status, died = 0, s, true
		}
	}
}

// died says that the appliance has ended by itself, and when it is started again.
func (m *machine) died(s unix.WaitStatus) {
	c := &m.child
	how := fmt.Sprintf("with status %d", s.ExitStatus())
	if s.Signaled() {
		how = "by " + s.Signal().String()
	}
	if time.Since(c.began) >= steadyAfter && c.ready {
		c.failures = 0
	}
	c.failures++
	wait := backoff(c.failures)
	c.ready = false
	c.silent, c.good, c.late = nil, nil, nil
	m.say(alarm, "the appliance ended %s: it is started again in %v", how, wait)
	c.again = time.After(wait)
}

// heard takes a message of the appliance's. (sd_notify(3).)
func (m *machine) heard(text string) {
	c := &m.child
	for line := range strings.Lines(text) {
		switch strings.TrimSpace(line) {
		case "READY=1":
			c.ready = true
			up, _ := os.ReadFile("/proc/uptime")
			sec, _, _ := strings.Cut(string(up), " ")
			m.say(notice, "the appliance is ready, %s s after the kernel began", sec)
			c.good = time.After(healthyAfter)
			c.silent = time.After(watchdog)
		case "WATCHDOG=1":
			if c.ready {
				c.silent = time.After(watchdog)
			}
		case "X_PATCHBAY_RELOAD=1":
			c.reload = true
		}
	}
}

// hearNotify returns where the appliance's messages come.
func (m *machine) hearNotify() <-chan string {
	ch := make(chan string)
	if m.notify == nil {
		return ch
	}
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := m.notify.Read(b)
			if err != nil {
				return
			}
			ch <- string(b[:n])
		}
	}()
	return ch
}

// safeConfig writes a configuration by which the box can at least be reached, after
// the one it has has failed, and returns its name.
func (m *machine) safeConfig() string {
	from := m.child.config
	if from == "" {
		from = startupFile
	}
	text, err := readStartup(from)
	if err != nil {
		m.say(alarm, "%v", err)
	}
	name := filepath.Join(m.run, safeName)
	if err := os.WriteFile(name, []byte(safe(text)), 0o600); err != nil {
		m.say(alarm, "%v", err)
		return m.child.config
	}
	m.say(alarm, "the appliance has failed %d times: it gets only its management interface and its users; mend what is wrong, and reload: the startup configuration is untouched, and \"write memory\" would replace it", m.child.failures)
	return name
}
