package console

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// What a transcript has for keys that show nothing of themselves.
const (
	tabKey   = '⇥'
	spaceKey = '␠'
	ctrlC    = '␃'
	ctrlZ    = '␚'
)

// TestTranscripts types each transcript of testdata back at a console: on a line
// that begins with what the console waits behind, the rest is typed; all else
// must come as it stands there. {word} is typed where stars are shown.
//
// A transcript may begin with lines "## KEY VALUE": "terminal no" for a pipe,
// "config none" for an empty box, "user NAME", "backup yes" for one that runs, with a
// TFTP server to copy to.
func TestTranscripts(t *testing.T) {
	transcripts(t, func(t *testing.T, b *Box, who Who, terminal bool) *typist { return sit(t, b, who, terminal, 0) })
}

// sitting begins a session for a typist.
type sitting func(t *testing.T, b *Box, who Who, terminal bool) *typist

func transcripts(t *testing.T, begin sitting) {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			head, want := splitHead(string(data))
			got := retype(t, begin, head, want)
			if *update {
				if err := os.WriteFile(file, []byte(headText(string(data))+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func headText(text string) string {
	n := 0
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "## ") {
			break
		}
		n += len(line)
	}
	return text[:n]
}

func splitHead(text string) (map[string]string, string) {
	head := make(map[string]string)
	for line := range strings.Lines(headText(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line[3:]), " ")
		head[key] = value
	}
	return head, text[len(headText(text)):]
}

// retype types a transcript and returns what comes of it, in the same form.
func retype(t *testing.T, begin sitting, head map[string]string, text string) string {
	config := ""
	if head["config"] == "none" {
		config = "hostname pb\n"
	}
	var b *testBox
	if head["backup"] != "" {
		b, _ = newBackupBox(t, config)
	} else {
		b = newTestBox(t, config)
	}
	who := Who{From: fromConsole}
	if head["user"] != "" {
		who = Who{User: head["user"], From: "198.51.100.7"}
	}
	y := begin(t, b.Box, who, head["terminal"] != "no")
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	shown := plain(y.press(""))
	for at := 0; ; {
		here := shown[strings.LastIndexByte(shown, '\n')+1:]
		if here == "" && strings.HasPrefix(text, shown) { // it waits behind no prompt: what is shown tells where
			at = strings.Count(shown, "\n")
		}
		for at < len(lines) && !strings.HasPrefix(lines[at], here) {
			at++
		}
		if at == len(lines) || at == len(lines)-1 && lines[at] == here {
			break
		}
		if here == "" && y.left() {
			break
		}
		shown += y.typeLine(strings.TrimPrefix(lines[at], here), head["terminal"] != "no")
		at++
	}
	return strings.TrimRight(shown, "\n") + "\n"
}

// plain is what a reader sees of output.
func plain(out string) string {
	out = strings.ReplaceAll(out, "\r\n", "\n")
	return strings.ReplaceAll(out, "\r"+strings.Repeat(" ", len(more))+"\r", "\n")
}

// typeLine types what stands behind a prompt, with Enter where it is needed.
func (y *typist) typeLine(typed string, echo bool) string {
	if !echo {
		return typed + "\n" + plain(y.press(typed+"\n"))
	}
	var shown string
	secret, isSecret := strings.CutPrefix(typed, "{")
	if isSecret {
		y.press(strings.TrimSuffix(secret, "}"))
		shown = typed
	} else {
		for _, k := range typed {
			switch k {
			case tabKey:
				shown += string(k) + plain(y.press("\t"))
			case spaceKey:
				shown += string(k) + plain(y.press(" "))
			case ctrlC:
				shown += string(k) + plain(y.press("\x03"))
			case ctrlZ:
				shown += string(k) + plain(y.press("\x1a"))
			default:
				shown += plain(y.press(string(k)))
			}
		}
	}
	if !strings.Contains(shown, "\n") {
		shown += plain(y.press("\r"))
	}
	return shown
}
