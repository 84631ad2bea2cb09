//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"patchbay/appliance"
	"patchbay/appliance/pki"
	"patchbay/nat"
	"patchbay/stack/link"
)

var (
	mediaFor     = flag.Duration("media.for", 3*time.Second, "how long calls talk in a run of TestBenchMedia")
	mediaRounds  = flag.Int("media.rounds", 2, "rounds of TestBenchMedia, in which the relays take turns")
	mediaTick    = flag.Duration("media.tick", time.Millisecond, "how finely packets are spread over the 20 ms of all calls")
	mediaOnly    = flag.String("media.only", "", "RELAY/CALLS,...: these runs of TestBenchMedia and no others, as packet/800")
	mediaProfile = flag.String("media.profile", "", "file for a CPU profile of the box, the last run's")
	mediaBox     = flag.String("media.box", "", "be the box that this file describes: TestBenchMedia runs its own program so")
)

// A boxOrder is what TestBenchMediaBox is told, in the file of -media.box.
type boxOrder struct {
	Config, Flash string
	Links         []string // as "patchbay run" takes them
	Calls         int
	Ready         string // file in which it says where the calls' ends are to send
}

// TestBenchMediaBox is the appliance on real links, in a process of its own, as
// "patchbay run" has it, but for the phones' signaling: the media sessions are
// opened as that does it, with keys that the generator knows.
func TestBenchMediaBox(t *testing.T) {
	if *mediaBox == "" {
		t.Skip("is a process of TestBenchMedia")
	}
	var o boxOrder
	text, err := os.ReadFile(*mediaBox)
	must(t, err)
	must(t, json.Unmarshal(text, &o))
	r, findings := check("box.cfg", strings.NewReader(o.Config), false)
	if r == nil {
		t.Fatal(findings)
	}
	store, err := pki.Open(o.Flash, pki.Options{})
	must(t, err)
	links, err := newLinks(o.Links)
	must(t, err)
	a, err := appliance.New(r, appliance.Options{Open: links.open, Store: store,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})), Console: io.Discard})
	must(t, err)
	var at [][2]netip.AddrPort
	for i := range o.Calls {
		s, err := a.OpenMedia(fmt.Sprint("call ", i), "outside", "inside")
		must(t, err)
		c := newVoiceCall(i)
		must(t, s.SetReceive(nat.Client, c.keys[0], time.Now()))
		must(t, s.SetTransmit(nat.Client, c.keys[1]))
		s.SetRemote(nat.Server, c.from[nat.Server], true)
		at = append(at, [2]netip.AddrPort{nat.Client: s.Local(nat.Client), nat.Server: s.Local(nat.Server)})
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	text, err = json.Marshal(at)
	must(t, err)
	must(t, os.WriteFile(o.Ready+".part", text, 0o600))
	must(t, os.Rename(o.Ready+".part", o.Ready))
	must(t, a.Run(ctx))
}

// A mediaRelay is a relay at work, with calls set up.
type mediaRelay struct {
	pid  int
	stop func()
}

// benchBox runs the box on links of a driver, and has it carry calls.
func (n *testNet) benchBox(t testing.TB, driver string, wrap []string, calls []*voiceCall) *mediaRelay {
	t.Helper()
	dir := t.TempDir()
	o := boxOrder{Config: mediaConfig(t), Flash: filepath.Join(dir, "flash"), Calls: len(calls), Ready: filepath.Join(dir, "ready"),
		Links: []string{"outside=" + driver + ":pbout", "inside=" + driver + ":pbin"}}
	text, err := json.Marshal(o)
	must(t, err)
	file := filepath.Join(dir, "box.json")
	must(t, os.WriteFile(file, text, 0o600))
	exe, err := os.Executable()
	must(t, err)
	args := append(append([]string{}, wrap...), exe, "-test.run=^TestBenchMediaBox$", "-test.v", "-media.box="+file)
	if *mediaProfile != "" {
		args = append(args, "-test.cpuprofile="+*mediaProfile)
	}
	b := &runningBox{exited: make(chan struct{})}
	b.cmd = n.command(context.Background(), n.box, args[0], args[1:]...)
	b.cmd.Env = append(os.Environ(), "GOMAXPROCS=3") // of its one core, and for each link that waits
	b.cmd.Stdout, b.cmd.Stderr = b, b
	must(t, startDying(b.cmd, func(err error) {
		b.err = err
		close(b.exited)
	}))
	stop := func() {
		b.cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-b.exited:
		case <-time.After(orderly):
			b.cmd.Process.Kill()
			<-b.exited
		}
	}
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("the box:\n%s", tail(b.text(), 8000))
		}
	})
	eventually(t, "the box is ready", func() bool {
		select {
		case <-b.exited:
			t.Fatalf("the box ended: %v\n%s", b.err, b.text())
		default:
		}
		text, err = os.ReadFile(o.Ready)
		return err == nil
	})
	var at [][2]netip.AddrPort
	must(t, json.Unmarshal(text, &at))
	for i, c := range calls {
		c.to = at[i]
		c.agreed(t)
	}
	return &mediaRelay{b.cmd.Process.Pid, stop}
}

