package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the client does where a field of Options is zero.
const (
	DefaultTimeout = time.Second // wait for an answer before the packet is repeated
	DefaultTries   = 5           // transmissions of one packet
	DefaultMaxSize = 1 << 20     // bytes: Get only
)

// ErrTooLarge is what a file over Options.MaxSize ends with.
var ErrTooLarge = errors.New("file too large")

// errLong is a DATA with more than the block size.
var errLong = errors.New("block too long")

// Options are how the client asks.
type Options struct {
	BlockSize int           // bytes, offered to the server; 0: no option, so 512
	MaxSize   int64         // bytes; 0: DefaultMaxSize for Get, no limit for Open; Put has none
	Timeout   time.Duration // after each transmission; 0: DefaultTimeout. Put asks the server for the same
	Tries     int           // transmissions of one packet; 0: DefaultTries
}

// Get fetches a whole file from server, through pc, which is the transfer's
// alone and stays open. A server that knows no options serves all the same.
//
// The error wraps *Error if the server sent one (see IsNotFound), ErrNoAnswer
// if it was silent, ErrTooLarge, or the cause of ctx.
func Get(ctx context.Context, pc net.PacketConn, server netip.AddrPort, name string, o Options) ([]byte, error) {
	o.MaxSize = or(o.MaxSize, DefaultMaxSize)
	f, err := Open(ctx, keepOpen{pc}, server, name, o)
	if err != nil {
		return nil, err
	}
	defer f.Body.Close()
	return io.ReadAll(f.Body)
}

// keepOpen is a socket that its borrower cannot close.
type keepOpen struct{ net.PacketConn }

func (keepOpen) Close() error { return nil }

// Put sends a whole file to server, through pc, which is the transfer's alone and
// stays open, and returns how many bytes of it the server has acknowledged. A server
// that knows no options serves all the same; one that counts blocks may not take more
// than 65,535 of them, and then says so. f.Body is read as it is sent, and not closed.
//
// The error wraps *Error if the server sent one, ErrNoAnswer if it was silent, that
// of the Body, or the cause of ctx. If it is ErrNoAnswer for the last block the server
// may have the file, and have gone.
func Put(ctx context.Context, pc net.PacketConn, server netip.AddrPort, name string, f File, o Options) (int64, error) {
	o.MaxSize = 0
	c := newClient(ctx, pc, server, o)
	defer context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Unix(1, 0)) })()
	n, err := c.put(Request{Op: OpWrite, Name: name, Mode: "octet"}, f)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			c.cancel()
		}
		err = fmt.Errorf("tftp: put %q to %v: %w", name, server, err)
	}
	return n, err
}

func (c *client) put(req Request, f File) (int64, error) {
	if f.Size >= 0 {
		req.Options = append(req.Options, Option{"tsize", strconv.FormatInt(f.Size, 10)})
	}
	if secs := (c.o.Timeout + time.Second - 1) / time.Second; secs >= minWait && secs <= maxWait {
		req.Options = append(req.Options, Option{"timeout", strconv.Itoa(int(secs))})
	}
	if err := c.request(req, c.granted); err != nil {
		return 0, err
	}
	s := &sender{
		conn: c.conn, peer: c.tid, to: net.UDPAddrFromAddrPort(c.tid), strays: c.strays,
		body: f.Body, block: c.block, waits: slices.Repeat([]time.Duration{c.o.Timeout}, c.o.Tries), in: c.in,
	}
	err := s.send(c.ctx)
	return s.bytes, err
}

// granted is what a write request waits for: leave to send the first block.
func (c *client) granted(b []byte) (done bool, err error) {
	switch OpOf(b) {
	case OpOptions:
		return c.negotiate(b)
	case OpAck:
		block, err := ParseAck(b)
		return err == nil && block == 0, nil
	}
	return false, nil
}

// client is the end of a transfer that asks for it, whichever way the file goes.
type client struct {
	ctx    context.Context
	conn   net.PacketConn
	server netip.AddrPort // the one that was asked
	o      Options

	tid     netip.AddrPort // the transfer's port at the server, once it answered
	offered []Option       // in the request, and not answered yet
	block   int            // bytes of data in a full DATA
	size    int64          // as the server told; -1: it did not
	over    bool           // the server has ended the transfer
	in      []byte
	strays  int
}

