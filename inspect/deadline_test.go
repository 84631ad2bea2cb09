package inspect_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"patchbay/inspect"
)

// lateConn reports a deadline as the netstack's connections do: with a
// net.Error that is not os.ErrDeadlineExceeded.
type lateConn struct{ net.Conn }

type lateError struct{}

func (lateError) Error() string   { return "i/o timeout" }
func (lateError) Timeout() bool   { return true }
func (lateError) Temporary() bool { return true }

func (c lateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &net.OpError{Op: "read", Net: "tcp", Err: lateError{}}
	}
	return n, err
}

func latePipe() (net.Conn, net.Conn) {
	a, b := net.Pipe()
	return lateConn{a}, lateConn{b}
}

// TestStreamDeadlineOfNetstack: half a message and silence end a conversation
// for what they are, and silence of one end alone does not.
func TestStreamDeadlineOfNetstack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, inspect.Limits{Idle: 90 * time.Second}, latePipe)
		go io.Copy(io.Discard, c.ucm)
		go func() {
			for range 10 { // the call manager says nothing all the while
				c.phone.Write([]byte("keepalive\n"))
				time.Sleep(50 * time.Second)
			}
			c.phone.Write([]byte("half"))
		}()
		begin := time.Now()
		err := c.finish(t)
		if err == nil || !strings.Contains(err.Error(), "4 bytes from client waited 1m0s") {
			t.Errorf("Run = %v", err)
		}
		if d := time.Since(begin); d != 560*time.Second {
			t.Errorf("ended after %v", d)
		}
		synctest.Wait()
	})
}
