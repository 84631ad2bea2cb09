package appliance_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"patchbay/appliance"
	"patchbay/appliance/lab"
	"patchbay/stack"
)

// resolving has the demo look names up, quickly.
var resolving = []string{"ftp mode passive\n", `ftp mode passive
name 203.0.113.1 gateway
dns domain-lookup inside
dns server-group DefaultDNS
 timeout 1
 retries 0
 name-server 10.20.0.53
 domain-name example.com
`}

// A nameServer is a DNS server inside.
type nameServer struct {
	mu    sync.Mutex
	addrs map[string]string // by name
	mute  bool
	asked int
}

func (b *box) nameServer(addrs map[string]string) *nameServer {
	b.t.Helper()
	s := &nameServer{addrs: addrs}
	pc, err := b.host(b.lab.LAN, "10.20.0.53").ListenUDP(netip.MustParseAddrPort("10.20.0.53:53"))
	b.must(err)
	done := make(chan struct{})
	b.t.Cleanup(func() {
		pc.Close()
		<-done
	})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := s.answer(buf[:n]); answer != nil {
				pc.WriteTo(answer, from)
			}
		}
	}()
	return s
}

func (s *nameServer) answer(query []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 || s.mute {
		return nil
	}
	s.asked++
	m.Response, m.RecursionAvailable = true, true
	name := m.Questions[0].Name
	if to, ok := s.addrs[name.String()]; ok && m.Questions[0].Type == dnsmessage.TypePTR {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 600},
			Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName(to)}}}
	} else if addr, ok := s.addrs[name.String()]; ok {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 600},
			Body: &dnsmessage.AResource{A: netip.MustParseAddr(addr).As4()}}}
	} else {
		m.RCode = dnsmessage.RCodeNameError
	}
	answer, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return answer
}

func (s *nameServer) silence(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = on
}

// running waits until the box is up.
func (b *box) running() {
	b.t.Helper()
	b.eventually("the box is not up", func() bool { return strings.Contains(b.log.String(), "box is up") })
}

// do does a command and returns what it shows.
func (b *box) do(line string) string {
	b.t.Helper()
	var out bytes.Buffer
	if err := b.app.ExecContext(b.ctx, &out, line, nil); err != nil {
		b.t.Fatalf("%s: %v", line, err)
	}
	return out.String()
}

// shows fails if what a command shows is not like want, a regular expression.
func (b *box) shows(line, want string) {
	b.t.Helper()
	if got := b.do(line); !regexp.MustCompile("^" + want + "$").MatchString(got) {
		b.t.Errorf("%s shows\n%s\nwant\n%s", line, got, want)
	}
}

// A phone whose file names its call manager by a name gets the mapped address.
func TestManagerByName(t *testing.T) {
	for _, proto := range []lab.Protocol{lab.SCCP, lab.SIP} {
		t.Run(string(proto), func(t *testing.T) {
			b := start(t, setup{config: append([]string{" ctl-file trust\n!\nclass-map", " ctl-file trust\n proxy-server address proxy.example.com interface inside\n!\nclass-map"}, resolving...)})
			s := b.nameServer(map[string]string{"ucm.example.com.": "10.20.0.11", "proxy.example.com.": "203.0.113.80"})
			p, q := b.lab.Phone(lab.Remote, proto), b.up(lab.Inside, proto)
			b.lab.Manager.TFTP().Put(p.Name()+".cnf.xml", bytes.ReplaceAll(cnf(strings.ToUpper(string(proto))), []byte("10.20.0.11"), []byte("ucm")))
			b.must(p.Boot(b.ctx))
			if m := p.Device().Managers; len(m) != 1 || m[0].Node != "203.0.113.10" {
				t.Errorf("the phone's file names %+v", m)
			}
			b.must(p.Register(b.ctx))
			b.call(q, p)
			b.honest()
			// The answers are kept: nobody waits for them again.
			s.mu.Lock()
			asked := s.asked
			s.mu.Unlock()
			b.must(q.HangUp(b.ctx))
			b.must(p.Boot(b.ctx))
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.asked != asked {
				t.Errorf("%d queries for names that are known", s.asked-asked)
			}
		})
	}
}

