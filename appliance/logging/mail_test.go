package logging

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A mailServer speaks enough SMTP to take mails, on wires in memory. (RFC 5321.)
type mailServer struct {
	mu     sync.Mutex
	replyA map[string]string // to the first of a command with an argument, instead of 250
	mails  chan taken
	dialed []string
	down   bool
	cut    int // connections that end in the middle of a mail
}

// A taken is a mail that a server took.
type taken struct {
	from string
	to   []string
	text string
}

func newMailServer() *mailServer {
	return &mailServer{mails: make(chan taken, 100), replyA: make(map[string]string)}
}

func (s *mailServer) dial(_ context.Context, server string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dialed = append(s.dialed, server)
	if s.down || server == "dead.example.com" {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	go s.serve(there)
	return here, nil
}

func (s *mailServer) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(line string) { fmt.Fprintf(c, "%s\r\n", line) }
	say("220 mail.example.com")
	var m taken
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimRight(line, "\r\n")
		s.mu.Lock()
		reply, special := s.replyA[line]
		delete(s.replyA, line)
		s.mu.Unlock()
		switch {
		case special:
			say(reply)
			continue
		case strings.HasPrefix(line, "EHLO"):
			say("250 mail.example.com")
		case strings.HasPrefix(line, "MAIL FROM:"):
			m = taken{from: line[len("MAIL FROM:"):]}
			say("250 ok")
		case strings.HasPrefix(line, "RCPT TO:"):
			m.to = append(m.to, line[len("RCPT TO:"):])
			say("250 ok")
		case line == "DATA":
			say("354 go on")
			for {
				text, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if text == ".\r\n" {
					break
				}
				m.text += strings.TrimPrefix(text, ".")
			}
			s.mu.Lock()
			cut := s.cut > 0
			s.cut--
			s.mu.Unlock()
			if cut {
				return
			}
			s.mails <- m
			say("250 ok")
		case line == "QUIT":
			say("221 bye")
			return
		case line == "RSET":
			say("250 ok")
		default:
			say("502 what?")
		}
	}
}

// next returns the next mail that is taken.
func (s *mailServer) next(t *testing.T) taken {
	t.Helper()
	select {
	case m := <-s.mails:
		return m
	case <-time.After(30 * time.Second):
		t.Fatal("no mail comes")
		return taken{}
	}
}

// mailed is Settings that mail.
func mailed(level int) Settings {
	return Settings{Enable: true, Mail: AtLevel(level), MailFrom: "pb@example.com", Recipients: []Recipient{{Address: "ann@example.com"}}, MailServers: []string{"10.20.0.25"}}
}

