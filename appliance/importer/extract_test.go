package importer

import (
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/config"
)

const plain = ": Saved\n:\nASA Version 8.4(7) \n!\nhostname fw\n!\ninterface GigabitEthernet0/0\n nameif inside\n security-level 100\n" +
	" ip address 10.1.1.1 255.255.255.0\n!\nroute inside 10.2.0.0 255.255.0.0 10.1.1.2 1\nCryptochecksum:00\n: end\n"

// utf16LE is text as Windows saves it.
func utf16LE(text string) string {
	b := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return string(b)
}

// TestExtract finds one configuration in all that an operator may have saved.
func TestExtract(t *testing.T) {
	want := strings.Split(strings.TrimSuffix(strings.ReplaceAll(plain, " \n", "\n"), "\n"), "\n")
	paged := func(rubout string) string {
		lines := strings.Split(plain, "\n")
		lines[7] = "<--- More --->" + rubout + lines[7]
		lines[9] = "<--- More --->" + rubout + lines[9]
		return strings.Join(lines, "\n")
	}
	const blanks = "              "
	tests := []struct{ name, text string }{
		{"as it is", plain},
		{"CRLF", strings.ReplaceAll(plain, "\n", "\r\n")},
		{"telnet's CR CR LF", strings.ReplaceAll(plain, "\n", "\r\r\n")},
		{"a byte order mark", "\xef\xbb\xbf" + plain},
		{"UTF-16", utf16LE(plain)},
		{"log", "Username: admin\r\nPassword: ****\r\nfw> en\r\nfw# terminal pager 0\r\nfw# sh run\r\n" + plain + "\r\nfw# exit\r\n\r\nLogoff\r\n"},
		{"log of a context in a pair", "fw/cust/pri/act# show running-config\n" + plain + "fw/cust/pri/act# sh ver\nASA Version 1\n"},
		{"configuration mode", "fw(config)# more system:running-config\n" + plain + "fw(config)# "},
		{"typed and not answered", "fw# show run\nfw# show startup-config\n" + plain + "fw#"},
		{"pager, rubbed out", paged("\r" + blanks + "\r")},
		{"pager, backspaces", paged(strings.Repeat("\b", 14) + blanks + strings.Repeat("\b", 14))},
		{"pager, copied", paged(blanks)},
		{"pager with escapes", paged("\r\x1b[K")},
		{"indented", "    " + strings.ReplaceAll(strings.TrimSuffix(plain, "\n"), "\n", "\n    ") + "\n"},
		{"show tech", "fw# show tech-support\n\n------------------ show version ------------------\n\nCisco Adaptive Security Appliance Software Version 8.4(7)\n\n" +
			"------------------ show startup-config ------------------\n\n: Saved\nhostname other\n: end\n\n" +
			"------------------ show running-config ------------------\n\n" + plain + "\n------------------ show startup-config errors ------------------\n\nINFO: No configuration errors\n"},
		{"show tech without", "------------------ show version ------------------\n\n------------------ show running-config ------------------\n\n\n" +
			"------------------ show startup-config ------------------\n\n" + plain + "------------------ console logs ------------------\nhostname no\n"},
		{"after a mail", "Hello,\n\nhere it is.\n\n" + plain + "\nBye\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := Extract([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range s.Lines {
				got = append(got, l.Text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("from %s (-want +got):\n%s", s.From, diff)
			}
		})
	}
}

// TestLineNumbers checks that a report names lines of the file, not of what was
// found in it.
func TestLineNumbers(t *testing.T) {
	r, err := Import("log", []byte("fw# show run\n"+plain[:strings.Index(plain, "route")]+"frobnicate 1\nfw#"), nil)
	if err != nil {
		t.Fatal(err)
	}
	g := r.Groups(config.Refused)
	if len(g) != 1 || g[0].Head != "frobnicate" || len(g[0].Lines) != 1 || g[0].Lines[0] != 13 {
		t.Errorf("got %+v, want frobnicate in line 13", g)
	}
}

// FuzzImport: nothing that is read makes the import panic, and what it writes loads.
func FuzzImport(f *testing.F) {
	f.Add([]byte(plain))
	f.Add([]byte("fw# sh run\r\n<--- More --->\r              \r" + plain + "fw# "))
	f.Add([]byte("------------------ show running-config ------------------\n" + plain + "------------------ show x ------------------\n"))
	f.Add([]byte(utf16LE(plain)))
	f.Add([]byte("\xff\xfe\x00"))
	f.Add([]byte("interface Vlan1\n nameif inside\ninterface Port-channel1.4\n vlan 4\n nameif x\nctl-file c\n sast 5\n no shutdown\nkey *****\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Import("fuzz", data, []string{"a.p12"})
		if err != nil {
			return
		}
		if err := r.Report(new(strings.Builder), "out"); err != nil {
			t.Error(err)
		}
		for _, l := range r.Lines {
			if l.Line.Line < 1 || l.Line.Line > strings.Count(string(data), "\n")+1 && !strings.HasPrefix(string(data), "\xff\xfe") && !strings.HasPrefix(string(data), "\xfe\xff") {
				t.Fatalf("line %d of %d", l.Line.Line, strings.Count(string(data), "\n")+1)
			}
		}
		if _, found := config.Load("out", strings.NewReader(r.Text.String()), false); config.Errors(found) > 0 {
			t.Errorf("what is written is refused: %v", found)
		}
	})
}
