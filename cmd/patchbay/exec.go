package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func execCommand() *cobra.Command {
	var socket, flash string
	c := &cobra.Command{
		Use:   "exec {--flash DIR | --socket PATH} COMMAND ...",
		Short: "Have a running box do a command of EXEC mode",
		Long: `Has the box that "patchbay run" made do a command of the ASA's privileged EXEC
mode, and prints what it shows: show, clear, capture, copy, packet-tracer, ping,
traceroute. Keywords may be abbreviated, and filters follow as at a console:
"| include ssh", "| json". After a debug command it goes on with what debug shows
until it is interrupted; "undebug all" ends debug itself. Exits 1 if the box refused
the command.`,
		Example: `  patchbay exec --flash /var/lib/patchbay show conn detail
  patchbay exec --flash /var/lib/patchbay 'show conn | json'
  patchbay exec --flash /var/lib/patchbay packet-tracer input outside tcp 198.51.100.7 4000 203.0.113.10 2443`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if socket == "" {
				if flash == "" {
					return errors.New("where is the box? Give --flash as \"patchbay run\" has it, or its --socket")
				}
				socket = filepath.Join(flash, controlName)
			}
			return execIn(cmd, socket, args)
		},
	}
	f := c.Flags()
	f.StringVar(&socket, "socket", "", "the box's socket; default: "+controlName+" in --flash")
	f.StringVar(&flash, "flash", "", "the box's flash directory")
	f.SetInterspersed(false) // what follows the command is the command's
	return c
}

// execIn has the box that listens on socket do a command.
func execIn(cmd *cobra.Command, socket string, args []string) error {
	line := strings.Join(args, " ")
	if strings.ContainsAny(line, "\r\n") || len(line) >= maxControlLine {
		return fmt.Errorf("a command is one line of up to %d bytes", maxControlLine-1)
	}
	err := askControl(cmd.Context(), socket, line, cmd.OutOrStdout())
	var refused refusedError
	if errors.As(err, &refused) {
		fmt.Fprintln(cmd.ErrOrStderr(), refused)
		return errReported
	}
	if cmd.Context().Err() != nil && isDebug(line) {
		return nil // it was interrupted
	}
	if err != nil {
		return fmt.Errorf("%s: %w", socket, err)
	}
	return nil
}
