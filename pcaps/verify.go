package pcaps

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A Finding is an address that TShark, or a look at the text of SIP, finds in a
// message.
type Finding struct {
	Frame string // number in the capture
	Where string // the field, or the line of text
	Addr  netip.Addr
}

func (f Finding) String() string { return fmt.Sprintf("frame %s: %v in %s", f.Frame, f.Addr, f.Where) }

// A Reading is what another decoder makes of a capture.
type Reading struct {
	SIP, SCCP int // messages
	Found     []Finding
}

// tsharkOptions put messages together as the truth of the shared captures was
// made.
var tsharkOptions = []string{
	"-n", "-o", "tcp.desegment_tcp_streams:TRUE", "-o", "tcp.reassemble_out_of_order:TRUE", "-o", "ip.defragment:TRUE",
	"-o", "sip.desegment_headers:TRUE", "-o", "sip.desegment_body:TRUE", "-o", "skinny.desegment:TRUE",
	"-Y", "sip || skinny", "-T", "json", "-J", "frame sip sdp skinny",
}

// Decode has TShark decode a capture, and returns every IPv4 address in a field
// of SIP, SDP or SCCP. dir is a directory for the file.
func Decode(tshark, dir string, capture []byte) (*Reading, error) {
	file := filepath.Join(dir, "left.pcapng")
	if err := os.WriteFile(file, capture, 0o600); err != nil {
		return nil, fmt.Errorf("pcaps: %w", err)
	}
	defer os.Remove(file)
	return DecodeFile(tshark, file)
}

// DecodeFile is Decode of a file.
func DecodeFile(tshark, file string) (*Reading, error) {
	cmd := exec.Command(tshark, append([]string{"-r", file}, tsharkOptions...)...)
	var says bytes.Buffer
	cmd.Stderr = &says
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("pcaps: tshark: %w: %s", err, says.Bytes())
	}
	r := &Reading{}
	if err := r.read(json.NewDecoder(bytes.NewReader(out))); err != nil {
		return nil, fmt.Errorf("pcaps: tshark's JSON: %w", err)
	}
	return r, nil
}

// read walks the JSON of TShark by token, for it has the same name several
// times in one object.
func (r *Reading) read(d *json.Decoder) error {
	type level struct {
		object bool
		key    string // of the value that comes, in an object
	}
	var stack []level
	frame, exempt := "", 0 // exempt: the depth of a field whose parts are not looked at; 0 for none
	value := false         // the next token is a value
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := func() *level { return &stack[len(stack)-1] }
		if delim, ok := t.(json.Delim); ok {
			switch delim {
			case '{', '[':
				stack = append(stack, level{object: delim == '{'})
			default:
				stack = stack[:len(stack)-1]
				if exempt > len(stack) {
					exempt = 0
				}
			}
			value = len(stack) > 0 && !top().object
			continue
		}
		text, isText := t.(string)
		if len(stack) > 0 && top().object && !value {
			top().key, value = text, true
			if exempt == 0 && exemptField(text) {
				exempt = len(stack)
			} else if exempt == len(stack) && !exemptField(text) {
				exempt = 0
			}
			switch text {
			case "sip.Request-Line", "sip.Status-Line":
				r.SIP++
			case "skinny.messageId":
				r.SCCP++
			}
			// A header that TShark does not know is all in the name.
			if exempt == 0 && strings.Contains(text, ": ") {
				r.find(frame, text, text)
			}
			continue
		}
		value = len(stack) > 0 && !top().object
		if !isText || len(stack) == 0 {
			continue
		}
		switch key := top().key; {
		case key == "frame.number":
			frame = text
		case exempt == 0 && (strings.HasPrefix(key, "sip.") || strings.HasPrefix(key, "sdp.") || strings.HasPrefix(key, "skinny.")):
			r.find(frame, key, text)
		}
	}
}

// find notes the addresses in a value.
func (r *Reading) find(frame, where, text string) {
	for _, a := range addresses(text) {
		r.Found = append(r.Found, Finding{frame, where, a})
	}
}

