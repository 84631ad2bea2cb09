package console

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

func configureTerminal(s *Session, _ io.Writer, _ cli.Args) error {
	s.config, s.at = true, config.Place{}
	return nil
}

// configureMemory merges what is on flash into what runs: all lines or none.
func configureMemory(s *Session, w io.Writer, _ cli.Args) error {
	saved, err := s.box.Saved()
	if err == nil {
		err = s.box.Merge(saved)
	}
	if err != nil {
		return notExist(err)
	}
	s.changed("merged " + startupName)
	_, err = fmt.Fprintf(w, "%d lines copied\n", strings.Count(saved.String(), "\n"))
	return err
}

// configureReplace makes what is on flash what runs, as a whole.
func configureReplace(s *Session, w io.Writer, a cli.Args) error {
	saved, err := s.box.Saved()
	if err != nil {
		return notExist(err)
	}
	return s.replace(w, saved, startupName, a.Has("noconfirm"))
}

// replace makes text, of a file, what runs. Unless it is confirmed already it shows
// what changes and asks.
func (s *Session) replace(w io.Writer, text config.Text, name string, confirmed bool) error {
	if !confirmed {
		if err := config.Diff(w, s.box.Text(), text); err != nil {
			return err
		}
		if yes, err := s.t.confirm("Replace the running configuration?"); err != nil || !yes {
			return err
		}
	}
	if err := s.box.Replace(text); err != nil {
		return err
	}
	s.changed("replaced by " + name)
	s.at = config.Place{}
	return nil
}

// changed logs that the configuration changed otherwise than by a line.
func (s *Session) changed(how string) {
	s.box.log(5, 111010, "User '%s', running 'CLI' from IP %s, executed '%s'", s.name(), s.address(), how)
}

func writeMemory(s *Session, w io.Writer, a cli.Args) error {
	if a.Has("copy") && !a.Has("/noconfirm") && s.t.Terminal {
		name, err := s.t.ask("\nSource filename [running-config]? ", false)
		if err != nil {
			return err
		}
		if name = strings.TrimSpace(name); name != "" && name != "running-config" {
			return fmt.Errorf("%%Error opening system:/%s (No such file or directory)", name)
		}
	}
	if !a.Has("copy") {
		fmt.Fprintln(w, "Building configuration...")
	}
	n, sum, err := s.box.Save()
	if err != nil {
		return fmt.Errorf("%% Error writing the configuration, which is as it was: %w", err)
	}
	_, err = fmt.Fprintf(w, "Cryptochecksum: %s\n\n%d bytes copied\n", sum, n)
	if err == nil && !a.Has("copy") {
		_, err = fmt.Fprintln(w, "[OK]")
	}
	return err
}

func writeErase(s *Session, w io.Writer, _ cli.Args) error {
	if yes, err := s.t.confirm("Erase configuration in flash memory?"); err != nil || !yes {
		return err
	}
	s.box.changing.Lock()
	err := s.box.opt.Startup.Erase()
	s.box.changing.Unlock()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, "[OK]")
	return err
}

// maxDelay bounds "reload in".
const maxDelay = 7 * 24 * time.Hour

// parseDelay reads minutes, or hours and minutes as hh:mm.
func parseDelay(word string) (time.Duration, error) {
	h, m, both := strings.Cut(word, ":")
	if !both {
		h, m = "0", word
	}
	hours, err1 := strconv.Atoi(h)
	mins, err2 := strconv.Atoi(m)
	d := time.Duration(hours)*time.Hour + time.Duration(mins)*time.Minute
	if err1 != nil || err2 != nil || hours < 0 || mins < 0 || hours > 1000 || mins > 100_000 || both && mins > 59 || d <= 0 || d > maxDelay {
		return 0, fmt.Errorf("%.40s is no time: minutes, or hh:mm, up to a week", word)
	}
	return d, nil
}

