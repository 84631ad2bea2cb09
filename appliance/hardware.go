package appliance

import (
	"slices"

	"patchbay/appliance/config"
)

// hardware returns the interfaces that the box has: those of the configuration,
// and those that have a link and no line in it, which are shut down as on an ASA
// from the factory. (reference/asa-cli.md, section 3.)
func (x *execution) hardware() []*config.Interface {
	var list []*config.Interface
	for i := range x.running.Interfaces {
		list = append(list, &x.running.Interfaces[i])
	}
	for _, name := range x.opt.Hardware {
		hardware, err := config.Hardware(name)
		if err != nil || slices.ContainsFunc(list, func(i *config.Interface) bool { return i.Hardware == hardware }) {
			continue // a link by nameif
		}
		at := slices.IndexFunc(list, func(i *config.Interface) bool { return config.HardwareLess(hardware, i.Hardware) })
		if at < 0 {
			at = len(list)
		}
		list = slices.Insert(list, at, &config.Interface{Hardware: hardware, Shutdown: true, Down: true})
	}
	return list
}
