package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"patchbay/appliance/config"
)

// A first configuration is bounded in bytes: the largest of an ASA are near 10 MB. To
// check one takes up to 160 times its length of memory, which process 1 must have,
// or the kernel panics.
const (
	maxDay0     = 16 << 20
	day0PerByte = 256 // bytes of the machine's memory
)

// day0Limit is how long a first configuration may be on a machine with so much
// memory, in bytes; 0: not known.
func day0Limit(memory int64) int64 {
	if memory == 0 {
		memory = 256 << 20
	}
	return min(memory/day0PerByte, maxDay0)
}

// readDay0 reads a first configuration of at most so many bytes.
func readDay0(r io.Reader, limit int64) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return "", err
	}
	if int64(len(b)) > limit {
		return "", fmt.Errorf("more than %d KB are no configuration for a machine with this memory", limit>>10)
	}
	return day0Text(b)
}

// An untilZero is a disk that is nothing but text: it ends where the first zero is.
type untilZero struct {
	r     io.Reader
	ended bool
}

func (u *untilZero) Read(b []byte) (int, error) {
	if u.ended {
		return 0, io.EOF
	}
	n, err := u.r.Read(b)
	if i := bytes.IndexByte(b[:n], 0); i >= 0 {
		u.ended = true
		return i, nil
	}
	return n, err
}

// fwCfg is where QEMU's -fw_cfg name=opt/patchbay/day0-config,file=... shows.
// (qemu docs/specs/fw_cfg.rst.)
const fwCfg = "/sys/firmware/qemu_fw_cfg/by_name/opt/patchbay/day0-config/raw"

// day0Names are the files of a config drive, the first that is there counts: that
// of an ASAv, and that of cloud-init's NoCloud.
var day0Names = []string{"day0-config", "user-data"}

// driveLabels are those of a config drive, in capitals: of NoCloud, and ours.
var driveLabels = []string{"CIDATA", "PATCHBAY"}

var errCloudConfig = errors.New(`it begins with "#cloud-config": put the configuration itself there, the lines of the box`)

// day0Text returns the configuration in what a config drive holds: text, as an ASA
// shows it. Lines in front of it that begin with # are a comment.
func day0Text(b []byte) (string, error) {
	if i := bytes.IndexByte(b, 0); i >= 0 && len(bytes.Trim(b[i:], "\x00")) == 0 {
		b = b[:i] // a disk without a file system ends in zeros
	}
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	switch {
	case len(b) == 0:
		return "", errors.New("it is empty")
	case bytes.IndexByte(b, 0) >= 0 || !utf8.Valid(b):
		return "", errors.New("it is not text")
	}
	text := strings.ReplaceAll(string(b), "\r\n", "\n")
	if strings.HasPrefix(text, "#cloud-config") {
		return "", errCloudConfig
	}
	for strings.HasPrefix(text, "#") {
		_, rest, ok := strings.Cut(text, "\n")
		if !ok {
			return "", errors.New("it is only a comment")
		}
		text = rest
	}
	return text, nil
}

// looksLikeConfig reports whether the first bytes of a disk without a file system
// are those of a configuration: text that begins with a line of an ASA's.
func looksLikeConfig(b []byte) bool {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	line, _, ok := bytes.Cut(b, []byte("\n"))
	if !ok || !utf8.Valid(line) {
		return false
	}
	for _, start := range []string{"!", ":", "#", "ASA Version ", "hostname ", "interface ", "terminal ", "enable "} {
		if strings.HasPrefix(string(line), start) {
			return bytes.IndexFunc(line, func(r rune) bool { return r < ' ' && r != '\t' && r != '\r' }) < 0
		}
	}
	return false
}

// faults returns the lines of a configuration that the box refuses. The memory that
// this takes is the appliance's afterwards.
func faults(text string) (list []string) {
	defer debug.FreeOSMemory()
	_, found := config.Load("day0-config", strings.NewReader(text), false)
	for _, f := range found {
		if f.Severity == config.Error {
			list = append(list, f.String())
		}
	}
	return list
}
