package topology_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"patchbay/appliance/lab/topology"
)

// A file that does not end, such as /dev/zero, is not read to its end.
func TestReadEndless(t *testing.T) {
	file := filepath.Join(t.TempDir(), "endless.topo")
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Skip("needs named pipes: ", err)
	}
	const much = 8 << 20 // bytes
	written := make(chan int, 1)
	go func() {
		n := 0
		defer func() { written <- n }()
		f, err := os.OpenFile(file, os.O_WRONLY, 0)
		if err != nil {
			return
		}
		defer f.Close()
		for block := make([]byte, 4096); n < much; n += len(block) {
			if _, err := f.Write(block); err != nil {
				return // nobody reads any more
			}
		}
	}()
	if _, _, _, err := topology.Read(file); err == nil {
		t.Error("zeros are a topology")
	}
	if n := <-written; n >= much {
		t.Errorf("%d bytes were read", n)
	}
}
