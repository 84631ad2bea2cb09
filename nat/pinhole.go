package nat

import (
	"time"

	"patchbay/stack"
)

// A Pinhole is leave for a first packet yet to come, and says what that packet
// becomes. Zero fields of Match.Src are wildcards.
type Pinhole struct {
	In    *stack.Interface // arrival interface; nil is any
	Match stack.Flow       // as the packet arrives; Src address and port may be zero: any

	// Out and To are where the first packet goes and how it must look
	// there. A zero Src or Dst of To is taken from the packet. A nil Out is
	// found by route.
	Out *stack.Interface
	To  stack.Flow

	Handler Handler // for the connection it opens, or nil

	// Standing makes the pinhole an endpoint of its own: every packet that
	// matches goes to Handler, whatever its source, without opening a
	// connection for each, until Close. Media legs are Standing.
	Standing bool

	Expires time.Time // zero: only Close ends it
	Reason  string    // who asked, for "show conn" and the log: "RTP SEP001122334455"
}
