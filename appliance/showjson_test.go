package appliance_test

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance"
	"patchbay/appliance/cli"
	"patchbay/appliance/lab"
)

// samples are words of a kind.
var samples = map[string]string{
	"addr": "198.51.100.7", "addrs": "10.20.0.11-10.20.0.50", "ports": "2443", "if": "outside", "acl": "outside_in", "name": "some",
	"trustpoint": "phone_ca", "ctl": "trust", "phone": "SEP0200C6336407", "reason": "acl-drop", "host": "ucm.example.com",
	"100000-999999": "106001", "1-4294967295": "1", "port": "2443", "icmptype": "8", "0-255": "0", "0-65535": "7",
}

// linesOf returns commands of a syntax: the shortest first, and those with up to two
// words more.
func linesOf(t *testing.T, syntax string) (lines []string) {
	g := cli.MustCompile([]cli.Rule[struct{}]{{Syntax: syntax}})
	check := func(kind, word string) (err error) {
		if kind == "addr" { // else an optional number before it may be one
			_, err = netip.ParseAddr(word)
		}
		return err
	}
	next := []string{strings.Join(cli.Lead(syntax), " ")}
	for more := -1; len(next) > 0 && more < 2; {
		var after []string
		for _, line := range next {
			for _, c := range g.Complete(line+" ", check) {
				switch word := c.Word; {
				case word == "<cr>":
					lines = append(lines, line)
				case c.Keyword():
					after = append(after, line+" "+word)
				case samples[c.Kind] == "":
					t.Fatalf("%s: there is no sample of the kind %s", syntax, c.Kind)
				default:
					after = append(after, line+" "+samples[c.Kind])
				}
			}
		}
		if next = after; len(lines) > 0 {
			more++
		}
	}
	return lines
}

// TestShowJSON has each command that shows something, with its options, show JSON on
// a box with calls. A new one that cannot is found here.
func TestShowJSON(t *testing.T) {
	b := start(t, setup{config: []string{"mtu outside 1500\n", "mtu outside 1500\ndns domain-lookup inside\ndns name-server 10.20.0.53\n"}})
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		b.call(b.up(lab.Remote, proto), b.up(lab.Inside, proto))
	}
	b.exec("capture some interface outside")
	b.exec("debug sip host 198.51.100.99")
	b.heard(b.lab.Phone(lab.Remote, lab.SIP), b.lab.Phone(lab.Inside, lab.SIP))
	b.eventually("the processors are not measured", func() bool { return b.app.Exec(io.Discard, "show cpu") == nil })
	all, shown, fields := 0, new(bytes.Buffer), new(fieldList)
	for _, r := range appliance.ExecSyntax() {
		if !cli.Shows(r.Syntax) {
			continue
		}
		for k, line := range linesOf(t, r.Syntax) {
			all++
			var text, doc bytes.Buffer
			refused := b.app.Exec(&text, line)
			err := b.app.Exec(&doc, line+" | json")
			if k == 0 {
				if found, err := b.app.Shown(b.ctx, line); err == nil {
					fields.add(r.Syntax, reflect.TypeOf(found))
				}
			}
			if k == 0 && err != nil || fmt.Sprint(err) != fmt.Sprint(refused) {
				t.Errorf("%s | json: %v; as text: %v", line, err, refused)
			}
			if err == nil {
				checkJSON(t, line, doc.Bytes())
			} else if doc.Len() > 0 {
				t.Errorf("%s | json is refused, and shows %q", line, doc.Bytes())
			}
			shown.Write(doc.Bytes())
		}
	}
	if all < 60 {
		t.Errorf("only %d commands", all)
	}
	fields.compare(t)
	for _, k := range boxKeys().keys {
		for _, secret := range []string{hex.EncodeToString(k.D.Bytes()[:16]), base64.StdEncoding.EncodeToString(k.D.Bytes()[:15])} {
			if strings.Contains(shown.String(), secret) {
				t.Error("a key is shown")
			}
		}
	}
}

var snakeCase = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// checkJSON checks that doc is one JSON object with nothing behind it but the end of
// the line, its names in snake_case and nothing null.
func checkJSON(t *testing.T, line string, doc []byte) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Errorf("%s | json: %v:\n%s", line, err, doc)
		return
	}
	if rest := doc[d.InputOffset():]; string(rest) != "\n" {
		t.Errorf("%s | json: after the document %q", line, rest)
	}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, v := range v {
				if !snakeCase.MatchString(name) {
					t.Errorf("%s | json: the name %s.%s", line, path, name)
				}
				walk(path+"."+name, v)
			}
		case []any:
			for _, v := range v {
				walk(path+"[]", v)
			}
		case string:
			if slices.Contains([]string{"", "invalid IP", "invalid AddrPort", "0001-01-01T00:00:00Z"}, v) && !strings.HasSuffix(path, ".flags") { // a set of letters
				t.Errorf("%s | json: %s is %q", line, path, v)
			}
		case nil:
			t.Errorf("%s | json: %s is null", line, path)
		}
	}
	walk("", v)
}

