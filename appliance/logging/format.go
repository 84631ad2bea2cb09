package logging

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxText bounds the text of a message, in bytes, so that it fits a datagram
// with what goes before it. (RFC 5424, section 6.1: 2048 should be taken.)
const maxText = 1024

// A message is one that was logged.
type message struct {
	at            time.Time // UTC
	number, level int
	text          string // clean
}

// clean returns text as one line of printable characters, not longer than
// maxText: what phones and strangers send stands in it.
func clean(text string) string {
	if len(text) <= maxText && !strings.ContainsFunc(text, unprintable) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		s := text[i : i+n]
		if unprintable(r) {
			s = ""
			for _, c := range []byte(text[i : i+n]) {
				s += fmt.Sprintf("\\x%02x", c)
			}
		}
		if b.Len()+len(s) > maxText-len("...") && b.Len()+len(s)+len(text)-i-n > maxText {
			b.WriteString("...")
			break
		}
		b.WriteString(s)
		i += n
	}
	return b.String()
}

func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// line is m as the buffer, the console and sessions have it.
// (reference/asa-cli-show-debug.md, section 5.)
//
//	Nov 27 2026 19:46:17: %ASA-6-302013: Built ...
//	%ASA-6-302013: Built ...
func (m *message) line(v *view) string {
	if !v.set.Timestamp {
		return m.body()
	}
	return m.time(v) + ": " + m.body()
}

// body is m from its number on.
func (m *message) body() string {
	return prefix + strconv.Itoa(m.level) + "-" + strconv.Itoa(m.number) + ": " + m.text
}

// time is when m was, as "logging timestamp" has it.
func (m *message) time(v *view) string {
	if v.set.RFC5424 {
		return m.at.Format("2006-01-02T15:04:05Z")
	}
	return m.at.Format("Jan 02 2006 15:04:05")
}

// sent is m as a host is sent it, without what ends it there.
//
//	<166>Nov 27 2026 19:46:17 pb : %ASA-6-302013: Built ...
//	<166>%ASA-6-302013: Built ...
//	<166>1 2026-11-27T19:46:17.000000Z pb patchbay - 302013 - %ASA-6-302013: Built ...
//
// The last is that of a host with RFC5424. (RFC 5424, section 6.)
func (m *message) sent(v *view, h Host) string {
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>", v.set.Facility*8+m.level)
	if h.RFC5424 {
		host := v.names.Device
		if host == "" {
			host = v.names.Host
		}
		fmt.Fprintf(&b, "1 %s %s patchbay - %d - %s", m.at.Format("2006-01-02T15:04:05.000000Z"), headerField(host), m.number, m.body())
		return b.String()
	}
	if v.set.Timestamp {
		b.WriteString(m.time(v))
	}
	if v.names.Device != "" {
		if v.set.Timestamp {
			b.WriteByte(' ')
		}
		b.WriteString(v.names.Device + " ")
	}
	if b.Len() > len("<166>") {
		b.WriteString(": ")
	}
	b.WriteString(m.body())
	return b.String()
}

// headerField is s as a HOSTNAME: printable ASCII without spaces, 255 at most;
// "-" is none. (RFC 5424, section 6.2.4.)
func headerField(s string) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), 255)]
}

// framed is what s is on a connection: with RFC 5424 its length goes before it,
// else a newline ends it. (RFC 6587, section 3.4; RFC 5425, section 4.3.)
func framed(s string, h Host) string {
	if h.RFC5424 {
		return strconv.Itoa(len(s)) + " " + s
	}
	return s + "\n"
}
