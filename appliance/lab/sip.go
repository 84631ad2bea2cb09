package lab

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

const (
	sipMaxHeader = 32 << 10 // bytes
	sipMaxBody   = 64 << 10 // bytes (reference/sip-cisco-phones.md, section 3)
	sdpType      = "application/sdp"
	magicCookie  = "z9hG4bK" // RFC 3261, section 8.1.1.7
)

// A sipMessage is a request or response. Header values are bytes in a string,
// not text.
type sipMessage struct {
	start  string
	header []sipField
	body   []byte
}

type sipField struct{ name, value string }

// compactForms are the short names of headers. (RFC 3261, section 7.3.3.)
var compactForms = map[string]string{
	"v": "Via", "f": "From", "t": "To", "i": "Call-ID", "m": "Contact",
	"l": "Content-Length", "c": "Content-Type", "k": "Supported", "e": "Content-Encoding",
}

// readSIP reads one message from a stream; empty lines before it do not count.
// A header line must fit the buffer of r.
func readSIP(r *bufio.Reader) (*sipMessage, error) {
	var lines []string
	total := 0
	for {
		raw, err := r.ReadSlice('\n')
		if total += len(raw); total > sipMaxHeader || err == bufio.ErrBufferFull {
			return nil, fmt.Errorf("lab: sip header of more than %d bytes", total)
		}
		if err != nil {
			if err == io.EOF && (len(lines) > 0 || len(raw) > 0) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		line := strings.TrimRight(string(raw), "\r\n")
		if line == "" {
			if len(lines) == 0 {
				continue // keep-alive
			}
			break
		}
		if (line[0] == ' ' || line[0] == '\t') && len(lines) > 1 {
			lines[len(lines)-1] += " " + strings.TrimSpace(line)
			continue
		}
		lines = append(lines, line)
	}
	m := &sipMessage{start: lines[0]}
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ":")
		if !ok {
			return nil, fmt.Errorf("lab: sip header line %q", l)
		}
		name = strings.TrimSpace(name)
		if long := compactForms[strings.ToLower(name)]; long != "" {
			name = long
		}
		m.header = append(m.header, sipField{name, strings.TrimSpace(value)})
	}
	if !m.isResponse() && len(strings.Fields(m.start)) != 3 {
		return nil, fmt.Errorf("lab: sip start line %q", m.start)
	}
	if v := m.get("Content-Length"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > sipMaxBody {
			return nil, fmt.Errorf("lab: sip Content-Length %q", v)
		}
		m.body = make([]byte, n)
		if _, err := io.ReadFull(r, m.body); err != nil {
			return nil, fmt.Errorf("lab: sip body of %d bytes: %w", n, err)
		}
	}
	return m, nil
}

