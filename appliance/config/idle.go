package config

import "patchbay/appliance/cli"

// idleCommands are known and change nothing here, or nothing that keeps traffic
// out: they stand in many running configurations, and of a box that has none of
// what they set. What would let pass what an ASA stops is not among them.
func idleCommands() []command {
	var list []command
	add := func(why string, syntax ...string) { list = append(list, inert(why, syntax...)...) }
	list = append(list, notYet("shutting attackers out", "threat-detection scanning-threat shun [<rest:line>]")...)
	list = append(list, cmd("call-home", one.opens(inCallHome), func(p *parser, _ cli.Args) {
		p.enter(inCallHome, 0)
		p.noEffect(noCallHome)
	}))
	add(noCallHome, "call-home reporting <rest:line>")
	add("it is so here: PAT keeps each port for timeout pat-xlate", "xlate per-session deny {tcp|udp} <rest:line>")
	add("PAT keeps each port for timeout pat-xlate, as with deny", "xlate per-session permit {tcp|udp} <rest:line>")
	add("there is no VPN", "ip local pool <rest:line>", "group-delimiter <c:word>",
		"sysopt connection {permit-vpn|preserve-vpn-flows|reclassify-vpn}", "no sysopt connection {preserve-vpn-flows|reclassify-vpn}",
		"sysopt radius ignore-secret", "crypto ipsec df-bit <rest:line>", "crypto ipsec fragmentation <rest:line>")
	add("connections are forgotten when they are closed", "[no] sysopt connection timewait")
	add("what is denied is dropped in silence", "service {resetinbound|resetoutbound|resetoutside} [interface <if>]")
	add("there is no failover", "[no] logging standby")
	add("there is no routing protocol", "prefix-list <rest:line>", "as-path access-list <rest:line>")
	add("\"write net\" and \"copy\" are told where to, as HOST:FILE and tftp://HOST/FILE", "tftp-server <if:nameif> <addr> <file:word>")
	add("there is no SNMP agent", "snmp cpu threshold <rest:line>")
	add("there are no users and groups of a directory", "no user-identity <rest:line>")
	add("nobody logs in to pass", "auth-prompt <rest:line>")
	add("it is of hardware that is not here", "[no] service sw-reset-button", "service-module <rest:line>")
	return list
}

// idleInterfaceCommands are those of an interface.
func idleInterfaceCommands() []command {
	list := inert("the ports of a switch and their VLANs are the host's; the link is one of them", "switchport <rest:line>")
	list = append(list, inert("the host binds ports together", "channel-group <rest:line>", "member-interface <rest:line>", "lacp <rest:line>")...)
	list = append(list, inert("there is no routing protocol", "ospf <rest:line>", "authentication {mode|key} eigrp <rest:line>",
		"{hello-interval|hold-time|summary-address|split-horizon} eigrp <rest:line>", "delay <n:1-16777215>",
		"rip <rest:line>")...)
	list = append(list, idle(noIPv6, "IPv6: kept, without effect", "[no] ipv6 {address|enable|nd|ospf|dhcprelay|traffic-filter|verify} [<rest:line>]")...)
	list = append(list, idle(noMulticast, "Multicast: kept, without effect", "[no] igmp [<rest:line>]", "[no] pim [<rest:line>]", "[no] multicast <rest:line>")...)
	return append(list, idle(noSGT, "Security groups: kept, without effect", "cts manual", "propagate sgt [<rest:line>]", "policy static sgt <rest:line>")...)
}

const noCallHome = "the box calls nobody's home"

// callHomeCommands are of Smart Call Home.
func callHomeCommands() []command {
	list := []command{cmd("profile <name>", each.opens(inCallHomeProfile), func(p *parser, _ cli.Args) {
		p.enter(inCallHomeProfile, 0)
		p.noEffect(noCallHome)
	})}
	return append(list, inert(noCallHome, "[no] alert-group <rest:line>", "alert-group-config <rest:line>", "contact-email-addr <rest:line>",
		"contact-name <rest:line>", "contract-id <rest:line>", "customer-id <rest:line>", "site-id <rest:line>", "mail-server <rest:line>",
		"phone-number <rest:line>", "rate-limit <n:1-10>", "sender <rest:line>", "source interface <if>", "street-address <rest:line>",
		"vrf <rest:line>", "http-proxy <rest:line>")...)
}

func callHomeProfileCommands() []command {
	return inert(noCallHome, "[no] active", "[no] destination <rest:line>", "[no] subscribe-to-alert-group <rest:line>", "[no] reporting <rest:line>")
}
