package appliance

import (
	"slices"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/stack"
)

func (b *tracedBox) shows(t *testing.T, line string) string {
	t.Helper()
	var out strings.Builder
	if err := b.Exec(&out, line); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return out.String()
}

func TestShowState(t *testing.T) {
	b := newTracedBox(t, "hostname pb\n"+baseConfig+"name 10.20.0.11 ucm\nname 10.20.0.5 alpha\nssl encryption aes256-sha1 aes128-sha1 null-sha1\n", nil)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	for _, tt := range []struct{ line, want string }{
		{"show mode", "Security context mode: single\n"},
		{"show firewall", "Firewall mode: Router\n"},
		{"show failover", "Failover Off\n"},
		{"show names", "name 10.20.0.5 alpha\nname 10.20.0.11 ucm\n"},
		{"show nameif", "Interface                Name                     Security\nGigabitEthernet0/0       outside                    0\nGigabitEthernet0/1       inside                   100\n"},
		{"show nameif dmz", "Security\nGigabitEthernet0/2       dmz                       50\n"},
		{"show ip address inside", "System IP Addresses:\nInterface                Name                   IP address      Subnet mask     Method\n" +
			"GigabitEthernet0/1       inside                 10.20.0.1       255.255.255.0   CONFIG\nCurrent IP Addresses:\n"},
		{"show ssl", "Enabled cipher order: aes256-sha1 aes128-sha1\nDisabled ciphers: 3des-sha1 rc4-sha1 null-sha1 rc4-md5 des-sha1\n"},
		{"show skinny audio", "LOCAL                          FOREIGN\n"},
		{"show uptime", "pb up 0 mins 0 secs\n"},
		{"show license", "UC Phone Proxy Sessions           : Unlimited      perpetual  0 in use\n"},
		{"show activation-key", "No activation key is needed"},
	} {
		if got := b.shows(t, tt.line); !strings.Contains(got, tt.want) {
			t.Errorf("%s:\n%s\nwant\n%s", tt.line, got, tt.want)
		}
	}
	if got := uptimeText(26 * time.Hour); got != "1 days 2 hours" {
		t.Errorf("uptimeText = %q", got)
	}
}

// TestTraffic shows rates over the last minutes, and none before they are measured.
func TestTraffic(t *testing.T) {
	b := newTracedBox(t, baseConfig+"route outside 0.0.0.0 0.0.0.0 203.0.113.1 1\n", nil)
	if b == nil {
		t.Fatal("the configuration is refused")
	}
	if got := b.shows(t, "show interface inside"); strings.Contains(got, "minute input rate") {
		t.Errorf("rates that nobody has measured:\n%s", got)
	}
	in := b.plan().named("inside")
	at := time.Unix(1000, 0)
	var s trafficSample
	for k := range 80 { // 10 packets of 100 bytes a second, for 400 seconds; and none in the last minute
		s = trafficSample{at: at.Add(time.Duration(k) * 5 * time.Second), n: s.n}
		b.traffic.add(in, s)
		if k < 67 {
			s.n.InPackets += 50
			s.n.InBytes += 5000
		}
	}
	for _, tt := range []struct {
		d    time.Duration
		want uint64
	}{{time.Minute, 0}, {cpuSpan, 8}} {
		if r, ok := b.traffic.over(in, tt.d, s); !ok || r.inPackets != tt.want || r.outPackets != 0 {
			t.Errorf("over %v: %+v, %v; want %d packets a second", tt.d, r, ok, tt.want)
		}
	}
	if n := len(b.traffic.samples[in]); n != cpuRoom {
		t.Errorf("%d samples are kept, want %d", n, cpuRoom)
	}
	b.traffic.add(in, trafficSample{at: at})
	if _, ok := b.traffic.over(in, time.Minute, trafficSample{at: at}); ok {
		t.Error("a clock that was set back measures")
	}
	b.traffic.keep([]*stack.Interface{b.plan().named("outside")})
	if len(b.traffic.samples) != 0 {
		t.Error("an interface that is gone is remembered")
	}

	b.sampleTraffic(b.opt.Now().Add(-10 * time.Second))
	b.forward.Handle(b.arrive("inside", synPacket("10.20.0.50:4000", "192.0.2.5:80")))
	got := b.shows(t, "show traffic")
	if !strings.Contains(got, "inside:\n\treceived (in ") || !strings.Contains(got, "      1 minute input rate ") {
		t.Errorf("show traffic:\n%s", got)
	}
	if got := b.shows(t, "show traffic"); !strings.Contains(got, "\t\t1 packets\t44 bytes\n") {
		t.Errorf("show traffic:\n%s", got)
	}
	b.shows(t, "clear traffic")
	if got := b.shows(t, "show traffic"); strings.Contains(got, "\t\t1 packets") || !strings.Contains(got, "\t\t0 packets\t0 bytes\n") {
		t.Errorf("show traffic after clear traffic:\n%s", got)
	}
	if got := b.shows(t, "show interface inside"); !strings.Contains(got, "      5 minute drop rate, 0 pkts/sec\n") {
		t.Errorf("show interface:\n%s", got)
	}
}

// Calls come in the order of maps, and are shown in one that the same calls always have.
func TestShowSIPOrder(t *testing.T) {
	calls := []inspect.Call{
		{ID: "b", Active: true, Idle: time.Second},
		{ID: "a", Idle: 2 * time.Second},
		{ID: "a", Active: true, Idle: 2 * time.Second},
		{ID: "a", Active: true, Idle: time.Second},
	}
	want := shownCallsOf(calls)
	if first := want[0]; first.ID != "a" || first.Idle.Duration() != time.Second {
		t.Errorf("first is %+v, want the last heard of with the lowest Call-ID", first)
	}
	for n := range calls {
		turned := append(slices.Clone(calls[n:]), calls[:n]...)
		slices.Reverse(turned)
		if got := shownCallsOf(turned); !slices.Equal(got, want) {
			t.Errorf("%v are shown as %v, in another order as %v", turned, got, want)
		}
	}
}