func newClient(ctx context.Context, pc net.PacketConn, server netip.AddrPort, o Options) *client {
	o.Timeout, o.Tries = or(o.Timeout, DefaultTimeout), or(o.Tries, DefaultTries)
	return &client{
		ctx: ctx, conn: pc, server: server, o: o, block: defaultBlock, size: -1,
		in: make([]byte, headerLen+max(defaultBlock, o.BlockSize)+1), // one over, to see what is too long
	}
}

// request sends a request until take says that it is answered. A server that refuses
// the options is asked again without. (RFC 2347.)
func (c *client) request(req Request, take func(b []byte) (done bool, err error)) error {
	if c.o.BlockSize != 0 {
		if c.o.BlockSize < minBlock || c.o.BlockSize > maxBlock {
			return fmt.Errorf("block size %d: %w", c.o.BlockSize, errOption)
		}
		req.Options = append(req.Options, Option{"blksize", strconv.Itoa(c.o.BlockSize)})
	}
	c.offered = req.Options
	err := c.exchange(req.AppendTo(nil), take)
	var e *Error
	if errors.As(err, &e) && (e.Code == CodeOptionsDeny || e.Code == CodeIllegal) && c.offered != nil {
		c.offered, c.tid, c.over = nil, netip.AddrPort{}, false
		req.Options = nil
		err = c.exchange(req.AppendTo(nil), take)
	}
	return err
}

func (c *client) send(packet []byte) error {
	to := c.tid
	if !to.IsValid() {
		to = c.server
	}
	_, err := c.conn.WriteTo(packet, net.UDPAddrFromAddrPort(to))
	return err
}

// cancel tells the server that nothing more comes, if it has not said so itself. It
// is a courtesy: the server would find out.
func (c *client) cancel() {
	if c.tid.IsValid() && !c.over {
		e := Error{CodeUndefined, "Cancelled"}
		c.send(e.AppendTo(nil))
	}
}

// exchange sends packet, again and again, until take says of what the server sends
// that it is the answer. What the server has to say of an error ends it.
func (c *client) exchange(packet []byte, take func(b []byte) (done bool, err error)) error {
	var lost error
	for range c.o.Tries {
		deadline := time.Now().Add(c.o.Timeout)
		if err := c.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		if c.ctx.Err() != nil {
			return context.Cause(c.ctx)
		}
		lost = c.send(packet)
		for {
			n, addr, err := c.conn.ReadFrom(c.in)
			if c.ctx.Err() != nil {
				return context.Cause(c.ctx)
			}
			if isTimeout(err) {
				break
			}
			if err != nil {
				return err
			}
			if !c.fromServer(addr) {
				continue
			}
			b := c.in[:n]
			if e, err := ParseError(b); err == nil {
				c.over = true
				return e
			}
			if done, err := take(b); done || err != nil {
				return err
			}
		}
	}
	if lost != nil {
		return fmt.Errorf("%w: %w", ErrNoAnswer, lost)
	}
	return ErrNoAnswer
}

// fromServer reports whether a packet from addr belongs to the transfer. The
// first answer from the server's address settles its port; later ones from
// another are told so, for our request may have come twice.
func (c *client) fromServer(addr net.Addr) bool {
	from := addrPortOf(addr)
	if from.Addr() != c.server.Addr() {
		return false
	}
	if c.tid.IsValid() && from != c.tid {
		if c.strays++; c.strays <= maxStrays {
			e := Error{CodeUnknownTID, "Unknown transfer ID"}
			c.conn.WriteTo(e.AppendTo(nil), addr) // lost or not, the transfer goes on
		}
		return false
	}
	c.tid = from
	return true
}

// negotiate takes over what the server made of our options, if it was asked.
func (c *client) negotiate(b []byte) (done bool, err error) {
	if c.offered == nil {
		return false, nil
	}
	opts, err := ParseOptions(b)
	if err != nil {
		return false, err
	}
	for _, o := range opts {
		if err := c.accept(o); err != nil {
			return false, err
		}
	}
	c.offered = nil
	return true, nil
}