// mediaConfig is the demo's, with room for as many calls as there may be.
func mediaConfig(t testing.TB) string { return demoWith(t) }

// benchRTPEngine is benchBox for rtpengine on the kernel's sockets.
func (n *testNet) benchRTPEngine(t testing.TB, wrap []string, calls []*voiceCall) *mediaRelay {
	t.Helper()
	n.kernelForwards(t)
	e := n.startRTPEngine(t, wrap)
	for i, c := range calls {
		e.call(t, i, c)
		c.agreed(t)
	}
	return &mediaRelay{e.cmd.Process.Pid, e.stop}
}

// pinned is what a relay is started with: a core that as good as nobody shares. Under
// real-time priority the kernel keeps some 5 % of the core for others, and a relay
// that is busy stalls for up to 50 ms at a time.
func pinned(t testing.TB, core int) []string {
	t.Helper()
	needs(t, "util-linux (taskset)")
	return []string{"nice", "-n", "-20", "taskset", "-c", fmt.Sprint(core)}
}

// measure has calls talk through a relay.
func (n *testNet) measure(t testing.TB, g *voiceGenerator, r *mediaRelay, calls, core int) *voiceResult {
	t.Helper()
	spent := cpuTime(t, r.pid)
	v := g.run(t, calls, *mediaFor, core)
	v.relay = cpuTime(t, r.pid) - spent
	if v.wrong > 0 {
		t.Errorf("%d calls: %d of the packets that were looked into are not what was said", calls, v.wrong)
	}
	return v
}

// String is one line of the log.
func (r *voiceResult) String() string {
	return fmt.Sprintf("%4d calls, %6.0f packets/s, loss %7.3f %%, relay %5.2f µs a packet, %.2f cores, delay p50 %v %v, p99 %v %v, generator %.2f cores, %v late",
		r.calls, float64(r.sent[0]+r.sent[1])/r.took.Seconds(), 100*r.loss(), float64(r.perPacket().Nanoseconds())/1e3,
		r.relay.Seconds()/r.took.Seconds(), r.p50[0], r.p50[1], r.p99[0], r.p99[1],
		r.generator.Seconds()/r.took.Seconds(), r.late.Round(10*time.Microsecond))
}

// A mediaPoint is a relay and how many calls it carries.
type mediaPoint struct {
	relay string
	calls int
}

// mediaPlan is what is measured, the relays by turns.
var mediaPlan = []mediaPoint{
	{"rtpengine", 100}, {"packet", 100}, {"xdp", 100},
	{"rtpengine", 600}, {"packet", 2000}, {"xdp", 2000},
	{"rtpengine", 800}, {"packet", 800}, {"xdp", 800},
	{"rtpengine", 1000}, {"packet", 2400}, {"xdp", 3000},
	{"rtpengine", 1200}, {"packet", 2700}, {"xdp", 3300},
	{"rtpengine", 1400}, {"packet", 3000}, {"xdp", 3600},
	{"rtpengine", 1500}, {"packet", 3200}, {"xdp", 3800}, // near what the generator can
}

// TestBenchMedia measures the media relay, SRTP to RTP and back, on one core
// beside rtpengine on the same, under the same generator on another core.
func TestBenchMedia(t *testing.T) {
	if !*benchLinks {
		t.Skip("measures for minutes: -bench.links")
	}
	relayCore, generatorCore := cores(t)
	plan := mediaPlan
	if *mediaOnly != "" {
		plan = nil
		for _, p := range strings.Split(*mediaOnly, ",") {
			relay, calls, _ := strings.Cut(p, "/")
			n, err := strconv.Atoi(calls)
			if err != nil || n < 1 {
				t.Fatalf("-media.only: %q is not RELAY/CALLS", p)
			}
			plan = append(plan, mediaPoint{relay, n})
		}
	}
	results := make(map[mediaPoint][]*voiceResult)
	for range *mediaRounds {
		for _, p := range plan {
			t.Run(fmt.Sprintf("%s/%d", p.relay, p.calls), func(t *testing.T) {
				if p.relay == "xdp" && !hasDriver("xdp") {
					t.Skip("there is no driver xdp in this build")
				}
				v := benchMediaOnce(t, p, relayCore, generatorCore)
				results[p] = append(results[p], v)
				t.Logf("%-9s %v", p.relay, v)
			})
		}
	}
	mediaTable(t, plan, results)
}

