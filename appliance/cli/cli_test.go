package cli_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/cli"
)

// check knows addresses; every other kind takes any word.
func check(kind, word string) error {
	if kind != "addr" {
		return nil
	}
	if _, err := netip.ParseAddr(word); err != nil {
		return errors.New(word + " is not an address")
	}
	return nil
}

var syntax = []cli.Rule[string]{
	{Syntax: "hostname <name:word>", Help: "Name the box", Do: "hostname"},
	{Syntax: "[no] shutdown", Help: "Stop", Do: "shutdown"},
	{Syntax: "show <what:line>", Help: "Show", Do: "show"},
	{Syntax: "route <if:word> <dest:addr> <gateway:addr> [<metric:1-255>]", Do: "route"},
	{Syntax: "permit src={any | host <addr>} [sport={eq <port:0-65535>}] dst={any | host <addr>} [log]", Do: "permit"},
	{Syntax: "timeout {conn <c:word> | udp <u:word> | uauth <a:word> [absolute]}...", Do: "timeout"},
	{Syntax: "inspect sip [<map:word>] [phone-proxy <pp:word>]", Do: "inspect"},
	{Syntax: "crypto ca enroll <tp:word>", Do: "enroll"},
	{Syntax: "crypto ca export <tp:word>", Do: "export"},
	{Syntax: "crypto <rest:line>", Do: "crypto"},
	{Syntax: "server {<addr>}... [<if:word>]", Do: "server"},
	{Syntax: "static {<obj:word> | interface}", Do: "static"},
}

func TestMatch(t *testing.T) {
	g := cli.MustCompile(syntax)
	tests := []struct {
		line string
		do   string
		args string // name=text@column of each word
	}{
		{"hostname pb", "hostname", "hostname=hostname@1 name=pb@10"},
		{"  host\tpb ", "hostname", "hostname=host@3 name=pb@8"},
		{"HOSTNAME pb", "hostname", "hostname=HOSTNAME@1 name=pb@10"},
		{"no sh", "shutdown", "no=no@1 shutdown=sh@4"},
		{"show running-config  nat \t", "show", "show=show@1 what=running-config  nat@6"},
		{"route outside 10.0.0.0 10.0.0.1", "route", "route=route@1 if=outside@7 dest=10.0.0.0@15 gateway=10.0.0.1@24"},
		{"ro o 10.0.0.0 10.0.0.1 7", "route", "route=ro@1 if=o@4 dest=10.0.0.0@6 gateway=10.0.0.1@15 metric=7@24"},
		{"permit host 10.0.0.1 eq 69 any log", "permit",
			"permit=permit@1 src.host=host@8 src.addr=10.0.0.1@13 sport.eq=eq@22 sport.port=69@25 dst.any=any@28 log=log@32"},
		{"permit any h 10.0.0.1", "permit", "permit=permit@1 src.any=any@8 dst.host=h@12 dst.addr=10.0.0.1@14"},
		{"timeout conn 1 uauth 2 absolute udp 3", "timeout",
			"timeout=timeout@1 conn=conn@9 c=1@14 uauth=uauth@16 a=2@22 absolute=absolute@24 udp=udp@33 u=3@37"},
		{"inspect sip", "inspect", "inspect=inspect@1 sip=sip@9"},
		{"inspect sip phone-proxy pp", "inspect", "inspect=inspect@1 sip=sip@9 phone-proxy=phone-proxy@13 pp=pp@25"},
		{"inspect sip ph pp", "inspect", "inspect=inspect@1 sip=sip@9 phone-proxy=ph@13 pp=pp@16"},
		{"inspect sip ph", "inspect", "inspect=inspect@1 sip=sip@9 map=ph@13"},
		{"inspect sip strict phone-proxy pp", "inspect", "inspect=inspect@1 sip=sip@9 map=strict@13 phone-proxy=phone-proxy@20 pp=pp@32"},
		{"crypto ca en tp", "enroll", "crypto=crypto@1 ca=ca@8 enroll=en@11 tp=tp@14"},
		{"crypto map x", "crypto", "crypto=crypto@1 rest=map x@8"},
		{"server 10.0.0.1 10.0.0.2 inside", "server", "server=server@1 addr=10.0.0.1@8 addr=10.0.0.2@17 if=inside@26"},
		{"static interface", "static", "static=static@1 interface=interface@8"},
		{"static inter", "static", "static=static@1 obj=inter@8"},
	}
	for _, tt := range tests {
		m, err := g.Match(tt.line, check)
		if err != nil {
			t.Errorf("Match(%q) = %v at %v (%s)", tt.line, err, err.Token, err.Reason)
			continue
		}
		var args []string
		seen := make(map[string]int)
		for _, name := range m.Args.Names() {
			tok := m.Args.All(name)[seen[name]]
			seen[name]++
			args = append(args, fmt.Sprintf("%s=%s@%d", name, tok.Text, tok.Col))
		}
		if got := strings.Join(args, " "); m.Rule.Do != tt.do || got != tt.args {
			t.Errorf("Match(%q) = %s, %s\nwant %s, %s", tt.line, m.Rule.Do, got, tt.do, tt.args)
		}
	}
}