// exemptField reports whether a field of TShark holds none of the addresses that
// are translated: names of dialogs, which appear again inside bodies and are
// never changed, and what the sender signed. (reference/sip-cisco-phones.md,
// section 3; RFC 3261, sections 8.1.1.4 and 22.4.) The whole header and the
// whole body are read line by line instead.
func exemptField(key string) bool {
	switch key {
	case "sip.msg_hdr", "sip.Call-ID", "sip.call_id_generated", "sip.In-Reply-To", "sip.Replaces", "sip.Join", "sip.Target-Dialog",
		"sip.Authorization", "sip.Proxy-Authorization", "sip.Authentication-Info", "sip.User-Agent", "sip.Server",
		"sip.tag", "sip.from.tag", "sip.to.tag", "sip.Via.branch":
		return true
	}
	return strings.HasPrefix(key, "sip.auth") || strings.HasPrefix(key, "sip.Authorization_") ||
		strings.HasPrefix(key, "sip.Proxy-Authorization_") || strings.HasPrefix(key, "sip.Call-ID_")
}

// exemptHeaders are the same by their names in a message.
var exemptHeaders = []string{
	"call-id", "i", "in-reply-to", "replaces", "join", "target-dialog",
	"authorization", "proxy-authorization", "authentication-info", "user-agent", "server",
}

var (
	dialogNames = regexp.MustCompile(`(?i)(;\s*(branch|tag|from-tag|to-tag|i|icid-value)\s*=\s*"?[^;,>\s]*)|([?&](Replaces|Call-ID|In-Reply-To)=[^&>;\s]*)`)
	dottedQuad  = regexp.MustCompile(`[0-9]+(\.[0-9]+)+`)
)

// addresses returns the IPv4 addresses in text, but for those in names of
// dialogs. A longer row of numbers, such as a version, is none.
func addresses(text string) []netip.Addr {
	var all []netip.Addr
	for _, w := range dottedQuad.FindAllString(dialogNames.ReplaceAllString(text, ""), -1) {
		if a, err := netip.ParseAddr(w); err == nil && a.Is4() {
			all = append(all, a)
		}
	}
	return all
}

// Text returns every IPv4 address in the header and the session description of
// messages of SIP, read as lines: TShark does not take all headers apart.
func Text(messages []Message) []Finding {
	var all []Finding
	for n, m := range messages {
		if m.Protocol != "sip" {
			continue
		}
		head, body, _ := strings.Cut(strings.ReplaceAll(string(m.Raw), "\r\n", "\n"), "\n\n")
		lines := strings.Split(head, "\n")
		if strings.Contains(strings.ToLower(head), "application/sdp") || strings.HasPrefix(body, "v=0") {
			lines = append(lines, strings.Split(body, "\n")...)
		}
		for i, l := range lines {
			name, _, ok := strings.Cut(l, ":")
			if i > 0 && ok && slices.Contains(exemptHeaders, strings.ToLower(strings.TrimSpace(name))) {
				continue
			}
			for _, a := range addresses(l) {
				all = append(all, Finding{fmt.Sprintf("of message %d", n+1), fmt.Sprintf("%q", l), a})
			}
		}
	}
	return all
}

// IsSaid reports whether an end has named a, on any side: in the text of a
// message or in four bytes of SCCP.
func (r *Result) IsSaid(a netip.Addr) bool {
	if r.said == nil {
		r.said = make(map[netip.Addr]bool)
		for _, messages := range r.Said {
			for _, f := range Text(messages) {
				r.said[f.Addr] = true
			}
			for _, m := range messages {
				if m.Protocol == "sccp" {
					for _, a := range addresses(string(m.Raw)) {
						r.said[a] = true
					}
				}
			}
		}
	}
	if r.said[a] {
		return true
	}
	four := a.As4()
	for _, messages := range r.Said {
		if slices.ContainsFunc(messages, func(m Message) bool { return m.Protocol == "sccp" && bytes.Contains(m.Raw, four[:]) }) {
			return true
		}
	}
	return false
}

// Leaks returns what of found may not be seen on the interface of a nameif: an
// address that NAT hides from there, and one that neither an end has said nor
// the box owns.
func (r *Result) Leaks(nameif string, found []Finding) []Finding {
	i := r.box.Interface(nameif)
	var leaks []Finding
	for _, f := range found {
		switch {
		case f.Addr.IsUnspecified() || f.Addr.IsLoopback() || f.Addr.IsMulticast():
		case r.box.Appliance().Owns(i, f.Addr):
		case r.box.Appliance().Hides(i, f.Addr):
			f.Where = "hidden by NAT, in " + f.Where
			leaks = append(leaks, f)
		case !r.IsSaid(f.Addr):
			f.Where = "nobody's, in " + f.Where
			leaks = append(leaks, f)
		}
	}
	return leaks
}
