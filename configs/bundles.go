package configs

import (
	"crypto/x509"
	"fmt"
	"path/filepath"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/identity"
)

// PolicyOpener returns what verifies bundles by the authorities, and reads them.
func PolicyOpener(cas ...*x509.Certificate) bundles.Opener {
	return func(s bundles.Signed) (*residency.Bundle, error) {
		if err := identity.VerifySignature(s.Policy, s.Signature, cas...); err != nil {
			return nil, err
		}
		return ParsePolicy("policy", s.Policy)
	}
}

// newestPolicy finds the newest policies that verify: those of the node file, or
// those that came to the node while it ran. Faults are what leaves none, or two of
// one epoch; warnings are what does not count and does no harm.
func (c *checker) newestPolicy(f *Files) (*residency.Bundle, Faults) {
	bundle, err := LoadSignedPolicy(c.n.Policy, f.Authorities...)
	faults, _ := err.(Faults)
	signed, serr := bundles.ReadSigned(c.n.Policy)
	if serr != nil && len(faults) == 0 {
		faults = Faults{{File: c.n.Policy, Message: serr.Error()}}
	}
	dir := filepath.Join(c.n.DataDir, bundles.DirName)
	kept, err := bundles.Dir(dir).Newest(PolicyOpener(f.Authorities...))
	if err != nil {
		f.Warnings = append(f.Warnings, err)
	}
	switch {
	case kept == nil && len(faults) > 0:
		return nil, faults
	case kept == nil:
	case len(faults) > 0:
		f.Warnings = append(f.Warnings, fmt.Errorf("the policies of epoch %d are in force, which came while the node ran: %w", kept.Bundle.Epoch, faults))
		bundle, signed = kept.Bundle, kept.Signed
	case kept.Bundle.Epoch == bundle.Epoch && kept.Signed.Digest() != signed.Digest():
		return nil, Faults{{File: c.n.Policy, Message: fmt.Sprintf("the node has other policies of the same epoch, %d, in %s", bundle.Epoch, dir),
			Hint: "raise the epoch with every change, and sign the file again"}}
	case kept.Bundle.Epoch > bundle.Epoch:
		bundle, signed = kept.Bundle, kept.Signed
	}
	f.Signed = signed
	return bundle, nil
}
