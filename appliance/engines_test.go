package appliance

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"patchbay/appliance/config"
	"patchbay/inspect"
	"patchbay/inspect/sip"
	"patchbay/inspect/skinny"
)

// inspectMaps has a value in every place of both maps.
const inspectMaps = `policy-map type inspect sip s
 match request-method unknown
  drop log
 match not uri tel length gt 40
  rate-limit 5
 match uri sip length gt 200
  reset
 match content length gt 4000
  log
 match content type sdp
  drop-connection log
 match request-method subscribe
  drop
 parameters
  no im
  ip-address-privacy
  no traffic-non-sip
  max-forwards-validation action reset log
  software-version action mask
  state-checking action log
  strict-header-validation action drop-connection
  uri-non-sip action mask log
policy-map type inspect skinny k
 match not message-id range 0 0x181
  drop log
 match message-id 0x26
  reset
 parameters
  enforce-registration
  message-id max 0x200
  sccp-prefix-len min 8
  sccp-prefix-len max 4000
  timeout media 0:01:00
  timeout signaling 0:20:00
timeout sip-invite 0:01:30
timeout sip-disconnect 0:01:10
timeout sip 0:10:00
timeout tcp-proxy-reassembly 0:00:20
`

// TestEngines is what the words of the maps become in the engines.
func TestEngines(t *testing.T) {
	r, found := config.Parse("pb.cfg", strings.NewReader(inspectMaps))
	if len(found) > 0 {
		t.Fatal(found)
	}
	log := slog.New(slog.DiscardHandler)
	wantSIP := &sip.Engine{
		Client: sip.UDP, Server: sip.UDP, NAT: true, MaxCalls: maxCalls, Log: log,
		InviteTimeout: 90 * time.Second, DisconnectTimeout: 70 * time.Second, Timeout: 10 * time.Minute,
		Map: sip.Map{
			MaxForwards: inspect.Reset | inspect.Log, URINonSIP: inspect.Mask | inspect.Log, Software: inspect.Mask,
			StrictHeader: inspect.DropConnection, State: inspect.Log, NoIM: true, Private: true,
			Matches: []sip.Match{
				{Kind: sip.MatchMethod, Act: inspect.Drop | inspect.Log},
				{Kind: sip.MatchTel, Not: true, Over: 40, Rate: sip.NewRate(5)},
				{Kind: sip.MatchURI, Over: 200, Act: inspect.Reset},
				{Kind: sip.MatchLength, Over: 4000, Act: inspect.Log},
				{Kind: sip.MatchSDP, Act: inspect.DropConnection | inspect.Log},
				{Kind: sip.MatchMethod, Method: "SUBSCRIBE", Act: inspect.Drop},
			},
		},
	}
	rates := cmp.Comparer(func(a, b *sip.Rate) bool { return (a == nil) == (b == nil) })
	logs := cmp.Comparer(func(a, b *slog.Logger) bool { return a == b })
	if d := cmp.Diff(sipEngine(r.PolicyMap("s").SIP, r.Timeouts, sip.UDP, log), wantSIP, rates, logs); d != "" {
		t.Errorf("sipEngine (- got, + want)\n%s", d)
	}
	wantSkinny := skinny.Engine{
		MaxVersion: 22, Video: true, MediaTimeout: time.Minute,
		MaxID: 0x200, MinLength: 8, MaxLength: 4000, EnforceRegistration: true, Log: log,
		Matches: []skinny.Match{
			{Not: true, From: 0, To: 0x181, Act: inspect.Drop | inspect.Log},
			{From: 0x26, To: 0x26, Act: inspect.Reset},
		},
	}
	if d := cmp.Diff(skinnyEngine(r.PolicyMap("k").Skinny, log), wantSkinny, logs); d != "" {
		t.Errorf("skinnyEngine (- got, + want)\n%s", d)
	}
	if got := skinnyOptions(r.PolicyMap("k").Skinny); got.Media != time.Minute || !got.Private || got.Mark != "k" {
		t.Errorf("skinnyOptions = %+v", got)
	}
	if got, want := sipLimits(r.Timeouts), (inspect.Limits{Reassembly: 20 * time.Second, Idle: 10 * time.Minute}); got != want {
		t.Errorf("sipLimits = %+v, want %+v", got, want)
	}
	if got, want := skinnyLimits(r.PolicyMap("k").Skinny, r.Timeouts), (inspect.Limits{Reassembly: 20 * time.Second, Idle: 20 * time.Minute}); got != want {
		t.Errorf("skinnyLimits = %+v, want %+v", got, want)
	}
}

// TestDefaultEngines is inspection without a map.
func TestDefaultEngines(t *testing.T) {
	r, found := config.Parse("pb.cfg", strings.NewReader("timeout sip 0:00:00\n"))
	if len(found) > 0 {
		t.Fatal(found)
	}
	if d := cmp.Diff(sipEngine(nil, r.Timeouts, sip.TCP, nil).Map, sip.DefaultMap(), cmpopts.EquateEmpty()); d != "" {
		t.Errorf("sipEngine(nil).Map (- got, + want)\n%s", d)
	}
	if got := skinnyEngine(nil, nil); got.MaxID != 0x181 || got.MinLength != 4 || got.EnforceRegistration {
		t.Errorf("skinnyEngine(nil) = %+v", got)
	}
	if got := skinnyOptions(nil).Media; got != 5*time.Minute {
		t.Errorf("skinnyOptions(nil).Media = %v, want 5m", got)
	}
	if got := skinnyLimits(nil, r.Timeouts).Idle; got != time.Hour {
		t.Errorf("skinnyLimits(nil).Idle = %v, want 1h", got)
	}
	if got := sipLimits(r.Timeouts).Idle; got >= 0 {
		t.Errorf("sipLimits.Idle of \"timeout sip 0:00:00\" = %v, want none", got)
	}
}
