package config_test

import (
	"fmt"
	"os"

	"patchbay/appliance/config"
)

func ExampleText_Enter() {
	var text config.Text
	var at config.Place
	for _, line := range []string{
		"int gi0/1",
		"nameif inside",
		"ip address 10.20.0.1 255.255.255.0",
		"no shutdown",
		"route insde 0.0.0.0 0.0.0.0 10.20.0.9",
		"route inside 0.0.0.0 0.0.0.0 10.20.0.9",
	} {
		prompt := "pb" + at.Prompt() + "# "
		fmt.Println(prompt + line)
		e := text.Enter(at, line)
		for _, f := range e.Findings {
			fmt.Println(f.Reply(len(prompt)))
		}
		text, at = e.Text, e.At
	}
	text.Render(os.Stdout, false, "interface")
	text.Render(os.Stdout, false, "route")
	// Output:
	// pb(config)# int gi0/1
	// pb(config-if)# nameif inside
	// INFO: Security level for "inside" set to 100 by default.
	// pb(config-if)# ip address 10.20.0.1 255.255.255.0
	// pb(config-if)# no shutdown
	// pb(config-if)# route insde 0.0.0.0 0.0.0.0 10.20.0.9
	//                      ^
	// ERROR: no interface is named insde; is it inside? (V04)
	// pb(config-if)# route inside 0.0.0.0 0.0.0.0 10.20.0.9
	// interface GigabitEthernet0/1
	//  nameif inside
	//  security-level 100
	//  ip address 10.20.0.1 255.255.255.0
	// route inside 0.0.0.0 0.0.0.0 10.20.0.9 1
}
