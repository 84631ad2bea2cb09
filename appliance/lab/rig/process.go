//go:build linux

package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	asked   = 5 * time.Second  // that a process has after SIGTERM
	killed  = 10 * time.Second // that one has after SIGKILL
	lookout = 50 * time.Millisecond
)

// Join signs this process in as one of the rig's, so that Down ends it also when
// none of its threads is in a namespace of the rig. leave signs it out.
func (r *Rig) Join() (leave func(), err error) {
	dir := filepath.Join(r.dir, membersDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	pid := os.Getpid()
	started, ok := startTime(pid)
	if !ok {
		return nil, errors.New("/proc does not show this process")
	}
	file := filepath.Join(dir, strconv.Itoa(pid))
	if err := os.WriteFile(file, []byte(started), 0o600); err != nil {
		return nil, err
	}
	return func() { os.Remove(file) }, nil
}

// startTime tells a process from a later one of the same number. A process that
// has ended and is not buried yet is none.
func startTime(pid int) (string, bool) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// What is behind the name, which may hold anything: the third field on.
	// (proc_pid_stat(5).)
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[max(i, 0)+1:]))
	const state, start = 0, 22 - 3
	if i < 0 || len(f) <= start || f[state] == "Z" || f[state] == "X" {
		return "", false
	}
	return f[start], true
}

// processes returns the processes of a rig: who has signed in, who is in one of its
// namespaces with any thread, and whom Start or Exec have put into one whose name
// is one of them, also if somebody has deleted that since. Not this one. Without a
// dir nobody has signed in.
func processes(dir string, spaces []string, named func(string) bool) []int {
	inodes := make(map[uint64]bool)
	for _, s := range spaces {
		if n := inode(filepath.Join(namedDir, s)); n != 0 {
			inodes[n] = true
		}
	}
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []int
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		started, alive := startTime(pid)
		if !alive {
			continue
		}
		signed := false
		if dir != "" {
			b, err := os.ReadFile(filepath.Join(dir, membersDir, e.Name()))
			signed = err == nil && string(b) == started
		}
		if signed || inhabits(pid, inodes) || named(devicesOf(e.Name())) {
			found = append(found, pid)
		}
	}
	return found
}

// inhabits reports whether a thread of a process is in one of the namespaces.
func inhabits(pid int, inodes map[uint64]bool) bool {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
	if err != nil {
		return false
	}
	for _, t := range threads {
		if inodes[inode(t)] {
			return true
		}
	}
	return false
}

// devicesOf is the name of the namespace whose devices a process sees in /sys, ""
// if enterWithDevices has not said so. process is one in /proc, or "self".
func devicesOf(process string) string {
	b, err := os.ReadFile("/proc/" + process + "/mountinfo")
	if err != nil {
		return ""
	}
	of := ""
	for line := range bytes.Lines(b) {
		// ... mount point, options, fields; "-", type, source, options of the type.
		// (proc_pid_mountinfo(5).)
		if f := bytes.Fields(line); len(f) > 4 && string(f[4]) == "/sys" {
			of = ""
			if i := slices.IndexFunc(f, func(f []byte) bool { return string(f) == "-" }); i > 0 && i+2 < len(f) && string(f[i+1]) == "sysfs" {
				of = string(f[i+2])
			}
		}
	}
	if !strings.HasPrefix(of, prefix) {
		return ""
	}
	return of
}

// end ends the processes that find returns, with SIGTERM and then with SIGKILL,
// until it returns none.
func end(ctx context.Context, find func() []int) error {
	for _, round := range []struct {
		signal unix.Signal
		wait   time.Duration
	}{{unix.SIGTERM, asked}, {unix.SIGKILL, killed}} {
		told := make(map[int]bool)
		for limit := time.Now().Add(round.wait); ; {
			left := find()
			if len(left) == 0 {
				return nil
			}
			if time.Now().After(limit) {
				break
			}
			for _, pid := range left {
				if !told[pid] {
					unix.Kill(pid, round.signal) // it may have ended
					told[pid] = true
				}
			}
			select {
			case <-time.After(lookout):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return fmt.Errorf("processes %v do not end", find())
}
