package console

import (
	"bytes"
	"fmt"
	"io"
	"net/url"
	"strings"

	"patchbay/appliance/cli"
)

// sendCommands put files on a TFTP server. What is not said of where they go is asked
// for, unless /noconfirm is. (The ASA's command reference: copy, write net.)
var sendCommands = []cli.Rule[command]{
	{Syntax: "copy [/noconfirm] {running-config|startup-config} <to:tftp>", Help: "Copy from one file to another", Do: command{maxPrivilege, sendConfig}},
	{Syntax: "copy [/noconfirm] <path:flash> <to:tftp>", Help: "Copy from one file to another", Do: command{maxPrivilege, sendFlash}},
	{Syntax: "copy [/noconfirm] [/pcap] <from:capture> <to:tftp>", Help: "Copy from one file to another", Do: command{maxPrivilege, sendCapture}},
	{Syntax: "write net <at:netfile>", Help: "Write the running configuration to a TFTP server", Do: command{maxPrivilege, sendConfig}},
}

// tftpURL reads where a file is to go, as far as it is said: "tftp:", "tftp://HOST" or
// "tftp://HOST/FILE". A file that ends in "/" is a folder.
func tftpURL(word string) (u *url.URL, err error) {
	if u, err = url.Parse(word); err != nil || u.Scheme != "tftp" || u.Opaque != "" || u.Host == "" && strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("%.80s: want tftp:, tftp://HOST or tftp://HOST/FILE", word)
	}
	return u, nil
}

// checkTFTP is the cli.Check of "tftp".
func (s *Session) checkTFTP(word string) error {
	u, err := tftpURL(word)
	if err == nil && u.Host != "" && u.Path != "" && !strings.HasSuffix(u.Path, "/") {
		err = s.box.opt.App.CheckExec("fileurl", word)
	}
	return err
}

// netURL returns the URL of a file as "write net" has it: HOST:FILE.
func netURL(word string) (string, error) {
	host, file, ok := strings.Cut(word, ":")
	if !ok || host == "" || file == "" {
		return "", fmt.Errorf("%.80s: want HOST:FILE", word)
	}
	return (&url.URL{Scheme: "tftp", Host: host, Path: "/" + strings.TrimPrefix(file, "/")}).String(), nil
}

// checkNetFile is the cli.Check of "netfile".
func (s *Session) checkNetFile(word string) error {
	to, err := netURL(word)
	if err == nil {
		err = s.box.opt.App.CheckExec("fileurl", to)
	}
	return err
}

// captureName returns the name of a capture as "capture:NAME" has it.
func captureName(word string) (string, error) {
	const device = "capture:"
	if len(word) <= len(device) || !strings.EqualFold(word[:len(device)], device) || strings.Trim(word[len(device):], "/") == "" {
		return "", fmt.Errorf("%.80s is no capture as capture:NAME is", word)
	}
	return strings.TrimPrefix(word[len(device):], "/"), nil
}

// destination returns the URL that a file of a name goes to.
func (s *Session) destination(a cli.Args, name string) (string, error) {
	if a.Has("at") {
		return netURL(a.Get("at"))
	}
	u, err := tftpURL(a.Get("to"))
	if err != nil {
		return "", err
	}
	ask := func(question, otherwise string) (string, error) {
		if a.Has("/noconfirm") {
			return otherwise, nil
		}
		answer, err := s.t.ask(fmt.Sprintf("\n%s [%s]? ", question, otherwise), false)
		if answer = strings.TrimSpace(answer); answer == "" {
			answer = otherwise
		}
		return answer, err
	}
	if u.Host == "" {
		if u.Host, err = ask("Address or name of remote host", ""); err != nil {
			return "", err
		}
		if u.Host == "" {
			return "", fmt.Errorf("%% There is no host to copy to: give tftp://HOST/%s", name)
		}
	}
	if u.Path == "" || strings.HasSuffix(u.Path, "/") {
		file, err := ask("Destination filename", name)
		if err != nil {
			return "", err
		}
		u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+"/"+strings.TrimPrefix(file, "/"), ""
	}
	to := u.String()
	if err := s.box.opt.App.CheckExec("fileurl", to); err != nil {
		return "", fmt.Errorf("%%Error writing %s (%w)", to, err)
	}
	return to, nil
}

// send puts body, of size bytes, at a URL.
func (s *Session) send(w io.Writer, to string, body io.Reader, size int64) error {
	began := s.box.opt.Now()
	fmt.Fprintln(s.t)
	n, err := s.box.opt.App.Send(s.t.running, to, &marked{r: body, w: s.t}, size)
	if s.t.part {
		fmt.Fprintln(s.t)
	}
	if err != nil {
		return s.elsewhere("writing", to, err)
	}
	return copied(w, n, s.box.opt.Now().Sub(began))
}

// sendConfig sends a configuration.
func sendConfig(s *Session, w io.Writer, a cli.Args) error {
	name, text, err := s.configuration(a)
	if err != nil {
		return err
	}
	to, err := s.destination(a, name)
	if err != nil {
		return err
	}
	if a.Has("write") {
		fmt.Fprintln(w, "Building configuration...")
	}
	fmt.Fprintf(w, "Cryptochecksum: %s\n", cryptochecksum(text))
	err = s.send(w, to, bytes.NewReader(text), int64(len(text)))
	if err == nil && a.Has("write") {
		_, err = fmt.Fprintln(w, "[OK]")
	}
	return err
}

// sendFlash sends a file on flash that may be read there.
func sendFlash(s *Session, w io.Writer, a cli.Args) error {
	store, name, err := s.flashFile(a)
	if err != nil {
		return err
	}
	body, size, err := store.OpenFlash(name)
	if err != nil {
		return opening(name, err)
	}
	defer body.Close()
	to, err := s.destination(a, name)
	if err != nil {
		return err
	}
	return s.send(w, to, body, size)
}

// sendCapture sends what was captured, as "show capture" shows it or as a pcap file.
func sendCapture(s *Session, w io.Writer, a cli.Args) error {
	name, err := captureName(a.Get("from"))
	if err != nil {
		return err
	}
	var data bytes.Buffer // what is kept may change while it is sent
	file := name
	if a.Has("/pcap") {
		file += ".pcap"
		_, err = s.box.opt.App.WriteCapture(&data, name)
	} else {
		var found cli.Shown
		if found, err = s.find("show capture " + name); err == nil {
			err = cli.Show(&data, found, false)
		}
	}
	if err != nil {
		return err
	}
	to, err := s.destination(a, file)
	if err != nil {
		return err
	}
	return s.send(w, to, &data, int64(data.Len()))
}
