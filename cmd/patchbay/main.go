// Command patchbay is the appliance and its tools. See "patchbay help".
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/image/guest"
)

// errReported ends a command whose findings have been printed already.
var errReported = errors.New("reported")

func main() {
	// In the VM image the kernel starts this program as its init. In a container
	// it may be process 1, too, but not by that name.
	if os.Getpid() == 1 && filepath.Base(os.Args[0]) == "init" {
		guest.Main()
	}
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
	c.AddCommand(runCommand(), execCommand(), checkCommand(), importCommand(), demoCommand(), labCommand(), imageCommand(), replayCommand(), caCommand(), pkiCommand(), ctlCommand(), sgnCommand(), versionCommand())
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
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l})), nil
}

// pair splits "NAMEIF=DRIVER:DEVICE" and its like.
func pair(s string) (key, value string, err error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" || value == "" {
		return "", "", fmt.Errorf("%q: want NAMEIF=DRIVER:DEVICE, such as outside=packet:eth0", s)
	}
	return key, value, nil
}

// require says that a command cannot do without flags that it has.
func require(c *cobra.Command, names ...string) {
	for _, name := range names {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // it has no such flag
		}
	}
}
