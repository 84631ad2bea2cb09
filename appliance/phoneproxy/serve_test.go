package phoneproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"patchbay/appliance/phoneproxy"
	"patchbay/inspect/tftp"
)

// TestServe has a phone fetch its files through the box, over TFTP on both
// sides, from a UCM that has them, and from one that is silent.
func TestServe(t *testing.T) {
	firmware := bytes.Repeat([]byte("0123456789abcdef"), 20000)
	ucm := serve(t, func(_ context.Context, _, _ netip.AddrPort, name string) (tftp.File, error) {
		switch name {
		case "SEP0200AABBCCDD.cnf.xml":
			return tftp.Bytes([]byte("<device><deviceSecurityMode>1</deviceSecurityMode></device>")), nil
		case "SCCP41.loads":
			return tftp.Bytes(firmware), nil
		case "slow.xml":
			return tftp.File{}, tftp.ErrNoAnswer
		}
		return tftp.File{}, tftp.NotFound()
	})
	files := &phoneproxy.Files{
		CTL:  func() ([]byte, error) { return []byte("ctl"), nil },
		Sign: func(name string, payload []byte) ([]byte, error) { return append([]byte(name+"|"), payload...), nil },
		Fetch: func(ctx context.Context, server netip.AddrPort, name string) (tftp.File, error) {
			return tftp.Open(ctx, socket(t), server, name, tftp.Options{BlockSize: 1468, Timeout: 50 * time.Millisecond, Tries: 2})
		},
		Config: func(string, string) phoneproxy.ConfigParams {
			return phoneproxy.ConfigParams{KeepServiceSettings: true}
		},
		Phones: &phoneproxy.Phones{},
		Now:    time.Now,
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	box := serve(t, func(ctx context.Context, from, _ netip.AddrPort, name string) (tftp.File, error) {
		return files.Open(ctx, from, "outside", ucm, name)
	})

	tests := []struct {
		name string
		want string
		err  func(error) bool
	}{
		{"CTLSEP0200AABBCCDD.tlv", "ctl", nil},
		{"ITLSEP0200AABBCCDD.tlv", "", tftp.IsNotFound},
		{"sep0200aabbccdd.cnf.xml.sgn", "sep0200aabbccdd.cnf.xml.sgn|<device><deviceSecurityMode>3</deviceSecurityMode></device>", nil},
		{"SEP0200AABBCCDD.cnf.xml", "", tftp.IsNotFound},
		{"SEP0200AABBCCDD.cnf.xml.enc.sgn", "", tftp.IsNotFound},
		{"SEP020000000000.cnf.xml.sgn", "", tftp.IsNotFound},
		{"SCCP41.loads", string(firmware), nil},
		{"slow.xml", "", func(err error) bool { return errors.Is(err, tftp.ErrNoAnswer) }},
		{"slow.xml.sgn", "", func(err error) bool { return errors.Is(err, tftp.ErrNoAnswer) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pc := socket(t)
			defer pc.Close()
			o := tftp.Options{}
			if tt.err != nil {
				o.Timeout, o.Tries = 200*time.Millisecond, 2
			}
			got, err := tftp.Get(t.Context(), pc, box, tt.name, o)
			if tt.err == nil && (err != nil || string(got) != tt.want) || tt.err != nil && !tt.err(err) {
				t.Errorf("got %d bytes %.80q, %v; want %.80q", len(got), got, err, tt.want)
			}
		})
	}
	phones := files.Phones.List(time.Now())
	if len(phones) != 1 || phones[0].Device != "SEP0200AABBCCDD" || phones[0].Original.Mode != phoneproxy.ModeNonsecure {
		t.Errorf("phones %+v", phones)
	}
}

func socket(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return pc
}

// serve runs a TFTP server until the test ends and returns its address.
func serve(t *testing.T, open func(context.Context, netip.AddrPort, netip.AddrPort, string) (tftp.File, error)) netip.AddrPort {
	pc := socket(t)
	at := pc.LocalAddr().(*net.UDPAddr).AddrPort()
	s := &tftp.Server{Open: open, NewTID: func(netip.AddrPort, netip.AddrPort) (net.PacketConn, error) {
		return net.ListenPacket("udp4", "127.0.0.1:0")
	}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, pc, at) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		pc.Close()
	})
	return at
}
