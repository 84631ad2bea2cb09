package phoneproxy

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"patchbay/appliance/pki"
	"patchbay/appliance/tlsproxy"
	"patchbay/inspect/tftp"
)

const (
	storyA = "SEP0200C6336407"
	storyB = "SEP0200C6336408"
)

var storyStart = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// A teller tells things one second after another.
type teller struct {
	*Stories
	now time.Time
}

func newTeller() *teller { return &teller{&Stories{}, storyStart} }

func (t *teller) file(kind tftp.EventKind, from, name string, err error) {
	t.now = t.now.Add(time.Second)
	t.File(tftp.Event{Kind: kind, From: netip.MustParseAddrPort(from), Name: name, Bytes: 1000, Err: err}, "outside", func() string { return "CN=signer" }, t.now)
}

func (t *teller) tell(kind Kind, device, from string) {
	t.now = t.now.Add(time.Second)
	t.Note(Event{Time: t.now, Kind: kind, Device: device, From: netip.MustParseAddrPort(from), Iface: "outside", Service: "sip"})
}

// lines are the events of a story, short.
func lines(s Story) []string {
	var all []string
	for _, e := range s.Events {
		all = append(all, fmt.Sprintf("%s %d %s %s %d x%d", e.Time.Format("05"), e.Kind, e.File, e.Text, e.Fault, e.Count))
	}
	return all
}

// A phone that boots, asks again, registers and calls: what became of each file,
// once.
func TestStory(t *testing.T) {
	s := newTeller()
	const from = "198.51.100.7:1024"
	s.file(tftp.Requested, from, "CTL"+storyA+".tlv", nil)
	s.file(tftp.Repeated, from, "CTL"+storyA+".tlv", nil)
	s.file(tftp.Sent, from, "CTL"+storyA+".tlv", nil)
	s.file(tftp.Requested, from, storyA+".cnf.xml.sgn", nil)
	s.file(tftp.Refused, from, storyA+".cnf.xml.sgn", fmt.Errorf("x: %w", tftp.ErrNoAnswer))
	s.file(tftp.Requested, from, "Ringlist.xml.sgn", nil) // by whom is plain: one phone is there
	s.file(tftp.Sent, from, "Ringlist.xml.sgn", nil)
	s.tell(TLSDone, storyA, "198.51.100.7:2000")
	s.tell(Connected, storyA, "198.51.100.7:2000")
	s.tell(Connected, storyA, "198.51.100.7:2000")
	got, ok := s.Device(storyA)
	want := []string{
		"02 0 CTL" + storyA + ".tlv sent, 1000 bytes, signed by CN=signer 0 x2",
		"04 0 " + storyA + ".cnf.xml.sgn not answered: x: " + tftp.ErrNoAnswer.Error() + " 3 x1",
		"06 0 Ringlist.xml.sgn sent, 1000 bytes 0 x1",
		"08 2   0 x1",
		"10 5   0 x2",
	}
	if diff := cmp.Diff(want, lines(got)); !ok || diff != "" {
		t.Errorf("Device() = %v, (-want +got)\n%s", ok, diff)
	}
	if got.Signer != "CN=signer" || !got.SignerAt.Equal(storyStart.Add(2*time.Second)) || !got.Proved || got.Addr.String() != "198.51.100.7" {
		t.Errorf("story is %+v", got)
	}
	if all := s.At(netip.MustParseAddr("198.51.100.7")); len(all) != 1 || all[0].Device != storyA {
		t.Errorf("At() = %+v", all)
	}
	if e := got.Latest(FileAsked, TLSFailed); e == nil || e.File != "Ringlist.xml.sgn" {
		t.Errorf("Latest() = %+v", e)
	}
	if _, ok := s.Device("198.51.100.7"); ok {
		t.Error("an address is a device")
	}
	var none *Stories
	none.Note(Event{})
	if _, ok := none.Device(storyA); ok || none.At(netip.MustParseAddr("198.51.100.7")) != nil {
		t.Error("nil Stories remember")
	}
}

// Behind one address an unnamed file could be anybody's.
func TestStorySharedAddress(t *testing.T) {
	s := newTeller()
	s.file(tftp.Sent, "198.51.100.30:1", "CTL"+storyA+".tlv", nil)
	s.file(tftp.Sent, "198.51.100.30:2", "CTL"+storyB+".tlv", nil)
	s.file(tftp.Sent, "198.51.100.30:3", "Ringlist.xml", nil)
	s.tell(TLSFailed, "", "198.51.100.30:4")
	all := s.At(netip.MustParseAddr("198.51.100.30"))
	if len(all) != 3 || all[0].Device != storyA || all[1].Device != storyB || all[2].Device != "" || len(all[2].Events) != 2 || len(all[0].Events) != 1 {
		t.Errorf("At() = %+v", all)
	}
}

// What strangers do under the name of a phone that has proved it is their own
// story, and does not move the phone's; the phone itself may move.
func TestStoryNotTakenOver(t *testing.T) {
	s := newTeller()
	s.tell(TLSDone, storyA, "198.51.100.7:1")
	for k := range 3 * MaxEvents {
		s.file(tftp.Sent, fmt.Sprintf("192.0.2.66:%d", k+1), fmt.Sprintf("CTL%s.tlv", storyA), nil)
		s.tell(TLSFailed, storyA, "192.0.2.66:9")
	}
	got, _ := s.Device(storyA)
	if len(got.Events) != 1 || got.Addr.String() != "198.51.100.7" || got.Signer != "" {
		t.Errorf("the phone's story became %+v", got)
	}
	if all := s.At(netip.MustParseAddr("192.0.2.66")); len(all) != 1 || all[0].Device != "" || len(all[0].Events) != maxUnprovedEvents || all[0].Forgotten == 0 {
		t.Errorf("the stranger has %d stories", len(all))
	}
	s.tell(TLSDone, storyA, "198.51.100.99:1")
	if got, _ := s.Device(storyA); got.Addr.String() != "198.51.100.99" || len(s.At(netip.MustParseAddr("198.51.100.7"))) != 0 {
		t.Errorf("the phone that moved is at %v", got.Addr)
	}
}

