package console

import (
	"bufio"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
)

const (
	maxPrivilege  = 15 // everything
	userPrivilege = 1  // of user EXEC mode
)

// Whoever guesses is slowed down: after freeFailures in a row an address is not
// heard for firstWait, which doubles with each failure up to longestWait.
const (
	freeFailures = 5
	firstWait    = 10 * time.Second
	longestWait  = 15 * time.Minute
	maxFailing   = 4096 // addresses that are remembered
)

var (
	errDenied = errors.New("console: access denied")
	errLocked = errors.New("console: locked out")
)

// Where sessions come from that come from no address.
const (
	fromConsole = "console"
	fromProgram = "program" // Box.Exec
)

// A keeper counts failures to log in.
type keeper struct {
	now func() time.Time

	mu    sync.Mutex
	from  map[string]*failures // by address
	users map[string]int       // failures in a row of users there are
}

type failures struct {
	n     int
	until time.Time // not heard before
	last  time.Time
}

// heard reports whether an address may try.
func (k *keeper) heard(from string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.from[from]
	return f == nil || !k.now().Before(f.until)
}

// failed notes a failure of an address.
func (k *keeper) failed(from string) {
	if from == fromConsole {
		return // who is there needs no password to do harm
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.from == nil {
		k.from = make(map[string]*failures)
	}
	now := k.now()
	f := k.from[from]
	if f == nil || now.Sub(f.last) > 2*longestWait {
		if f == nil && len(k.from) >= maxFailing {
			k.forgetLocked()
		}
		f = new(failures)
		k.from[from] = f
	}
	f.n++
	f.last = now
	if over := f.n - freeFailures; over >= 0 {
		f.until = now.Add(min(longestWait, firstWait<<min(over, 16)))
	}
}

// forgetLocked forgets the address whose last failure is the longest ago.
func (k *keeper) forgetLocked() {
	oldest := ""
	for from, f := range k.from {
		if oldest == "" || f.last.Before(k.from[oldest].last) {
			oldest = from
		}
	}
	delete(k.from, oldest)
}

// userFailed counts a failure of a user, and returns the failures in a row.
func (k *keeper) userFailed(name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.users == nil {
		k.users = make(map[string]int)
	}
	k.users[name]++
	return k.users[name]
}

func (k *keeper) userFailures(name string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.users[name]
}

// passed forgets the failures of an address and of a user.
func (k *keeper) passed(from, name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.from, from)
	delete(k.users, name)
}

// unlock forgets the failures of a user, or of all users if name is "".
func (k *keeper) unlock(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if name == "" {
		clear(k.users)
		return
	}
	delete(k.users, name)
}

// lockedOut reports whether a user has failed too often. As on the ASA nobody
// with all privileges is: somebody must be able to unlock the others.
func (b *Box) lockedOut(u *config.User) bool {
	limit := b.login().MaxFail
	return limit > 0 && u.Privilege < maxPrivilege && b.keeper.userFailures(u.Name) >= limit
}

// check returns the local user of a name if the password is hers.
func (b *Box) check(name, password, from string) (*config.User, error) {
	if !b.keeper.heard(from) {
		return nil, errLocked
	}
	u := b.login().User(name)
	known := u != nil && (u.Empty || u.Password.Kind != config.NoPassword)
	ok := false
	switch {
	case known && u.Empty:
		ok = true
	case known:
		ok = matches(u.Password, u.Name, password)
	default:
		matches(nobody, "", password)
	}
	switch {
	case known && b.lockedOut(u):
		b.keeper.failed(from)
		return nil, errLocked
	case ok && b.remoteOnly(u):
		b.keeper.passed(from, name)
		return nil, errDenied
	case ok:
		b.keeper.passed(from, name)
		return u, nil
	}
	b.keeper.failed(from)
	if known && b.keeper.userFailed(name) == b.login().MaxFail && u.Privilege < maxPrivilege {
		b.log(6, 113006, "User '%s' locked out on exceeding '%d' successive failed authentication attempts", name, b.login().MaxFail)
	}
	return nil, errDenied
}

// remoteOnly reports whether a user is for VPN and may not log in to the box.
func (b *Box) remoteOnly(u *config.User) bool {
	return b.login().AuthorizeExec && u.Service == config.ServiceRemote
}

// checkDefault returns a user for pix or asa if the password is that of passwd,
// on boxes that say they are of a version which has these users.
func (b *Box) checkDefault(name, password, from string) (*config.User, error) {
	if name != "pix" && name != "asa" || !b.running().DefaultUsers() {
		return b.check("", password, from)
	}
	if !b.keeper.heard(from) {
		return nil, errLocked
	}
	if !matches(b.login().Passwd, "", password) {
		b.keeper.failed(from)
		return nil, errDenied
	}
	b.keeper.passed(from, "")
	return &config.User{Name: name, Privilege: userPrivilege}, nil
}

// checkEnable returns the privilege that a password gives to a session of user
// which asks for a level.
func (b *Box) checkEnable(user, password, from string, level int) (int, error) {
	l := b.login()
	if l.EnableLocal && user != "" {
		u, err := b.check(user, password, from)
		if err != nil {
			return 0, err
		}
		if l.AuthorizeExec && u.Service == config.ServicePrompt {
			return 0, errDenied
		}
		if u.Privilege <= userPrivilege || level < maxPrivilege && level > u.Privilege {
			return 0, errDenied
		}
		return min(level, u.Privilege), nil
	}
	if !b.keeper.heard(from) {
		return 0, errLocked
	}
	p := l.Enable[level]
	switch {
	case p.Kind == config.NoPassword && from == fromConsole && password == "":
		return level, nil // of the factory
	case p.Kind == config.NoPassword:
		matches(nobody, "", password)
	case matches(p, "", password):
		b.keeper.passed(from, "")
		return level, nil
	}
	b.keeper.failed(from)
	return 0, errDenied
}

// A localUser is how often a local user has failed to log in, in a row.
type localUser struct {
	Name     string `json:"username"`
	Failures int    `json:"failed_attempts"`
	Locked   bool   `json:"locked"`
}

type localUsers struct {
	Users cli.List[localUser] `json:"users"`
}

func (b *Box) localUsers() (l localUsers) {
	users := slices.Clone(b.login().Users)
	slices.SortFunc(users, func(x, y config.User) int { return strings.Compare(x.Name, y.Name) })
	for _, u := range users {
		l.Users = append(l.Users, localUser{u.Name, b.keeper.userFailures(u.Name), b.lockedOut(&u)})
	}
	return l
}

func (l localUsers) Text(w *bufio.Writer) {
	w.WriteString("Lock-time  Failed-attempts  Locked  User\n")
	for _, u := range l.Users {
		locked := "N"
		if u.Locked {
			locked = "Y"
		}
		fmt.Fprintf(w, "    -      %6d             %s     %s\n", u.Failures, locked, u.Name)
	}
}
