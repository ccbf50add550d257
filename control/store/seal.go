package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Errors about the key, wrapped with the file's name.
var (
	ErrNoKey = errors.New("the rooms are sealed with a key that is not here: " +
		"restore the key file from where you keep it; nothing else opens them")
	ErrWrongKey = errors.New("the rooms are sealed with another key: " +
		"origins that share a database have the same key file, and a restored one needs the one of its time")
)

// sealer seals rooms with keys derived from one that never leaves the zone. What it
// seals looks so:
//
//	+---------+------------+--------------------------+
//	| 1: form | 12: nonce  | AES-256-GCM of the text  |
//	+---------+------------+--------------------------+
//
// The text is bound to its place, so that a row put under another name does not
// open. Nonces are random: 2³² rooms may be written before two are likely to be the
// same (NIST SP 800-38D section 8.3), which is one a second for a century.
type sealer struct {
	aead  cipher.AEAD
	names []byte // of the keyed hash
}

const (
	keySize    = 32
	sealedForm = 1
)

// readKey reads a key of 32 bytes in base64 from a file that its owner alone can read.
func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %q has mode %04o, so others can read it: chmod 0600 it", path, info.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(b)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("key %q: want %d bytes in base64: make one with: openssl rand -base64 %d", path, keySize, keySize)
	}
	return key, nil
}

// makeKey puts a new key into place whole, so that a cut one is never read.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	key := make([]byte, keySize)
	rand.Read(key) //nolint:errcheck // it never fails
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func newSealer(key []byte) (*sealer, error) {
	seal, err := hkdf.Key(sha256.New, key, nil, "domicile store: rooms", keySize)
	if err != nil {
		return nil, err
	}
	names, err := hkdf.Key(sha256.New, key, nil, "domicile store: names", keySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(seal)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead: aead, names: names}, nil
}

// handle is what a room is found by: who has no key cannot try names.
func (s *sealer) handle(name string) []byte {
	h := hmac.New(sha256.New, s.names)
	h.Write([]byte(name))
	return h.Sum(nil)
}

func (s *sealer) seal(plain, place []byte) []byte {
	return s.aead.Seal([]byte{sealedForm}, nil, plain, place)
}

func (s *sealer) open(sealed, place []byte) ([]byte, error) {
	if len(sealed) == 0 || sealed[0] != sealedForm {
		return nil, errors.New("it is sealed in a form that is unknown to this version")
	}
	plain, err := s.aead.Open(nil, nil, sealed[1:], place)
	if err != nil {
		return nil, ErrWrongKey
	}
	return plain, nil
}

// document is a room as it is sealed.
type document struct {
	Name             string `json:"name"`
	SID              string `json:"sid"`
	Tenant           string `json:"tenant,omitempty"`
	Policy           string `json:"policy,omitempty"`
	Metadata         string `json:"metadata,omitempty"`
	EmptyTimeout     uint32 `json:"empty_timeout,omitempty"`
	DepartureTimeout uint32 `json:"departure_timeout,omitempty"`
	MaxParticipants  uint32 `json:"max_participants,omitempty"`
	Created          int64  `json:"created"` // milliseconds since 1970 UTC
	State            string `json:"state,omitempty"`
}

// row is a room as a database has it.
type row struct {
	handle []byte
	sid    string
	sealed []byte
}

func (s *sealer) row(r Room) (row, error) {
	plain, err := json.Marshal(document{Name: r.Name, SID: r.SID, Tenant: r.Tenant, Policy: r.Policy, Metadata: r.Metadata,
		EmptyTimeout: r.EmptyTimeout, DepartureTimeout: r.DepartureTimeout, MaxParticipants: r.MaxParticipants,
		Created: r.Created.UnixMilli(), State: r.State})
	if err != nil {
		return row{}, err
	}
	handle := s.handle(r.Name)
	return row{handle: handle, sid: r.SID, sealed: s.seal(plain, handle)}, nil
}

func (s *sealer) room(x row) (Room, error) {
	plain, err := s.open(x.sealed, x.handle)
	if err != nil {
		return Room{}, fmt.Errorf("stored room %q: %w", x.sid, err)
	}
	var d document
	if err := json.Unmarshal(plain, &d); err != nil {
		return Room{}, fmt.Errorf("stored room %q: %w", x.sid, err)
	}
	return Room{Name: d.Name, SID: d.SID, Tenant: d.Tenant, Policy: d.Policy, Metadata: d.Metadata, EmptyTimeout: d.EmptyTimeout,
		DepartureTimeout: d.DepartureTimeout, MaxParticipants: d.MaxParticipants, Created: time.UnixMilli(d.Created).UTC(), State: d.State}, nil
}

// keyProof is what a database holds to tell its key from another.
var keyProof = []byte("about: key")

func (s *sealer) proof() []byte { return s.seal(keyProof, keyProof) }

func (s *sealer) proves(sealed []byte) error {
	_, err := s.open(sealed, keyProof)
	return err
}