// The HTTP proxy's name is looked up for the phones.
func TestProxyByName(t *testing.T) {
	b := start(t, setup{config: append([]string{" ctl-file trust\n!\nclass-map", " ctl-file trust\n proxy-server address proxy.example.com interface inside\n!\nclass-map"}, resolving...)})
	b.nameServer(map[string]string{"proxy.example.com.": "10.20.0.11"}) // known outside as 203.0.113.10
	p := b.up(lab.Remote, lab.SCCP)
	if got := p.Device().ProxyURL; got != "203.0.113.10:8080" {
		t.Errorf("the phone's proxy is %q, want 203.0.113.10:8080", got)
	}
}

// A record entry by name is in the CTL file with the address that the DNS gives,
// and there is no CTL file before that is known.
func TestRecordByDNS(t *testing.T) {
	b := start(t, setup{config: append([]string{"trustpoint ucm_server address 203.0.113.10", "trustpoint ucm_server address ucm-outside.example.com"}, resolving...)})
	s := b.nameServer(map[string]string{"ucm-outside.example.com.": "203.0.113.10"})
	s.silence(true)
	p := b.lab.Phone(lab.Remote, lab.SCCP)
	if err := p.Boot(b.ctx); err == nil || p.Trust().CTL() != nil {
		t.Errorf("there is a CTL file with an address that is not known: %v", err)
	}
	s.silence(false)
	b.eventually("no CTL file with the DNS", func() bool {
		b.do("clear dns")
		return p.Boot(b.ctx) == nil
	})
	b.must(p.Register(b.ctx))
	b.honest()
}

// With the DNS down the file comes as it is, and the log says so in the ASA's
// words; with it up again the next one is right. What was known before stands.
func TestNamesWithoutServer(t *testing.T) {
	b := start(t, setup{config: resolving})
	s := b.nameServer(map[string]string{"ucm.example.com.": "10.20.0.11"})
	s.silence(true)
	p := b.lab.Phone(lab.Remote, lab.SCCP)
	b.lab.Manager.TFTP().Put(p.Name()+".cnf.xml", bytes.ReplaceAll(cnf("SCCP"), []byte("10.20.0.11"), []byte("ucm.example.com")))
	b.must(p.Boot(b.ctx))
	if m := p.Device().Managers; len(m) != 1 || m[0].Node != "ucm.example.com" {
		t.Errorf("without the DNS the phone's file names %+v", m)
	}
	if !regexp.MustCompile(`PP: Unable to get dns response for id [1-9]\d*" phone=` + p.Name()).MatchString(b.log.String()) {
		t.Error("the log does not say so")
	}
	b.shows("show dns", `Name:  ucm.example.com
     No address: no DNS server answers: .*; asked again in 00:00:0\d
Server 10.20.0.53: down: it does not answer; 1 queries, 0 answers, 0 false answers
`)
	s.silence(false)
	b.do("clear dns")
	b.must(p.Boot(b.ctx))
	if m := p.Device().Managers; len(m) != 1 || m[0].Node != "203.0.113.10" {
		t.Errorf("with the DNS the phone's file names %+v", m)
	}
	b.must(p.Register(b.ctx))
	b.shows("show dns host ucm", "Name:  ucm.example.com\n     Address: 10.20.0.11 {30}TTL 00:(10:00|09:5\\d)\n")
	b.shows("show dns-hosts", `Host                     Flags      Age Type   Address\(es\)
gateway                  \(perm, OK\) 0   IP     203.0.113.1
ucm.example.com          \(temp, OK\) 0   IP     10.20.0.11
`)
	b.do("clear dns host UCM")
	b.refuses("clear dns host ucm", "ERROR: % ucm has not been looked up")
}

