package phoneproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/inspect/tftp"
)

func TestParseFileName(t *testing.T) {
	tests := []struct {
		name string
		want fileName
	}{
		{"CTLSEP001122334455.tlv", fileName{fileCTL, "CTLSEP001122334455.tlv", false, "SEP001122334455"}},
		{"ctlsep001122aabbcc.TLV", fileName{fileCTL, "ctlsep001122aabbcc.TLV", false, "SEP001122AABBCC"}},
		{"CTLFile.tlv", fileName{fileCTL, "CTLFile.tlv", false, ""}},
		{"ctlfile.TLV", fileName{fileCTL, "ctlfile.TLV", false, ""}},
		{"CTLIPCTEST2.tlv", fileName{fileRefused, "CTLIPCTEST2.tlv", false, ""}},
		{"CTL.tlv", fileName{fileRefused, "CTL.tlv", false, ""}},
		{"CTLSEP001122334455.tlv.sgn", fileName{fileRefused, "CTLSEP001122334455.tlv", true, ""}},
		{"sub/CTLFile.tlv", fileName{fileRefused, "sub/CTLFile.tlv", false, ""}},
		{"ITLSEP001122334455.tlv", fileName{fileITL, "ITLSEP001122334455.tlv", false, ""}},
		{"ITLFile.tlv", fileName{fileITL, "ITLFile.tlv", false, ""}},
		{"SEP001122334455.cnf.xml.sgn", fileName{fileConfig, "SEP001122334455.cnf.xml", true, "SEP001122334455"}},
		{"sep001122aabbcc.CNF.XML.SGN", fileName{fileConfig, "sep001122aabbcc.CNF.XML", true, "SEP001122AABBCC"}},
		{"SEP001122334455.cnf.xml", fileName{fileConfig, "SEP001122334455.cnf.xml", false, "SEP001122334455"}},
		{"SEP001122334455.cnf.xml.enc.sgn", fileName{fileRefused, "SEP001122334455.cnf.xml.enc", true, ""}},
		{"SEP001122334455.cnf.xml.ENC.SGN", fileName{fileRefused, "SEP001122334455.cnf.xml.ENC", true, ""}},
		{"SEP001122334455.cnf.xml.sgn.sgn", fileName{fileRefused, "SEP001122334455.cnf.xml.sgn", true, ""}},
		{"SEP001122334455.cnf.xml.sha512", fileName{fileRefused, "SEP001122334455.cnf.xml.sha512", false, ""}},
		{"SEP001122334455.cnf.xml ", fileName{fileRefused, "SEP001122334455.cnf.xml ", false, ""}},
		{"SEP001122334455.cnf", fileName{fileRefused, "SEP001122334455.cnf", false, ""}},
		{"x/SEP001122334455.cnf.xml", fileName{fileRefused, "x/SEP001122334455.cnf.xml", false, ""}},
		{"IPCTEST2.cnf.xml", fileName{fileRefused, "IPCTEST2.cnf.xml", false, ""}},
		{"SIP001122334455.cnf", fileName{fileRefused, "SIP001122334455.cnf", false, ""}},
		{"SIPDefault.cnf", fileName{fileRefused, "SIPDefault.cnf", false, ""}},
		{"XMLDefault.cnf.xml.sgn", fileName{fileDefault, "XMLDefault.cnf.xml", true, ""}},
		{"XmlDefault.cnf.xml", fileName{fileDefault, "XmlDefault.cnf.xml", false, ""}},
		{"SCCP41.9-4-2SR3-1S.loads", fileName{fileFirmware, "SCCP41.9-4-2SR3-1S.loads", false, ""}},
		{"CP7921G-1.0.LOADS", fileName{fileFirmware, "CP7921G-1.0.LOADS", false, ""}},
		{"P0030801SR02.sb2", fileName{fileFirmware, "P0030801SR02.sb2", false, ""}},
		{"jar41sccp.9-4-2.sbn", fileName{fileFirmware, "jar41sccp.9-4-2.sbn", false, ""}},
		{"P00303020214.bin", fileName{fileFirmware, "P00303020214.bin", false, ""}},
		{"cmterm.bin3.sgn", fileName{fileFirmware, "cmterm.bin3.sgn", true, ""}},
		{"CTS.zz.sgn", fileName{fileFirmware, "CTS.zz.sgn", true, ""}},
		{"x.SBN.SGN", fileName{fileFirmware, "x.SBN.SGN", true, ""}},
		{"term62.default.loads", fileName{fileFirmware, "term62.default.loads", false, ""}},
		{"bin", fileName{fileOther, "bin", false, ""}},
		{"x.binary", fileName{fileOther, "x.binary", false, ""}},
		{"New_Zealand/g3-tones.xml.sgn", fileName{fileOther, "New_Zealand/g3-tones.xml", true, ""}},
		{"RINGLIST.XML", fileName{fileOther, "RINGLIST.XML", false, ""}},
		{"English_United_States/mk-sccp.jar", fileName{fileOther, "English_United_States/mk-sccp.jar", false, ""}},
		{".sgn", fileName{fileOther, "", true, ""}},
		{"\u212a.xml.sgn", fileName{fileOther, "\u212a.xml", true, ""}},
		{"\xff\xfe.sgn", fileName{fileOther, "\xff\xfe", true, ""}},
	}
	for _, tt := range tests {
		got := parseFileName(tt.name)
		if got != tt.want {
			t.Errorf("parseFileName(%q) = %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func FuzzParseFileName(f *testing.F) {
	for _, s := range []string{
		"CTLSEP001122334455.tlv", "CTLFile.tlv", "ITLFile.tlv", "SEP001122334455.cnf.xml.sgn", "SEP001122334455.cnf.xml.enc.sgn",
		"XmlDefault.cnf.xml", "a/b.bin3.sgn", "x.loads", ".sgn", "\u212a.sgn", "ctl.tlv", "CTL\xff.tlv",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		n := parseFileName(name)
		if !strings.HasPrefix(name, n.base) || len(name)-len(n.base) > len(signedSuffix) {
			t.Errorf("base of %q is %q", name, n.base)
		}
		if (n.kind == fileConfig || n.device != "") && len(n.device) != deviceLen {
			t.Errorf("%q: %+v has no device", name, n)
		}
		if again := parseFileName(strings.Map(flipASCII, name)); again.kind != n.kind || again.signed != n.signed || again.device != n.device {
			t.Errorf("%q is %+v, in other case %+v", name, n, again)
		}
		relayed := n.kind == fileOther || n.kind == fileFirmware && !strings.Contains(name, "/")
		if _, ok := DeviceName(name[:min(deviceLen, len(name))]); ok && n.kind == fileOther {
			t.Errorf("%q of a device is relayed", name)
		}
		if relayed && strings.HasSuffix(asciiLower(n.base), configSuffix) {
			t.Errorf("configuration %q is relayed", name)
		}
		for _, s := range n.spellings() {
			if !strings.EqualFold(s, n.base) {
				t.Errorf("%q is also asked for as %q", n.base, s)
			}
		}
	})
}

func flipASCII(r rune) rune {
	switch {
	case r >= 'a' && r <= 'z':
		return r - 'a' + 'A'
	case r >= 'A' && r <= 'Z':
		return r - 'A' + 'a'
	}
	return r
}

var ucm = netip.MustParseAddrPort("10.20.0.11:69")

// upstream is a UCM's TFTP server, by name, and what it was asked.
type upstream struct {
	files map[string]string
	errs  map[string]error
	asked []string
	open  int // bodies not closed
}

type upstreamBody struct {
	io.Reader
	u *upstream
}

func (b upstreamBody) Close() error { b.u.open--; return nil }

func (u *upstream) fetch(_ context.Context, server netip.AddrPort, name string) (tftp.File, error) {
	if server != ucm {
		return tftp.File{}, fmt.Errorf("asked %v", server)
	}
	u.asked = append(u.asked, name)
	if err := u.errs[name]; err != nil {
		return tftp.File{}, err
	}
	data, ok := u.files[name]
	if !ok {
		return tftp.File{}, &tftp.Error{Code: tftp.CodeNotFound, Msg: "no"}
	}
	u.open++
	return tftp.File{Body: upstreamBody{strings.NewReader(data), u}, Size: int64(len(data))}, nil
}

func newFiles(u *upstream, log io.Writer) *Files {
	return &Files{
		CTL: func() ([]byte, error) { return []byte("the CTL file"), nil },
		Sign: func(name string, payload []byte) ([]byte, error) {
			return append([]byte("signed "+name+": "), payload...), nil
		},
		Fetch:  u.fetch,
		Phones: &Phones{},
		Config: func(iface, device string) ConfigParams {
			return ConfigParams{KeepServiceSettings: true, Map: func(host string) (string, bool) { return iface + "-" + device, host == "10.20.0.11" }}
		},
		Now: func() time.Time { return start },
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

const (
	sccpBefore = "<device>\n<callManager><processNodeName>10.20.0.11</processNodeName></callManager><deviceSecurityMode>1</deviceSecurityMode></device>"
	sccpAfter  = "<device>\n<callManager><processNodeName>outside-SEP001122334455</processNodeName></callManager><deviceSecurityMode>3</deviceSecurityMode></device>"
	dfltBefore = "<Default><callManager><processNodeName>10.20.0.11</processNodeName></callManager></Default>"
	dfltAfter  = "<Default><callManager><processNodeName>outside-</processNodeName></callManager></Default>"
	signedLoad = "\x01\x00\x02\x01\x01\x02\x00\x02\x01\x9cload"
)

func TestFiles(t *testing.T) {
	oops := errors.New("oops")
	tests := []struct {
		name   string
		files  map[string]string
		errs   map[string]error
		change func(*Files)
		want   string
		err    error // by errors.Is
		asked  []string
		phone  string // entered among the secure phones
		log    string
	}{
		{name: "CTLSEP001122334455.tlv", want: "the CTL file", phone: "SEP001122334455"},
		{name: "ctlsep00112233445a.tlv", want: "the CTL file", phone: "SEP00112233445A"},
		{name: "CTLFile.tlv", want: "the CTL file"},
		{name: "CTLSEP001122334455.tlv", change: func(f *Files) { f.CTL = func() ([]byte, error) { return nil, oops } }, err: tftp.ErrNoAnswer},
		{name: "CTLSEP001122334455.tlv", change: func(f *Files) {
			f.Phones.Max = 1
			f.Phones.Authenticated("SEP0011223344FF", home, "outside", start)
		}, want: "the CTL file", phone: "SEP0011223344FF", log: "not entered"},
		{name: "ITLSEP001122334455.tlv", files: map[string]string{"ITLSEP001122334455.tlv": "x"}, err: fs.ErrNotExist},

		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore},
			want: "signed SEP001122334455.cnf.xml.sgn: " + sccpAfter, asked: []string{"SEP001122334455.cnf.xml"}, phone: "SEP001122334455"},
		{name: "sep001122334455.cnf.xml.SGN", files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore},
			want: "signed sep001122334455.cnf.xml.SGN: " + sccpAfter, asked: []string{"sep001122334455.cnf.xml", "SEP001122334455.cnf.xml"}, phone: "SEP001122334455"},
		{name: "SEP001122334455.cnf.xml.sgn", err: fs.ErrNotExist, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", errs: map[string]error{"SEP001122334455.cnf.xml": fmt.Errorf("x: %w", tftp.ErrNoAnswer)},
			err: tftp.ErrNoAnswer, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", errs: map[string]error{"SEP001122334455.cnf.xml": oops}, err: tftp.ErrNoAnswer, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": "<device><x></device>"},
			err: tftp.ErrNoAnswer, asked: []string{"SEP001122334455.cnf.xml"}, log: "error parsing config file"},
		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": signedLoad}, err: tftp.ErrNoAnswer, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": strings.Repeat(" ", MaxConfig+1)},
			err: tftp.ErrTooLarge, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore},
			change: func(f *Files) { f.Sign = func(string, []byte) ([]byte, error) { return nil, oops } }, err: tftp.ErrNoAnswer, asked: []string{"SEP001122334455.cnf.xml"}},
		{name: "SEP001122334455.cnf.xml.sgn", files: map[string]string{"SEP001122334455.cnf.xml": "<device><deviceSecurityMode/></device>"},
			change: func(f *Files) { f.Config = nil },
			want:   "signed SEP001122334455.cnf.xml.sgn: <device><deviceSecurityMode>3</deviceSecurityMode><vendorConfig><webAccess>1</webAccess><spanToPCPort>1</spanToPCPort></vendorConfig></device>",
			asked:  []string{"SEP001122334455.cnf.xml"}, phone: "SEP001122334455"},
		{name: "SEP001122334455.cnf.xml", files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore}, err: fs.ErrNotExist, log: "phone requesting for unsigned config file"},
		{name: "SEP001122334455.cnf.xml", files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore}, change: func(f *Files) { f.ServeUnsigned = true },
			want: sccpAfter, asked: []string{"SEP001122334455.cnf.xml"}, phone: "SEP001122334455"},
		{name: "SEP001122334455.cnf.xml.enc.sgn", files: map[string]string{"SEP001122334455.cnf.xml.enc.sgn": "x"}, err: fs.ErrNotExist},
		{name: "SEP001122334455.cnf.xml.sha512", files: map[string]string{"SEP001122334455.cnf.xml.sha512": "x"}, err: fs.ErrNotExist},

		{name: "XmlDefault.cnf.xml.sgn", files: map[string]string{"XMLDefault.cnf.xml": dfltBefore},
			want: "signed XmlDefault.cnf.xml.sgn: " + dfltAfter, asked: []string{"XmlDefault.cnf.xml", "XMLDefault.cnf.xml"}},
		{name: "XMLDefault.cnf.xml", files: map[string]string{"XMLDefault.cnf.xml": dfltBefore}, err: fs.ErrNotExist},

		{name: "SCCP41.loads", files: map[string]string{"SCCP41.loads": signedLoad}, want: signedLoad, asked: []string{"SCCP41.loads"}},
		{name: "x.bin3.sgn", files: map[string]string{"x.bin3.sgn": signedLoad, "x.bin3": "y"}, want: signedLoad, asked: []string{"x.bin3.sgn"}},
		{name: "x.zz.sgn", files: map[string]string{"x.zz": "y"}, err: fs.ErrNotExist, asked: []string{"x.zz.sgn"}},
		{name: "big.sbn", files: map[string]string{"big.sbn": strings.Repeat("z", maxSigned+1)}, want: strings.Repeat("z", maxSigned+1), asked: []string{"big.sbn"}},
		{name: "x.loads", errs: map[string]error{"x.loads": &tftp.Error{Code: tftp.CodeAccess}}, err: &tftp.Error{Code: tftp.CodeAccess}, asked: []string{"x.loads"}},

		{name: "mk/g3-tones.xml.sgn", files: map[string]string{"mk/g3-tones.xml": "tones\r\n"}, want: "signed mk/g3-tones.xml.sgn: tones\r\n", asked: []string{"mk/g3-tones.xml"}},
		{name: "mk/g3-tones.xml.sgn", files: map[string]string{"mk/g3-tones.xml.sgn": "by the UCM"}, err: fs.ErrNotExist, asked: []string{"mk/g3-tones.xml"}},
		{name: "huge.raw.sgn", files: map[string]string{"huge.raw": strings.Repeat("z", maxSigned+1)}, err: tftp.ErrTooLarge, asked: []string{"huge.raw"}},
		{name: "huge.raw.sgn", change: func(f *Files) {
			f.Fetch = func(context.Context, netip.AddrPort, string) (tftp.File, error) {
				return tftp.File{Body: io.NopCloser(strings.NewReader(strings.Repeat("z", maxSigned+1))), Size: -1}, nil
			}
		}, err: tftp.ErrTooLarge},
		{name: "a.raw.sgn", files: map[string]string{"a.raw": "x"}, change: func(f *Files) { f.Sign = func(string, []byte) ([]byte, error) { return nil, oops } },
			err: tftp.ErrNoAnswer, asked: []string{"a.raw"}},
		{name: "a.raw.sgn", change: func(f *Files) {
			f.Fetch = func(context.Context, netip.AddrPort, string) (tftp.File, error) {
				return tftp.File{Body: io.NopCloser(io.MultiReader(strings.NewReader("x"), errReader{oops})), Size: -1}, nil
			}
		}, err: tftp.ErrNoAnswer},
		{name: "RINGLIST.XML", files: map[string]string{"Ringlist.xml": "rings"}, want: "rings", asked: []string{"RINGLIST.XML", "Ringlist.xml"}},
		{name: "a.raw", err: fs.ErrNotExist, asked: []string{"a.raw"}},
		{name: "a.raw", errs: map[string]error{"a.raw": tftp.ErrNoAnswer}, err: tftp.ErrNoAnswer, asked: []string{"a.raw"}},
	}
	for i, tt := range tests {
		t.Run(fmt.Sprintf("%d/%s", i, strings.ReplaceAll(tt.name, "/", "|")), func(t *testing.T) {
			u := &upstream{files: tt.files, errs: tt.errs}
			var log bytes.Buffer
			f := newFiles(u, &log)
			if tt.change != nil {
				tt.change(f)
			}
			file, err := f.Open(t.Context(), home, "outside", ucm, tt.name)
			if want, ok := tt.err.(*tftp.Error); ok {
				var e *tftp.Error
				if !errors.As(err, &e) || e.Code != want.Code {
					t.Errorf("Open: %v, want %v", err, want)
				}
			} else if !errors.Is(err, tt.err) {
				t.Errorf("Open: %v, want %v", err, tt.err)
			}
			if errors.Is(err, tftp.ErrNoAnswer) && tftp.IsNotFound(err) {
				t.Errorf("Open: %v is both", err)
			}
			if tt.err == nil && err == nil {
				got, rerr := io.ReadAll(file.Body)
				if rerr != nil || string(got) != tt.want || file.Size != int64(len(tt.want)) {
					t.Errorf("got %.200q (size %d), %v; want %.200q", got, file.Size, rerr, tt.want)
				}
				file.Body.Close()
			}
			if u.open != 0 {
				t.Errorf("%d files left open at the UCM", u.open)
			}
			if diff := cmp.Diff(tt.asked, u.asked); diff != "" {
				t.Errorf("asked the UCM for (-want +got)\n%s", diff)
			}
			var names string
			for _, p := range f.Phones.List(start) {
				names += p.Device
				if p.Addr != home || p.Iface != "outside" {
					t.Errorf("phone entered as %+v", p)
				}
			}
			if names != tt.phone {
				t.Errorf("entered %q, want %q", names, tt.phone)
			}
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("logged %q, want %q", log.String(), tt.log)
			}
		})
	}
}

type errReader struct{ err error }

func (e errReader) Read([]byte) (int, error) { return 0, e.err }

// TestFilesOriginal checks that what the file said is kept with the phone.
func TestFilesOriginal(t *testing.T) {
	u := &upstream{files: map[string]string{"SEP001122334455.cnf.xml": sccpBefore}}
	f := newFiles(u, io.Discard)
	if _, err := f.Open(t.Context(), home, "outside", ucm, "SEP001122334455.cnf.xml.sgn"); err != nil {
		t.Fatal(err)
	}
	p, _ := f.Phones.Lookup("SEP001122334455", start)
	want := Original{Mode: ModeNonsecure, Members: []Member{{"10.20.0.11", 2000, 5060, 5061}}}
	if diff := cmp.Diff(want, p.Original); diff != "" {
		t.Errorf("Original (-want +got)\n%s", diff)
	}
}
