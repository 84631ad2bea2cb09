//go:build linux

package main

import (
	"context"
	"encoding/json"
	"flag"
	"strings"
	"testing"
)

// compare has the kernel do, too, what is asked of the box.
var compare = flag.Bool("compare", false, "do with the kernel's NAT, and without NAT, what is done with the box")

// iperfFor is how long iperf3 sends, in seconds.
var iperfFor = flag.String("iperf.for", "1", "how many seconds iperf3 sends each way")

// An iperfReport is what of iperf3's JSON matters. Of UDP the sums that the
// sender has are in sum.
type iperfReport struct {
	Start struct {
		Accepted struct {
			Host string
			Port uint16
		} `json:"accepted_connection"`
	}
	End struct {
		Received struct {
			Bytes         float64
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct {
			Bytes         float64
			BitsPerSecond float64 `json:"bits_per_second"`
			Packets       float64
			LostPackets   float64 `json:"lost_packets"`
		}
	}
	Error  string
	Server *iperfReport `json:"server_output_json"` // what the server has to say
}

// TestIperf has iperf3 carry TCP and UDP through dynamic PAT, each way.
func TestIperf(t *testing.T) {
	needs(t, "iperf3 (iperf3)")
	box := func(t *testing.T, n *testNet) { n.start(t, startOptions{level: "info"}) }
	type way struct {
		name, driver string
		ready        func(t *testing.T, n *testNet)
	}
	// In the kernel's stack AF_XDP gets what the peers leave for devices to cut.
	ways := []way{{"box", overPacket, box}, {"box over xdp", overGeneric, box}}
	if *compare {
		ways = append(ways, way{"kernel", overPacket, func(t *testing.T, n *testNet) {
			n.kernelForwards(t)
			n.kernelInspects(t)
		}})
	}
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			n := newTestNet(t, w.driver)
			w.ready(t, n)
			n.iperfServer(t)
			for _, tt := range []struct {
				name string
				args []string
			}{
				{"TCP", nil},
				{"TCP from outside", []string{"-R"}},
				{"UDP", []string{"-u", "-b", "5M", "-l", "1200"}},
				{"UDP from outside", []string{"-u", "-b", "5M", "-l", "1200", "-R"}},
			} {
				t.Run(tt.name, func(t *testing.T) { n.iperf(t, tt.args) })
			}
		})
	}
}

// maxUDPLoss is what UDP may lose at a rate that the box should bear: the
// machine of the tests does other things as well.
const maxUDPLoss = 0.05

// iperfServer serves iperf3 outside until the test ends.
func (n *testNet) iperfServer(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	server := n.command(ctx, n.out, "iperf3", "-s", "-J", "-B", phoneAddr.String())
	ended := make(chan struct{})
	must(t, startDying(server, func(error) { close(ended) }))
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	n.awaitListener(t, n.out, "tcp", 5201)
}

// iperf runs iperf3 from a desk inside to a host outside, who must see the box.
func (n *testNet) iperf(t *testing.T, args []string) {
	t.Helper()
	out, err := n.run(patience, n.in, "iperf3", append([]string{"-c", phoneAddr.String(), "-B", deskAddr.String(),
		"-J", "-t", *iperfFor, "--connect-timeout", "3000", "--get-server-output"}, args...)...)
	if err != nil {
		t.Fatalf("iperf3: %v: %s", err, tail(out, 500))
	}
	var client iperfReport
	must(t, json.Unmarshal([]byte(out), &client))
	if client.Error != "" || client.Server == nil {
		t.Fatalf("iperf3: %s, and the server says %v", client.Error, client.Server)
	}
	if got := client.Server.Start.Accepted.Host; got != boxAddr.String() {
		t.Errorf("the server sees %s, want the address of PAT, %v", got, boxAddr)
	}
	if !strings.Contains(strings.Join(args, " "), "-u") {
		if client.End.Received.Bytes == 0 {
			t.Errorf("nothing arrived: %s", tail(out, 500))
		}
		t.Logf("%.0f Mbit/s", client.End.Received.BitsPerSecond/1e6)
		return
	}
	sum := client.End.Sum
	if sum.Packets == 0 || sum.LostPackets > maxUDPLoss*sum.Packets {
		t.Errorf("%.0f datagrams of %.0f were lost: %s", sum.LostPackets, sum.Packets, tail(out, 500))
	}
	t.Logf("%.1f Mbit/s, %.0f of %.0f datagrams lost", sum.BitsPerSecond/1e6, sum.LostPackets, sum.Packets)
}

// TestNetem has a TCP connection through PAT carry megabytes each way over
// links that lose one packet in a hundred and send another one early.
func TestNetem(t *testing.T) {
	needs(t, "iproute2 (tc)")
	n := newTestNet(t, overPacket)
	for ns, dev := range map[string]string{n.out: "pbout", n.in: "pbin"} {
		if out, err := n.run(patience, ns, "tc", "qdisc", "add", "dev", dev, "root", "netem", "delay", "2ms", "loss", "1%", "reorder", "99%"); err != nil {
			t.Skipf("needs tc netem in the kernel; TestLossyLink in appliance does the same in memory: %v: %s", err, strings.TrimSpace(out))
		}
	}
	b := n.start(t, startOptions{level: "info"})
	f := &forwarding{n, b, n.host(t, n.out, phoneAddr), n.host(t, n.in, deskAddr), n.host(t, n.in, ucmReal)}
	t.Run("transfer through PAT", f.transfer)
}
