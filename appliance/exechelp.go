package appliance

import (
	"fmt"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

// execVocabulary is the help of words of EXEC mode that a command does not say
// itself: see cli.Vocabulary.
var execVocabulary = cli.Vocabulary{
	"show": "Show running system information", "clear": "Reset functions", "no": "Negate a command", "copy": "Copy from one file to another",
	"capture": "Capture packets", "packet-tracer": "Trace a packet through the box", "packet-tracer input": "Where the packet arrives",
	"clear asp": "Counts of drops", "show asp": "Counts of drops", "clear access-list <acl> counters": "Hit counts", "counters": "Hit counts",
	"access-list": "Access list", "asp": "Counts of drops", "interface": "Interface", "global": "Mapped address, or all interfaces", "local": "Real address",
	"clear local-host": "A host", "ip": "IP", "verify": "Reverse path", "verify statistics": "Packets refused for their source", "statistics": "Counts",
	"all": "All", "detail": "In detail", "detailed": "In detail", "dump": "With the bytes", "count": "How many", "brief": "In short",
	"address": "Connections of an address", "port": "Connections of a port", "protocol": "Connections of a protocol", "state": "Connections in a state",
	"tcp": "TCP", "udp": "UDP", "icmp": "ICMP", "rawip": "Another protocol, by its number", "sip": "SIP", "skinny": "SCCP", "tftp": "TFTP",
	"inspect": "Inspection", "police": "Limits of rates", "set": "Limits", "set connection": "Limits of connections", "connection": "Limits of connections",
	"frame": "Packets", "flow": "Connections", "type": "Kind of capture", "raw-data": "Packets of an interface", "asp-drop": "Packets that are dropped",
	"match": "Packets of two ends", "any": "Any address", "host": "One host", "eq": "Of a port", "buffer": "Size of the buffer", "packet-length": "Bytes kept of each packet",
	"circular-buffer": "Forget the first when the buffer is full", "trace": "Trace the packets", "packet-number": "The first to show", "/noconfirm": "Do not ask", "/pcap": "As a pcap file",
	"lt": "Below a port", "gt": "Above a port", "neq": "Not a port", "range": "Ports of a range", "trace-count": "Packets that are traced", "headers-only": "Without payload",
	"file-size": "Megabytes", "real-time": "Show them as they come", "trace detail": "In detail",

	"debug": "Show what happens as it happens", "undebug": "Show it no more", "no debug": "Show it no more", "diagnose": "Say why something does not work",
	"phone-proxy": "Phone proxy", "phone": "One phone", "secure-phones": "Phones that have fetched their CTL file here", "signaling-sessions": "Signaling of phones",
	"media-sessions": "Media that the box carries", "signaling": "Connections and registrations of phones", "media": "Media of phones",
	"tls-proxy": "TLS of phones", "session": "Phones' TLS", "media-termination": "Media termination",
	"errors": "What goes wrong", "events": "What goes well", "logging": "Messages",
	"<who>": "Device name, as SEP001122334455, or address", "<phone>": "Device name, as SEP001122334455, or address",
	"conn": "Connections", "xlate": "Translations", "nat": "NAT rules", "any4": "Any IPv4 address", "<room>": "Bytes of the buffer", "<length>": "Bytes",
	"<if>": "Name of an interface", "<anyif>": "Name of an interface, or identity for the box", "<acl>": "Name of an access list", "<name>": "Name",
	"<addr>": "Address, or a name given to one", "<addrs>": "Address, or first-last", "<mask>": "Network mask", "<port>": "Port: 0 to 65535 or its name",
	"<ports>": "Port, or first-last", "<proto>": "IP protocol: 0 to 255 or its name", "<icmptype>": "ICMP type: 0 to 255 or its name",
	"<reason>": "Name of a drop, as show asp drop has it", "<src>": "Source address", "<dst>": "Destination address", "<sport>": "Source port", "<dport>": "Destination port",
	"<code>": "ICMP code", "<ident>": "ICMP identifier", "<from>": "Capture, as in capture:NAME", "<to>": "File, as in disk0:/NAME.pcap", "<number>": "Number",
	"<first>": "Number of a packet, or the first hop", "<bytes>": "Bytes", "<real>": "Real address", "<mapped>": "Mapped address",

	"usage":        "How busy the processors are",
	"show logging": "Log", "clear logging": "Log",
	"crypto": "Keys, certificates and CTL tokens", "show crypto": "Keys and certificates", "key": "Key pairs", "generate": "Make a key pair", "zeroize": "Destroy key pairs",
	"ca": "Certificates", "rsa": "RSA", "ecdsa": "ECDSA", "label": "Name of the key pair", "modulus": "Size of the key", "general-keys": "For signatures and encryption",
	"noconfirm": "Do not ask", "nointeractive": "Do not ask", "default": "The key pair without a label", "elliptic-curve": "Size of the key",
	"256": "P-256", "384": "P-384", "521": "P-521", "mypubkey": "Public halves", "authenticate": "Install the certificate of a CA", "enroll": "Get a certificate",
	"import": "Install a certificate or a PKCS #12 file", "export": "Show a certificate or a PKCS #12 file", "fingerprint": "What the certificate's must be",
	"certificate": "The certificate that a CA has made", "identity-certificate": "A certificate of the box", "pkcs12": "Key pair and certificates", "legacy": "As old ASAs can read it",
	"certificates": "Certificates", "trustpoints": "Trustpoints", "crypto ctl-file": "Tokens of a CTL file", "ctl-file": "CTL files", "renew": "Replace a token",
	"forget": "Remove tokens that were replaced", "sast": "Token", "<token>": "Number of a token, from 0", "<ctl>": "Name of a ctl-file", "<trustpoint>": "Name of a trustpoint",
	"<label>": "Name", "<secret>": "Passphrase", "<hex>": "Fingerprint: MD5, SHA-1 or SHA-256 in hexadecimal", "<bits>": "Bits: 1024, 2048, 3072 or 4096",

	"dns": "Names that were looked up", "show dns host": "One name", "clear dns host": "One name", "dns-hosts": "Names the box knows",
	"ping": "Send echo messages", "repeat": "How many", "size": "Bytes of each packet", "timeout": "How long to wait for an answer", "validate": "Compare the data of the replies",
	"data": "Two bytes that the packets are filled with", "traceroute": "Trace the route to a host", "source": "Where the packets come from", "numeric": "Addresses only",
	"probe": "How many packets to each hop", "ttl": "The first and the last hop", "traceroute <host> port": "Port of the first packet", "use-icmp": "Echo messages in place of UDP",
	"<host>": "Address, or a name", "<source>": "Interface, or its address", "<pattern>": "16 bits in hexadecimal, as 0xabcd", "<count>": "Number of packets", "<seconds>": "Seconds",
	"dir": "List files on flash", "disk0:": "Flash", "flash:": "Flash", "delete": "Delete a file on flash",
	"<url>": "Where the file is, as in tftp://HOST/FILE or http://HOST/FILE", "<file>": "File on flash, as in disk0:/NAME.bin",
	"<probes>": "Number of packets", "<last>": "The last hop", "<base>": "Port",
}

// ExecVocabulary returns the help of words of the commands that Exec does. It is
// not to be changed.
func ExecVocabulary() cli.Vocabulary { return execVocabulary }

// Help returns what "?" at the end of a line of the privileged EXEC mode shows:
// the words that begin with the last one, or all that may follow if the line ends
// in a space or is empty. If the line is wrong before that, the *Refusal says
// why. Any number of goroutines may call it, while the box runs.
func (a *Appliance) Help(line string) ([]config.HelpLine, error) {
	if len(line) > maxExecLine {
		return nil, &Refusal{Text: fmt.Sprintf("%% Command of %d bytes is too long: %d at most", len(line), maxExecLine)}
	}
	pl := a.plan()
	x := &execution{Appliance: a, plan: pl, running: pl.running}
	list, err := execGrammar.Help(line, x.checkWord, execVocabulary)
	if err != nil {
		return nil, &Refusal{Line: hideSecrets(line), Col: err.Token.Col, Text: err.Error(), Why: err.Reason}
	}
	for i, c := range list {
		if c.Help == "" {
			list[i].Help = execVocabulary["<"+c.Kind+">"]
		}
	}
	return config.HelpLines(list), nil
}
