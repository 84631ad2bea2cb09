package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"patchbay/appliance/ctl"
	"patchbay/appliance/phoneproxy"
	"patchbay/appliance/pki"
)

func caCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "ca",
		Short: "The CAs that phones' certificates may come from",
	}
	var flash string
	imp := &cobra.Command{
		Use:   "import --flash DIR TRUSTPOINT FILE",
		Short: "Install a CA certificate, PEM, base64 or DER, into a trustpoint",
		Long: `Does what "crypto ca authenticate TRUSTPOINT" does on an ASA: from now on phones
whose certificate this CA has signed are let in. The certificates to import are
Cisco_Manufacturing_CA, CAP-RTP-001, CAP-RTP-002 and your call manager's CAPF.`,
		Args: cobra.ExactArgs(2),
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, args []string) error {
			data, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			cert, err := store.Authenticate(args[0], data)
			if err != nil && !errors.Is(err, pki.ErrExists) {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			if err != nil {
				return fmt.Errorf("trustpoint %s has a CA certificate already: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "INFO: trustpoint %s: %s, until %s\n", args[0], pki.Name(cert.RawSubject), cert.NotAfter.Format("2006-01-02"))
			return nil
		}),
	}
	list := &cobra.Command{
		Use:   "list --flash DIR",
		Short: "List the CAs that are installed",
		Args:  cobra.NoArgs,
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, _ []string) error {
			for _, a := range store.Anchors() {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, until %s\n", a.Trustpoint, pki.Name(a.Cert.RawSubject), a.Cert.NotAfter.Format("2006-01-02"))
			}
			return nil
		}),
	}
	addOnFlash(c, &flash, imp, list)
	return c
}

func readCTL(file string) (*ctl.File, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f, err := ctl.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return f, nil
}

func ctlCommand() *cobra.Command {
	c := &cobra.Command{Use: "ctl", Short: "Look into CTL files"}
	c.AddCommand(&cobra.Command{
		Use:   "print FILE",
		Short: "Print a CTL file as a phone reads it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readCTL(args[0])
			if err != nil {
				return err
			}
			return f.Format(cmd.OutOrStdout())
		},
	})
	var installed string
	verify := &cobra.Command{
		Use:   "verify FILE",
		Short: "Check a CTL file's signature as a phone does",
		Long: `A phone without a CTL file takes any that is consistent: signed by a SAST that is
in it. A phone that holds one (--installed) takes only what a SAST of that signed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readCTL(args[0])
			if err != nil {
				return err
			}
			by := f
			if installed != "" {
				if by, err = readCTL(installed); err != nil {
					return err
				}
			}
			if err := f.VerifyBy(by); err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: valid, %d records, signed by %s\n", args[0], len(f.Records), f.Header.SignerName)
			return nil
		},
	}
	verify.Flags().StringVar(&installed, "installed", "", "the CTL file the phone holds already")
	c.AddCommand(verify)
	return c
}

func readSigned(file string) ([]byte, *ctl.Signed, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	s, err := ctl.ParseSigned(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	return data, s, nil
}

func sgnCommand() *cobra.Command {
	c := &cobra.Command{Use: "sgn", Short: "Look into signed files"}
	c.AddCommand(&cobra.Command{
		Use:   "print FILE",
		Short: "Print the header of a signed file",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, s, err := readSigned(args[0])
			if err != nil {
				return err
			}
			return s.Format(cmd.OutOrStdout())
		},
	})
	var list, name string
	verify := &cobra.Command{
		Use:   "verify --ctl CTL FILE",
		Short: "Check a signed file as a phone that holds a CTL file does",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := readCTL(list)
			if err != nil {
				return err
			}
			data, s, err := readSigned(args[0])
			if err != nil {
				return err
			}
			asked := name
			if asked == "" {
				asked = s.Header.FileName
			}
			payload, err := phoneproxy.VerifySigned(data, asked, f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: valid, %d bytes of %s, signed by %s\n", args[0], len(payload), s.Header.FileName, s.Header.SignerName)
			return nil
		},
	}
	verify.Flags().StringVar(&list, "ctl", "", "the CTL file the phone holds")
	verify.Flags().StringVar(&name, "name", "", "the name the phone asked for; default: as the header says")
	require(verify, "ctl")
	c.AddCommand(verify)
	return c
}
