package replay

import (
	"context"
	"log/slog"
)

// timedLog has a log keep the time of the captures.
type timedLog struct {
	slog.Handler
	box *Box
}

func (l timedLog) Handle(ctx context.Context, rec slog.Record) error {
	rec.Time = l.box.now
	return l.Handler.Handle(ctx, rec)
}

func (l timedLog) WithAttrs(as []slog.Attr) slog.Handler {
	return timedLog{l.Handler.WithAttrs(as), l.box}
}

func (l timedLog) WithGroup(name string) slog.Handler {
	return timedLog{l.Handler.WithGroup(name), l.box}
}