// refuses fails if a command is not refused so.
func (b *box) refuses(line, want string) {
	b.t.Helper()
	var out bytes.Buffer
	err := b.app.ExecContext(b.ctx, &out, line, nil)
	var r *appliance.Refusal
	if !errors.As(err, &r) || err.Error() != want {
		b.t.Errorf("%s: %v; want\n%s", line, err, want)
	}
}

const abort = "Type escape sequence to abort\\.\n"

func TestPingCommand(t *testing.T) {
	b := start(t, setup{config: resolving})
	b.running()
	b.nameServer(map[string]string{"ucm.example.com.": "10.20.0.11"})
	all := func(n, size int, to string) string {
		return abort + fmt.Sprintf("Sending %d, %d-byte ICMP Echos to %s, timeout is 2 seconds:\n%s\nSuccess rate is 100 percent \\(%[1]d/%[1]d\\), round-trip min/avg/max = \\d+/\\d+/\\d+ ms\n", n, size, to, strings.Repeat("!", n))
	}
	b.shows("ping 10.20.0.11", all(5, 100, "10.20.0.11"))
	b.shows("ping 10.20.0.11", all(5, 100, "10.20.0.11"))
	b.shows("ping ucm repeat 2", all(2, 100, "10.20.0.11"))
	b.shows("ping outside 198.51.100.7 size 1000 repeat 3 data 0x1234 validate", all(3, 1000, "198.51.100.7"))
	b.shows("ping 10.20.0.11 size 8000 repeat 2 validate", all(2, 8000, "10.20.0.11")) // in fragments, both ways
	b.shows("ping 10.20.0.11 size 28 repeat 1", all(1, 28, "10.20.0.11"))
	b.shows("ping 10.20.0.1 repeat 2", all(2, 100, "10.20.0.1")) // the box itself
	b.shows("ping 203.0.113.2 repeat 2", all(2, 100, "203.0.113.2"))
	b.shows("ping 10.20.0.99 repeat 2 timeout 0", abort+"Sending 2, 100-byte ICMP Echos to 10.20.0.99, timeout is 0 seconds:\n\\.\\.\nSuccess rate is 0 percent \\(0/2\\)\n")
	b.refuses("ping nobody", "ERROR: % Unrecognized host or address: nobody\nthere is no such name")
	b.refuses("ping 10.20.0.300", "ping 10.20.0.300\n     ^\nERROR: % Invalid input detected at '^' marker.\nthere is no interface 10.20.0.300; there are outside, inside; 10.20.0.300 is neither an IPv4 address nor a name")
	b.refuses("ping 10.20.0.11 size 27", "ping 10.20.0.11 size 27\n                     ^\nERROR: % Invalid input detected at '^' marker.\n27 is not in the range 28-65535")
	b.refuses("ping 10.20.0.11 repeat 1 repeat 2", "ERROR: % There are 2 \"repeat\" in one command")
	b.refuses("ping 10.20.0.11 data xyz", "ping 10.20.0.11 data xyz\n                     ^\nERROR: % Invalid input detected at '^' marker.\nxyz is no pattern of 16 bits, as 0xabcd is")
}

// A lineWriter says when it was written to.
type lineWriter struct{ wrote chan string }

func (w *lineWriter) Write(p []byte) (int, error) {
	w.wrote <- string(p)
	return len(p), nil
}

// Marks come one by one, and a ping stops when it is to, with its count.
func TestPingStops(t *testing.T) {
	for _, how := range []string{"by its caller", "with the box", "when nobody looks"} {
		t.Run(how, func(t *testing.T) {
			b := start(t, setup{})
			b.running()
			ctx, cancel := context.WithCancel(b.ctx)
			defer cancel()
			w := &lineWriter{make(chan string)}
			done := make(chan error, 1)
			var gone bool
			go func() {
				if how == "when nobody looks" {
					done <- b.app.ExecContext(ctx, brokenWriter{}, "ping 10.20.0.11 repeat 2000000000", nil)
					return
				}
				done <- b.app.ExecContext(ctx, w, "ping 10.20.0.99 timeout 3600", nil)
			}()
			switch how {
			case "when nobody looks":
				if err := <-done; !errors.Is(err, errBroken) {
					t.Errorf("ping: %v, want %v", err, errBroken)
				}
				return
			case "by its caller":
				first(t, w, done)
				cancel()
			default:
				first(t, w, done)
				gone = true
				go b.stop()
			}
			select {
			case s := <-w.wrote:
				if s != "\nSuccess rate is 0 percent (0/0)\n" {
					t.Errorf("at the end: %q", s)
				}
			case <-time.After(10 * time.Second):
				t.Fatal("ping goes on")
			}
			if err := <-done; err != nil {
				t.Errorf("ping: %v", err)
			}
			if gone {
				b.must(b.stop())
				b.refuses("ping 10.20.0.11", "ERROR: % The box does not run")
			}
		})
	}
}