// fieldsFile tells of the documents. What is between the two lines is made here.
const (
	fieldsFile = "../docs/JSON.md"
	fieldsFrom = "<!-- made by TestShowJSON of package appliance: -->\n"
	fieldsTo   = "<!-- up to here -->\n"
)

// A fieldList is the commands and the fields of what they find, in the order in which
// they were added. Commands that find the same stand together.
type fieldList struct {
	types    []reflect.Type
	commands map[reflect.Type][]string
}

func (l *fieldList) add(syntax string, found reflect.Type) {
	if l.commands == nil {
		l.commands = make(map[reflect.Type][]string)
	}
	if l.commands[found] == nil {
		l.types = append(l.types, found)
	}
	l.commands[found] = append(l.commands[found], syntax)
}

// compare compares with what fieldsFile says, or writes it there.
func (l *fieldList) compare(t *testing.T) {
	t.Helper()
	var b strings.Builder
	for _, found := range l.types {
		b.WriteString("\n")
		for _, syntax := range l.commands[found] {
			fmt.Fprintf(&b, "    %s\n", syntax)
		}
		b.WriteString("\n| Object | Fields |\n| --- | --- |\n")
		writeFields(&b, "", found)
	}
	data, err := os.ReadFile(fieldsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), fieldsFrom)
	had, after, ok2 := strings.Cut(rest, fieldsTo)
	if !ok || !ok2 {
		t.Fatalf("%s has not both lines between which it is made", fieldsFile)
	}
	got := b.String() + "\n"
	if *updatePhones {
		if err := os.WriteFile(fieldsFile, []byte(before+fieldsFrom+got+fieldsTo+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(had, got); diff != "" {
		t.Errorf("%s; -update writes it anew (-want +got):\n%s", fieldsFile, diff)
	}
}

// writeFields writes the fields of a structure with their kinds, and then those of
// the structures in it.
func writeFields(w io.Writer, path string, found reflect.Type) {
	type inner struct {
		path  string
		found reflect.Type
	}
	var names []string
	var below []inner
	var collect func(reflect.Type)
	collect = func(found reflect.Type) {
		for i := range found.NumField() {
			f := found.Field(i)
			if f.Anonymous {
				collect(f.Type)
			}
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				continue
			}
			kind := f.Type
			for kind.Kind() == reflect.Pointer || kind.Kind() == reflect.Slice || kind.Kind() == reflect.Array {
				if kind.Kind() != reflect.Pointer {
					name += "[]"
				}
				kind = kind.Elem()
			}
			word, may := kindWord(kind), ""
			if word == "" {
				below = append(below, inner{strings.TrimPrefix(path+"."+name, "."), kind})
				word = "object"
			}
			if options != "" {
				may = "?"
			}
			names = append(names, fmt.Sprintf("`%s`%s %s", name, may, word))
		}
	}
	collect(found)
	title := "the document"
	if path != "" {
		title = "`" + path + "`"
	}
	fmt.Fprintf(w, "| %s | %s |\n", title, strings.Join(names, ", "))
	for _, in := range below {
		writeFields(w, in.path, in.found)
	}
}

// kindWord is what a kind of field is called, "" of a structure.
func kindWord(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[netip.Addr]():
		return "address"
	case reflect.TypeFor[netip.Prefix]():
		return "prefix"
	}
	switch {
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), t.Kind() == reflect.String:
		return "text"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Struct:
		return ""
	}
	return "number"
}

// TestShown finds what commands show, and does none that does more than show.
func TestShown(t *testing.T) {
	b := start(t, setup{})
	found, err := b.app.Shown(b.ctx, "show version")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := cli.Show(&text, found, false); err != nil || text.String() != b.exec("show version") {
		t.Errorf("%q, %v; want what Exec shows", &text, err)
	}
	for _, line := range []string{"capture a interface outside", "no debug sip", "show nothing", "show version | json"} {
		if found, err := b.app.Shown(b.ctx, line); found != nil || err == nil {
			t.Errorf("Shown(%q) = %v, %v; want a refusal", line, found, err)
		}
	}
	if out := b.exec("show capture"); out != "" {
		t.Errorf("a capture is begun: %s", out)
	}
}
