package media

import (
	"flag"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"patchbay/inspect"
)

var benchLibsrtp = flag.String("libsrtp", "", "directory of libsrtp2 built with OpenSSL, as testdata/libsrtp.sh leaves it: compare SRTP")

// TestBenchSRTP compares the SRTP operation with pion's and with libsrtp2's on
// OpenSSL: CPU time, so that what else the machine does counts little; the three
// in turn, and of each ratio the median of the rounds.
func TestBenchSRTP(t *testing.T) {
	if *benchLibsrtp == "" {
		t.Skip("-libsrtp names no libsrtp2 built with OpenSSL (make bench-srtp builds one)")
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		t.Skip("gcc is not installed")
	}
	dir, prog := *benchLibsrtp, filepath.Join(t.TempDir(), "libsrtp")
	if out, err := exec.Command(gcc, "-O2", "-o", prog, "testdata/libsrtp.c", "-I", dir+"/include",
		"-I", dir+"/crypto/include", dir+"/libsrtp2.a", "-lcrypto").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	runtime.LockOSThread() // and so libsrtp2's process begins as this thread is
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		t.Logf("without real-time priority: %v", err)
	} else {
		defer unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
	}
	const rounds, packets = 15, 200 // and 1,000 streams
	kinds := []struct {
		name string
		run  func() (seal, open float64)
	}{
		{"patchbay", func() (float64, float64) { return timeSRTP(t, newOurs, packets) }},
		{"pion/srtp v2", func() (float64, float64) { return timeSRTP(t, newLibrary, packets) }},
		{"libsrtp2", func() (seal, open float64) {
			out, err := exec.Command(prog, fmt.Sprint(packets)).CombinedOutput()
			if err == nil {
				_, err = fmt.Sscan(string(out), &seal, &open)
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", prog, err, out)
			}
			return seal, open
		}},
	}
	ns := make([][2][]float64, len(kinds))
	for range rounds {
		for i, k := range kinds {
			seal, open := k.run()
			ns[i][0], ns[i][1] = append(ns[i][0], seal), append(ns[i][1], open)
		}
	}
	last := ns[len(ns)-1]
	t.Logf("%-14s %10s %10s   of libsrtp2: %6s %6s", "ns a packet", "seal", "open", "seal", "open")
	for i, k := range kinds {
		var ratio [2]float64
		for op := range ratio {
			all := make([]float64, rounds)
			for r := range all {
				all[r] = ns[i][op][r] / last[op][r]
			}
			ratio[op] = median(all)
		}
		t.Logf("%-14s %10.0f %10.0f   %19.2f %6.2f", k.name, median(ns[i][0]), median(ns[i][1]), ratio[0], ratio[1])
	}
}

// timeSRTP returns the CPU time of one packet in ns, as testdata/libsrtp.c
// measures it.
func timeSRTP(t *testing.T, make1 func(testing.TB, inspect.Key) crypter, rounds int) (seal, open float64) {
	const streams = 1000
	type stream struct {
		tx, rx crypter
		b      []byte
	}
	all := make([]stream, streams)
	for i := range all {
		k := testKey(byte(i), inspect.AES_CM_128_SHA1_80)
		k.Master[15] = byte(i >> 8)
		all[i] = stream{make1(t, k), make1(t, k), make([]byte, 0, 256)}
	}
	for r := range rounds {
		for i := range all {
			all[i].b = append(all[i].b[:0], voice(uint16(r+1), 7)...)
		}
		begin := cpuTime(t)
		for i := range all {
			s := &all[i]
			n, err := s.tx.seal(s.b)
			if err != nil {
				t.Fatal(err)
			}
			s.b = s.b[:n]
		}
		half := cpuTime(t)
		for i := range all {
			s := &all[i]
			n, err := s.rx.open(s.b)
			if err != nil || n != len(s.b)-longTag {
				t.Fatal(n, err)
			}
		}
		seal, open = seal+half-begin, open+cpuTime(t)-half
	}
	n := float64(streams * rounds)
	return seal / n, open / n
}

// cpuTime is what this process has used, in ns.
func cpuTime(t *testing.T) float64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts); err != nil {
		t.Fatal(err)
	}
	return float64(ts.Nano())
}

func median(all []float64) float64 {
	all = slices.Sorted(slices.Values(all))
	return all[len(all)/2]
}
