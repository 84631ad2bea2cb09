package tftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
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
	MaxSize   int64         // bytes; 0: DefaultMaxSize for Get, no limit for Open
	Timeout   time.Duration // after each transmission; 0: DefaultTimeout
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

// Open begins to fetch a file from server and returns once the server has said
// that it has it; errors are as for Get. The Body asks for each block as it is
// read, so a file of any size passes through in the space of one. Open takes
// pc over: the Body's Close, or an error, closes it. ctx lasts until then.
func Open(ctx context.Context, pc net.PacketConn, server netip.AddrPort, name string, o Options) (File, error) {
	r := &receiver{
		ctx: ctx, conn: pc, server: server, name: name, size: -1, block: defaultBlock,
		o: Options{o.BlockSize, o.MaxSize, or(o.Timeout, DefaultTimeout), or(o.Tries, DefaultTries)},
	}
	r.stop = context.AfterFunc(ctx, func() { pc.SetReadDeadline(time.Unix(1, 0)) })
	if err := r.open(); err != nil {
		r.Close()
		return File{}, r.wrap(err)
	}
	return File{r, r.size}, nil
}

// receiver is the Body of a File that comes from a server.
type receiver struct {
	ctx    context.Context
	conn   net.PacketConn
	stop   func() bool
	server netip.AddrPort // the one that was asked
	name   string
	o      Options

	tid    netip.AddrPort // the transfer's port at the server, once it answered
	size   int64          // as the server told; -1: it did not
	block  int            // bytes of data in a full DATA
	asked  bool           // the request carried options
	next   uint16         // block that comes next
	out    []byte         // packet to repeat until it comes
	in     []byte
	data   []byte // what is left of the last DATA
	total  int64  // bytes received
	last   bool   // that was the last DATA
	err    error  // what the next Read returns once data is empty
	closed bool
	strays int
}

// open sends the request until the server answers with options or a block. A
// server that refuses the options is asked again without. (RFC 2347.)
func (r *receiver) open() error {
	req := Request{Op: OpRead, Name: r.name, Mode: "octet"}
	req.Options = append(req.Options, Option{"tsize", "0"})
	if r.o.BlockSize != 0 {
		if r.o.BlockSize < minBlock || r.o.BlockSize > maxBlock {
			return fmt.Errorf("block size %d: %w", r.o.BlockSize, errOption)
		}
		req.Options = append(req.Options, Option{"blksize", strconv.Itoa(r.o.BlockSize)})
	}
	r.in = make([]byte, headerLen+max(defaultBlock, r.o.BlockSize)+1) // one over, to see what is too long
	r.asked, r.next = true, 1
	r.out = req.AppendTo(nil)
	err := r.receive()
	var e *Error
	if errors.As(err, &e) && (e.Code == CodeOptionsDeny || e.Code == CodeIllegal) {
		req.Options = nil
		r.asked, r.tid = false, netip.AddrPort{}
		r.out = req.AppendTo(nil)
		err = r.receive()
	}
	return err
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
		if err := r.receive(); err != nil {
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
	if r.tid.IsValid() && !r.last {
		e := Error{CodeUndefined, "Cancelled"}
		r.send(e.AppendTo(nil)) // a courtesy; the server would find out
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

func (r *receiver) send(packet []byte) error {
	to := r.tid
	if !to.IsValid() {
		to = r.server
	}
	_, err := r.conn.WriteTo(packet, net.UDPAddrFromAddrPort(to))
	return err
}

// receive waits for the next block, or in answer to the request for options,
// and repeats what it sent last until then. The block before, doubled, is
// acknowledged again, for it may be that the acknowledgement was lost; the
// server must not send a block for it.
func (r *receiver) receive() error {
	var lost error
	for range r.o.Tries {
		deadline := time.Now().Add(r.o.Timeout)
		if err := r.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		lost = r.send(r.out)
		for {
			n, addr, err := r.conn.ReadFrom(r.in)
			if r.ctx.Err() != nil {
				return context.Cause(r.ctx)
			}
			if isTimeout(err) {
				break
			}
			if err != nil {
				return err
			}
			if !r.fromServer(addr) {
				continue
			}
			done, err := r.take(r.in[:n])
			if done || err != nil {
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
func (r *receiver) fromServer(addr net.Addr) bool {
	from := addrPortOf(addr)
	if from.Addr() != r.server.Addr() {
		return false
	}
	if r.tid.IsValid() && from != r.tid {
		if r.strays++; r.strays <= maxStrays {
			e := Error{CodeUnknownTID, "Unknown transfer ID"}
			r.conn.WriteTo(e.AppendTo(nil), addr) // lost or not, the transfer goes on
		}
		return false
	}
	r.tid = from
	return true
}

// take looks at one packet of the transfer and reports whether it is what
// receive waits for.
func (r *receiver) take(b []byte) (done bool, err error) {
	switch OpOf(b) {
	case OpError:
		e, err := ParseError(b)
		if err != nil {
			return false, nil
		}
		r.last = true // nothing more to cancel
		return false, e
	case OpOptions:
		if !r.asked || r.next != 1 || r.total > 0 {
			return false, nil
		}
		opts, err := ParseOptions(b)
		if err != nil {
			return false, err
		}
		if err := r.accept(opts); err != nil {
			return false, err
		}
		r.asked = false
		r.out = AppendAck(nil, 0)
		return true, nil
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
		r.asked = false
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

// accept takes over what the server made of our options.
func (r *receiver) accept(opts []Option) error {
	for _, o := range opts {
		v, err := strconv.ParseUint(o.Value, 10, 63)
		switch strings.ToLower(o.Name) {
		case "blksize":
			if err != nil || v < minBlock || r.o.BlockSize == 0 || v > uint64(r.o.BlockSize) {
				return r.deny(o)
			}
			r.block = int(v)
		case "tsize":
			if err != nil {
				return r.deny(o)
			}
			r.size = int64(v)
			if r.o.MaxSize > 0 && r.size > r.o.MaxSize {
				return fmt.Errorf("%d bytes: %w", r.size, ErrTooLarge)
			}
		default:
			return r.deny(o)
		}
	}
	return nil
}

// deny ends a transfer for an option that we did not offer. (RFC 2347.)
func (r *receiver) deny(o Option) error {
	e := &Error{CodeOptionsDeny, "Option not acceptable"}
	r.send(e.AppendTo(nil)) // the transfer is lost either way
	r.last = true
	return fmt.Errorf("option %q = %q: %w", o.Name, o.Value, errOption)
}
