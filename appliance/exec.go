package appliance

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"patchbay/appliance/cli"
	"patchbay/appliance/config"
	"patchbay/appliance/dns"
)

// maxExecLine bounds a command, in bytes. The ASA's own limit is 510.
const maxExecLine = 510

// An execFunc does one command and writes what it shows. What it refuses it
// says by the ASA's words, as a *Refusal or an error.
type execFunc func(x *execution, a cli.Args) error

// show makes the execFunc of a show command, which finds out what is to be shown
// and leaves it to others to write it.
func show[T cli.Shown](find func(x *execution, a cli.Args) (T, error)) execFunc {
	return func(x *execution, a cli.Args) error {
		found, err := find(x, a)
		if err == nil {
			x.shown = found
		}
		return err
	}
}

// An execution is one command being done.
type execution struct {
	*Appliance
	ctx           context.Context // ends a command that takes time
	*bufio.Writer                 // what it shows; its first error stays
	plan          *plan           // as the command began
	running       *config.Running // the same
	pasted        []byte          // what follows the command, or nil
	ask           AskFunc         // nil: nobody is there to be asked
	shown         cli.Shown       // what a show command has found out, or nil
}

// An AskFunc puts a question, which says that yes or no is the answer, to who gave
// a command.
type AskFunc func(question string) (yes bool, err error)

// confirmed has who gave the command answer a question, after what the command has
// shown. Where nobody is there to be asked it is yes.
func (x *execution) confirmed(question string) (bool, error) {
	if x.ask == nil {
		return true, nil
	}
	if err := x.Flush(); err != nil {
		return false, err
	}
	return x.ask(question)
}

func (x *execution) printf(format string, args ...any) { fmt.Fprintf(x.Writer, format, args...) }

// A Refusal is why Exec did not do a command.
type Refusal struct {
	Line string // the command
	Col  int    // of the word that is wrong, in bytes from 1; 0: no word is
	Text string // what the ASA says: "% Incomplete command"
	Why  string // more about it, or ""
}

// Error returns what an operator gets to see: the command with a caret below,
// and what is wrong.
func (r *Refusal) Error() string {
	s := "ERROR: " + r.Text
	if r.Col > 0 && strings.Contains(r.Text, "'^'") {
		s = r.Line + "\n" + cli.Caret(r.Line, r.Col) + "\n" + s
	}
	if r.Why != "" {
		s += "\n" + r.Why
	}
	return s
}

// Exec does one command of the privileged EXEC mode and writes what it shows to
// w. Keywords may be abbreviated. What the ASA would refuse is a *Refusal; other
// errors are of w and of files. The output depends on the box, its clock and the
// command only, but for what asks others: ping, traceroute. Any number of goroutines
// may call it, while the box runs. A show command that "| json" follows is shown as
// one JSON document; see cli.Shown.
//
// A command that a text must follow, such as a certificate, is a *NeedText error:
// ask for it, and call ExecText.
func (a *Appliance) Exec(w io.Writer, line string) error { return a.ExecText(w, line, nil) }

// ExecText is Exec for a command and the text pasted after it.
func (a *Appliance) ExecText(w io.Writer, line string, pasted []byte) error {
	return a.ExecContext(context.Background(), w, line, pasted)
}

// ExecContext is ExecText for a caller who may not wait for the end: when ctx does,
// a command that takes time stops. pasted may be nil.
func (a *Appliance) ExecContext(ctx context.Context, w io.Writer, line string, pasted []byte) error {
	return a.ExecAsking(ctx, w, line, pasted, nil)
}

// ExecAsking is ExecContext where somebody can be asked what an ASA asks: the
// certificate of a CA is not trusted, nor an identity made, before that is yes.
// (reference/asa-cli.md, section 7.)
func (a *Appliance) ExecAsking(ctx context.Context, w io.Writer, line string, pasted []byte, ask AskFunc) error {
	if line, asJSON := cli.CutJSON(line); asJSON {
		found, err := a.Shown(ctx, line)
		if err != nil {
			return err
		}
		return cli.Show(w, found, true)
	}
	x, m, err := a.match(ctx, w, line)
	if err != nil {
		return err
	}
	x.pasted, x.ask = pasted, ask
	failed := m.Rule.Do(x, m.Args)
	if failed == nil && x.shown != nil {
		return cli.Show(w, x.shown, false)
	}
	return cmp.Or(failed, x.Flush())
}

// Shown returns what a show command finds out, for a caller who writes it himself:
// its text and its JSON are then of one moment. A command that does anything else
// is refused and not done. Otherwise it is as ExecContext.
func (a *Appliance) Shown(ctx context.Context, line string) (cli.Shown, error) {
	x, m, err := a.match(ctx, io.Discard, line)
	if err != nil {
		return nil, err
	}
	if cli.Shows(line) {
		err = m.Rule.Do(x, m.Args)
	}
	if err == nil && x.shown == nil {
		err = refuse("%% This command cannot be shown as JSON")
	}
	return x.shown, err
}

// match finds the command that a line is, to be done as the box is now.
func (a *Appliance) match(ctx context.Context, w io.Writer, line string) (*execution, *cli.Match[execFunc], error) {
	if len(line) > maxExecLine {
		return nil, nil, &Refusal{Text: fmt.Sprintf("%% Command of %d bytes is too long: %d at most", len(line), maxExecLine)}
	}
	if i := strings.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		return nil, nil, &Refusal{Text: fmt.Sprintf("%% Command has the control character %q", line[i])}
	}
	pl := a.plan()
	x := &execution{Appliance: a, ctx: ctx, Writer: bufio.NewWriter(w), plan: pl, running: pl.running}
	m, err := execGrammar.Match(line, x.checkWord)
	if err != nil {
		return nil, nil, &Refusal{Line: hideSecrets(line), Col: err.Token.Col, Text: err.Error(), Why: err.Reason}
	}
	return x, m, nil
}

