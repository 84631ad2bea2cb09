package lab

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strconv"
	"time"
)

const (
	siteTimeout = 10 * time.Second
	maxMenu     = 64 << 10 // bytes a phone takes of an XML object
)

// A site is a web server of a lab.
type site struct {
	server http.Server
	ended  chan struct{}
}

// serveSite serves HTTP on a port of h.
func serveSite(h Host, port uint16, handler http.Handler) (*site, error) {
	ln, err := h.ListenTCP(netip.AddrPortFrom(netip.Addr{}, port))
	if err != nil {
		return nil, err
	}
	s := &site{
		server: http.Server{Handler: handler, ReadHeaderTimeout: siteTimeout, WriteTimeout: siteTimeout},
		ended:  make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		s.server.Serve(ln)
	}()
	return s, nil
}

// Close ends all connections and waits.
func (s *site) Close() error {
	err := s.server.Close()
	<-s.ended
	return err
}

// A menu is what a phone shows of its services: CiscoIPPhoneMenu.
type menu struct {
	XMLName xml.Name `xml:"CiscoIPPhoneMenu"`
	Title   string
	Prompt  string
}

// askedBy begins the prompt of a menu, before the client's address.
const askedBy = "asked by "

// serveMenu is a call manager's page of services.
func serveMenu(w http.ResponseWriter, r *http.Request) {
	client := r.RemoteAddr
	if host, _, err := net.SplitHostPort(client); err == nil {
		client = host
	}
	w.Header().Set("Content-Type", "text/xml")
	b, err := xml.Marshal(menu{Title: "Services", Prompt: askedBy + client})
	if err != nil {
		panic(err) // the type is plain
	}
	w.Write(b)
}

// newForwardProxy passes requests that name a whole URL on to its host.
func newForwardProxy(h Host) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			if !r.In.URL.IsAbs() { // it was asked for a page of its own
				r.Out.URL = &url.URL{Scheme: "http", Host: "proxy.invalid"}
			}
		},
		Transport: &http.Transport{DisableKeepAlives: true, DialContext: dialerOf(h)},
		ErrorLog:  log.New(io.Discard, "", 0), // the phone tells
	}
}

// dialerOf connects from h to an address that is written as numbers.
func dialerOf(h Host) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		to, err := netip.ParseAddrPort(addr)
		if err != nil {
			return nil, err
		}
		return h.DialTCP(ctx, netip.AddrPort{}, to)
	}
}

// Services has the phone fetch its menu of services from the URL that its
// configuration names, through the proxy that it names, and returns the menu's
// prompt. Not while Boot runs.
func (p *Phone) Services(ctx context.Context) (prompt string, err error) {
	fail := func(err error) (string, error) {
		return "", fmt.Errorf("lab: %s: services: %w", p.name, err)
	}
	if p.device == nil {
		return fail(errors.New("the phone has not booted"))
	}
	t := &http.Transport{DisableKeepAlives: true, DialContext: dialerOf(p.config.Host)}
	if proxy := p.device.ProxyURL; proxy != "" {
		// proxyServerURL is HOST:PORT without a scheme.
		host, port, err := net.SplitHostPort(proxy)
		if err != nil {
			return fail(fmt.Errorf("proxyServerURL: %w", err))
		}
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return fail(fmt.Errorf("proxyServerURL %q: port: %w", proxy, err))
		}
		t.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port)})
	}
	ctx, cancel := context.WithTimeout(ctx, siteTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.device.ServicesURL, nil)
	if err != nil {
		return fail(err)
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fail(fmt.Errorf("%s: %s", p.device.ServicesURL, resp.Status))
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxMenu))
	if err != nil {
		return fail(err)
	}
	var m menu
	if err := xml.Unmarshal(b, &m); err != nil {
		return fail(err)
	}
	p.logf("services: %s", m.Prompt)
	return m.Prompt, nil
}