func reload(s *Session, w io.Writer, a cli.Args) error {
	if s.box.opt.Reload == nil {
		return errors.New("% This box cannot start itself again: end the program and run it again")
	}
	if a.Has("save-config") {
		if _, _, err := s.box.Save(); err != nil {
			return err
		}
	}
	var d time.Duration
	if when := a.Get("when"); when != "" {
		d, _ = parseDelay(when)
	}
	if !a.Has("noconfirm") {
		if s.box.Modified() {
			answer, err := s.t.ask("System config has been modified. Save? [Y]es/[N]o: ", false)
			if err != nil {
				return err
			}
			if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "" && strings.HasPrefix("yes", answer) {
				if _, _, err := s.box.Save(); err != nil {
					return err
				}
			}
		}
		if d > 0 {
			fmt.Fprintf(w, "Reload scheduled in %s\n", delay(d))
		}
		if yes, err := s.t.confirm("Proceed with reload?"); err != nil || !yes {
			return err
		}
	}
	s.box.log(1, 199001, "Reload command executed from %s", s.who.From)
	if d == 0 {
		fmt.Fprintf(w, "***\n*** --- START GRACEFUL SHUTDOWN ---\n")
		s.left = true
	}
	s.box.reloadIn(d, a.Get("text"))
	return nil
}

// delay writes a time to wait as the ASA does.
func delay(d time.Duration) string {
	hours, mins := int(d.Hours()), int(d.Minutes())%60
	if hours == 0 {
		return fmt.Sprintf("%d minutes", mins)
	}
	return fmt.Sprintf("%d hours and %d minutes", hours, mins)
}

func reloadCancel(s *Session, w io.Writer, _ cli.Args) error {
	if !s.box.cancelReload() {
		return errors.New("% No reload is scheduled")
	}
	_, err := fmt.Fprintf(w, "***\n*** --- SHUTDOWN ABORTED ---\n")
	return err
}

// A shownReload is when the box starts again.
type shownReload struct {
	Scheduled bool        `json:"scheduled"`
	At        time.Time   `json:"at,omitzero"`
	In        cli.Seconds `json:"in_seconds,omitempty"`
	Reason    string      `json:"reason,omitempty"`
}

func showReload(s *Session, _ cli.Args) (shownReload, error) {
	s.box.mu.Lock()
	r := s.box.reload
	s.box.mu.Unlock()
	if r == nil {
		return shownReload{}, nil
	}
	return shownReload{true, r.at.UTC(), cli.Seconds(r.at.Sub(s.box.opt.Now())), r.why}, nil
}

func (r shownReload) Text(w *bufio.Writer) {
	if !r.Scheduled {
		w.WriteString("No reload is scheduled.\n")
		return
	}
	fmt.Fprintf(w, "Reload scheduled for %s (in %s)\n", r.At.Format("15:04:05 MST Mon Jan 2 2006"), delay(r.In.Duration().Round(time.Minute)))
	if r.Reason != "" {
		fmt.Fprintf(w, "Reload reason: %s\n", r.Reason)
	}
}

// A shownSession is one that is going on.
type shownSession struct {
	ID    int       `json:"id"`
	From  string    `json:"from"` // an address, "console" or "program"
	Since time.Time `json:"since"`
	User  string    `json:"username,omitempty"`
}

type shownSessions struct {
	Sessions cli.List[shownSession] `json:"sessions"`
}

// showSessions finds who is here.
func showSessions(s *Session, a cli.Args) (list shownSessions, _ error) {
	s.box.mu.Lock()
	for x := range s.box.sessions {
		if !a.Has("ssh") || x.who.From != fromConsole {
			list.Sessions = append(list.Sessions, shownSession{From: x.who.From, Since: x.began.UTC(), User: x.who.User})
		}
	}
	s.box.mu.Unlock()
	slices.SortFunc(list.Sessions, func(x, y shownSession) int {
		return cmp.Or(x.Since.Compare(y.Since), strings.Compare(x.From, y.From))
	})
	for k := range list.Sessions {
		list.Sessions[k].ID = k
	}
	return list, nil
}

func (l shownSessions) Text(w *bufio.Writer) {
	if len(l.Sessions) == 0 {
		return
	}
	fmt.Fprintf(w, "%-4s %-18s %-8s %s\n", "SID", "Client IP", "Since", "Username")
	for _, x := range l.Sessions {
		fmt.Fprintf(w, "%-4d %-18s %-8s %s\n", x.ID, x.From, x.Since.Format("15:04:05"), cmp.Or(x.User, "-"))
	}
}
