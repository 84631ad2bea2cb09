//go:build !linux

package link

import (
	"errors"

	"patchbay/stack"
)

var errNotLinux = errors.New("this driver needs Linux")

func openTUN(string, Options) (stack.Link, error)    { return nil, errNotLinux }
func openPacket(string, Options) (stack.Link, error) { return nil, errNotLinux }
