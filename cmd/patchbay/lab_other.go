//go:build !linux

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// labCommand is for Linux only, but for what it writes: labs are made of network
// namespaces.
func labCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Build a network of namespaces around the box, and make calls in it",
		RunE: func(*cobra.Command, []string) error {
			return errors.New("this needs Linux: it makes network namespaces")
		},
	}
	c.AddCommand(nodesCommand())
	return c
}
