//go:build linux

package main

import (
	"os"
	"testing"
	"unsafe"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// programExists reports whether the kernel has a BPF program of that identifier.
func programExists(id uint32) bool {
	attr := struct{ id, next, flags uint32 }{id: id} // of BPF_PROG_GET_FD_BY_ID, linux/bpf.h
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno != unix.ENOENT
	}
	unix.Close(int(fd))
	return true
}

// readFrames reads a capture of Ethernet frames.
func readFrames(t *testing.T, file string) []gopacket.Packet {
	t.Helper()
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	r, err := pcapgo.NewReader(f)
	must(t, err)
	if r.LinkType() != layers.LinkTypeEthernet {
		t.Fatalf("%s has link type %v", file, r.LinkType())
	}
	var all []gopacket.Packet
	for {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			return all
		}
		p := gopacket.NewPacket(data, layers.LayerTypeEthernet, gopacket.Default)
		p.Metadata().Timestamp = ci.Timestamp
		all = append(all, p)
	}
}