// TestMail sends messages by mail: whole, to whom they are for, and again where a
// server took them not for good.
func TestMail(t *testing.T) {
	s := newMailServer()
	set := mailed(3)
	set.Timestamp = true
	set.Recipients = append(set.Recipients, Recipient{"bob@example.com", 5, true}, Recipient{"eve@example.com", 1, true})
	set.MailServers = []string{"dead.example.com", "10.20.0.25"}
	l := newLog(t, Config{DialMail: s.dial, Retry: time.Millisecond}, set)
	l.Start()

	l.Message(414003, 3, "TCP Syslog Server down")
	m := s.next(t)
	if diff := cmp.Diff([]any{"<pb@example.com>", []string{"<ann@example.com>", "<bob@example.com>"}}, []any{strings.Fields(m.from)[0], m.to}); diff != "" {
		t.Errorf("from and to (-want +got):\n%s", diff)
	}
	read, err := mail.ReadMessage(strings.NewReader(m.text))
	if err != nil {
		t.Fatalf("%v in\n%s", err, m.text)
	}
	body := make([]byte, 1000)
	n, _ := read.Body.Read(body)
	date, err := read.Header.Date()
	if err != nil || !date.Equal(noon.Truncate(time.Second)) || read.Header.Get("Subject") != "pb: %ASA-3-414003" ||
		string(body[:n]) != "Nov 07 2026 12:00:05: %ASA-3-414003: TCP Syslog Server down\r\n" {
		t.Errorf("the mail is\n%s", m.text)
	}
	if to, err := read.Header.AddressList("To"); err != nil || len(to) != 2 {
		t.Errorf("To is %v, %v", to, err)
	}

	l.Message(111008, 5, "User executed something") // of bob's level only
	if m := s.next(t); len(m.to) != 1 || m.to[0] != "<bob@example.com>" {
		t.Errorf("to %v", m.to)
	}
	l.Message(302013, 6, "Built a connection") // of nobody's
	l.Message(199001, 1, ".\r\nRCPT TO:<x@example.com>")
	if m := s.next(t); len(m.to) != 3 || !strings.Contains(m.text, ": .\\x0d\\x0aRCPT TO:<x@example.com>\r\n") {
		t.Errorf("to %v:\n%s", m.to, m.text)
	}

	// A server that is busy, one that refuses a recipient, one that goes in between.
	s.mu.Lock()
	s.replyA["MAIL FROM:<pb@example.com>"] = "451 later"
	s.replyA["RCPT TO:<ann@example.com>"] = "550 nobody"
	s.cut = 1
	s.mu.Unlock()
	l.Message(414003, 3, "again")
	if m := s.next(t); !strings.Contains(m.text, "again") {
		t.Errorf("the mail is\n%s", m.text)
	}
	// One that nobody is to get.
	s.mu.Lock()
	s.replyA["RCPT TO:<bob@example.com>"] = "550 nobody"
	s.mu.Unlock()
	l.Message(111008, 5, "lost")
	l.Message(111008, 5, "found")
	if m := s.next(t); !strings.Contains(m.text, "found") {
		t.Errorf("the mail is\n%s", m.text)
	}
	waitMail(t, l, func(st MailStatus) bool {
		return st.Sent == 5 && st.Refused == 1 && st.Waiting == 0 && st.Server == "10.20.0.25"
	})
	if st := l.Status().Mail; st.Errors < 1 {
		t.Errorf("status %+v", st)
	}
}

func waitMail(t *testing.T, l *Log, is func(MailStatus) bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(l.Status().Mail); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("status %+v", l.Status().Mail)
		}
	}
}

// TestMailQueue fills the queue while no server answers: what it does not take is
// counted, and the rest comes when one does.
func TestMailQueue(t *testing.T) {
	s := newMailServer()
	s.down = true
	set := mailed(3)
	set.Queue = 2
	l := newLog(t, Config{DialMail: s.dial, Retry: time.Millisecond}, set)
	l.Start()
	for i := range 5 {
		l.Message(414003, 3, fmt.Sprint("message ", i))
	}
	waitMail(t, l, func(st MailStatus) bool { return st.Errors > 0 && st.Dropped == 3 && st.Waiting == 2 && st.Error != "" })
	s.mu.Lock()
	s.down = false
	s.mu.Unlock()
	for i := range 2 {
		if m := s.next(t); !strings.Contains(m.text, fmt.Sprint("message ", i)) {
			t.Errorf("mail %d is\n%s", i, m.text)
		}
	}
}

// TestClasses logs messages of classes that have levels of their own.
func TestClasses(t *testing.T) {
	s := Settings{Enable: true, Buffered: AtLevel(4), Monitor: AtLevel(2), Classes: []ClassFilter{
		{"ca", Buffer, 6}, {"session", Buffer, 1}, {"ca", Sessions, 3}, {"session", ASDM, 7}}}
	l := newLog(t, Config{}, s)
	for _, tt := range []struct {
		number, level            int
		buffer, session, counted bool
	}{
		{717022, 6, true, false, false}, // ca: more than "logging buffered"
		{717022, 3, true, true, false},
		{106023, 4, false, false, true}, // session: less
		{106001, 1, true, true, true},
		{111008, 5, false, false, false}, // of no such class
		{111008, 2, true, true, false},
	} {
		v := l.view.Load()
		to := v.takers(tt.number, tt.level)
		got := [3]bool{to&(1<<Buffer) != 0, to&(1<<Sessions) != 0, to&(1<<ASDM) != 0}
		if want := [3]bool{tt.buffer, tt.session, tt.counted}; got != want {
			t.Errorf("message %d of level %d: buffer, sessions, ASDM = %v, want %v", tt.number, tt.level, got, want)
		}
	}
	if !l.Wants(106100, 7) {
		t.Error("a message that only a class lets through is not wanted")
	}
	s.Enable = false
	l.Configure(s, Names{})
	if l.Wants(717022, 1) {
		t.Error("a class logs although logging is off")
	}
}
