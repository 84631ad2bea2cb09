package disk

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// EnvSize is the length of GRUB's environment in bytes. It never changes, so that
// a write is in place. (GRUB manual, "Environment block".)
const EnvSize = 1024

const envHead = "# GRUB Environment Block\n"

// An Env is GRUB's environment: variables that it keeps from one start to the
// next.
type Env map[string]string

var errEnv = errors.New("disk: this is no environment of GRUB's")

// ParseEnv reads an environment.
func ParseEnv(b []byte) (Env, error) {
	if len(b) != EnvSize || !bytes.HasPrefix(b, []byte(envHead)) {
		return nil, errEnv
	}
	e := make(Env)
	for line := range strings.Lines(string(b[len(envHead):])) {
		line, ended := strings.CutSuffix(line, "\n")
		if !ended || strings.HasPrefix(line, "#") {
			break // what fills it up
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok || k == "" {
			return nil, errEnv
		}
		e[k] = v
	}
	return e, nil
}

// Bytes returns e as GRUB reads it, EnvSize bytes.
func (e Env) Bytes() ([]byte, error) {
	b := []byte(envHead)
	for _, k := range slices.Sorted(maps.Keys(e)) {
		if k == "" || strings.ContainsAny(k+e[k], "=\n\\#") {
			return nil, fmt.Errorf("disk: %q cannot be in GRUB's environment", k+"="+e[k])
		}
		b = fmt.Appendf(b, "%s=%s\n", k, e[k])
	}
	if len(b) > EnvSize {
		return nil, fmt.Errorf("disk: an environment of %d bytes; %d are the most", len(b), EnvSize)
	}
	return append(b, bytes.Repeat([]byte("#"), EnvSize-len(b))...), nil
}
