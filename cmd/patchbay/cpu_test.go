//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ, 100 on all of
// Linux's architectures that matter here.
const clockTick = 10 * time.Millisecond

// cpuTime returns what a process has spent, user and system; 0 if pid is.
func cpuTime(t testing.TB, pid int) time.Duration {
	t.Helper()
	if pid == 0 {
		return 0
	}
	d, err := statTime(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	must(t, err)
	return d
}

// statTime reads utime and stime, fields 14 and 15, of a stat file. (proc(5).)
func statTime(file string) (time.Duration, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	s := string(text)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:]) // the name may have blanks
	var sum time.Duration
	for _, i := range []int{14 - 3, 15 - 3} {
		k, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(k) * clockTick
	}
	return sum, nil
}

// kernelThreads returns what the kernel's threads for soft interrupts have
// spent, whoever it was for.
func kernelThreads(t testing.TB) time.Duration {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	must(t, err)
	var sum time.Duration
	for _, f := range files {
		name, err := os.ReadFile(f)
		if err != nil || !strings.HasPrefix(string(name), "ksoftirqd/") {
			continue // one that has ended
		}
		d, err := statTime(filepath.Join(filepath.Dir(f), "stat"))
		must(t, err)
		sum += d
	}
	return sum
}
