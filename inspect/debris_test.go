package inspect_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"patchbay/inspect"
	"patchbay/inspect/skinny"
	"patchbay/nat"
	"patchbay/stack"
)

// A letter is a datagram as one side sent it.
type letter struct {
	in       *stack.Interface
	src, dst string
	data     string
}

// correspondence is what was sent in the calls, registrations and media of a
// wall through which everything went well, in order.
func correspondence(t *testing.T) []letter {
	t.Helper()
	var all []letter
	w := newWall(t, patRule(), staticRule("10.20.0.5", "203.0.113.5"))
	w.open5060 = true
	pass := func(in *stack.Interface, src, dst, data string) string {
		t.Helper()
		all = append(all, letter{in, src, dst, data})
		_, got := w.must(in, src, dst, data)
		return got
	}
	for i := range 3 {
		id := fmt.Sprint("out", i)
		here := fmt.Sprintf("10.20.0.11:%d", 16384+4*i)
		got := pass(inside, phone, proxy, request("INVITE", 1, id, phone, proxy, "", body(here)))
		at := media(t, got)
		pass(outside, proxy, phoneAs, answer(got, 100, "", ""))
		pass(outside, proxy, phoneAs, tagged(got, 183, "x", proxy, body(far2RTP)))
		pass(outside, far2RTP, at.String(), "early")
		pass(outside, proxy, phoneAs, answer(got, 200, proxy, body(farRTP)))
		pass(inside, phone, proxy, request("ACK", 1, id, phone, proxy, "", ""))
		pass(outside, farRTP, at.String(), "in")
		pass(inside, here, farRTP, "out")
		got = pass(inside, phone, proxy, request("INVITE", 2, id, phone, proxy, "", body("10.20.0.11:19000")))
		pass(outside, proxy, phoneAs, answer(got, []int{200, 488, 200}[i], proxy, body(farRTP)))
		got = pass(outside, proxy, phoneAs, request("INVITE", 9, id, proxy, phoneAs, "", body(far2RTP)+"a=rtcp:30007\r\n"))
		pass(inside, phone, proxy, answer(got, 200, phone, body(here)))
		pass(inside, phone, proxy, request("BYE", 3, id, phone, proxy, "", ""))
	}
	got := pass(inside, "10.20.0.11:49152", proxy, request("REGISTER", 1, "reg", phone, proxy, "Expires: 600\n", ""))
	pass(outside, proxy, "203.0.113.2:49152", answer(got, 200, "203.0.113.2:5060", ""))
	got = pass(inside, phone, proxy, request("SUBSCRIBE", 1, "sub", phone, proxy, "Event: message-summary\nExpires: 300\n", ""))
	pass(outside, proxy, phoneAs, answer(got, 200, proxy, ""))
	pass(outside, proxy, phoneAs, request("NOTIFY", 1, "sub", proxy, phoneAs, "Event: message-summary\nSubscription-State: active\n", ""))
	const server, serverAs = "10.20.0.5:5060", "203.0.113.5:5060"
	got = pass(outside, caller, serverAs, request("INVITE", 1, "in", caller, serverAs, "", body(farRTP)))
	pass(inside, server, caller, answer(got, 180, server, ""))
	got = pass(inside, server, caller, answer(got, 200, server, body("10.20.0.12:17000")))
	pass(outside, farRTP, media(t, got).String(), "in")
	pass(outside, caller, serverAs, request("ACK", 1, "in", caller, serverAs, "", ""))
	pass(outside, caller, serverAs, request("CANCEL", 1, "in", caller, serverAs, "", ""))
	pass(outside, caller, serverAs, request("BYE", 2, "in", caller, serverAs, "", ""))
	return all
}

