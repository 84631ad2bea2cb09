//go:build !linux

package main

import "os"

var quitSignal = os.Interrupt

// rawTerminal is for Linux only: elsewhere the console is reached by SSH.
func rawTerminal(*os.File) (func() error, error) { return nil, errNoTerminal }

func terminalSize(*os.File) (cols, rows int) { return 0, 0 }
