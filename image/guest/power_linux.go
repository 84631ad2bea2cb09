package guest

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
)

// A struct input_event: two longs of time, type, code, value.
// (linux/input.h, linux/input-event-codes.h.)
const (
	inputEvent = 24 // bytes
	evKey      = 1
	keyPower   = 116
)

// watchPower returns where it shows that the power button was pressed, which is
// also what a hypervisor's "shut down" is.
func watchPower() <-chan struct{} {
	pressed := make(chan struct{}, 1)
	devs, _ := filepath.Glob("/dev/input/event*")
	for _, name := range devs {
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		go func() {
			defer f.Close()
			b := make([]byte, inputEvent)
			for {
				if _, err := io.ReadFull(f, b); err != nil {
					return
				}
				le := binary.LittleEndian
				if le.Uint16(b[16:]) == evKey && le.Uint16(b[18:]) == keyPower && le.Uint32(b[20:]) == 1 {
					select {
					case pressed <- struct{}{}:
					default:
					}
				}
			}
		}()
	}
	return pressed
}