func TestMatchError(t *testing.T) {
	g := cli.MustCompile(syntax)
	tests := []struct {
		line   string
		text   string // of the error
		col    int
		words  int
		reason string
		want   string // expected, joined
	}{
		{"frobnicate", "% Invalid input detected at '^' marker.", 1, 0, "", "crypto hostname inspect no permit route server show shutdown static timeout"},
		{"route outside 10.0.0.300 10.0.0.1", "% Invalid input detected at '^' marker.", 15, 2, "10.0.0.300 is not an address", "<dest>"},
		{"route outside 10.0.0.0 10.0.0.1 256", "% Invalid input detected at '^' marker.", 33, 4, "256 is not in the range 1-255", "<1-255> <cr>"},
		{"route outside 10.0.0.0 10.0.0.1 x", "% Invalid input detected at '^' marker.", 33, 4, "x is not a number", "<1-255> <cr>"},
		{"route outside 10.0.0.0", "% Incomplete command", 24, 3, "", "<gateway>"},
		{"s", `% Ambiguous command:  "s"`, 1, 0, "", "server show shutdown static"},
		{"crypto ca e tp", `% Ambiguous command:  "e"`, 11, 2, "", "enroll export"},
		{"crypto ca bogus", "% Invalid input detected at '^' marker.", 11, 2, "", "enroll export"},
		{"shutdown now", "% Invalid input detected at '^' marker.", 10, 1, "", "<cr>"},
		{"", "% Incomplete command", 2, 0, "", "crypto hostname inspect no permit route server show shutdown static timeout"},
		{"show", "% Incomplete command", 6, 1, "", "<what>"},
	}
	for _, tt := range tests {
		_, err := g.Match(tt.line, check)
		if err == nil {
			t.Errorf("Match(%q) matched, want %s", tt.line, tt.text)
			continue
		}
		if err.Error() != tt.text || err.Token.Col != tt.col || err.Words != tt.words || err.Reason != tt.reason ||
			strings.Join(err.Expected, " ") != tt.want {
			t.Errorf("Match(%q) = %s at %d after %d, %q, %q\nwant %s at %d after %d, %q, %q", tt.line,
				err, err.Token.Col, err.Words, err.Reason, err.Expected, tt.text, tt.col, tt.words, tt.reason, tt.want)
		}
	}
}

func TestComplete(t *testing.T) {
	g := cli.MustCompile(syntax)
	tests := []struct {
		line string
		want []cli.Candidate
	}{
		{"s", []cli.Candidate{{"server", "", "", ""}, {"show", "Show", "", ""}, {"shutdown", "Stop", "", ""}, {"static", "", "", ""}}},
		{"h", []cli.Candidate{{"hostname", "Name the box", "", ""}}},
		{"no ", []cli.Candidate{{"shutdown", "Stop", "", ""}}},
		{"permit any ", []cli.Candidate{{"any", "", "", ""}, {"eq", "", "", ""}, {"host", "", "", ""}}},
		{"crypto ca e", []cli.Candidate{{"enroll", "", "", ""}, {"export", "", "", ""}}},
		{"timeout conn 1 ", []cli.Candidate{{"<cr>", "", "", ""}, {"conn", "", "", ""}, {"uauth", "", "", ""}, {"udp", "", "", ""}}},
		{"route outside 10.0.0.0 10.0.0.1 ", []cli.Candidate{{"<1-255>", "", "1-255", "metric"}, {"<cr>", "", "", ""}}},
		{"frobnicate x", nil},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, g.Complete(tt.line, check)); diff != "" {
			t.Errorf("Complete(%q) (-want +got):\n%s", tt.line, diff)
		}
	}
}

