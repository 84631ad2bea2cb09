package host

import (
	"context"
	"net"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	gstack "gvisor.dev/gvisor/pkg/tcpip/stack"

	"patchbay/stack"
	"time"
)

// A Link is the host seen as a stack.Link. It copies, because the netstack
// keeps what it is given: the host's own packets are not the fast path.
type Link struct {
	ep     *channel.Endpoint
	mtu    atomic.Int64
	ctx    context.Context
	cancel context.CancelFunc

	// Now stamps packets from the host. It is time.Now unless a test says
	// otherwise before the first Read.
	Now func() time.Time

	oversize atomic.Uint64 // packets from the host that fitted no buffer
	deaf     atomic.Bool   // Write takes nothing any more; Read goes on
	probes   probes
}

func newLink(ep *channel.Endpoint, mtu int) *Link {
	ctx, cancel := context.WithCancel(context.Background())
	l := &Link{ep: ep, ctx: ctx, cancel: cancel, Now: time.Now}
	l.mtu.Store(int64(mtu))
	return l
}

// Read waits for packets that the host sends. See stack.Link.
func (l *Link) Read(batch []*stack.Packet) (int, error) {
	for {
		pkt := l.ep.ReadContext(l.ctx)
		if pkt == nil {
			return 0, net.ErrClosed
		}
		now := l.Now()
		n := 0
		for {
			if l.take(batch[n], pkt, now) {
				n++
			}
			if n == len(batch) {
				return n, nil
			}
			if pkt = l.ep.Read(); pkt == nil {
				break
			}
		}
		if n > 0 {
			return n, nil
		}
	}
}

// take copies pkt into p and gives it back to the netstack.
func (l *Link) take(p *stack.Packet, pkt *gstack.PacketBuffer, now time.Time) bool {
	defer pkt.DecRef()
	p.Reset()
	buf, n := p.Buffer(), 0
	for _, b := range pkt.AsSlices() {
		if len(b) > len(buf)-n {
			l.oversize.Add(1)
			return false
		}
		n += copy(buf[n:], b)
	}
	p.SetLen(n)
	p.Time = now
	return true
}

// Write gives packets to the host. See stack.Link.
func (l *Link) Write(batch []*stack.Packet) error {
	if l.ctx.Err() != nil || l.deaf.Load() {
		return net.ErrClosed
	}
	if l.probes.open.Load() > 0 {
		for _, p := range batch {
			l.probes.receive(p.Data())
		}
	}
	for _, p := range batch {
		pkt := gstack.NewPacketBuffer(gstack.PacketBufferOptions{
			Payload: buffer.MakeWithData(p.Data()),
		})
		l.ep.InjectInbound(ipv4.ProtocolNumber, pkt)
		pkt.DecRef()
	}
	return nil
}

// drain waits until what the host has sent is read, wait at most.
func (l *Link) drain(wait time.Duration) {
	const look = time.Millisecond
	for ; l.ep.NumQueued() > 0 && l.ctx.Err() == nil && wait > 0; wait -= look {
		time.Sleep(look)
	}
}

// MTU is the largest packet the host sends, in bytes.
func (l *Link) MTU() int { return int(l.mtu.Load()) }

// Close ends the Link; the Stack goes on but is heard no more.
func (l *Link) Close() error {
	l.cancel()
	l.ep.Close()
	return nil
}
