package lab

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/template"
)

// maxConfigFile is what a 7942 says it takes, in bytes.
// (reference/phone-config-xml.md, section 1.)
const maxConfigFile = 550001

// A DeviceConfig is what a phone reads from its SEP<MAC>.cnf.xml.
// (reference/phone-config-xml.md.)
type DeviceConfig struct {
	Protocol      string // deviceProtocol: "SIP", "SCCP" or ""
	SecurityMode  int    // deviceSecurityMode: 1 none, 2 authenticated, 3 encrypted; 0: not there
	Transport     int    // transportLayerProtocol: 1 TCP, 2 UDP, 3 TLS; 0: not there
	Managers      []DeviceManager
	EncrConfig    bool              // the file itself is to be encrypted next time
	CAPF          string            // processNodeName of the CAPF
	ProxyURL      string            // proxyServerURL
	ServicesURL   string            // servicesURL
	SRST          string            // srstOption
	Line, Contact string            // of the first SIP line
	Vendor        map[string]string // vendorConfig, flat
}

// A DeviceManager is one member of the callManagerGroup.
type DeviceManager struct {
	Node      string // processNodeName: where the phone connects
	SCCP      int    // ethernetPhonePort; secure is 443 more
	SIP       int    // sipPort
	SecureSIP int    // securedSipPort
	Priority  int
}

// ParseDeviceConfig reads a configuration file as a lenient phone: it takes
// what it knows wherever it stands, and defaults for the rest.
func ParseDeviceConfig(b []byte) (*DeviceConfig, error) {
	fail := func(err error) (*DeviceConfig, error) {
		return nil, fmt.Errorf("lab: phone configuration: %w", err)
	}
	if len(b) > maxConfigFile {
		return fail(fmt.Errorf("%d bytes", len(b)))
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	d.Strict = true
	d.CharsetReader = func(charset string, in io.Reader) (io.Reader, error) { return latin1{in}, nil }
	c := &DeviceConfig{Vendor: make(map[string]string)}
	var path []string
	var text strings.Builder
	for {
		t, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fail(err)
		}
		switch t := t.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			text.Reset()
			if t.Name.Local == "member" && within(path, "callManagerGroup") {
				m := DeviceManager{SCCP: 2000, SIP: 5060, SecureSIP: 5061}
				for _, a := range t.Attr {
					if a.Name.Local == "priority" {
						m.Priority, _ = strconv.Atoi(a.Value)
					}
				}
				c.Managers = append(c.Managers, m)
			}
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if len(path) == 0 || path[len(path)-1] != t.Name.Local {
				return fail(fmt.Errorf("</%s> without its beginning", t.Name.Local))
			}
			if err := c.set(path, strings.TrimSpace(text.String())); err != nil {
				return fail(err)
			}
			path = path[:len(path)-1]
			text.Reset()
		}
	}
	if len(path) != 0 {
		return fail(fmt.Errorf("<%s> without its end", path[len(path)-1]))
	}
	return c, nil
}

// within reports whether an element of path above the last has name.
func within(path []string, name string) bool {
	for _, p := range path[:len(path)-1] {
		if p == name {
			return true
		}
	}
	return false
}

// set takes the text of the element at path.
func (c *DeviceConfig) set(path []string, text string) error {
	name := path[len(path)-1]
	number := func(dst *int) error {
		if text == "" {
			return nil
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("<%s> is %q: %w", name, text, errors.Unwrap(err))
		}
		*dst = n
		return nil
	}
	if within(path, "vendorConfig") {
		c.Vendor[name] = text
		return nil
	}
	if within(path, "callManagerGroup") && len(c.Managers) > 0 {
		m := &c.Managers[len(c.Managers)-1]
		switch name {
		case "processNodeName":
			m.Node = text
		case "ethernetPhonePort":
			return number(&m.SCCP)
		case "sipPort":
			return number(&m.SIP)
		case "securedSipPort":
			return number(&m.SecureSIP)
		}
		return nil
	}
	switch {
	case name == "deviceProtocol":
		c.Protocol = text
	case name == "deviceSecurityMode":
		return number(&c.SecurityMode)
	case name == "transportLayerProtocol":
		return number(&c.Transport)
	case name == "encrConfig":
		c.EncrConfig = text == "true"
	case name == "proxyServerURL":
		c.ProxyURL = text
	case name == "servicesURL":
		c.ServicesURL = text
	case name == "srstOption":
		c.SRST = text
	case name == "processNodeName" && within(path, "capf"):
		c.CAPF = text
	case name == "name" && len(path) > 1 && path[len(path)-2] == "line" && c.Line == "":
		c.Line = text
	case name == "contact" && within(path, "line") && c.Contact == "":
		c.Contact = text
	}
	return nil
}

// latin1 reads ISO-8859-1 as UTF-8.
type latin1 struct{ r io.Reader }

func (l latin1) Read(p []byte) (int, error) {
	half := make([]byte, max(1, len(p)/2))
	n, err := l.r.Read(half)
	out := p[:0]
	for _, b := range half[:n] {
		if b < 0x80 {
			out = append(out, b)
		} else {
			out = append(out, 0xc0|b>>6, 0x80|b&0x3f)
		}
	}
	return len(out), err
}

