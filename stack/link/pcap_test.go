package link

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

func TestFrameRecorder(t *testing.T) {
	var file bytes.Buffer
	rec, err := NewFrameRecorder(&file)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Unix(1_700_000_000, 123_456_789)
	frames := [][]byte{bytes.Repeat([]byte{1}, 60), bytes.Repeat([]byte{2}, 1514)}
	for i, f := range frames {
		rec.Frame(at.Add(time.Duration(i)), f)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := pcapgo.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	if r.LinkType() != layers.LinkTypeEthernet {
		t.Errorf("link type %v", r.LinkType())
	}
	for i, want := range frames {
		got, ci, err := r.ReadPacketData()
		if err != nil || !bytes.Equal(got, want) || !ci.Timestamp.Equal(at.Add(time.Duration(i))) {
			t.Errorf("frame %d: %d bytes at %v, %v; want %d", i, len(got), ci.Timestamp, err, len(want))
		}
	}
}