// damage loses, repeats, reorders, cuts and changes what is sent.
func damage(r *rand.Rand, all []letter) []letter {
	var out []letter
	for _, l := range all {
		switch r.IntN(8) {
		case 0: // lost
		case 1: // twice
			out = append(out, l, l)
		case 2: // cut
			l.data = l.data[:r.IntN(len(l.data)+1)]
			out = append(out, l)
		case 3: // changed
			b := []byte(l.data)
			for range 1 + r.IntN(3) {
				if len(b) > 0 {
					b[r.IntN(len(b))] = "\x00 \r\n;:<>@=0123456789\xff"[r.IntN(21)]
				}
			}
			l.data = string(b)
			out = append(out, l)
		case 4: // a piece of another in it
			o := all[r.IntN(len(all))].data
			at := r.IntN(len(l.data) + 1)
			l.data = l.data[:at] + o[r.IntN(len(o)+1):]
			out = append(out, l)
		default:
			out = append(out, l)
		}
	}
	for range len(out) / 4 {
		i, j := r.IntN(len(out)), r.IntN(len(out))
		out[i], out[j] = out[j], out[i]
	}
	return out[:r.IntN(len(out)+1)]
}

// left says what is left of all that was said, "" for nothing.
func left(w *wall) string {
	inUse, _ := w.pat.Len()
	if n := w.table.Pinholes() + w.table.Len() + w.nat.Contacts() + w.nat.Streams() + w.udp.Conversations() + len(w.udp.Calls(w.now)) + inUse; n == 0 {
		return ""
	}
	s := fmt.Sprintf("%d pinholes, %d connections, %d contacts, %d streams, %d conversations, %d calls, %d ports are left",
		w.table.Pinholes(), w.table.Len(), w.nat.Contacts(), w.nat.Streams(), w.udp.Conversations(), len(w.udp.Calls(w.now)), inUse)
	w.table.Holes(func(h *nat.Hole) bool {
		s += fmt.Sprintf("\n%s %v until %v", h.Reason, h.Match, h.Expires.Sub(w.now))
		return true
	})
	return s
}

