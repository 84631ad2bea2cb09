//go:build !linux

package console

import "testing"

func TestTranscriptsPTY(t *testing.T) { t.Skip("pseudo-terminals are opened on Linux only") }
