package importer

import (
	"fmt"
	"strings"

	"patchbay/appliance/config"
)

// A Link is the proposal of a link for an interface.
type Link struct {
	Interface config.Interface
	Was       string // its hardware as the file calls it
	Flag      string // "--link outside=packet:eth0"
}

// Links proposes a link for each interface with a name: the first port is eth0,
// and sub-interfaces share their port's device.
func (r *Result) Links() []Link {
	was := make(map[string]string) // by what it is called now
	for _, c := range r.Changes {
		if now, ok := strings.CutPrefix(c.To, "interface "); ok {
			was[now] = strings.TrimPrefix(c.From, "interface ")
		}
	}
	var list []Link
	device := make(map[string]string)
	for _, i := range r.Running.Interfaces {
		if i.Name == "" {
			continue
		}
		port, _, _ := strings.Cut(i.Hardware, ".")
		if device[port] == "" {
			device[port] = fmt.Sprintf("eth%d", len(device))
		}
		l := Link{Interface: i, Was: i.Hardware, Flag: "--link " + i.Name + "=packet:" + device[port]}
		if w := was[i.Hardware]; w != "" {
			l.Was = w
		}
		list = append(list, l)
	}
	return list
}
