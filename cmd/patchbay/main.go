// Command patchbay is the appliance and its tools. See "patchbay help".
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/appliance/config"
)

// errReported ends a command whose findings have been printed already.
var errReported = errors.New("reported")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := root().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errReported) {
			fmt.Fprintln(os.Stderr, "patchbay:", err)
		}
		os.Exit(1)
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "patchbay",
		Short:         "An ASA Phone Proxy in userspace: phones at home, no VPN",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.AddCommand(runCommand(), execCommand(), checkCommand(), demoCommand(), replayCommand(), caCommand(), pkiCommand(), ctlCommand(), sgnCommand(), versionCommand())
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, revision := appliance.Version()
			if revision != "" {
				revision = " " + revision
			}
			fmt.Fprintf(cmd.OutOrStdout(), "patchbay %s%s, %s\n", version, revision, runtime.Version())
			return nil
		},
	}
}

// logger writes to standard error, at the level that --log-level names.
func logger(level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", level)
	}
	return newLogger(l, nil), nil
}

// configured is the logger that a configuration asks for: "logging enable" and
// the most talkative of its levels, without the messages it turns off. Without
// "logging enable" only what the box cannot do is said.
func configured(l config.Logging) *slog.Logger {
	if !l.Enable {
		return newLogger(slog.LevelError, nil)
	}
	level := slog.LevelWarn
	switch most := max(l.Buffered, l.Console, l.Monitor, l.Trap, l.History, l.ASDM); { // syslog severities
	case most >= 7:
		level = slog.LevelDebug
	case most >= 5:
		level = slog.LevelInfo
	case most >= 0 && most <= 3:
		level = slog.LevelError
	}
	return newLogger(level, l.Disabled)
}

func newLogger(level slog.Level, disabled []int) *slog.Logger {
	h := slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
	if len(disabled) == 0 {
		return slog.New(h)
	}
	return slog.New(quiet{h, disabled})
}

// quiet leaves out the messages of "no logging message NUMBER".
type quiet struct {
	slog.Handler
	numbers []int
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if rest, ok := strings.CutPrefix(r.Message, "%ASA-"); ok {
		_, rest, _ = strings.Cut(rest, "-")
		number, _, _ := strings.Cut(rest, ":")
		for _, n := range q.numbers {
			if number == strconv.Itoa(n) {
				return nil
			}
		}
	}
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(as []slog.Attr) slog.Handler {
	return quiet{q.Handler.WithAttrs(as), q.numbers}
}
func (q quiet) WithGroup(name string) slog.Handler {
	return quiet{q.Handler.WithGroup(name), q.numbers}
}

// pair splits "NAMEIF=DRIVER:DEVICE" and its like.
func pair(s string) (key, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" || value == "" {
		return "", "", fmt.Errorf("%q: want NAMEIF=DRIVER:DEVICE, such as outside=packet:eth0", s)
	}
	return key, value, nil
}