// mediaTable logs the medians of each point, and what the relays come to beside
// rtpengine.
func mediaTable(t *testing.T, plan []mediaPoint, results map[mediaPoint][]*voiceResult) {
	of := func(p mediaPoint, f func(*voiceResult) float64) float64 {
		var all []float64
		for _, r := range results[p] {
			all = append(all, f(r))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	cpu := func(r *voiceResult) float64 { return float64(r.perPacket().Nanoseconds()) / 1e3 }
	loss := func(r *voiceResult) float64 { return 100 * r.loss() }
	worse := func(d [2]time.Duration) float64 { return max(d[0], d[1]).Seconds() * 1e3 }
	p99 := func(r *voiceResult) float64 { return worse(r.p99) }
	var b strings.Builder
	most, prompt := make(map[string]int), make(map[string]int)
	for _, p := range plan {
		if len(results[p]) == 0 {
			continue
		}
		fmt.Fprintf(&b, "| %s | %d | %.3f | %.2f | %.2f | %.2f | %.2f | %.2f |\n", p.relay, p.calls, of(p, loss), of(p, cpu),
			of(p, func(r *voiceResult) float64 { return r.relay.Seconds() / r.took.Seconds() }),
			of(p, func(r *voiceResult) float64 { return r.generator.Seconds() / r.took.Seconds() }),
			of(p, func(r *voiceResult) float64 { return worse(r.p50) }), of(p, p99))
		if of(p, loss) <= 0.1 {
			most[p.relay] = max(most[p.relay], p.calls)
			if of(p, p99) < 5 {
				prompt[p.relay] = max(prompt[p.relay], p.calls)
			}
		}
	}
	t.Logf("medians of %d rounds\n| relay | calls | loss %% | µs a packet | cores | generator's | p50 ms | p99 ms |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n%s", *mediaRounds, b.String())
	peer := mediaPoint{"rtpengine", 800}
	for _, relay := range []string{"packet", "xdp"} {
		if most[relay] == 0 || most["rtpengine"] == 0 {
			continue
		}
		t.Logf("%s beside rtpengine: calls at 0.1 %% loss %d to %d, %.1f; with p99 under 5 ms %d to %d, %.1f", relay,
			most[relay], most["rtpengine"], float64(most[relay])/float64(most["rtpengine"]),
			prompt[relay], prompt["rtpengine"], float64(prompt[relay])/float64(max(prompt["rtpengine"], 1)))
		if p := (mediaPoint{relay, 800}); len(results[p]) > 0 && len(results[peer]) > 0 {
			t.Logf("%s beside rtpengine: CPU of a packet at %d calls %.2f", relay, p.calls, of(p, cpu)/of(peer, cpu))
		}
	}
}

// relayWith runs a relay with calls set up and greeted.
func (n *testNet) relayWith(t *testing.T, relay string, calls, core int) (*mediaRelay, *voiceGenerator) {
	t.Helper()
	all := make([]*voiceCall, calls)
	for i := range all {
		all[i] = newVoiceCall(i)
	}
	var r *mediaRelay
	if relay == "rtpengine" {
		r = n.benchRTPEngine(t, pinned(t, core), all)
	} else {
		r = n.benchBox(t, relay, pinned(t, core), all)
	}
	g := n.newVoiceGenerator(t, all)
	g.greet(t, calls)
	return r, g
}

// benchMediaOnce is one run, with a relay of its own.
func benchMediaOnce(t *testing.T, p mediaPoint, relayCore, generatorCore int) *voiceResult {
	n := newTestNet(t, overPacket)
	r, g := n.relayWith(t, p.relay, p.calls, relayCore)
	defer r.stop()
	return n.measure(t, g, r, p.calls, generatorCore)
}

// TestBenchMediaRecovers has a relay carry half as many calls again as it can,
// and then what it can: of that, nothing may be lost any more.
func TestBenchMediaRecovers(t *testing.T) {
	if !*benchLinks {
		t.Skip("measures for minutes: -bench.links")
	}
	relayCore, generatorCore := cores(t)
	for _, x := range []struct {
		relay       string
		over, after int
	}{{"rtpengine", 2100, 800}, {"packet", 3750, 1600}, {"xdp", 3750, 1600}} {
		t.Run(x.relay, func(t *testing.T) {
			if x.relay == "xdp" && !hasDriver("xdp") {
				t.Skip("there is no driver xdp in this build")
			}
			n := newTestNet(t, overPacket)
			r, g := n.relayWith(t, x.relay, x.over, relayCore)
			defer r.stop()
			t.Logf("%-9s overloaded: %v", x.relay, n.measure(t, g, r, x.over, generatorCore))
			for range 3 { // the machine, too, may have a bad moment
				v := n.measure(t, g, r, x.after, generatorCore)
				t.Logf("%-9s after that: %v", x.relay, v)
				if v.loss() == 0 {
					return
				}
			}
			if x.relay != "rtpengine" {
				t.Error("it goes on losing packets")
			}
		})
	}
}

// hasDriver reports whether links of a driver can be had.
func hasDriver(name string) bool {
	l, err := link.Open(name+":no such device", link.Options{})
	if err == nil {
		l.Close()
	}
	return err == nil || !strings.Contains(err.Error(), "there is no driver")
}
