package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"patchbay/inspect/tftp"
)

const (
	httpPort = 80

	// MaxFetched is the most that Fetch gives, in bytes.
	MaxFetched = 256 << 20

	fetchIdle = 30 * time.Second // without a byte, of HTTP
	maxURL    = 500              // bytes
)

// A remoteFile is a file on a server, as an operator names it.
type remoteFile struct {
	url    *url.URL
	port   uint16
	name   string // as TFTP asks for it
	nameif string // of the interface whose address asks; "": of the one toward the server
}

// fileURL reads where a file is: "tftp://HOST[:PORT]/FILE[;int=NAMEIF]", or the same
// of http. (The ASA's command reference, copy.)
func fileURL(word string) (f remoteFile, err error) {
	wrong := fmt.Errorf("%.80s: want tftp://HOST/FILE or http://HOST/FILE", word)
	if f.url, err = url.Parse(word); err != nil || len(word) > maxURL {
		return f, wrong
	}
	u := f.url
	u.Path, f.nameif, _ = strings.Cut(u.Path, ";int=")
	f.name = strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme == "tftp" && u.RawQuery == "" && u.Fragment == "":
		f.port = tftpPort
	case u.Scheme == "http":
		f.port = httpPort
	default:
		return f, wrong
	}
	if u.Hostname() == "" || strings.Trim(f.name, "/") == "" || strings.ContainsFunc(u.Path, unicode.IsControl) {
		return f, wrong
	}
	if u.User != nil {
		return f, errors.New("there is no login for copy: give the address without a user")
	}
	if u.Port() != "" {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return f, fmt.Errorf("%.20s is no port", u.Port())
		}
		f.port = uint16(n)
	}
	return f, nil
}

// Fetch fetches a file for an operator, by the box's own network: what stands at
// from, "tftp://HOST/FILE" or "http://HOST/FILE", is given to take, whose error ends
// it. What the ASA would refuse is a *Refusal.
func (a *Appliance) Fetch(ctx context.Context, from string, take func(body io.Reader) error) error {
	return a.reach(ctx, from, func(ctx context.Context, f remoteFile, local, server netip.AddrPort) error {
		body, err := a.openURL(ctx, f, local, server)
		if err != nil {
			return err
		}
		defer body.Close()
		most := &io.LimitedReader{R: body, N: MaxFetched + 1}
		if err = take(most); err == nil && most.N == 0 {
			err = fmt.Errorf("it is longer than %d bytes", MaxFetched)
		}
		return err
	})
}

// Send puts a file on a server for an operator, by the box's own network: body, of so
// many bytes (-1 if that is not known), becomes "tftp://HOST/FILE". It returns how many
// bytes the server has. What the ASA would refuse is a *Refusal.
func (a *Appliance) Send(ctx context.Context, to string, body io.Reader, size int64) (n int64, err error) {
	err = a.reach(ctx, to, func(ctx context.Context, f remoteFile, local, server netip.AddrPort) error {
		if f.url.Scheme != "tftp" {
			return refuse("%% %.80s: a file can be sent to tftp://HOST/FILE only", to)
		}
		pc, err := a.host.ListenPacket(local)
		if err != nil {
			return err
		}
		defer pc.Close()
		n, err = tftp.Put(ctx, pc, server, f.name, tftp.File{Body: io.NopCloser(body), Size: size}, tftp.Options{BlockSize: fetchBlock})
		return err
	})
	return n, err
}

// reach calls f with the file of a URL, the box's address to ask for it from and its
// server's, while the box runs.
func (a *Appliance) reach(ctx context.Context, word string, f func(ctx context.Context, file remoteFile, local, server netip.AddrPort) error) error {
	file, err := fileURL(word)
	if err != nil {
		return err
	}
	pl := a.plan()
	x := &execution{Appliance: a, ctx: ctx, plan: pl, running: pl.running}
	addr, err := x.target(file.url.Hostname())
	if err != nil {
		return err
	}
	out := pl.facing(addr)
	if out == nil {
		return refuse("%% No route to host %v", addr)
	}
	if file.nameif != "" {
		if err := x.checkWord("if", file.nameif); err != nil {
			return refuse("%% %v", err)
		}
		out = pl.named(file.nameif)
	}
	err = refuse("%% The box does not run")
	a.during(func(run *life) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(run.ctx, cancel)()
		err = f(ctx, file, netip.AddrPortFrom(out.Addr.Addr(), 0), netip.AddrPortFrom(addr, file.port))
	})
	return err
}

// openURL begins to fetch a file, from an address of the box's own.
func (a *Appliance) openURL(ctx context.Context, file remoteFile, from, server netip.AddrPort) (io.ReadCloser, error) {
	if file.url.Scheme == "tftp" {
		pc, err := a.host.ListenPacket(from)
		if err != nil {
			return nil, err
		}
		f, err := tftp.Open(ctx, pc, server, file.name, tftp.Options{BlockSize: fetchBlock, MaxSize: MaxFetched})
		return f.Body, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ResponseHeaderTimeout: fetchIdle,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := a.host.DialTCP(ctx, from, server)
			if err != nil {
				return nil, err
			}
			return &idleConn{c}, nil
		},
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, file.url.String(), nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, errors.New(res.Status)
	}
	return res.Body, nil
}

// An idleConn is one whose peer may be silent for fetchIdle at most.
type idleConn struct{ net.Conn }

func (c *idleConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(fetchIdle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}