// first waits until a command shows something.
func first(t *testing.T, w *lineWriter, done <-chan error) {
	t.Helper()
	select {
	case <-w.wrote:
	case err := <-done:
		t.Fatalf("ended before it began: %v", err)
	}
}

var errBroken = errors.New("broken")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

// far answers as two routers, 192.0.2.1 and 192.0.2.2, and the hosts behind them.
// 192.0.2.66 is behind a filter, and 192.0.2.77 is silent.
func (b *box) far() {
	port := b.lab.Internet.Port(netip.MustParsePrefix("192.0.2.0/24"))
	done := make(chan struct{})
	b.t.Cleanup(func() {
		port.Close()
		<-done
	})
	go func() {
		defer close(done)
		batch := []*stack.Packet{stack.NewPacket(1500)}
		for {
			n, err := port.Read(batch)
			if err != nil {
				return
			}
			p := batch[0]
			if n == 0 || p.Parse() != stack.Forward {
				continue
			}
			dst, ttl := p.Flow().Dst.Addr(), p.Data()[8]
			var out []byte
			switch {
			case ttl < 3:
				out = stack.AppendICMPError(nil, p, netip.AddrFrom4([4]byte{192, 0, 2, ttl}), stack.ICMPTimeExceeded, 0, 0)
			case dst == netip.MustParseAddr("192.0.2.66"):
				out = stack.AppendICMPError(nil, p, netip.MustParseAddr("192.0.2.2"), stack.ICMPUnreachable, stack.CodeProhibited, 0)
			case dst == netip.MustParseAddr("192.0.2.77"):
				continue
			case p.MakeEchoReply():
				out = p.Data()
			default:
				out = stack.AppendICMPError(nil, p, dst, stack.ICMPUnreachable, stack.CodePortUnreachable, 0)
			}
			q := stack.NewPacket(1500)
			q.SetData(out)
			if port.Write([]*stack.Packet{q}) != nil {
				return
			}
		}
	}()
}

