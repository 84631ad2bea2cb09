package skinny_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
)

// TestPolicy is what each rule of the map does about a message, and its line in
// the log.
func TestPolicy(t *testing.T) {
	offHook := frame(0x0006, 0, 8)
	orc := orcForms[2].build(0x0105, farAddr)
	ack := frame(0x0081, 0, 60)
	const dropped = "%ASA-4-60800"
	tests := []struct {
		name string
		e    skinny.Engine
		msg  []byte
		from nat.End
		ack  bool // RegisterAck came before
		log  string
		err  error // beside ErrRule; nil: passes
		conn bool  // the conversation ends
	}{
		{"no map", skinny.Engine{}, offHook, nat.Client, false, "", nil, false},
		{"too short", skinny.Engine{MinLength: 13}, offHook, nat.Client, false, dropped + "2: Dropping Skinny message for client to server, SCCPPrefix length 12 too small", inspect.ErrDrop, false},
		{"long enough", skinny.Engine{MinLength: 12, MaxLength: 12}, offHook, nat.Client, false, "", nil, false},
		{"too long", skinny.Engine{MaxLength: 71}, orc, nat.Server, true, dropped + "3: Dropping Skinny message for server to client, SCCPPrefix length 72 too large", inspect.ErrDrop, false},
		{"too high", skinny.Engine{MaxID: 0x104}, orc, nat.Server, true, dropped + "4: Dropping Skinny message for server to client, message id 0x105 not allowed", inspect.ErrDrop, false},
		{"highest", skinny.Engine{MaxID: 0x105}, orc, nat.Server, true, "", nil, false},
		{"media before", skinny.Engine{EnforceRegistration: true}, orc, nat.Server, false, dropped + "5: Dropping Skinny message for server to client, message id 0x105 registration not complete", inspect.ErrDrop, false},
		{"call before", skinny.Engine{EnforceRegistration: true}, offHook, nat.Client, false, dropped + "5: Dropping Skinny message for client to server, message id 0x6 registration not complete", inspect.ErrDrop, false},
		{"media after", skinny.Engine{EnforceRegistration: true}, orc, nat.Server, true, "", nil, false},
		{"call after", skinny.Engine{EnforceRegistration: true}, offHook, nat.Client, true, "", nil, false},
		{"keepalive before", skinny.Engine{EnforceRegistration: true}, frame(0, 0, 0), nat.Client, false, "", nil, false},
		{"match", skinny.Engine{Matches: []skinny.Match{{From: 3, To: 6, Act: inspect.Drop | inspect.Log}}}, offHook, nat.Client, false, dropped + "4: Dropping Skinny message for client to server, message id 0x6 not allowed", inspect.ErrDrop, false},
		{"match, quiet", skinny.Engine{Matches: []skinny.Match{{From: 6, To: 6, Act: inspect.Drop}}}, offHook, nat.Client, false, "", inspect.ErrDrop, false},
		{"match of others", skinny.Engine{Matches: []skinny.Match{{From: 7, To: 9, Act: inspect.Drop}}}, offHook, nat.Client, false, "", nil, false},
		{"match not", skinny.Engine{Matches: []skinny.Match{{Not: true, From: 7, To: 9, Act: inspect.Reset}}}, offHook, nat.Client, false, "", inspect.ErrReset, true},
		{"match not, of these", skinny.Engine{Matches: []skinny.Match{{Not: true, From: 6, To: 6, Act: inspect.Drop}}}, offHook, nat.Client, false, "", nil, false},
		{"connection", skinny.Engine{Matches: []skinny.Match{{From: 6, To: 6, Act: inspect.Log}, {From: 6, To: 6, Act: inspect.DropConnection}, {From: 6, To: 6, Act: inspect.Drop}}}, offHook, nat.Client, false,
			"Skinny message for client to server, message id 0x6 matched", inspect.ErrRule, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var lines bytes.Buffer
			tt.e.Log = slog.New(slog.NewTextHandler(&lines, nil))
			s := tt.e.NewSession(&box{})
			if tt.ack {
				if _, err := s.Inspect(nil, ack, nat.Server); err != nil {
					t.Fatal(err)
				}
			}
			out, err := s.Inspect(nil, tt.msg, tt.from)
			if tt.err == nil && (err != nil || len(out) != len(tt.msg)) {
				t.Fatalf("Inspect() = %d bytes, %v; want it to pass", len(out), err)
			}
			if tt.err != nil && (!errors.Is(err, tt.err) || !errors.Is(err, inspect.ErrRule) || errors.Is(err, inspect.ErrDrop) == tt.conn) {
				t.Errorf("Inspect() = %v, want %v, conversation ended %v", err, tt.err, tt.conn)
			}
			if tt.log == "" && lines.Len() > 0 || !strings.Contains(lines.String(), tt.log) {
				t.Errorf("log %q, want %q", lines.String(), tt.log)
			}
		})
	}
}

// TestPayloadTypes is what Skinny's codecs are in RTP.
func TestPayloadTypes(t *testing.T) {
	tests := []struct {
		codec, dtmf uint32
		yes, no     []uint8
	}{
		{4, 101, []uint8{0, 13, 101}, []uint8{8, 18, 96, 100}},
		{2, 0, []uint8{8, 13}, []uint8{0, 101}},
		{12, 0, []uint8{18}, []uint8{0, 8}},
		{9, 0, []uint8{4}, []uint8{18}},
		{90, 0, []uint8{96, 127}, []uint8{0, 95}}, // Opus: any dynamic one
	}
	for _, tt := range tests {
		b := &box{}
		s := skinny.Engine{}.NewSession(b)
		m := frame(0x0105, 17, 128)
		put(m, 0, uint32(7), 4, uint32(9), 12, tt.codec, 84, tt.dtmf)
		if _, err := s.Inspect(nil, m, nat.Server); err != nil {
			t.Fatal(err)
		}
		got := b.media[len(b.media)-1].Types
		for _, pt := range tt.yes {
			if !got.Has(pt) {
				t.Errorf("codec %d: payload type %d is not there", tt.codec, pt)
			}
		}
		for _, pt := range tt.no {
			if got.Has(pt) {
				t.Errorf("codec %d: payload type %d is there", tt.codec, pt)
			}
		}
	}
}

// TestCallList is what "show skinny" says of the calls.
func TestCallList(t *testing.T) {
	s := skinny.Engine{}.NewSession(&box{})
	list := func() []inspect.Call { return s.(inspect.Lister).Calls(nil, time.Time{}) }
	if got := list(); len(got) != 0 {
		t.Errorf("calls %v of nobody", got)
	}
	pass := func(m []byte, from nat.End) {
		t.Helper()
		if _, err := s.Inspect(nil, m, from); err != nil {
			t.Fatal(err)
		}
	}
	pass(orcForms[2].build(0x0105, farAddr), nat.Server)
	pass(orcAckForms[1].build(0x0022, phoneAddr), nat.Client)
	pass(smtForms[1].build(0x008a, farAddr), nat.Server)
	got := list()
	if len(got) != 1 || got[0].ID != "7" || !got[0].Active || len(got[0].Media) != 1 ||
		got[0].Media[0] != (inspect.MediaPair{Local: phoneAddr, Foreign: farAddr}) {
		t.Errorf("calls %+v, want call 7 between %v and %v", got, phoneAddr, farAddr)
	}
	s.Close()
	if got := list(); len(got) != 0 {
		t.Errorf("calls %v after the end", got)
	}
}
