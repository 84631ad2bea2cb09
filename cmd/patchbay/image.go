package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"patchbay/image"
	"patchbay/image/disk"
)

func imageCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "image",
		Short: "The appliance as a virtual machine",
	}
	var s image.Spec
	var formats string
	var megabytes int64
	build := &cobra.Command{
		Use:   "build --out DIR [--format raw,qcow2,vmdk,ova] [--config FILE] [--sign KEY.pem]",
		Short: "Build a disk that boots into the appliance",
		Long: `Builds a virtual machine: Debian's cloud kernel, locked in image/kernel.lock, this
program and nothing else. It needs neither root nor network devices, and two builds
of the same sources are the same bytes. Beside the disk DIR gets the kernel and the
initramfs for a direct boot, patchbay.bin for "boot system", NOTICES.txt with the
licences, and SHA256SUMS.

The machine's first network card is Management0/0, the next GigabitEthernet0/0, 0/1
and so on. Its console is the first serial port. Without --config it takes its first
configuration from a drive labelled cidata with a file user-data or day0-config, or
from a second disk that is nothing but its text.

With --sign the bundle patchbay.bin is signed, and a machine of this image installs
only bundles that are signed by the same key, or by one of --trust. A bundle brings
the keys that are trusted from then on: to change keys, build once with the old one
and --trust of the new, and then with the new one. Make a key with
"openssl genpkey -algorithm ed25519 -out KEY.pem", and what --trust wants of it with
"openssl pkey -in KEY.pem -pubout". Without --sign bundles are not authenticated.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.Formats = strings.Split(formats, ",")
			s.DiskSize = megabytes << 20
			s.Warn = func(text string) { fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", text) }
			res, err := image.Build(cmd.Context(), s)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			fmt.Fprintf(out, "kernel %s\n", res.Kernel)
			if res.Signer != "" {
				fmt.Fprintf(out, "signed by the key %s; installs what is signed by %s\n", res.Signer, res.Trusts)
			} else {
				fmt.Fprintln(out, "not signed: a machine of this image installs any bundle; --sign makes it ask who wrote one")
			}
			for _, f := range res.Files {
				fmt.Fprintf(out, "%-16s %6.1f MB  %s\n", f.Name, float64(f.Size)/1e6, f.SHA256)
			}
			return nil
		},
	}
	f := build.Flags()
	f.StringVar(&s.Out, "out", "", "directory for what is built; made if it is not there")
	f.StringVar(&formats, "format", image.Raw, "of the disk, separated by commas: "+strings.Join(image.Formats, ", "))
	f.StringVar(&s.Config, "config", "", "startup configuration that the image has; default: none")
	f.StringVar(&s.Sign, "sign", "", "Ed25519 private key, PKCS #8 in PEM, that signs patchbay.bin; default: it is not signed")
	f.StringArrayVar(&s.Trust, "trust", nil, "public keys in PEM, beside that of --sign, whose bundles the image installs; may be said again")
	f.StringVar(&s.Version, "version", "", "what this system is called where it is installed; default: devel")
	f.StringVar(&s.Driver, "driver", "", "what carries packets in the machine: "+strings.Join(disk.Drivers, ", ")+"; default: "+disk.Drivers[0])
	f.StringVar(&s.Program, "program", "", "static patchbay for the image; default: built from the sources in the working directory")
	f.Int64Var(&megabytes, "disk", image.DefaultDiskSize>>20, "size of the disk in MiB; the machine uses all of the disk it finds")
	f.StringVar(&s.Cache, "cache", "", "directory that keeps the kernel's package; default: in the user's cache")
	require(build, "out")
	c.AddCommand(build)
	return c
}