func TestTraceroute(t *testing.T) {
	b := start(t, setup{config: []string{resolving[0], resolving[1] + "name 192.0.2.1 first\nname 192.0.2.9 far\n"}})
	b.running()
	b.nameServer(map[string]string{"host.example.com.": "192.0.2.9", "2.2.0.192.in-addr.arpa.": "router2.example.com.", "1.2.0.192.in-addr.arpa.": "router1.example.com."})
	b.far()
	const times = " \\d+ msec \\d+ msec \\d+ msec\n"
	b.shows("traceroute 10.20.0.11", abort+"Tracing the route to 10.20.0.11\n\n 1  10.20.0.11"+times)
	for _, more := range []string{"", " use-icmp", " source outside", " source 203.0.113.2 port 65534"} {
		b.shows("traceroute 192.0.2.9 numeric"+more, abort+"Tracing the route to 192.0.2.9\n\n 1  192.0.2.1"+times+" 2  192.0.2.2"+times+" 3  192.0.2.9"+times)
	}
	b.shows("traceroute host probe 1", abort+"Tracing the route to host \\(192.0.2.9\\)\n\n 1  first \\(192.0.2.1\\) \\d+ msec\n 2  router2.example.com \\(192.0.2.2\\) \\d+ msec\n 3  far \\(192.0.2.9\\) \\d+ msec\n")
	b.shows("show dns host 2.2.0.192.in-addr.arpa", "Name:  2.2.0.192.in-addr.arpa\n     Name: router2.example.com +TTL 00:\\d\\d:\\d\\d\n")
	b.shows("traceroute 192.0.2.66 ttl 2 9 numeric probe 2", abort+"Tracing the route to 192.0.2.66\n\n 2  192.0.2.2 \\d+ msec \\d+ msec\n 3  192.0.2.2 !A !A\n")
	b.shows("traceroute 192.0.2.77 ttl 2 4 numeric probe 1 timeout 1", abort+"Tracing the route to 192.0.2.77\n\n 2  192.0.2.2 \\d+ msec\n 3  \\*\n 4  \\*\n")
	b.refuses("traceroute 192.0.2.9 ttl 5 4", "ERROR: % The ttl runs from 5 down to 4")
	b.refuses("traceroute 192.0.2.9 source 192.0.2.1", "ERROR: % 192.0.2.1 is no interface and no address of one")
	b.shows("ping 192.0.2.66 repeat 2", abort+"Sending 2, 100-byte ICMP Echos to 192.0.2.66, timeout is 2 seconds:\nUU\nSuccess rate is 0 percent \\(0/2\\)\n")
}

// Another configuration has other servers, without the box starting anew.
func TestConfigureNames(t *testing.T) {
	b := start(t, setup{})
	b.running()
	b.nameServer(map[string]string{"ucm.example.com.": "10.20.0.11"})
	b.refuses("ping ucm.example.com", "ERROR: % Unrecognized host or address: ucm.example.com\nname lookup is off: \"dns domain-lookup\" and a name-server are needed")
	b.must(b.app.Configure(demoConfig(t, resolving...)))
	if got := b.do("ping ucm.example.com repeat 1"); !strings.Contains(got, "100 percent") {
		t.Errorf("with a server: %s", got)
	}
	b.must(b.app.Configure(demoConfig(t)))
	b.refuses("ping new.example.com", "ERROR: % Unrecognized host or address: new.example.com\nname lookup is off: \"dns domain-lookup\" and a name-server are needed")
}

// A server is asked by the interface that is named for it, and by no other.
func TestNameServerInterface(t *testing.T) {
	for _, tt := range []struct{ via, want string }{
		{"inside", "Success rate is 100 percent"}, {"outside", "ERROR: "},
	} {
		text := strings.Replace(resolving[1], "name-server 10.20.0.53", "name-server 10.20.0.53 "+tt.via, 1)
		b := start(t, setup{config: []string{resolving[0], text}})
		b.running()
		s := b.nameServer(map[string]string{"ucm.example.com.": "10.20.0.11"})
		var out strings.Builder
		err := b.app.Exec(&out, "ping ucm repeat 1")
		if err != nil {
			out.WriteString(err.Error())
		}
		if s.mu.Lock(); !strings.Contains(out.String(), tt.want) || (s.asked > 0) != (err == nil) {
			t.Errorf("by %s: asked %d times, %s", tt.via, s.asked, &out)
		}
		s.mu.Unlock()
	}
}

// An operator fetches files by the box's own network.
func TestFetch(t *testing.T) {
	b := start(t, setup{})
	b.running()
	fetch := func(from string) (data []byte, err error) {
		err = b.app.Fetch(b.ctx, from, func(body io.Reader) (err error) {
			data, err = io.ReadAll(body)
			return err
		})
		return data, err
	}
	if data, err := fetch("tftp://10.20.0.11/SEP0200C6336407.cnf.xml"); err != nil || !strings.Contains(string(data), "<device") {
		t.Errorf("TFTP: %.100q, %v", data, err)
	}
	for _, from := range []string{"tftp://10.20.0.11/nothing", "http://10.20.0.11/nothing", "tftp://nowhere/x"} {
		if _, err := fetch(from); err == nil {
			t.Errorf("%s: what is not there comes", from)
		}
	}
}