// configFile is what a nonsecure UCM 7 has for a phone.
// (reference/phone-config-xml.md, section 5.)
var configFile = template.Must(template.New("cnf").Parse(`<?xml version="1.0" encoding="UTF-8"?>
<device xsi:type="axl:XIPPhone" ctiid="{{.CTI}}" uuid="{{"{"}}{{.UUID}}{{"}"}}">
<fullConfig>true</fullConfig>
<deviceProtocol>{{.Protocol}}</deviceProtocol>
<sshUserId>lab</sshUserId>
<sshPassword></sshPassword>
<devicePool uuid="{1b1b9eb6-7803-11d3-bdf0-00108302ead1}">
<name>Default</name>
<dateTimeSetting uuid="{9ec4850a-7748-11d3-bdf0-00108302ead1}">
<name>CMLocal</name><dateTemplate>D/M/Y</dateTemplate><timeZone>Central European Standard/Daylight Time</timeZone>
</dateTimeSetting>
<callManagerGroup><members>
<member priority="0"><callManager><name>ucm-a</name>
<ports><ethernetPhonePort>{{.SCCPPort}}</ethernetPhonePort><sipPort>{{.SIPPort}}</sipPort><securedSipPort>5061</securedSipPort>
<mgcpPorts><listen>2427</listen><keepAlive>2428</keepAlive></mgcpPorts></ports>
<processNodeName>{{.Manager}}</processNodeName></callManager></member>
{{- if .Backup}}
<member priority="1"><callManager><name>ucm-b</name>
<ports><ethernetPhonePort>{{.SCCPPort}}</ethernetPhonePort><sipPort>{{.SIPPort}}</sipPort><securedSipPort>5061</securedSipPort></ports>
<processNodeName>{{.Backup}}</processNodeName></callManager></member>
{{- end}}
</members></callManagerGroup>
<srstInfo uuid="{cd241e11-4a58-4d3d-9661-f06c912a18a3}"><name>Disable</name><srstOption>Disable</srstOption>
<userModifiable>false</userModifiable><ipAddr1></ipAddr1><port1>2000</port1><isSecure>false</isSecure></srstInfo>
<connectionMonitorDuration>120</connectionMonitorDuration>
</devicePool>
{{- if eq .Protocol "SIP"}}
<sipProfile>
<sipProxies><backupProxy></backupProxy><backupProxyPort></backupProxyPort><outboundProxy></outboundProxy><registerWithProxy>true</registerWithProxy></sipProxies>
<sipStack><sipInviteRetx>6</sipInviteRetx><sipRetx>10</sipRetx><timerInviteExpires>180</timerInviteExpires><timerRegisterExpires>3600</timerRegisterExpires>
<timerRegisterDelta>5</timerRegisterDelta><timerKeepAliveExpires>120</timerKeepAliveExpires><timerT1>500</timerT1><timerT2>4000</timerT2></sipStack>
<natEnabled>false</natEnabled><natAddress></natAddress><startMediaPort>16384</startMediaPort><stopMediaPort>32766</stopMediaPort><voipControlPort>5060</voipControlPort>
<sipLines><line button="1" lineIndex="1"><featureID>9</featureID><featureLabel>{{.Line}}</featureLabel><proxy>USECALLMANAGER</proxy><port>5060</port>
<name>{{.Line}}</name><displayName>Lab {{.Line}}</displayName><contact>{{.Contact}}</contact><authName></authName><authPassword></authPassword></line></sipLines>
<dialTemplate>dialplan.xml</dialTemplate>
</sipProfile>
{{- end}}
<commonProfile><phonePassword></phonePassword><backgroundImageAccess>true</backgroundImageAccess><callLogBlfEnabled>2</callLogBlfEnabled></commonProfile>
<loadInformation>{{.Load}}</loadInformation>
<vendorConfig><disableSpeaker>false</disableSpeaker><pcPort>0</pcPort><settingsAccess>1</settingsAccess>
<garp>0</garp><voiceVlanAccess>0</voiceVlanAccess><videoCapability>0</videoCapability><webAccess>0</webAccess>
<spanToPCPort>0</spanToPCPort><loadServer></loadServer></vendorConfig>
<versionStamp>1233001122-9b0f1c7e-1a70-4d0e-9a0b-6f6c5e1b2a33</versionStamp>
<networkLocale>United_States</networkLocale>
<deviceSecurityMode>1</deviceSecurityMode>
<servicesURL>http://{{.Manager}}:8080/ccmcip/getservicesmenu.jsp</servicesURL>
<proxyServerURL></proxyServerURL>
{{- if eq .Protocol "SIP"}}
<transportLayerProtocol>1</transportLayerProtocol>
{{- end}}
<capfAuthMode>0</capfAuthMode>
<capfList><capf><phonePort>3804</phonePort><processNodeName>{{.Manager}}</processNodeName></capf></capfList>
<certHash></certHash>
<encrConfig>false</encrConfig>
</device>
`))

// configValues fill configFile.
type configValues struct {
	CTI, SCCPPort, SIPPort  int
	Protocol, UUID, Manager string
	Line, Contact, Load     string
	Backup                  string // address of the second manager; "": there is none
}

func (v configValues) file() []byte {
	var b bytes.Buffer
	// The template is constant and the fields are there: it cannot fail.
	if err := configFile.Execute(&b, v); err != nil {
		panic(err)
	}
	return b.Bytes()
}

// defaultConfigFile is the XMLDefault.cnf.xml of a manager.
func defaultConfigFile(manager string, sccp int) []byte {
	return fmt.Appendf(nil, `<Default>
<callManagerGroup><members><member priority="0"><callManager>
<ports><ethernetPhonePort>%d</ethernetPhonePort></ports>
<processNodeName>%s</processNodeName>
</callManager></member></members></callManagerGroup>
<loadInformation404 model="Cisco 7962"></loadInformation404>
</Default>
`, sccp, manager)
}

// ringList is a Ringlist.xml.
const ringList = `<CiscoIPPhoneRingList>
<Ring><DisplayName>Lab One</DisplayName><FileName>Lab1.raw</FileName></Ring>
<Ring><DisplayName>Lab Two</DisplayName><FileName>Lab2.raw</FileName></Ring>
</CiscoIPPhoneRingList>
`
