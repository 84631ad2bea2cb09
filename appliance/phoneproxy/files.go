package phoneproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"patchbay/inspect/tftp"
)

// maxSigned is the largest file that is signed, in bytes. It must be held
// whole, for the signature comes first. (Newer phones take 2 MB of one file;
// reference/signed-files.md, section 2.)
const maxSigned = 4 << 20

// Why a phone does not get a file.
var (
	errUnsigned = errors.New("phone requesting for unsigned config file")
	errConfig   = errors.New("error parsing config file")
	errCTL      = errors.New("no CTL file to serve")
)

// Files is what a phone gets for the name of a file: the CTL file made here,
// configurations from the UCM's TFTP server made secure and signed, other
// files signed or as they are. Its fields are set before first use; it may be
// used by many goroutines at once.
type Files struct {
	// CTL returns the CTL file.
	CTL func() ([]byte, error)
	// Sign returns payload behind a signature header that carries name, the
	// name exactly as the phone asked for it.
	Sign func(name string, payload []byte) ([]byte, error)
	// Fetch opens a file on the UCM's TFTP server. Its error is fs.ErrNotExist
	// (or *tftp.Error) if the server said so, and wraps tftp.ErrNoAnswer if it
	// said nothing. ctx ends when the file has been sent.
	Fetch func(ctx context.Context, server netip.AddrPort, name string) (tftp.File, error)
	// Config returns what configurations for phones on an interface must say.
	// device is DeviceName's form, or "" for XMLDefault.cnf.xml. Nil changes no
	// address.
	Config func(iface, device string) ConfigParams
	Phones *Phones

	// ServeUnsigned hands out configurations, made secure, under their names
	// without ".sgn" too. Otherwise such a request gets error 1: a phone asks
	// so when it has no CTL file, and must come back with one.
	ServeUnsigned bool

	Now func() time.Time
	Log *slog.Logger
}

// Open returns the file that the phone behind from, on interface iface, gets
// for name when it asks for a file of server, the UCM's real TFTP server. It is
// what tftp.Server.Open must do, and its errors are for tftp.Server: a file
// that the UCM does not have is fs.ErrNotExist; a file that is out of reach,
// damaged or cannot be signed wraps tftp.ErrNoAnswer, for with error 1 the
// phone would go on without it. name has passed tftp.CleanName.
func (f *Files) Open(ctx context.Context, from netip.AddrPort, iface string, server netip.AddrPort, name string) (tftp.File, error) {
	r := &fileRequest{
		Files: f, fileName: parseFileName(name), name: name, from: from, iface: iface, server: server,
		log: f.Log.With("interface", iface, "from", from, "file", name),
	}
	switch r.kind {
	case fileCTL:
		return r.ctl()
	case fileConfig, fileDefault:
		return r.config(ctx)
	case fileFirmware:
		return r.relay(ctx, r.base)
	case fileOther:
		if r.signed {
			return r.sign(ctx)
		}
		return r.relay(ctx, r.spellings()...)
	case fileITL:
		r.log.Debug("phone requesting ITL file: there is none")
	default:
		r.log.Info("phone requesting a file that is not for phones")
	}
	return tftp.File{}, r.notFound()
}

// fileRequest is one call of Open.
type fileRequest struct {
	*Files
	fileName
	name   string // as asked
	from   netip.AddrPort
	iface  string
	server netip.AddrPort
	log    *slog.Logger
}

func (r *fileRequest) notFound() error {
	return fmt.Errorf("phoneproxy: %q: %w", r.name, tftp.NotFound())
}

// noAnswer makes err one that the phone is not told.
func (r *fileRequest) noAnswer(err error) error {
	return fmt.Errorf("phoneproxy: %q: %w: %w", r.name, tftp.ErrNoAnswer, err)
}

// ctl returns the CTL file, the same for everyone.
func (r *fileRequest) ctl() (tftp.File, error) {
	data, err := r.CTL()
	if err != nil {
		return tftp.File{}, r.noAnswer(fmt.Errorf("%w: %w", errCTL, err))
	}
	r.note()
	r.log.Debug("phone requesting CTL file, retrieved CTL file", "bytes", len(data))
	return tftp.Bytes(data), nil
}

