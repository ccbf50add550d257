package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"
)

const (
	identityFile   = "recordings.key"        // this node's private key; made on first use
	recipientsFile = "recordings.recipients" // optional: further public keys, one per line

	// tenantsDir may hold public keys of tenants, in files NAME.recipients.
	tenantsDir   = "tenants"
	tenantSuffix = ".recipients"
)

// KeyStore holds the key pair that opens this node's recordings, and the public
// keys of everybody else who may open them. It is immutable and safe for
// concurrent use.
type KeyStore struct {
	identity   *age.X25519Identity
	recipients []age.Recipient
	tenants    map[string][]age.Recipient // who alone opens tracks of a tenant's rooms
}

// OpenKeyStore reads the node's age identity from dir, making it (mode 0600) on
// first use. Whoever loses that file loses every recording that was sealed to it
// alone, so a file recordings.recipients beside it may name further age public
// keys to which new recordings are sealed too.
//
// Where there is a file tenants/NAME.recipients, the tracks of that tenant's recordings
// are sealed to the keys in it and to no others: this node writes them and cannot read
// them. What it must know to list, keep and erase them, it can.
func OpenKeyStore(dir string) (*KeyStore, error) {
	path := filepath.Join(dir, identityFile)
	id, err := readIdentity(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = createIdentity(dir, path); err == nil {
			id, err = readIdentity(path)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	more, err := readRecipients(filepath.Join(dir, recipientsFile))
	if err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	tenants, err := readTenants(filepath.Join(dir, tenantsDir))
	if err != nil {
		return nil, fmt.Errorf("open key store: %w", err)
	}
	return &KeyStore{identity: id, recipients: append([]age.Recipient{id.Recipient()}, more...), tenants: tenants}, nil
}

// PublicKey returns the node's own age recipient ("age1…"), which may be shown.
func (k *KeyStore) PublicKey() string { return k.identity.Recipient().String() }

func readIdentity(path string) (*age.X25519Identity, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %q has mode %04o, so others can read it: chmod 0600 it", path, fi.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		// age's error quotes the faulty line, which here is secret.
		return nil, fmt.Errorf("key %q is not an age identity file", path)
	}
	id, ok := ids[0].(*age.X25519Identity)
	if len(ids) != 1 || !ok {
		return nil, fmt.Errorf("key %q: want exactly one AGE-SECRET-KEY-1… line", path)
	}
	return id, nil
}

// createIdentity makes the key file by linking a complete one into place, so
// that two processes that start at once agree on one key.
func createIdentity(dir, path string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return err
	}
	tmp, err := writeTemp(dir, []byte(id.String()+"\n"))
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func readRecipients(path string) ([]age.Recipient, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rs, err := age.ParseRecipients(f)
	if err != nil {
		return nil, fmt.Errorf("recipients %q: %w", path, err)
	}
	return rs, nil
}

// readTenants reads the files of a directory that need not be there. One that names
// nobody is a mistake: what is sealed to nobody is lost.
func readTenants(dir string) (map[string][]age.Recipient, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*"+tenantSuffix))
	if err != nil {
		return nil, err
	}
	tenants := map[string][]age.Recipient{}
	for _, path := range paths {
		rs, err := readRecipients(path)
		if err != nil {
			return nil, err
		}
		tenants[strings.TrimSuffix(filepath.Base(path), tenantSuffix)] = rs
	}
	return tenants, nil
}

// foreign reports whether this node cannot read what it records of a tenant.
func (k *KeyStore) foreign(tenant string) bool { return len(k.tenants[tenant]) > 0 }

// wrapKey seals the key of a track to whoever may read it.
func (k *KeyStore) wrapKey(tenant string, key []byte) ([]byte, error) {
	if k.foreign(tenant) {
		return wrapTo(key, k.tenants[tenant])
	}
	return wrapTo(key, k.recipients)
}

// wrapDocument seals a document to whoever keeps or reads the recording.
func (k *KeyStore) wrapDocument(tenant string, plain []byte) ([]byte, error) {
	return wrapTo(plain, slices.Concat(k.recipients, k.tenants[tenant]))
}

// wrapTo seals a few bytes, as an age file.
func wrapTo(plain []byte, to []age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(plain); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (k *KeyStore) unwrap(sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.identity)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