// ExecSyntax returns the syntax of the commands that Exec does, and their help.
func ExecSyntax() []cli.Rule[struct{}] {
	var list []cli.Rule[struct{}]
	for _, r := range execRules() {
		list = append(list, cli.Rule[struct{}]{Syntax: r.Syntax, Help: r.Help})
	}
	return list
}

// CheckExec is the cli.Check for the syntax of ExecSyntax.
func (a *Appliance) CheckExec(kind, word string) error {
	pl := a.plan()
	return (&execution{Appliance: a, plan: pl, running: pl.running}).checkWord(kind, word)
}

// refuse refuses a command that is well-formed.
func refuse(format string, args ...any) error {
	return &Refusal{Text: fmt.Sprintf(format, args...)}
}

// execRules are the commands of EXEC mode, each in the file of its family.
// (reference/asa-cli-show-debug.md, section 1.)
func execRules() []cli.Rule[execFunc] {
	return slices.Concat(
		showConnCommands, showNATCommands, showACLCommands, showNetCommands, showASPCommands, showPolicyCommands, showSystemCommands, showLoadCommands,
		showLoggingCommands, clearCommands, captureCommands, traceCommands, cryptoCommands, showCryptoCommands, ctlCommands,
		showPhoneCommands, debugCommands, dnsCommands, pingCommands, showLicenseCommands, showStateCommands, showTrafficCommands,
	)
}

var execGrammar = cli.MustCompile(execRules())

// checkWord is the cli.Check of EXEC mode.
func (x *execution) checkWord(kind, word string) (err error) {
	switch kind {
	case "addr":
		_, err = x.execAddr(word)
	case "addrs":
		_, _, err = x.execAddrs(word)
	case "host":
		if _, bad := x.execAddr(word); bad != nil && !dns.ValidName(word) {
			err = fmt.Errorf("%.80s is neither an IPv4 address nor a name", word)
		}
	case "source":
		if x.plan.named(word) == nil {
			_, err = x.execAddr(word)
		}
	case "pattern":
		_, err = pingPattern(word)
	case "fileurl":
		_, err = fileURL(word)
	case "mask":
		_, err = config.ParseMask(word)
	case "port":
		_, err = config.ParsePort(word)
	case "ports":
		_, _, err = execPorts(word)
	case "proto":
		_, err = config.ParseProto(word)
	case "icmptype":
		_, err = config.ParseICMPType(word)
	case "if", "anyif":
		if x.plan.named(word) == nil && (kind == "if" || word != x.identity.Name) {
			if names := x.interfaceNames(); len(names) > 0 {
				err = fmt.Errorf("there is no interface %.80s; there are %s", word, strings.Join(names, ", "))
			} else {
				err = fmt.Errorf("there is no interface %.80s; none is up yet that has a name and an address", word)
			}
		}
	case "acl":
		if x.running.AccessList(word) == nil {
			err = fmt.Errorf("there is no access-list %.80s", word)
		}
	case "phone":
		err = x.checkPhone(word)
	case "reason":
		if _, ok := dropNamed(word); !ok {
			err = fmt.Errorf("%.80s is no reason for a drop; \"show asp drop\" has their names", word)
		}
	case "trustpoint":
		if !x.hasTrustpoint(word) {
			err = fmt.Errorf("there is no trustpoint %.80s", word)
		}
	case "ctl":
		if x.running.CTL(word) == nil {
			err = fmt.Errorf("there is no ctl-file %.80s", word)
		}
	case "label", "secret", "hex":
	case "name":
		if len(word) > maxCaptureName || strings.ContainsAny(word, "/\\:\"'()?") {
			err = fmt.Errorf("%.80s is no name", word)
		}
	default:
		panic("appliance: syntax names unknown kind " + kind)
	}
	return err
}

// interfaceNames are the nameifs, in the order of the configuration.
func (x *execution) interfaceNames() []string {
	var names []string
	for _, i := range x.plan.interfaces {
		names = append(names, i.Name)
	}
	return names
}

// execAddr reads an address, or a label of a "name" line for one.
func (x *execution) execAddr(word string) (netip.Addr, error) {
	if addr, ok := x.running.Names[word]; ok {
		return addr, nil
	}
	addr, err := netip.ParseAddr(word)
	if err != nil || !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("%.80s is not an IPv4 address", word)
	}
	return addr, nil
}

// execAddrs reads "A" or "A-B".
func (x *execution) execAddrs(word string) (from, to netip.Addr, err error) {
	first, last, isRange := strings.Cut(word, "-")
	if _, label := x.running.Names[word]; label || !isRange {
		first, last = word, word
	}
	if from, err = x.execAddr(first); err == nil {
		to, err = x.execAddr(last)
	}
	if err == nil && to.Less(from) {
		err = fmt.Errorf("the range %s runs backwards", word)
	}
	return from, to, err
}

// execPorts reads "P" or "P-Q", by number or name.
func execPorts(word string) (from, to uint16, err error) {
	if from, err = config.ParsePort(word); err == nil {
		return from, from, nil
	}
	first, last, isRange := strings.Cut(word, "-")
	if !isRange {
		return 0, 0, err
	}
	if from, err = config.ParsePort(first); err == nil {
		to, err = config.ParsePort(last)
	}
	if err == nil && to < from {
		err = fmt.Errorf("the range %s runs backwards", word)
	}
	return from, to, err
}