func TestHelp(t *testing.T) {
	g := cli.MustCompile(syntax)
	v := cli.Vocabulary{"any": "Any address", "host": "One host", "host <addr>": "Its address", "<addr>": "Address",
		"permit any any": "Any destination", "here: route": "A route"}
	tests := []struct {
		line string
		want string // word=help of each
		err  string
	}{
		{"permit ", "any=Any address host=One host", ""},
		{"permit any ", "any=Any destination eq= host=One host", ""},
		{"permit any h", "host=One host", ""},
		{"permit host ", "<addr>=Its address", ""},
		{"server ", "<addr>=Address", ""},
		{"ro", "route=A route", ""},
		{"h", "hostname=Name the box", ""},
		{"permit x ", "", "% Invalid input detected at '^' marker."},
	}
	for _, tt := range tests {
		list, err := g.Help(tt.line, check, v, "here:")
		var got []string
		for _, c := range list {
			got = append(got, c.Word+"="+c.Help)
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if s := strings.Join(got, " "); s != tt.want || text != tt.err {
			t.Errorf("Help(%q) = %s, %s; want %s, %s", tt.line, s, text, tt.want, tt.err)
		}
	}
}

func TestBegin(t *testing.T) {
	g := cli.MustCompile(syntax)
	for line, want := range map[string]string{
		"route":                             "route: route",
		"route outside":                     "route: route outside",
		"ro outside 10.0.0.0 10.0.0.1":      "route: route outside 10.0.0.0 10.0.0.1",
		"crypto ca":                         "enroll: crypto ca; export: crypto ca",
		"permit any h":                      "permit: permit any host",
		"frobnicate":                        "",
		"route outside 10.0.0.0 10.0.0.1 0": "",
	} {
		list, err := g.Begin(line, check)
		var got []string
		for _, m := range list {
			var words []string
			for _, w := range m.Args.Words() {
				words = append(words, w.Text)
			}
			got = append(got, m.Rule.Do+": "+strings.Join(words, " "))
		}
		if s := strings.Join(got, "; "); s != want || (err == nil) != (want != "") {
			t.Errorf("Begin(%q) = %s, %v; want %s", line, s, err, want)
		}
	}
}

// TestWalk visits each word of the syntax.
func TestWalk(t *testing.T) {
	g := cli.MustCompile([]cli.Rule[string]{{Syntax: "a {b|<c:addr>}... [d <e:1-9>]"}})
	var got []string
	g.Walk(func(_ *cli.Rule[string], before []string, c cli.Candidate) {
		got = append(got, strings.Join(append(slices.Clone(before), c.Word), " ")+"="+c.Kind)
	})
	slices.Sort(got)
	want := []string{"a <c>=addr", "a b d <1-9>=1-9", "a b d=", "a b=", "a="}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCompileError(t *testing.T) {
	for _, syntax := range []string{
		"", "a {", "a {b", "a [b}", "a }", "a <b", "a <>", "a <b:>", "a |", "{}", "...", "<9-1>", "a <l:line> b", "a <x:line>...",
		"a x={", "a <a>", strings.Repeat("a ", 4096),
	} {
		if _, err := cli.Compile([]cli.Rule[int]{{Syntax: syntax}}); err == nil || !strings.HasPrefix(err.Error(), "cli: ") {
			t.Errorf("Compile(%.20q) = %v, want an error", syntax, err)
		}
	}
}

func TestCaret(t *testing.T) {
	tests := []struct {
		line string
		col  int
		want string
	}{
		{"route x", 7, "      ^"},
		{"\troute x", 8, "\t      ^"},
		{"é x", 4, "  ^"},
		{"a", 4, "   ^"},
		{"a", 0, ""},
	}
	for _, tt := range tests {
		if got := cli.Caret(tt.line, tt.col); got != tt.want {
			t.Errorf("Caret(%q, %d) = %q, want %q", tt.line, tt.col, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"hostname", "host", "route", "interface", "<addr>"}
	for word, want := range map[string]string{"hostnmae": "hostname", "rout": "route", "Interfaec": "interface", "xyzzy": "", "addr": "", "": ""} {
		if got := cli.Nearest(word, words); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

// FuzzCompile compiles any syntax and matches any line against it: neither may
// panic, and positions must be in the line.
func FuzzCompile(f *testing.F) {
	for _, r := range syntax {
		f.Add(r.Syntax, "route outside 10.0.0.0 10.0.0.1 7")
	}
	f.Add("{[[a]...]...}...", "a a a")
	f.Add("a=[<x:line>]", "a b")
	f.Fuzz(func(t *testing.T, syntax, line string) {
		g, err := cli.Compile([]cli.Rule[int]{{Syntax: syntax}})
		if err != nil {
			return
		}
		m, e := g.Match(line, check)
		if (m == nil) == (e == nil) {
			t.Fatalf("Match(%q) = %v, %v; want one of them", line, m, e)
		}
		if e != nil && (e.Token.Col < 1 || e.Token.Col > len(line)+2 || e.Words > len(cli.Split(line))) {
			t.Errorf("Match(%q) = %+v; out of the line", line, e)
		}
		if m != nil && len(m.Args.Names()) > len(cli.Split(line)) {
			t.Errorf("Match(%q) has words %q, more than the line", line, m.Args.Names())
		}
		g.Complete(line, check)
	})
}

// FuzzMatch checks that completing a line never offers what cannot follow.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"ro", "no ", "permit any ", "timeout conn 1 ", "crypto ca e", "\tshow ", "server 10.0.0.1 "} {
		f.Add(s)
	}
	g := cli.MustCompile(syntax)
	f.Fuzz(func(t *testing.T, line string) {
		before := line
		if i := strings.LastIndexAny(line, " \t\r\n"); !strings.ContainsAny(line[i+1:], " \t") {
			before = line[:i+1]
		}
		for _, c := range g.Complete(line, check) {
			if strings.HasPrefix(c.Word, "<") {
				continue
			}
			_, err := g.Match(before+c.Word, check)
			if err != nil && err.Kind != cli.Incomplete && err.Token.Col <= len(before) {
				t.Errorf("Complete(%q) offers %q, but Match(%q) = %v at %d", line, c.Word, before+c.Word, err, err.Token.Col)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	g := cli.MustCompile(syntax)
	for b.Loop() {
		if _, err := g.Match("permit host 10.0.0.1 eq 69 any log", check); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleGrammar_Match() {
	g := cli.MustCompile([]cli.Rule[string]{
		{Syntax: "route <if> <dest:addr> <gateway:addr> [<metric:1-255>]", Do: "a route"},
		{Syntax: "hostname <name:word>", Do: "a name"},
	})
	m, _ := g.Match("route outside 0.0.0.0 203.0.113.1", check)
	fmt.Println(m.Rule.Do, "by", m.Args.Get("gateway"), "metric", m.Args.Int("metric", 1))

	line := "route outside 0.0.0.0 203.0.113.1000"
	_, err := g.Match(line, check)
	fmt.Println("ERROR:", err)
	fmt.Println(line)
	fmt.Println(cli.Caret(line, err.Token.Col))
	fmt.Println(err.Reason)
	// Output:
	// a route by 203.0.113.1 metric 1
	// ERROR: % Invalid input detected at '^' marker.
	// route outside 0.0.0.0 203.0.113.1000
	//                       ^
	// 203.0.113.1000 is not an address
}

func TestSplit(t *testing.T) {
	want := []cli.Token{{Text: "a", Col: 2}, {Text: "bc", Col: 5}}
	if got := cli.Split(" a\t\tbc \r\n"); !slices.Equal(got, want) {
		t.Errorf("Split = %v, want %v", got, want)
	}
}
