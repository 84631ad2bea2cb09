package logging

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"unicode"
)

// Handler returns the slog.Handler of l. A record whose text begins with
// "%ASA-LEVEL-NUMBER: " is that message; any other gets the number of its text,
// and its level becomes the severity. Attributes follow the text.
func (l *Log) Handler() slog.Handler { return &handler{log: l, also: l.cfg.Also} }

type handler struct {
	log    *Log
	also   slog.Handler
	attrs  string // formatted, each after a space
	prefix string // of the keys to come: the groups that are open
}

func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= h.log.view.Load().least || h.also != nil && h.also.Enabled(ctx, level)
}

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	number, level, text, ok := parsePrefix(r.Message)
	if !ok {
		number, level, text = numberOf(r.Message), severityOf(r.Level), r.Message
	}
	if h.log.Wants(number, level) {
		var b strings.Builder
		b.WriteString(text)
		b.WriteString(h.attrs)
		r.Attrs(func(a slog.Attr) bool {
			appendAttr(&b, h.prefix, a)
			return true
		})
		h.log.Message(number, level, b.String())
	}
	if h.also != nil && h.also.Enabled(ctx, r.Level) {
		return h.also.Handle(ctx, r)
	}
	return nil
}

func (h *handler) WithAttrs(as []slog.Attr) slog.Handler {
	g := *h
	var b strings.Builder
	b.WriteString(h.attrs)
	for _, a := range as {
		appendAttr(&b, h.prefix, a)
	}
	g.attrs = b.String()
	if h.also != nil {
		g.also = h.also.WithAttrs(as)
	}
	return &g
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	g := *h
	g.prefix += name + "."
	if h.also != nil {
		g.also = h.also.WithGroup(name)
	}
	return &g
}

// appendAttr writes " key=value", the value quoted where it would not be plain.
func appendAttr(b *strings.Builder, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	switch {
	case a.Equal(slog.Attr{}):
		return
	case v.Kind() == slog.KindGroup:
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, x := range v.Group() {
			appendAttr(b, prefix, x)
		}
		return
	}
	b.WriteByte(' ')
	b.WriteString(prefix)
	b.WriteString(a.Key)
	b.WriteByte('=')
	if s := v.String(); s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == ' ' || r == '"' || r == '=' || !unicode.IsPrint(r) }) {
		b.WriteString(strconv.Quote(s))
	} else {
		b.WriteString(s)
	}
}

const prefix = "%ASA-"

// parsePrefix reads "%ASA-6-302013: text".
func parsePrefix(s string) (number, level int, text string, ok bool) {
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok || len(rest) < len("6-302013: ") || rest[0] < '0' || rest[0] > '7' || rest[1] != '-' || rest[8:10] != ": " {
		return 0, 0, "", false
	}
	for _, d := range []byte(rest[2:8]) {
		if d < '0' || d > '9' {
			return 0, 0, "", false
		}
		number = number*10 + int(d-'0')
	}
	return number, int(rest[0] - '0'), rest[10:], number >= 100000
}

// severityOf returns the syslog severity of a record's level.
func severityOf(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l > slog.LevelInfo:
		return 5
	case l == slog.LevelInfo:
		return 6
	}
	return 7
}
