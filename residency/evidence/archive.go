package evidence

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/domicile/domicile/residency"
)

// Beside the receipts a log keeps what is needed to read them years later: the
// certificates that signed, the policies of each epoch with the authority's
// signature, the newest countersignature of each node.
const (
	certificateDir = "certificates"
	policyDir      = "policies"
	voucherFile    = "countersignatures.json"

	// MaxPolicy bounds a policy's text in bytes, as what nodes tell each other is.
	MaxPolicy = 4 << 20
)

// KeepCertificate keeps a certificate (DER) that the caller verified.
func (l *Log) KeepCertificate(der []byte) error {
	if _, err := x509.ParseCertificate(der); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	name := string(Fingerprint(der)) + ".der"
	if _, err := os.Stat(filepath.Join(l.path(certificateDir), name)); err == nil {
		return nil
	}
	if err := replaceFile(l.path(certificateDir), name, der); err != nil {
		return fmt.Errorf("keep certificate: %w", err)
	}
	return nil
}

// Certificate returns a certificate that was kept.
func (l *Log) Certificate(fp Hash) (*x509.Certificate, error) {
	if !fp.valid() {
		return nil, fmt.Errorf("certificate %q: not a SHA-256", fp)
	}
	der, err := os.ReadFile(filepath.Join(l.path(certificateDir), string(fp)+".der"))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if Fingerprint(der) != fp {
		return nil, fmt.Errorf("certificate %.12s…: its file was changed", fp)
	}
	return x509.ParseCertificate(der)
}

// Policy is one epoch's policies as the authority signed them.
type Policy struct {
	Epoch     residency.Epoch
	Text      []byte // of the file
	Signature []byte // the text of the file beside it
}

// KeepPolicy keeps the policies of an epoch that the caller verified. An epoch
// has one text for good.
func (l *Log) KeepPolicy(p Policy) error {
	if len(p.Text) > MaxPolicy || p.Epoch == 0 {
		return fmt.Errorf("keep policy: epoch %d of %d bytes", p.Epoch, len(p.Text))
	}
	name := filepath.Join(l.path(policyDir), strconv.FormatUint(uint64(p.Epoch), 10)+".yaml")
	old, err := os.ReadFile(name)
	switch {
	case err == nil && !bytes.Equal(old, p.Text):
		return fmt.Errorf("keep policy: epoch %d was another text before", p.Epoch)
	case err == nil:
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("keep policy: %w", err)
	}
	// The signature first: a text without one would be taken for complete.
	if err := replaceFile(l.path(policyDir), filepath.Base(name)+".sig", p.Signature); err != nil {
		return fmt.Errorf("keep policy: %w", err)
	}
	if err := replaceFile(l.path(policyDir), filepath.Base(name), p.Text); err != nil {
		return fmt.Errorf("keep policy: %w", err)
	}
	return nil
}

// Policy returns the policies of an epoch.
func (l *Log) Policy(epoch residency.Epoch) (Policy, error) {
	name := filepath.Join(l.path(policyDir), strconv.FormatUint(uint64(epoch), 10)+".yaml")
	text, err := os.ReadFile(name)
	if err != nil {
		return Policy{}, fmt.Errorf("policy of epoch %d: %w", epoch, err)
	}
	sig, err := os.ReadFile(name + ".sig")
	if err != nil {
		return Policy{}, fmt.Errorf("policy of epoch %d: %w", epoch, err)
	}
	return Policy{Epoch: epoch, Text: text, Signature: sig}, nil
}

// voucher is a countersignature that was kept.
type voucher struct {
	signed string
	says   Countersignature
}

// Countersigned keeps what another node, whose certificate the caller verified,
// signed of a head of this log. Only the newest of each node is kept: it covers
// all that was before.
func (l *Log) Countersigned(signed []byte, cert *x509.Certificate) error {
	c, err := OpenCountersignature(signed, cert)
	if err != nil {
		return err
	}
	if err := l.agrees(c); err != nil {
		return err
	}
	if err := l.KeepCertificate(cert.Raw); err != nil {
		return err
	}
	<-l.turn // for the file of countersignatures
	defer func() { l.turn <- struct{}{} }()
	l.mu.Lock()
	if old, ok := l.vouchers[c.Witness]; ok && old.says.Size > c.Size {
		l.mu.Unlock()
		return nil
	}
	l.vouchers[c.Witness] = voucher{string(signed), c}
	all := maps.Clone(l.vouchers)
	l.mu.Unlock()
	return l.saveVouchers(all)
}

// agrees compares a countersignature with the log as it is.
func (l *Log) agrees(c Countersignature) error {
	h, _ := l.Head()
	switch {
	case c.Origin != l.opts.Node || c.Log != l.id:
		return fmt.Errorf("countersignature of node %s: it is of another log", c.Witness)
	case c.Size > h.Size:
		return fmt.Errorf("node %s countersigned %d receipts, the log has %d: its tail is lost", c.Witness, c.Size, h.Size)
	}
	root, err := tlog.TreeHash(c.Size, l.promised())
	if err != nil {
		return err
	}
	if textOf(root) != c.Root {
		return fmt.Errorf("node %s countersigned another log of %d receipts than this", c.Witness, c.Size)
	}
	return nil
}

// saveVouchers writes them all; the caller has the token.
func (l *Log) saveVouchers(all map[residency.NodeName]voucher) error {
	list := []string{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name].signed)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := replaceFile(l.dir, voucherFile, b); err != nil {
		return fmt.Errorf("keep countersignature: %w", err)
	}
	return nil
}

// loadVouchers reads them and refuses a log that others saw longer or different.
func (l *Log) loadVouchers() error {
	l.vouchers = map[residency.NodeName]voucher{}
	b, err := os.ReadFile(l.path(voucherFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var list []string
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	if err != nil {
		return fmt.Errorf("%w: countersignatures: %w", ErrDamaged, err)
	}
	for _, signed := range list {
		c, err := PeekCountersignature([]byte(signed))
		if err == nil {
			err = l.agrees(c)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		l.vouchers[c.Witness] = voucher{signed, c}
	}
	return nil
}
