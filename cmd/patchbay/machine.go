package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance"
)

// notify tells the service manager that started the program a state, as systemd
// and process 1 of the VM image hear it; without one it does nothing.
// (sd_notify(3).)
func notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if strings.HasPrefix(name, "@") { // an abstract one
		name = "\x00" + name[1:]
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, state); err != nil {
		return fmt.Errorf("NOTIFY_SOCKET: %w", err)
	}
	return nil
}

// announce notifies that the box is up, and from then on at half the interval that
// WATCHDOG_USEC says that it still does commands, until stop. (sd_watchdog_enabled(3).)
func announce(ctx context.Context, a *appliance.Appliance) (stop func(), err error) {
	if err := notify("READY=1"); err != nil {
		return nil, err
	}
	usec, err := strconv.ParseUint(os.Getenv("WATCHDOG_USEC"), 10, 32)
	if err != nil || usec == 0 {
		return func() {}, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(time.Duration(usec) * time.Microsecond / 2)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			err := a.Exec(io.Discard, "show clock")
			if err == nil {
				err = notify("WATCHDOG=1")
			}
			if err != nil {
				a.Log().Error("watchdog", "reason", err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}, nil
}

// hearMachine logs what the machine that the box runs on has to say: lines in a
// FIFO, with a priority as in the kernel's log, "<3>text". It never ends by
// itself, for the FIFO is open for writing here, too.
func hearMachine(fifo string, log *slog.Logger) (end func(), err error) {
	f, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("--machine: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for r := bufio.NewReader(f); ; {
			line, err := r.ReadString('\n')
			if err != nil {
				return // closed
			}
			level, text := slog.LevelError, strings.TrimSpace(line)
			if rest, ok := strings.CutPrefix(text, "<"); ok && len(rest) > 1 && rest[1] == '>' {
				text = rest[2:]
				switch p := rest[0]; {
				case p == '4':
					level = slog.LevelWarn
				case p > '4':
					level = slog.LevelInfo
				}
			}
			log.Log(context.Background(), level, "machine", "reason", text)
		}
	}()
	return func() {
		f.Close()
		<-done
	}, nil
}
