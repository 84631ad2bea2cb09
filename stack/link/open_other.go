//go:build !linux

package link

import (
	"errors"

	"patchbay/stack"
)

var errNotLinux = errors.New("this driver needs Linux")

type trunks struct{ told func(readers int) } // never called: nothing opens

func openTUN(string, Options) (stack.Link, error)              { return nil, errNotLinux }
func (*trunks) openPacket(string, Options) (stack.Link, error) { return nil, errNotLinux }
func (*trunks) openXDP(string, Options) (stack.Link, error)    { return nil, errNotLinux }
func (*trunks) openAuto(string, Options) (stack.Link, error)   { return nil, errNotLinux }
