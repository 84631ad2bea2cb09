package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"patchbay/appliance/importer"
)

func importCommand() *cobra.Command {
	var pkcs12, out, report string
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Take over the configuration of an ASA, and say what becomes of it",
		Long: `Reads what "show running-config", "show startup-config", "more system:running-config"
or "show tech-support" showed on an ASA of 8.0 to 9.3, also as a log of a terminal.
Writes a configuration that loads without error (--out) and a report in Markdown
(--report, else on standard output): lines obeyed, without effect and left out,
interfaces and the links they want, and the private keys and passwords that the text
does not hold. With --pkcs12 the files of a directory are matched to trustpoints by
their names; "patchbay pki import" installs them. Exits 1 if nothing of it loads.`,
		Example: `  patchbay import hq-fw.txt --pkcs12 keys/ --out hq-fw.cfg --report hq-fw.md`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			files, err := filesIn(pkcs12)
			if err != nil {
				return fmt.Errorf("--pkcs12: %w", err)
			}
			r, err := importer.Import(args[0], data, files)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if out != "" {
				if err := os.WriteFile(out, []byte(r.Text.String()), 0o600); err != nil {
					return err
				}
			}
			if report == "" {
				return r.Report(cmd.OutOrStdout(), out)
			}
			return writeReport(report, func(w io.Writer) error { return r.Report(w, out) })
		},
	}
	f := c.Flags()
	f.StringVar(&pkcs12, "pkcs12", "", "directory with the PKCS#12 files that the ASA exported")
	f.StringVar(&out, "out", "", "where to write the configuration")
	f.StringVar(&report, "report", "", "where to write the report; default: standard output")
	return c
}

func writeReport(name string, write func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// filesIn returns the files in a directory, none of "".
func filesIn(dir string) ([]string, error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, filepath.Join(dir, e.Name()))
		}
	}
	return files, nil
}