// bytes returns the message as it is sent, with its Content-Length.
func (m *sipMessage) bytes() []byte {
	var b bytes.Buffer
	b.WriteString(m.start + "\r\n")
	for _, f := range m.header {
		if f.name != "Content-Length" {
			b.WriteString(f.name + ": " + f.value + "\r\n")
		}
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n", len(m.body))
	b.Write(m.body)
	return b.Bytes()
}

func (m *sipMessage) isResponse() bool { return strings.HasPrefix(m.start, "SIP/2.0 ") }

func (m *sipMessage) method() string {
	method, _, _ := strings.Cut(m.start, " ")
	return method
}

// uri is the Request-URI.
func (m *sipMessage) uri() string {
	if f := strings.Fields(m.start); len(f) == 3 {
		return f[1]
	}
	return ""
}

func (m *sipMessage) status() int {
	if f := strings.Fields(m.start); len(f) >= 2 {
		n, _ := strconv.Atoi(f[1])
		return n
	}
	return 0
}

// get returns the first value of a header, "" if there is none.
func (m *sipMessage) get(name string) string {
	for _, f := range m.header {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

func (m *sipMessage) add(name, value string) {
	m.header = append(m.header, sipField{name, value})
}

// cseq returns the number and method of CSeq.
func (m *sipMessage) cseq() (int, string) {
	f := strings.Fields(m.get("CSeq"))
	if len(f) != 2 {
		return 0, ""
	}
	n, _ := strconv.Atoi(f[0])
	return n, f[1]
}

// withSDP gives the message a body.
func (m *sipMessage) withSDP(sdp []byte) *sipMessage {
	if sdp != nil {
		m.add("Content-Type", sdpType)
		m.body = sdp
	}
	return m
}

// reply begins the response to a request; tag goes into To if it has none.
// (RFC 3261, section 8.2.6.)
func (m *sipMessage) reply(status int, reason, tag string) *sipMessage {
	r := &sipMessage{start: fmt.Sprintf("SIP/2.0 %d %s", status, reason)}
	for _, f := range m.header {
		if strings.EqualFold(f.name, "Via") {
			r.add("Via", f.value)
		}
	}
	to := m.get("To")
	if tag != "" && headerParam(to, "tag") == "" {
		to += ";tag=" + tag
	}
	r.add("From", m.get("From"))
	r.add("To", to)
	r.add("Call-ID", m.get("Call-ID"))
	r.add("CSeq", m.get("CSeq"))
	return r
}

// headerURI returns the URI of a name-addr or addr-spec.
func headerURI(v string) string {
	if i := strings.IndexByte(v, '<'); i >= 0 {
		if j := strings.IndexByte(v[i:], '>'); j > 0 {
			return v[i+1 : i+j]
		}
		return ""
	}
	v, _, _ = strings.Cut(v, ";")
	return strings.TrimSpace(v)
}

// headerParam returns a parameter of a header value, outside its URI.
func headerParam(v, name string) string {
	if i := strings.LastIndexByte(v, '>'); i >= 0 {
		v = v[i+1:]
	} else if _, rest, ok := strings.Cut(v, ";"); ok {
		v = ";" + rest
	} else {
		return ""
	}
	for _, p := range strings.Split(v, ";") {
		k, val, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(k, name) {
			return val
		}
	}
	return ""
}

// splitURI takes apart "sip:user@host:port;params".
func splitURI(uri string) (user string, host netip.AddrPort, hostName, params string) {
	uri = strings.TrimPrefix(strings.TrimPrefix(uri, "sips:"), "sip:")
	uri, params, _ = strings.Cut(uri, ";")
	if u, rest, ok := strings.Cut(uri, "@"); ok {
		user, uri = u, rest
	}
	hostName = uri
	if ap, err := netip.ParseAddrPort(uri); err == nil {
		host = ap
	} else if a, err := netip.ParseAddr(uri); err == nil {
		host = netip.AddrPortFrom(a, sipPort)
	}
	return user, host, hostName, params
}

// viaSentBy returns transport and address of a Via.
func viaSentBy(v string) (transport string, sentBy string) {
	f := strings.Fields(v)
	if len(f) < 2 {
		return "", ""
	}
	sentBy, _, _ = strings.Cut(f[1], ";")
	return strings.TrimPrefix(f[0], "SIP/2.0/"), sentBy
}

// An sdp is what our peers need of a session description with one audio
// stream. (RFC 4566, RFC 4568.)
type sdp struct {
	addr   netip.AddrPort // where RTP is to go; 0.0.0.0 holds
	proto  string         // RTP/AVP or RTP/SAVP
	dir    string         // sendrecv, sendonly, recvonly, inactive
	crypto []sdpCrypto
	origin string // username of o=
	video  bool   // there is more than the audio stream
}

// An sdpCrypto is an a=crypto line.
type sdpCrypto struct {
	tag, suite string
	key        mediaKey
}

var errNoAudio = errors.New("no audio stream")

// parseSDP reads a description strictly as far as it needs.
func parseSDP(b []byte) (*sdp, error) {
	fail := func(err error) (*sdp, error) { return nil, fmt.Errorf("lab: sdp: %w", err) }
	d := &sdp{dir: "sendrecv"}
	var conn netip.Addr
	port, inAudio, seen := 0, false, false
	for _, line := range strings.Split(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n") {
		if line == "" {
			continue
		}
		if len(line) < 2 || line[1] != '=' {
			return fail(fmt.Errorf("line %q", line))
		}
		value := line[2:]
		f := strings.Fields(value)
		switch line[0] {
		case 'o':
			if len(f) > 0 {
				d.origin = f[0]
			}
		case 'm':
			if len(f) < 4 {
				return fail(fmt.Errorf("line %q", line))
			}
			inAudio = f[0] == "audio" && !seen
			if !inAudio {
				d.video = true
				continue
			}
			seen = true
			n, err := strconv.ParseUint(f[1], 10, 16)
			if err != nil {
				return fail(fmt.Errorf("line %q", line))
			}
			port, d.proto = int(n), f[2]
		case 'c':
			if len(f) != 3 {
				return fail(fmt.Errorf("line %q", line))
			}
			a, err := netip.ParseAddr(f[2])
			if err != nil {
				return fail(fmt.Errorf("line %q", line))
			}
			if inAudio || !seen {
				conn = a
			}
		case 'a':
			if seen && !inAudio {
				continue
			}
			switch {
			case value == "sendrecv" || value == "sendonly" || value == "recvonly" || value == "inactive":
				d.dir = value
			case strings.HasPrefix(value, "crypto:"):
				c, err := parseCrypto(value)
				if err != nil {
					return fail(err)
				}
				d.crypto = append(d.crypto, c)
			}
		}
	}
	if !seen {
		return fail(errNoAudio)
	}
	if !conn.IsValid() {
		return fail(errors.New("no c= for the audio stream"))
	}
	d.addr = netip.AddrPortFrom(conn, uint16(port))
	return d, nil
}

// parseCrypto reads "crypto:1 AES_CM_128_HMAC_SHA1_32 inline:<40 characters>".
// The error never shows the key.
func parseCrypto(v string) (c sdpCrypto, err error) {
	f := strings.Fields(strings.TrimPrefix(v, "crypto:"))
	if len(f) != 3 || !strings.HasPrefix(f[2], "inline:") {
		return c, fmt.Errorf("a=crypto with %d fields, or not inline", len(f))
	}
	c.tag, c.suite = f[0], f[1]
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(f[2], "inline:"))
	if err != nil || len(b) != keyLength+saltBytes {
		return c, fmt.Errorf("a=crypto:%s key of %d bytes, or lifetime or MKI", c.tag, len(b))
	}
	copy(c.key.master[:], b)
	copy(c.key.salt[:], b[keyLength:])
	return c, nil
}

const suite32 = "AES_CM_128_HMAC_SHA1_32"

// cryptoLine is the a=crypto line for a key.
func cryptoLine(tag string, k mediaKey) string {
	b := append(append([]byte{}, k.master[:]...), k.salt[:]...)
	return "a=crypto:" + tag + " " + suite32 + " inline:" + base64.StdEncoding.EncodeToString(b) + "\r\n"
}

func (d *sdp) sends() bool    { return d.dir == "sendrecv" || d.dir == "sendonly" }
func (d *sdp) receives() bool { return d.dir == "sendrecv" || d.dir == "recvonly" }
