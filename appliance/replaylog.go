package appliance

import (
	"context"
	"log/slog"
)

// replayLog has a log keep the time of the captures.
type replayLog struct {
	slog.Handler
	r *Replay
}

func (l replayLog) Handle(ctx context.Context, rec slog.Record) error {
	rec.Time = l.r.now
	return l.Handler.Handle(ctx, rec)
}

func (l replayLog) WithAttrs(as []slog.Attr) slog.Handler {
	return replayLog{l.Handler.WithAttrs(as), l.r}
}

func (l replayLog) WithGroup(name string) slog.Handler {
	return replayLog{l.Handler.WithGroup(name), l.r}
}
