package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// FilesConfig names a certificate with its chain and its key, both PEM.
type FilesConfig struct {
	Certificate, Key string

	// Names are what the certificate has to hold for. A new one that does not
	// is not taken in place of one that does.
	Names []string

	Clock Clock
	Log   *slog.Logger
}

const (
	// recheck is how often it is asked whether the files have changed: two calls
	// of stat.
	recheck = time.Second

	// reread is how often they are read whatever stat says, for changes that
	// leave time and size as they were.
	reread = time.Minute

	// patience is for how long files may be at odds before it is said: a renewal
	// writes them one after the other.
	patience = 5 * time.Second

	// maxPEM bounds each file, in bytes; a chain has some thousand.
	maxPEM = 1 << 20
)

// files are a certificate in two files.
type files struct {
	cfg    FilesConfig
	keeper *Keeper

	// Owned by Run.
	seen     stamp     // of the files when they were last read
	read     time.Time // when that was
	pem      [2][]byte // what they held when they were last taken over
	trouble  failure   // what was wrong with them; zero if nothing
	since    time.Time // since when
	reported bool
}

// FromFiles reads the files; a pair that does not belong together is an error.
func FromFiles(cfg FilesConfig) (*Keeper, error) {
	k := newKeeper(cfg.Names, cfg.Clock, cfg.Log)
	f := &files{cfg: cfg, keeper: k, read: k.now()}
	k.source = f
	var err error
	if f.seen, err = f.stat(); err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	pair, pem, err := f.load()
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	f.pem = pem
	k.use(pair, false)
	return k, nil
}

func (*files) authority() string { return "" }

// look reads the files again if they may have changed.
func (f *files) look(context.Context, At) time.Duration {
	now := f.keeper.now()
	s, err := f.stat()
	if err == nil && s.same(f.seen) && now.Sub(f.read) < reread && f.trouble.err == nil {
		return recheck
	}
	if err == nil {
		f.seen, f.read = s, now // taken before reading: a write meanwhile shows at the next look
		err = f.renew(now)
	}
	f.judge(err, now)
	return recheck
}

// renew takes over what the files hold, unless that is worse than what is in use.
func (f *files) renew(now time.Time) error {
	pair, pem, err := f.load()
	if err != nil {
		return err
	}
	if bytes.Equal(pem[0], f.pem[0]) && bytes.Equal(pem[1], f.pem[1]) {
		return nil
	}
	if err := usable(pair.Leaf, f.keeper.names, now); err != nil &&
		usable(f.keeper.current.Load().leaf(), f.keeper.names, now) == nil {
		return err
	}
	f.pem = pem
	f.keeper.renewed(pair)
	return nil
}

// judge reports a fault once it has lasted, and its end.
func (f *files) judge(err error, now time.Time) {
	switch {
	case err == nil && f.reported:
		f.keeper.settled()
		f.keeper.log.Info("the certificate's files are well again")
		fallthrough
	case err == nil:
		f.trouble, f.reported = failure{}, false
	case f.trouble.err == nil:
		f.trouble, f.since = failure{Files, err}, now
	case !f.reported && now.Sub(f.since) >= patience, f.reported && err.Error() != f.trouble.err.Error():
		f.trouble, f.reported = failure{Files, err}, true
		f.keeper.failed(f.trouble)
		f.keeper.log.Warn("the last good certificate stays in use: its files cannot be taken over",
			"error", err, "hint", f.trouble.reason.Hint())
	}
}

// load reads the pair and checks that it belongs together.
func (f *files) load() (*tls.Certificate, [2][]byte, error) {
	var pem [2][]byte
	for i, path := range []string{f.cfg.Certificate, f.cfg.Key} {
		var err error
		if pem[i], err = readSmall(path); err != nil {
			return nil, pem, err
		}
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		return nil, pem, fmt.Errorf("certificate %q with key %q: %w", f.cfg.Certificate, f.cfg.Key, err)
	}
	return &pair, pem, nil
}

// readSmall reads a file of at most maxPEM bytes.
func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEM {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("not a file with PEM in it")}
	}
	return os.ReadFile(path)
}

// usable says why browsers would refuse a certificate, by its own words.
func usable(leaf *x509.Certificate, names []string, now time.Time) error {
	if now.Before(leaf.NotBefore) || !now.Before(leaf.NotAfter) {
		return fmt.Errorf("the certificate is valid from %s to %s, not now",
			leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return holdsFor(leaf, names)
}

func holdsFor(leaf *x509.Certificate, names []string) error {
	for _, name := range names {
		if err := leaf.VerifyHostname(name); err != nil {
			return fmt.Errorf("the certificate does not hold for %q: %w", name, err)
		}
	}
	return nil
}

// stamp tells one version of the two files from another. Links are followed, so
// the swap of one is a change.
type stamp [2]os.FileInfo

func (f *files) stat() (s stamp, err error) {
	for i, path := range []string{f.cfg.Certificate, f.cfg.Key} {
		if s[i], err = os.Stat(path); err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s stamp) same(o stamp) bool {
	for i := range s {
		if o[i] == nil || !os.SameFile(s[i], o[i]) || !s[i].ModTime().Equal(o[i].ModTime()) || s[i].Size() != o[i].Size() {
			return false
		}
	}
	return true
}
