package logging

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"sync"
	"time"
)

// MailPort is where a mail server listens. (RFC 5321, section 4.5.4.2.)
const MailPort = 25

// MaxMailServers is how many "smtp-server" names: a primary and a backup.
const MaxMailServers = 2

// mailTimeout bounds what a mail server is given for one message.
const mailTimeout = time.Minute

// A Recipient is "logging recipient-address": who gets mail, and of which
// messages where a level is given, whatever "logging mail" says.
type Recipient struct {
	Address  string
	Level    int
	HasLevel bool
}

// A MailDialer connects to a mail server, which is given by address or name, from
// the box's own address.
type MailDialer func(ctx context.Context, server string) (net.Conn, error)

// A MailStatus is how sending mail fares.
type MailStatus struct {
	Server  string // that took the last mail, or was tried last
	Error   string // why nothing is sent, or ""
	Sent    uint64 // mails
	Refused uint64 // mails that a server took for none or for nobody
	Errors  uint64 // connections that failed
	Dropped uint64 // mails that the queue had no room for
	Waiting int
}

// A letter is one mail that waits.
type letter struct {
	from string
	to   []string
	text string // with its header, lines ending in CR LF
}

// A mailer sends letters, on a goroutine of its own.
type mailer struct {
	log   *Log
	queue *queue[letter]

	ctx    context.Context
	cancel context.CancelFunc
	ended  chan struct{} // nil: it was not started

	mu      sync.Mutex
	servers []string
	hello   string // what the box calls itself
	last    uint64 // number of the last letter
	stat    MailStatus
}

