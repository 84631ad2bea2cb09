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

	"patchbay/inspect/tftp"
)

const (
	httpPort = 80

	// MaxFetched is the most that Fetch gives, in bytes.
	MaxFetched = 256 << 20

	fetchIdle = 30 * time.Second // without a byte, of HTTP
	maxURL    = 500              // bytes
)

// fileURL checks where a file is to come from.
func fileURL(word string) (u *url.URL, port uint16, err error) {
	wrong := fmt.Errorf("%.80s: want tftp://HOST/FILE or http://HOST/FILE", word)
	if u, err = url.Parse(word); err != nil || u.Hostname() == "" || strings.Trim(u.Path, "/") == "" || len(word) > maxURL {
		return nil, 0, wrong
	}
	switch u.Scheme {
	case "tftp":
		port = tftpPort
	case "http":
		port = httpPort
	default:
		return nil, 0, wrong
	}
	if u.User != nil {
		return nil, 0, errors.New("there is no login for copy: give the address without a user")
	}
	if u.Port() != "" {
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return nil, 0, fmt.Errorf("%.20s is no port", u.Port())
		}
		port = uint16(n)
	}
	return u, port, nil
}

// Fetch fetches a file for an operator, by the box's own network: what stands at
// from, "tftp://HOST/FILE" or "http://HOST/FILE", is given to take, whose error ends
// it. What the ASA would refuse is a *Refusal.
func (a *Appliance) Fetch(ctx context.Context, from string, take func(body io.Reader) error) error {
	u, port, err := fileURL(from)
	if err != nil {
		return err
	}
	pl := a.plan()
	x := &execution{Appliance: a, ctx: ctx, plan: pl, running: pl.running}
	addr, err := x.target(u.Hostname())
	if err != nil {
		return err
	}
	out := pl.facing(addr)
	if out == nil {
		return refuse("%% No route to host %v", addr)
	}
	err = refuse("%% The box does not run")
	a.during(func(run *life) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(run.ctx, cancel)()
		var body io.ReadCloser
		if body, err = a.openURL(ctx, u, netip.AddrPortFrom(out.Addr.Addr(), 0), netip.AddrPortFrom(addr, port)); err != nil {
			return
		}
		defer body.Close()
		most := &io.LimitedReader{R: body, N: MaxFetched + 1}
		if err = take(most); err == nil && most.N == 0 {
			err = fmt.Errorf("it is longer than %d bytes", MaxFetched)
		}
	})
	return err
}

// openURL begins to fetch a file, from an address of the box's own.
func (a *Appliance) openURL(ctx context.Context, u *url.URL, from, server netip.AddrPort) (io.ReadCloser, error) {
	if u.Scheme == "tftp" {
		pc, err := a.host.ListenPacket(from)
		if err != nil {
			return nil, err
		}
		f, err := tftp.Open(ctx, pc, server, strings.TrimPrefix(u.Path, "/"), tftp.Options{BlockSize: fetchBlock, MaxSize: MaxFetched})
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
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
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
