package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"patchbay/appliance/pki"
)

const maxPassphrase = 1024 // bytes

func pkiCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "pki",
		Short: "Key pairs and certificates of a box that does not run",
		Long: `Works on the flash directory of a box that does not run. A box that runs has the
commands "crypto ca import" and "crypto ca export".`,
	}
	var flash, from string
	var legacy bool
	imp := &cobra.Command{
		Use:   "import --flash DIR TRUSTPOINT FILE",
		Short: "Install a key pair and its certificates from a PKCS #12 file",
		Long: `Does what "crypto ca import TRUSTPOINT pkcs12" does on an ASA. FILE is DER, or
base64 as "crypto ca export" shows it. Import the exports of an old ASA's
_internal_PP_CTL, _internal_PP_CTL_SAST_0 and so on, and of every trustpoint that a
record-entry names, and phones that hold its CTL file accept the new box. What a
trustpoint holds already is kept: see "patchbay pki remove".`,
		Example: `  patchbay pki import --flash /var/lib/patchbay _internal_PP_myctl_SAST_0 sast0.p12`,
		Args:    cobra.ExactArgs(2),
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, args []string) error {
			data, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			pass, err := passphrase(cmd, from)
			if err != nil {
				return err
			}
			got, err := store.ImportPKCS12(args[0], pass, data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			tp := got.Trustpoint
			fmt.Fprintf(cmd.OutOrStdout(), "INFO: trustpoint %s: %s, until %s\n", tp.Name, pki.Name(tp.Identity.RawSubject), tp.Identity.NotAfter.Format("2006-01-02"))
			for _, left := range got.Unused {
				fmt.Fprintf(cmd.OutOrStdout(), "INFO: not needed and left out: the certificate of %s\n", pki.Name(left.RawSubject))
			}
			return nil
		}),
	}
	export := &cobra.Command{
		Use:   "export --flash DIR TRUSTPOINT FILE",
		Short: "Write a key pair and its certificates to a new PKCS #12 file",
		Args:  cobra.ExactArgs(2),
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, args []string) error {
			pass, err := passphrase(cmd, from)
			if err != nil {
				return err
			}
			der, err := store.ExportPKCS12(args[0], pass, legacy)
			if err != nil {
				return err
			}
			return writeNew(args[1], der)
		}),
	}
	export.Flags().BoolVar(&legacy, "legacy", false, "encrypt as old ASAs can read it")
	list := &cobra.Command{
		Use:   "list --flash DIR",
		Short: "List trustpoints and key pairs",
		Args:  cobra.NoArgs,
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, _ []string) error {
			return listStore(cmd.OutOrStdout(), store)
		}),
	}
	remove := &cobra.Command{
		Use:   "remove --flash DIR TRUSTPOINT",
		Short: "Remove a trustpoint's certificates and its key pair",
		Long: `Removes what a trustpoint holds, as to import something else in its place. Phones
that know a token or certificate which is gone refuse the box, unless another token
that they know can sign.`,
		Args: cobra.ExactArgs(1),
		RunE: withStore(&flash, func(cmd *cobra.Command, store *pki.Store, args []string) error {
			tp, err := store.Trustpoint(args[0])
			if err == nil {
				err = store.RemoveTrustpoint(tp.Name)
			}
			if err == nil && tp.KeyPair != "" {
				err = store.RemoveKey(tp.KeyPair)
			}
			if errors.Is(err, pki.ErrInUse) { // by another trustpoint
				fmt.Fprintf(cmd.OutOrStdout(), "INFO: %v, so it stays\n", err)
				return nil
			}
			return err
		}),
	}
	for _, sub := range []*cobra.Command{imp, export} {
		sub.Flags().StringVar(&from, "passphrase-file", "", "file with the passphrase in its first line; default: standard input")
	}
	addOnFlash(c, &flash, imp, export, remove, list)
	return c
}

// addOnFlash adds to c commands that work on a flash directory, which they must be
// told.
func addOnFlash(c *cobra.Command, flash *string, subs ...*cobra.Command) {
	for _, sub := range subs {
		sub.Flags().StringVar(flash, "flash", "", "directory for keys and certificates")
		require(sub, "flash")
		c.AddCommand(sub)
	}
}

// withStore is the RunE of a command on what a flash directory holds.
func withStore(flash *string, run func(cmd *cobra.Command, store *pki.Store, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		store, err := pki.Open(*flash, pki.Options{})
		if err != nil {
			return err
		}
		return run(cmd, store, args)
	}
}

// passphrase reads the first line of a file, or of standard input. It is no
// argument, for those are seen by everyone on the machine.
func passphrase(cmd *cobra.Command, file string) (string, error) {
	in := cmd.InOrStdin()
	if file != "" {
		f, err := os.Open(file)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	} else {
		fmt.Fprint(cmd.ErrOrStderr(), "Passphrase: ")
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxPassphrase)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("reading the passphrase: %w", err)
	}
	if len(line) == maxPassphrase {
		return "", fmt.Errorf("the passphrase is over %d bytes", maxPassphrase-1)
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// writeNew writes a file that only its owner may read and that must not exist.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func listStore(w io.Writer, store *pki.Store) error {
	for _, tp := range store.Trustpoints() {
		if tp.Identity != nil {
			fmt.Fprintf(w, "trustpoint %s: %s, until %s, key pair %s\n", tp.Name, pki.Name(tp.Identity.RawSubject), tp.Identity.NotAfter.Format("2006-01-02"), tp.KeyPair)
		}
		if tp.CA != nil {
			fmt.Fprintf(w, "trustpoint %s: CA %s, until %s\n", tp.Name, pki.Name(tp.CA.RawSubject), tp.CA.NotAfter.Format("2006-01-02"))
		}
	}
	for _, k := range store.Keys() {
		fmt.Fprintf(w, "key pair %s: %s, %d bits\n", k.Label, strings.ToUpper(k.Kind()), k.Bits)
	}
	return errors.Join(store.Damaged()...)
}