// Names from one address push out each other; names from everywhere push out
// the oldest, and never a phone that has proved itself.
func TestStoriesBounded(t *testing.T) {
	s := newTeller()
	s.Max, s.PerSource = 50, 8
	s.tell(TLSDone, storyA, "198.51.100.7:1")
	s.file(tftp.Sent, "198.51.100.8:1", "CTL"+storyB+".tlv", nil)
	for k := range 1000 {
		s.file(tftp.Sent, "192.0.2.66:9", fmt.Sprintf("CTLSEP0000%08X.tlv", k), nil)
	}
	if n := len(s.At(netip.MustParseAddr("192.0.2.66"))); n != 8 || s.Len() != 10 {
		t.Errorf("%d stories of one address, %d in all", n, s.Len())
	}
	if _, ok := s.Device(storyB); !ok {
		t.Error("one address pushed out another's phone")
	}
	for k := range 1000 {
		s.file(tftp.Sent, fmt.Sprintf("10.9.%d.%d:9", k/200, k%200), fmt.Sprintf("CTLSEP0000%08X.tlv", k), nil)
	}
	if _, ok := s.Device(storyA); !ok || s.Len() != 50 {
		t.Errorf("%d stories, the proved phone is there: %v", s.Len(), ok)
	}
	for k := range 100 {
		s.tell(TLSDone, fmt.Sprintf("SEP0000%08X", k), "198.51.100.30:1")
	}
	if _, ok := s.Device(storyA); ok || s.Len() != 50 || s.unproved.Len() != 0 || s.proved.Len() != 50 {
		t.Errorf("%d stories, %d not proved, the oldest is there: %v", s.Len(), s.unproved.Len(), ok)
	}
	s.tell(TLSFailed, "", "192.0.2.1:1") // no room for a stranger
	if len(s.At(netip.MustParseAddr("192.0.2.1"))) != 0 || len(s.all) != 50 {
		t.Error("a stranger pushed out a phone")
	}
	listed := 0
	for _, here := range s.at {
		listed += len(here)
	}
	if listed != 50 {
		t.Errorf("%d stories by address, want 50", listed)
	}
}

// Texts from a phone cannot move a cursor or fill a line.
func TestStoryText(t *testing.T) {
	s := newTeller()
	s.file(tftp.Refused, "192.0.2.66:9", "a\x1b[2J\r\n\u202e\xff"+strings.Repeat("b", 1000), errors.New("c\x07"))
	e := s.At(netip.MustParseAddr("192.0.2.66"))[0].Events[0]
	if strings.ContainsAny(e.File+e.Text, "\x1b\r\n\u202e\x07\ufffd") || len(e.File) > maxEventText+3 {
		t.Errorf("event is %q, %q", e.File, e.Text)
	}
}

func TestFaults(t *testing.T) {
	bad := func(r pki.Reason, subject string) error {
		return fmt.Errorf("x: %w", &pki.VerifyError{Reason: r, Subject: subject, Issuer: "CN=CA", Detail: "d"})
	}
	tests := []struct {
		err    error
		want   Fault
		device string
	}{
		{bad(pki.ReasonNone, ""), FaultNoCert, ""},
		{bad(pki.ReasonIssuer, "CN=CP-7962G-SEP0200c6336407"), FaultIssuer, storyA},
		{bad(pki.ReasonSignature, "CN=SEP0200C6336407SEP"), FaultIssuer, storyA},
		{bad(pki.ReasonDate, "CN=S"), FaultDate, ""},
		{bad(pki.ReasonKey, "CN=SSEP02"), FaultCert, ""},
		{fmt.Errorf("x: %w: y", tlsproxy.ErrCipher), FaultCipher, ""},
		{fmt.Errorf("x: %w", tlsproxy.ErrBusy), FaultBusy, ""},
		{fmt.Errorf("x: %w", &net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}), FaultAlert, ""},
		{&net.OpError{Op: "read", Err: errors.New("reset")}, FaultHandshake, ""},
		{errors.New("EOF"), FaultHandshake, ""},
	}
	for _, tt := range tests {
		if e := tlsFailed(tt.err); e.Fault != tt.want || e.Device != tt.device || e.Kind != TLSFailed {
			t.Errorf("tlsFailed(%v) = %+v, want fault %d of %q", tt.err, e, tt.want, tt.device)
		}
	}
	files := []struct {
		err  error
		want Fault
	}{
		{fmt.Errorf("x: %w: %w", errUnsigned, tftp.NotFound()), FaultUnsigned},
		{fmt.Errorf("x: %w: %w", tftp.ErrNoAnswer, errConfig), FaultConfig},
		{fmt.Errorf("x: %w: %w", tftp.ErrNoAnswer, errCTL), FaultCTL},
		{fmt.Errorf("x: %w", tftp.ErrNoAnswer), FaultNoAnswer},
		{tftp.NotFound(), FaultNotFound},
		{fs.ErrNotExist, FaultNotFound},
		{fs.ErrPermission, FaultFile},
	}
	for _, tt := range files {
		if got := fileFault(tt.err); got != tt.want {
			t.Errorf("fileFault(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}
