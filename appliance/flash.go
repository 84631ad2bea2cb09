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
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"patchbay/appliance/cli"
	"patchbay/inspect/tftp"
)

var flashCommands = []cli.Rule[execFunc]{
	{Syntax: "dir [disk0:|flash:]", Help: "List files on flash", Do: dirFlash},
	{Syntax: "copy [/noconfirm] <url:fileurl> <file:imagefile>", Help: "Fetch a file to flash", Do: copyURL},
	{Syntax: "delete [/noconfirm] <file:deletable>", Help: "Delete a file on flash", Do: deleteFlash},
}

const (
	// imageSuffix is how the name of a file ends that is copied to flash from
	// elsewhere: a system for "boot system". It keeps them apart from what is the
	// box's own there.
	imageSuffix = ".bin"

	maxCopied = 256 << 20        // bytes
	copyIdle  = 30 * time.Second // without a byte, of HTTP
	copyMark  = 256 << 10        // bytes, for each of which there is a "!"
)

// fileURL checks where a file is to come from.
func fileURL(word string) (*url.URL, error) {
	u, err := url.Parse(word)
	if err != nil || u.Scheme != "tftp" && u.Scheme != "http" || u.Hostname() == "" || strings.Trim(u.Path, "/") == "" {
		return nil, fmt.Errorf("%.80s: want tftp://HOST/FILE or http://HOST/FILE", word)
	}
	if u.User != nil {
		return nil, errors.New("there is no login for copy: give the address without a user")
	}
	return u, nil
}

// plainFile returns the name on flash of "disk0:/NAME", which must end as one of
// suffixes: it names nothing outside the flash directory and none of the box's own
// files.
func plainFile(word string, suffixes ...string) (string, error) {
	name, ok := strings.CutPrefix(word, "disk0:")
	if !ok {
		if name, ok = strings.CutPrefix(word, "flash:"); !ok {
			return "", fmt.Errorf("%.80s: want disk0:/NAME%s", word, suffixes[0])
		}
	}
	name = strings.TrimPrefix(name, "/")
	for _, s := range suffixes {
		base, ok := strings.CutSuffix(name, s)
		if ok && base != "" && base[0] != '.' && len(name) <= maxCaptureName &&
			strings.Trim(strings.ToLower(base), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" {
			return name, nil
		}
	}
	return "", fmt.Errorf("%.80s: want letters, digits, - and _, and %s at the end", word, strings.Join(suffixes, " or "))
}

// flashDir returns the directory that is the flash.
func (x *execution) flashDir() (string, error) {
	if x.opt.Store == nil {
		return "", refuse("%%Error opening disk0:/ (there is no flash)")
	}
	return x.opt.Store.Dir(), nil
}

// dirFlash lists what is on flash, in the ASA's layout.
func dirFlash(x *execution, _ cli.Args) error {
	dir, err := x.flashDir()
	if err != nil {
		return err
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("appliance: flash: %w", err)
	}
	x.printf("\nDirectory of disk0:/\n\n")
	files, used := 0, int64(0)
	for n, e := range list {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		files, used = files+1, used+info.Size()
		x.printf("%-6d -rwx  %-10d  %s  %s\n", n+1, info.Size(), info.ModTime().UTC().Format("15:04:05 Jan 02 2006"), e.Name())
	}
	x.printf("\n%d file(s) total size: %d bytes\n", files, used)
	if total, free, ok := diskSpace(dir); ok {
		x.printf("%d bytes total (%d bytes free)\n", total, free)
	}
	return nil
}

// deleteFlash deletes a capture or a system.
func deleteFlash(x *execution, args cli.Args) error {
	dir, err := x.flashDir()
	if err != nil {
		return err
	}
	name, err := plainFile(args.Get("file"), imageSuffix, flashSuffix)
	if err != nil {
		return err // checked already
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
		return refuse("%%Error deleting disk0:/%s (No such file or directory)", name)
	}
	if !args.Has("/noconfirm") {
		if yes, err := x.confirmed(fmt.Sprintf("Delete disk0:/%s?", name)); err != nil || !yes {
			return err
		}
	}
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("appliance: flash: %w", err)
	}
	return syncDir(dir)
}

// copyURL fetches a file to flash, whole or not at all.
func copyURL(x *execution, args cli.Args) error {
	dir, err := x.flashDir()
	if err != nil {
		return err
	}
	u, err := fileURL(args.Get("url"))
	if err != nil {
		return err // checked already
	}
	name, err := plainFile(args.Get("file"), imageSuffix)
	if err != nil {
		return err
	}
	addr, err := x.target(u.Hostname())
	if err != nil {
		return err
	}
	port := 69
	if u.Scheme == "http" {
		port = 80
	}
	if u.Port() != "" {
		if port, err = strconv.Atoi(u.Port()); err != nil || port < 1 || port > 65535 {
			return refuse("%% %.20s is no port", u.Port())
		}
	}
	out := x.plan.facing(addr)
	if out == nil {
		return refuse("%% No route to host %v", addr)
	}
	if err := x.show("\nAccessing %s...", u); err != nil {
		return err
	}
	err = refuse("%% The box does not run")
	x.during(func(run *life) {
		ctx, cancel := context.WithCancel(x.ctx)
		defer cancel()
		defer context.AfterFunc(run.ctx, cancel)()
		var body io.ReadCloser
		if body, err = x.openURL(ctx, u, netip.AddrPortFrom(out.Addr.Addr(), 0), netip.AddrPortFrom(addr, uint16(port))); err != nil {
			return
		}
		defer body.Close()
		err = receive(dir, name, body, x.opt.Now, x.show)
	})
	if err != nil {
		var refused *Refusal
		if errors.As(err, &refused) {
			return err
		}
		return refuse("%%Error copying %s (%v)", u, err)
	}
	return nil
}

// openURL begins to fetch a file, from an address of the box's own.
func (x *execution) openURL(ctx context.Context, u *url.URL, from, server netip.AddrPort) (io.ReadCloser, error) {
	if u.Scheme == "tftp" {
		pc, err := x.host.ListenPacket(from)
		if err != nil {
			return nil, err
		}
		f, err := tftp.Open(ctx, pc, server, strings.TrimPrefix(u.Path, "/"), tftp.Options{BlockSize: fetchBlock, MaxSize: maxCopied})
		return f.Body, err
	}
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, ResponseHeaderTimeout: copyIdle,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := x.host.DialTCP(ctx, from, server)
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

// An idleConn is one whose peer may be silent for copyIdle at most.
type idleConn struct{ net.Conn }

func (c *idleConn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(copyIdle)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

// receive writes what comes to a file of the flash, which has its name only when it
// is whole, and shows how it goes.
func receive(dir, name string, body io.Reader, now func() time.Time, show func(format string, args ...any) error) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	half := name + ".new"
	f, err := root.OpenFile(half, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, root.Remove(half))
		}
	}()
	begun := now()
	n := int64(0)
	for err == nil && n <= maxCopied {
		var got int64
		got, err = io.CopyN(f, body, copyMark)
		n += got
		if err == nil {
			err = show("!")
		}
	}
	switch {
	case err == nil:
		err = fmt.Errorf("more than %d bytes", maxCopied)
	case errors.Is(err, io.EOF):
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err = root.Rename(half, name); err != nil {
		return err
	}
	if err = syncDir(dir); err != nil {
		return err
	}
	took := max(now().Sub(begun).Seconds(), 0.001)
	return show("\nWriting file disk0:/%s...\n%d bytes copied in %.1f secs (%.0f bytes/sec)\n", name, n, took, float64(n)/took)
}

// syncDir has the names in a directory outlast a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