// note begins or refreshes the secure-phone entry.
func (r *fileRequest) note() {
	if r.device == "" {
		return
	}
	if err := r.Phones.Note(r.device, r.from, r.iface, r.Now()); err != nil {
		r.log.Warn("phone not entered among the secure phones", "error", err)
	}
}

// config returns a configuration, made secure and signed.
func (r *fileRequest) config(ctx context.Context) (tftp.File, error) {
	if !r.signed && !r.ServeUnsigned {
		r.log.Warn("phone requesting for unsigned config file")
		return tftp.File{}, fmt.Errorf("phoneproxy: %q: %w: %w", r.name, errUnsigned, tftp.NotFound())
	}
	data, err := r.whole(ctx, MaxConfig)
	if err != nil {
		return tftp.File{}, err
	}
	if isSigned(data) {
		return tftp.File{}, r.noAnswer(fmt.Errorf("%w: that of %v is signed already", errConfig, r.server))
	}
	var p ConfigParams
	if r.Config != nil {
		p = r.Config(r.iface, r.device)
	}
	secure, orig, err := secureConfig(data, p)
	if err != nil {
		r.log.Error("error parsing config file", "tftp-server", r.server)
		return tftp.File{}, r.noAnswer(fmt.Errorf("%w: %w", errConfig, err))
	}
	if r.signed {
		if secure, err = r.Sign(r.name, secure); err != nil {
			return tftp.File{}, r.noAnswer(err)
		}
	}
	if r.kind == fileConfig {
		r.note()
		r.Phones.SetOriginal(r.device, orig, r.Now()) // no entry, no original to keep
	}
	r.log.Debug("config file made secure", "mode", orig.Mode, "sip", orig.SIP, "signed", r.signed, "bytes", len(secure))
	return tftp.Bytes(secure), nil
}

// sign returns another file, signed.
func (r *fileRequest) sign(ctx context.Context) (tftp.File, error) {
	data, err := r.whole(ctx, maxSigned)
	if err != nil {
		return tftp.File{}, err
	}
	signed, err := r.Sign(r.name, data)
	if err != nil {
		return tftp.File{}, r.noAnswer(err)
	}
	return tftp.Bytes(signed), nil
}

// whole fetches all of a file, up to limit bytes.
func (r *fileRequest) whole(ctx context.Context, limit int64) ([]byte, error) {
	f, err := r.relay(ctx, r.spellings()...)
	if err != nil {
		return nil, err
	}
	defer f.Body.Close()
	if f.Size > limit {
		return nil, r.noAnswer(fmt.Errorf("%d bytes: %w", f.Size, tftp.ErrTooLarge))
	}
	data, err := io.ReadAll(io.LimitReader(f.Body, limit+1))
	if err != nil {
		return nil, r.noAnswer(err) // it began, so it is there
	}
	if int64(len(data)) > limit {
		return nil, r.noAnswer(fmt.Errorf("over %d bytes: %w", limit, tftp.ErrTooLarge))
	}
	return data, nil
}

// relay opens the first of the names that the UCM has. The phone learns of an
// error only if it is the server's own.
func (r *fileRequest) relay(ctx context.Context, names ...string) (f tftp.File, err error) {
	for _, name := range names {
		f, err = r.Fetch(ctx, r.server, name)
		if !tftp.IsNotFound(err) {
			break
		}
	}
	var said *tftp.Error
	switch {
	case err == nil:
		return f, nil
	case tftp.IsNotFound(err) || errors.As(err, &said):
		return tftp.File{}, fmt.Errorf("phoneproxy: %q: %w", r.name, err)
	}
	return tftp.File{}, r.noAnswer(err)
}

// isSigned reports whether data begins with the header of a signed file:
// version, whose second byte differs between Cisco's and others', then header
// length. (reference/signed-files.md, section 3.)
func isSigned(data []byte) bool {
	return len(data) >= 8 && bytes.HasPrefix(data, []byte{0x01, 0x00, 0x02, 0x01}) &&
		bytes.Equal(data[5:8], []byte{0x02, 0x00, 0x02})
}
