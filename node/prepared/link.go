package prepared

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A link names the export, its last second, and a signature of both. So an old link is
// known to be an old one when nothing else is left of the export.

var (
	// ErrExpired says that a link was good, or that what it leads to was removed.
	ErrExpired = errors.New("this link has expired")
	// ErrForged says that nobody here made such a link.
	ErrForged = errors.New("this link was not made here")
)

// Sign signs that an export may be fetched until a moment.
func (s *Shelf) Sign(id ID, until time.Time) (sig string) {
	return base64.RawURLEncoding.EncodeToString(s.mac(id, until.Unix()))
}

// Check asks whether the holder of a link may fetch what it names, now.
func (s *Shelf) Check(id ID, until, sig string) error {
	at, err := strconv.ParseInt(until, 10, 64)
	given, sigErr := base64.RawURLEncoding.DecodeString(sig)
	if err != nil || sigErr != nil || !hmac.Equal(given, s.mac(id, at)) {
		return ErrForged
	}
	if s.opts.Now().After(time.Unix(at, 0)) {
		return ErrExpired
	}
	return nil
}

func (s *Shelf) mac(id ID, until int64) []byte {
	m := hmac.New(sha256.New, s.links)
	fmt.Fprintf(m, "domicile export 1\n%s\n%d\n", id, until)
	return m.Sum(nil)
}

// linkKey reads the key, or makes it: by linking a whole one into place, so that two
// processes agree on one.
func linkKey(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key := make([]byte, sha256.Size)
		rand.Read(key) //nolint:errcheck // it never fails
		if err := writeKey(path, key); err != nil {
			return nil, err
		}
		b, err = os.ReadFile(path)
	}
	if err == nil && len(b) != sha256.Size {
		err = fmt.Errorf("key %q has %d bytes, want %d", path, len(b), sha256.Size)
	}
	return b, err
}

func writeKey(path string, key []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}
