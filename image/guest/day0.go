package guest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"patchbay/appliance/config"
)

// maxDay0 bounds a first configuration, in bytes; the largest of an ASA are near
// 10 MB.
const maxDay0 = 16 << 20

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
	case len(b) > maxDay0:
		return "", fmt.Errorf("%d bytes are no configuration", len(b))
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

// faults returns the lines of a configuration that the box refuses.
func faults(text string) (list []string) {
	_, found := config.Load("day0-config", strings.NewReader(text), false)
	for _, f := range found {
		if f.Severity == config.Error {
			list = append(list, f.String())
		}
	}
	return list
}