// TestDebris lets damaged dialogues through and then nothing more: whatever
// they were, nothing is left of them in the end, by time or when all
// connections are cleared. And no inside address leaves.
func TestDebris(t *testing.T) {
	all := correspondence(t)
	rounds := uint64(150)
	if testing.Short() {
		rounds = 20
	}
	for seed := range rounds {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWall(t, patRule(), staticRule("10.20.0.5", "203.0.113.5"))
		w.open5060 = true
		if seed%3 == 0 {
			w.udp.Options.RTP = inspect.RTPSignaled
		}
		for _, l := range damage(r, all) {
			w.send(l.in, l.src, l.dst, l.data)
			if r.IntN(10) == 0 {
				w.skip(time.Duration(r.IntN(100)) * time.Second)
			}
		}
		if r.IntN(2) == 0 { // "clear conn"
			w.table.Clear(func(*nat.Conn) bool { return true })
			w.skip(time.Minute)
		}
		// The conversation may go on: others have calls in it.
		for range 80 {
			w.skip(30 * time.Second)
			w.send(inside, phone, proxy, "\r\n\r\n")
		}
		if n, calls := w.nat.Streams(), w.udp.Calls(w.now); n > 0 || len(calls) > 0 {
			t.Fatalf("seed %d: %d streams are left while the conversation goes on, calls %v", seed, n, calls)
		}
		// Twice a day's longest registration: a port may be any of a contact's.
		for range 50 {
			w.skip(time.Hour)
			if left(w) == "" {
				break
			}
		}
		if s := left(w); s != "" {
			t.Fatalf("seed %d: %s", seed, s)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// skip lets time go by in a few steps.
func (w *wall) skip(d time.Duration) {
	for range 4 {
		w.now = w.now.Add(d / 4)
		w.table.Expire(w.now)
		w.udp.Expire(w.now)
		w.pat.Expire(w.now)
	}
}

// TestSkinnyDebris does the same to a phone's conversation: messages of calls
// lost, repeated and out of order. Nothing is left when their media has been
// idle for too long, though the conversation goes on, or when it is over.
func TestSkinnyDebris(t *testing.T) {
	type message struct {
		data []byte
		from nat.End
	}
	var all []message
	say := func(from nat.End, m []byte) { all = append(all, message{m, from}) }
	for i := range 4 {
		conf, party := 7+i/2, 20+i
		at := ap(fmt.Sprintf("10.20.0.11:%d", 16384+2*i))
		say(nat.Server, sccp(0x014b, 24, 0, conf, 4, 70+i, 8, party, 20, 1))
		say(nat.Client, sccp(0x0045, 28, 0, conf, 4, 70+i, 8, party, 12, at, 20, int(at.Port())+1, 24, 1))
		say(nat.Server, sccp(0x0105, 68, 0, conf, 4, party, 12, 4, 24, 70+i))
		say(nat.Client, sccp(0x0022, 20, 0, 0, 4, at, 12, party, 16, 70+i))
		say(nat.Server, sccp(0x008a, 84, 0, conf, 4, party, 8, ap(farRTP), 20, 4, 40, 70+i))
		say(nat.Client, sccp(0x0154, 24, 0, conf, 4, party, 8, 70+i, 12, at, 20, 0))
		say(nat.Server, sccp(0x0106, 16, 0, conf, 4, party, 8, 70+i, 12, i%2))
		say(nat.Server, sccp(0x008b, 16, 0, conf, 4, party, 8, 70+i))
		say(nat.Server, sccp(0x014c, 16, 0, conf, 4, 70+i, 8, party, 12, 1))
	}
	say(nat.Client, sccp(0x0001, 52, 0, "SEP001122334455", 24, ap(phone).Addr(), 40, 5))
	say(nat.Server, sccp(0x0118, 4))
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		w := newWall(t, patRule())
		b := w.nat.Binder(inspect.Conversation{
			In: inside, Out: outside,
			Client: stack.Flow{Proto: stack.TCP, Src: ap("10.20.0.11:50000"), Dst: ap("198.51.100.5:2000")},
			Server: stack.Flow{Proto: stack.TCP, Src: ap("203.0.113.2:50000"), Dst: ap("198.51.100.5:2000")},
		}, inspect.Options{Now: func() time.Time { return w.now }, Private: true, Media: 5 * time.Minute, RTP: inspect.Conformance(seed % 3)})
		e := skinny.Engine{MediaTimeout: 5 * time.Minute, Video: true, MaxVersion: 22}
		s := e.NewSession(b)
		for range r.IntN(60) {
			m := all[r.IntN(len(all))]
			data := bytes.Clone(m.data)
			if r.IntN(4) == 0 {
				data[12+r.IntN(len(data)-12)] = byte(r.IntN(256))
			}
			if r.IntN(8) == 0 {
				data = data[:12+r.IntN(len(data)-12)]
			}
			if r.IntN(8) == 0 {
				m.from = m.from.Other()
			}
			if _, err := s.Inspect(nil, data, m.from); err != nil && r.IntN(4) == 0 {
				w.now = w.now.Add(time.Minute)
			}
			if r.IntN(3) == 0 {
				w.send(outside, farRTP, fmt.Sprintf("203.0.113.2:%d", 16384+r.IntN(8)), "media")
			}
		}
		if seed%2 == 0 {
			s.Close()
			b.Close()
		}
		for range 20 {
			w.now = w.now.Add(time.Minute)
			w.table.Expire(w.now)
			w.pat.Expire(w.now)
			w.nat.Expire(w.now)
			if seed%2 == 1 {
				s.(inspect.Expirer).Expire(w.now)
			}
		}
		if got := left(w); got != "" {
			t.Fatalf("seed %d: %s", seed, got)
		}
		if calls := s.(inspect.Lister).Calls(nil, w.now); len(calls) > 0 {
			t.Fatalf("seed %d: %d calls are left", seed, len(calls))
		}
	}
}