func newMailer(l *Log) *mailer {
	m := &mailer{log: l, queue: newQueue[letter](DefaultQueue)}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// nameless is what a box without a name calls itself.
const nameless = "patchbay"

// configure sets who is sent to.
func (m *mailer) configure(v *view) {
	m.queue.resize(v.set.Queue)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.servers, m.hello = v.set.MailServers, v.names.Host
	if strings.ContainsFunc(m.hello, unprintable) || m.hello == "" || strings.ContainsAny(m.hello, " ") {
		m.hello = nameless
	}
}

func (m *mailer) start() {
	m.ended = make(chan struct{})
	go m.run()
}

func (m *mailer) stop() {
	m.cancel()
	if m.ended != nil {
		<-m.ended
	}
}

func (m *mailer) status() MailStatus {
	m.mu.Lock()
	s := m.stat
	m.mu.Unlock()
	m.queue.mu.Lock()
	defer m.queue.mu.Unlock()
	s.Dropped, s.Waiting = m.queue.lost, len(m.queue.list)
	return s
}

// put has a message sent to whom it is for.
func (m *mailer) put(msg message, v *view) {
	var to []string
	for _, r := range v.set.Recipients {
		if r.HasLevel && msg.level <= r.Level || !r.HasLevel && v.filters[Mail].takes(msg.number, msg.level) {
			to = append(to, r.Address)
		}
	}
	if len(to) == 0 || v.set.MailFrom == "" || len(v.set.MailServers) == 0 {
		return
	}
	m.mu.Lock()
	m.last++
	id := m.last
	m.mu.Unlock()
	m.queue.put(letter{v.set.MailFrom, to, mailText(msg, v, to, id)})
}

// mailText is a message as a mail, with its header. Its time and id tell it from
// all others of the box. (RFC 5322, section 3.6.)
func mailText(msg message, v *view, to []string, id uint64) string {
	host := v.names.Host
	if v.names.Device != "" {
		host = v.names.Device
	}
	if host == "" {
		host = nameless
	}
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("Date: %s", msg.at.Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	line("From: <%s>", v.set.MailFrom)
	line("To: <%s>", strings.Join(to, ">,\r\n\t<"))
	line("Message-ID: <%x.%x@%s>", msg.at.UnixNano(), id, headerField(host))
	line("Subject: %s: %s", headerField(host), strings.TrimSuffix(strings.SplitAfterN(msg.body(), ":", 2)[0], ":"))
	line("MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit")
	line("")
	for rest := msg.line(v); ; { // a line may have 998 bytes (RFC 5322, section 2.1.1)
		const most = 900
		if len(rest) <= most {
			line("%s", rest)
			return b.String()
		}
		n := most
		for n > 0 && rest[n]&0xc0 == 0x80 { // within a character
			n--
		}
		line("%s", rest[:n])
		rest = rest[n:]
	}
}

// run sends what waits, all that there is on one connection.
func (m *mailer) run() {
	defer close(m.ended)
	wait := m.log.cfg.Retry
	for {
		if _, ok := m.queue.first(); !ok {
			select {
			case <-m.queue.wake:
			case <-m.ctx.Done():
				return
			}
			continue
		}
		sent, err := m.deliver()
		if sent {
			wait = m.log.cfg.Retry
		}
		if err == nil {
			continue
		}
		m.mu.Lock()
		m.stat.Error = err.Error()
		m.stat.Errors++
		m.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-m.ctx.Done():
			t.Stop()
			return
		}
		wait = min(2*wait, maxRetry)
	}
}

var errNoMailServer = errors.New("there is no smtp-server")

// deliver sends what waits to the first server that answers.
func (m *mailer) deliver() (sent bool, err error) {
	m.mu.Lock()
	servers, hello := m.servers, m.hello
	m.mu.Unlock()
	err = errNoMailServer
	for _, server := range servers {
		var c *smtp.Client
		if c, err = m.dial(server, hello); err != nil {
			err = fmt.Errorf("%s: %w", server, err)
			continue
		}
		sent, err = m.talk(c, server)
		c.Close()
		return sent, err
	}
	return false, err
}

func (m *mailer) dial(server, hello string) (*smtp.Client, error) {
	if m.log.cfg.DialMail == nil {
		return nil, errNoNetwork
	}
	ctx, cancel := context.WithTimeout(m.ctx, dialTimeout)
	defer cancel()
	raw, err := m.log.cfg.DialMail(ctx, server)
	if err != nil {
		return nil, err
	}
	conn := &mailConn{raw, context.AfterFunc(m.ctx, func() { raw.Close() })}
	conn.SetDeadline(time.Now().Add(mailTimeout))
	c, err := smtp.NewClient(conn, server)
	if err == nil {
		err = c.Hello(hello)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// A mailConn gives a server mailTimeout for each answer. It is closed with the
// mailer, too.
type mailConn struct {
	net.Conn
	forget func() bool
}

func (c *mailConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

func (c *mailConn) Write(b []byte) (int, error) {
	c.SetDeadline(time.Now().Add(mailTimeout))
	return c.Conn.Write(b)
}

// talk sends letters until none waits. A server that refuses one for good (RFC
// 5321, section 4.2.1: 5yz) is not sent it again.
func (m *mailer) talk(c *smtp.Client, server string) (sent bool, err error) {
	for {
		l, ok := m.queue.first()
		if !ok {
			c.Quit()
			return sent, nil
		}
		err := send(c, l)
		var reply *textproto.Error
		refused := errors.As(err, &reply) && reply.Code >= 500
		if err != nil && !refused {
			return sent, fmt.Errorf("%s: %w", server, err)
		}
		m.queue.done()
		m.mu.Lock()
		m.stat.Server, m.stat.Error = server, ""
		if refused {
			m.stat.Refused++
			m.stat.Error = fmt.Sprintf("%s: %v", server, err)
		} else {
			m.stat.Sent++
		}
		m.mu.Unlock()
		sent = true
		if refused {
			if err := c.Reset(); err != nil {
				return sent, fmt.Errorf("%s: %w", server, err)
			}
		}
	}
}

func send(c *smtp.Client, l letter) error {
	if err := c.Mail(l.from); err != nil {
		return err
	}
	taken := 0
	var failed error
	for _, to := range l.to {
		if err := c.Rcpt(to); err != nil {
			failed = err
			continue
		}
		taken++
	}
	if taken == 0 {
		return failed
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte(l.text)); err != nil {
		return err
	}
	return w.Close()
}
