package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"patchbay/appliance"
	"patchbay/appliance/lab/node"
	"patchbay/appliance/lab/topology"
)

func nodesCommand() *cobra.Command {
	var o node.Options
	var out string
	c := &cobra.Command{
		Use:   "nodes --out DIR [--image patchbay.qcow2]",
		Short: "Write definitions of the box for containerlab, GNS3 and EVE-NG",
		Long: `Writes to DIR what other lab programs want to know of the box to have it as a node:

  containerlab/  a container image with this program, for "docker load", and an example
  gns3/          an appliance file; with --image alone, for it has the disk's checksum
  eve-ng/        a template
  README.md      what to do with them`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			version, revision := appliance.Version()
			if o.Version = version; revision != "" {
				o.Version += " " + revision[:min(12, len(revision))]
			}
			var err error
			if o.Program == "" {
				if o.Program, err = os.Executable(); err != nil {
					return err
				}
			}
			if _, _, o.Config, err = topology.Read("direct"); err != nil {
				return err
			}
			files, err := node.Write(out, o)
			if err != nil {
				return err
			}
			for _, f := range files {
				fmt.Fprintln(cmd.OutOrStdout(), f)
			}
			if o.Image == "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "GNS3 is left out: it wants the virtual machine's disk, --image patchbay.qcow2")
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&out, "out", "", "directory to write to; made if it is not there")
	f.StringVar(&o.Image, "image", "", "the virtual machine's disk in qcow2, as \"patchbay image build\" makes it")
	f.StringVar(&o.Program, "program", "", "static patchbay for Linux, for the container; default: this one")
	require(c, "out")
	return c
}
