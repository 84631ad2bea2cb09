package lab

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// A cast of two call managers, a proxy and plain phones on one network, without
// a box: acts that can succeed do, and those that cannot say why.
func TestPlay(t *testing.T) {
	addr := netip.MustParseAddr
	tftp := netip.AddrPortFrom(addr("127.0.46.21"), tftpPort)
	cast := &Cast{
		Managers: []ManagerPart{
			{Name: "first", Addr: addr("127.0.46.11"), Backup: addr("127.0.46.12"), TFTP: []netip.Addr{tftp.Addr()}},
			{Name: "second", Addr: addr("127.0.46.12")},
		},
		Phones: []PhonePart{
			{Place: Inside, Protocol: SCCP, Addr: addr("127.0.46.50"), Line: "1", TFTP: tftp},
			{Place: Inside, Protocol: SIP, Addr: addr("127.0.46.51"), Line: "2", TFTP: tftp},
			{Place: Inside, Protocol: SCCP, Addr: addr("127.0.46.52"), Line: "3", TFTP: tftp},
			{Place: Inside, Protocol: SIP, Addr: addr("127.0.46.53"), Line: "4", TFTP: tftp},
		},
		Sites: []SitePart{{Addr: netip.AddrPortFrom(addr("127.0.46.11"), 8080)}},
	}
	l, err := NewLab(Options{Cast: cast, InsideNets: []netip.Prefix{netip.MustParsePrefix("127.0.46.0/24")}},
		func(_ Place, a netip.Addr) (Host, error) { return NewKernelHost("", a) })
	if err != nil {
		if strings.Contains(err.Error(), "permission") {
			t.Skip("needs to listen on port 69: ", err)
		}
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results := Play(ctx, l, []Act{
		{Call: &[2]string{"1", "3"}},
		{Services: "1"},
		{Stop: "first"},
		{Call: &[2]string{"3", "1"}},
		{Call: &[2]string{"2", "4"}},
		{Call: &[2]string{"1", "9"}},
		{Stop: "third"},
	}, CallOptions{Talk: 300 * time.Millisecond, NoHold: true})
	refused := map[string]string{
		"phone 9":            "nobody has the line 9",
		"call manager third": `there is no call manager "third"`,
	}
	for _, r := range results {
		if want, ok := refused[r.Name]; ok {
			if r.OK || r.Err != want {
				t.Errorf("%q: %q, want %q", r.Name, r.Err, want)
			}
			delete(refused, r.Name)
		} else if !r.OK {
			t.Error(r)
		}
	}
	if len(refused) > 0 {
		t.Errorf("steps that are not there: %v", refused)
	}
	if n := l.Managers["first"].Calls(); n != 1 {
		t.Errorf("%d calls of the first call manager, want 1", n)
	}
	if n := l.Managers["second"].Calls(); n != 2 {
		t.Errorf("%d calls of the second call manager, want 2", n)
	}
}
