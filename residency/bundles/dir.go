package bundles

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/domicile/domicile/residency"
)

// Dir keeps bundles in a directory, each in a folder of its own, named by its epoch:
//
//	DIR/7/policy.yaml
//	DIR/7/policy.yaml.sig
//
// A folder appears whole or not at all. What lies there was verified when it came;
// it is verified again when it is read.
type Dir string

// DirName is what the directory is called in a node's data directory.
const DirName = "policy"

const (
	policyName    = "policy.yaml"
	signatureName = policyName + ".sig"
	unfinished    = "new-" // a folder that is being written
	kept          = 8      // older bundles than that are removed; people look at the latest few
)

// Save writes a bundle so that it is there after a power failure.
func (d Dir) Save(epoch residency.Epoch, s Signed) error {
	if err := d.save(epoch, s); err != nil {
		return fmt.Errorf("keep the policies of epoch %d: %w", epoch, err)
	}
	d.prune()
	return nil
}

func (d Dir) save(epoch residency.Epoch, s Signed) error {
	if err := os.MkdirAll(string(d), 0o700); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(string(d), unfinished)
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	for name, b := range map[string][]byte{policyName: s.Policy, signatureName: s.Signature} {
		if err := writeThrough(filepath.Join(tmp, name), b); err != nil {
			return err
		}
	}
	if err := syncDir(tmp); err != nil {
		return err
	}
	// A folder of this epoch can only be one that does not verify: else the bundle
	// would be known, or in conflict with it.
	final := filepath.Join(string(d), strconv.FormatUint(uint64(epoch), 10))
	if err := errors.Join(os.RemoveAll(final), os.Rename(tmp, final)); err != nil {
		return err
	}
	return syncDir(string(d))
}

func writeThrough(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// syncDir makes what was renamed into a directory last.
func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// epochs lists the folders, newest first.
func (d Dir) epochs() ([]residency.Epoch, error) {
	entries, err := os.ReadDir(string(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var list []residency.Epoch
	for _, e := range entries {
		n, perr := strconv.ParseUint(e.Name(), 10, 64)
		if perr == nil && e.IsDir() && strconv.FormatUint(n, 10) == e.Name() {
			list = append(list, residency.Epoch(n))
		}
	}
	slices.SortFunc(list, func(a, b residency.Epoch) int { return cmp.Compare(b, a) })
	return list, err
}

// prune removes what is older than the newest few, and what was never finished.
func (d Dir) prune() {
	list, err := d.epochs()
	if err != nil {
		return
	}
	for _, e := range list[min(kept, len(list)):] {
		os.RemoveAll(d.folder(e)) //nolint:errcheck // it is old, and tried again with the next
	}
	left, _ := filepath.Glob(filepath.Join(string(d), unfinished+"*"))
	for _, path := range left {
		os.RemoveAll(path) //nolint:errcheck // likewise
	}
}

func (d Dir) folder(e residency.Epoch) string {
	return filepath.Join(string(d), strconv.FormatUint(uint64(e), 10))
}

// Kept is a bundle that verifies.
type Kept struct {
	Signed Signed
	Bundle *residency.Bundle
}

// Ref names the bundle.
func (k Kept) Ref() Ref { return Ref{Epoch: k.Bundle.Epoch, Digest: k.Signed.Digest()} }

// Newest returns the newest bundle that verifies; nil if there is none. The error
// says of every newer one why it does not count, and may come beside a bundle.
func (d Dir) Newest(open Opener) (*Kept, error) {
	list, err := d.epochs()
	if err != nil {
		return nil, fmt.Errorf("read the kept policies: %w", err)
	}
	var bad error
	for _, e := range list {
		k, err := d.load(e, open)
		if err == nil {
			return k, bad
		}
		bad = errors.Join(bad, fmt.Errorf("the kept policies of epoch %d do not count: %w", e, err))
	}
	return nil, bad
}

func (d Dir) load(e residency.Epoch, open Opener) (*Kept, error) {
	policy, err := readBounded(filepath.Join(d.folder(e), policyName), MaxPolicy)
	if err != nil {
		return nil, err
	}
	sig, err := readBounded(filepath.Join(d.folder(e), signatureName), MaxSignature)
	if err != nil {
		return nil, err
	}
	s := Signed{Policy: policy, Signature: sig}
	if err := s.Check(); err != nil {
		return nil, err
	}
	b, err := open(s)
	switch {
	case err != nil:
		return nil, err
	case b.Epoch != e:
		return nil, fmt.Errorf("they state epoch %d", b.Epoch)
	}
	return &Kept{Signed: s, Bundle: b}, nil
}

// readBounded reads a file that is no longer than it may be, by one byte more.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// ReadSigned reads a policy file and the signature beside it.
func ReadSigned(path string) (Signed, error) {
	policy, err := readBounded(path, MaxPolicy)
	if err != nil {
		return Signed{}, err
	}
	sig, err := readBounded(path+".sig", MaxSignature)
	if err != nil {
		return Signed{}, err
	}
	s := Signed{Policy: policy, Signature: sig}
	return s, s.Check()
}