// accept takes over one option: one that was offered, with a value that is not more.
func (c *client) accept(o Option) error {
	i := slices.IndexFunc(c.offered, func(have Option) bool { return strings.EqualFold(have.Name, o.Name) })
	v, err := strconv.ParseUint(o.Value, 10, 63)
	if i < 0 || err != nil {
		return c.deny(o)
	}
	switch have := c.offered[i]; have.Name {
	case "blksize":
		if v < minBlock || v > uint64(c.o.BlockSize) {
			return c.deny(o)
		}
		c.block = int(v)
	case "tsize":
		c.size = int64(v)
		if c.o.MaxSize > 0 && c.size > c.o.MaxSize {
			return fmt.Errorf("%d bytes: %w", c.size, ErrTooLarge)
		}
	case "timeout": // how long the server waits; none but what was asked for (RFC 2349)
		if o.Value != have.Value {
			return c.deny(o)
		}
	}
	return nil
}

// deny ends a transfer for an option that we did not offer. (RFC 2347.)
func (c *client) deny(o Option) error {
	e := &Error{CodeOptionsDeny, "Option not acceptable"}
	c.send(e.AppendTo(nil)) // the transfer is lost either way
	c.over = true
	return fmt.Errorf("option %q = %q: %w", o.Name, o.Value, errOption)
}

// Open begins to fetch a file from server and returns once the server has said
// that it has it; errors are as for Get. The Body asks for each block as it is
// read, so a file of any size passes through in the space of one. Open takes
// pc over: the Body's Close, or an error, closes it. ctx lasts until then.
func Open(ctx context.Context, pc net.PacketConn, server netip.AddrPort, name string, o Options) (File, error) {
	r := &receiver{client: newClient(ctx, pc, server, o), name: name, next: 1}
	r.stop = context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Unix(1, 0)) })
	req := Request{Op: OpRead, Name: name, Mode: "octet", Options: []Option{{"tsize", "0"}}}
	if err := r.request(req, r.take); err != nil {
		r.Close()
		return File{}, r.wrap(err)
	}
	return File{r, r.size}, nil
}

// receiver is the Body of a File that comes from a server.
type receiver struct {
	*client
	stop func() bool
	name string

	next   uint16 // block that comes next
	out    []byte // packet to repeat until it comes
	data   []byte // what is left of the last DATA
	total  int64  // bytes received
	last   bool   // that was the last DATA
	err    error  // what the next Read returns once data is empty
	closed bool
}

// Read reads the file, block by block.
func (r *receiver) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		if r.err == nil && r.last {
			r.err = io.EOF
		}
		if r.err != nil {
			return 0, r.err
		}
		if err := r.exchange(r.out, r.take); err != nil {
			r.err = r.wrap(err)
		}
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

// Close ends the transfer, telling the server if it has more to send, and
// closes the socket.
func (r *receiver) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	r.stop()
	if !r.last {
		r.cancel()
	}
	if r.err == nil {
		r.err = r.wrap(net.ErrClosed)
	}
	r.data = nil
	return r.conn.Close()
}

func (r *receiver) wrap(err error) error {
	return fmt.Errorf("tftp: get %q from %v: %w", r.name, r.server, err)
}

// take looks at one packet of the transfer and reports whether it is the next block,
// or in answer to the request the options. The block before, doubled, is acknowledged
// again, for it may be that the acknowledgement was lost; the server must not send a
// block for it.
func (r *receiver) take(b []byte) (done bool, err error) {
	switch OpOf(b) {
	case OpOptions:
		if r.next != 1 || r.total > 0 {
			return false, nil
		}
		done, err := r.negotiate(b)
		if done {
			r.out = AppendAck(nil, 0)
		}
		return done, err
	case OpData:
		block, data, err := ParseData(b)
		if err != nil {
			return false, nil
		}
		if block == r.next-1 && r.total > 0 { // doubled
			return false, r.send(AppendAck(nil, block))
		}
		if block != r.next {
			return false, nil
		}
		if len(data) > r.block {
			return false, fmt.Errorf("block %d of more than %d bytes: %w", block, r.block, errLong)
		}
		r.offered = nil
		r.total += int64(len(data))
		if r.o.MaxSize > 0 && r.total > r.o.MaxSize {
			return false, fmt.Errorf("over %d bytes: %w", r.o.MaxSize, ErrTooLarge)
		}
		r.data, r.next = data, block+1 // wraps to 0
		r.last = len(data) < r.block
		r.out = AppendAck(r.out[:0], block)
		if r.last {
			r.send(r.out) // if it is lost the server repeats to nobody, and gives up
		}
		return true, nil
	}
	return false, nil
}
