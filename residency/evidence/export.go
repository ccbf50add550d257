package evidence

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

// ExportOptions say what goes into a file beside what the log has.
type ExportOptions struct {
	SID string  // the room's id
	Key RoomKey // of its pseudonym

	// Authorities are the operator's, for whoever wants to look at them.
	Authorities []*x509.Certificate

	// Parse reads the text of a policy file.
	Parse func(text []byte) (*residency.Bundle, error)

	Now time.Time
}

// Export makes the file of a room: its receipts with the proof that they are in
// the log, and all that is needed to judge them.
func (l *Log) Export(o ExportOptions) ([]byte, error) {
	b, err := l.export(o)
	if err != nil {
		return nil, fmt.Errorf("export evidence: %w", err)
	}
	return b, nil
}

func (l *Log) export(o ExportOptions) ([]byte, error) {
	pseudonym, err := o.Key.Pseudonym(o.SID)
	if err != nil {
		return nil, err
	}
	f := &File{Room: RoomLine{SID: o.SID, Key: o.Key, Pseudonym: pseudonym}}
	extract, err := l.Extract(pseudonym)
	if err != nil {
		return nil, err
	}
	f.Logs = []Extract{extract}
	for _, ca := range o.Authorities {
		f.Authorities = append(f.Authorities, ca.Raw)
	}
	cert, key := l.opts.Identity()
	if cert == nil || key == nil {
		return nil, errors.New("this node has no certificate to sign with")
	}
	if err := l.KeepCertificate(cert.Raw); err != nil {
		return nil, err
	}
	if err := l.attach(f, Fingerprint(cert.Raw), o.Parse); err != nil {
		return nil, err
	}
	return f.Write(l.opts.Node, cert, key, o.Now)
}

// attach adds every certificate that signed or is named, and the policies of
// every epoch. One that was not kept is left out, and the verifier says so.
func (l *Log) attach(f *File, exporter Hash, parse func([]byte) (*residency.Bundle, error)) error {
	certs, epochs := map[Hash]bool{exporter: true}, map[residency.Epoch]bool{}
	for _, e := range f.Logs {
		h, err := PeekHead(e.Head)
		if err != nil {
			return err
		}
		certs[h.Certificate] = true
		for _, c := range e.Countersignatures {
			says, err := PeekCountersignature([]byte(c.Signed))
			if err != nil {
				return err
			}
			certs[says.Certificate] = true
		}
		for _, line := range e.Receipts {
			r, err := Peek(line.Signed)
			if err != nil {
				return err
			}
			certs[r.Certificate], certs[r.PeerCertificate], epochs[r.Epoch] = true, true, true
		}
	}
	for _, fp := range slices.Sorted(maps.Keys(certs)) {
		if cert, err := l.Certificate(fp); err == nil {
			f.Certificates = append(f.Certificates, cert.Raw)
		}
	}
	for _, epoch := range slices.Sorted(maps.Keys(epochs)) {
		p, err := l.Policy(epoch)
		if err != nil {
			continue
		}
		bundle, err := parse(p.Text)
		if err != nil {
			return fmt.Errorf("policy of epoch %d: %w", epoch, err)
		}
		form, err := PolicyForm(bundle)
		if err != nil {
			return err
		}
		f.Policies = append(f.Policies, PolicyLine{Epoch: epoch, Text: string(p.Text), Signature: string(p.Signature), Form: form})
	}
	return nil
}

// Extract returns what the log has of a room.
func (l *Log) Extract(room Pseudonym) (Extract, error) {
	l.mu.Lock()
	places := slices.Clone(l.rooms[room])
	head, signed := l.head, l.signed
	vouchers := maps.Clone(l.vouchers)
	l.mu.Unlock()
	if len(places) == 0 {
		return Extract{}, ErrNoReceipts
	}
	e := Extract{Head: signed, Proof: []Hash{}}
	var leaves []int64
	seen := map[Hash]bool{}
	for _, p := range places {
		line, err := l.receipt(p)
		if err != nil {
			return Extract{}, err
		}
		// Who was not told that a receipt arrived sends it again.
		if h := hashOf(line); !seen[h] {
			seen[h] = true
			leaves = append(leaves, p.index)
			e.Receipts = append(e.Receipts, Indexed{p.index, line})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(vouchers)) {
		v := vouchers[name]
		if v.says.Size > head.Size {
			continue // of a head that came after ours was taken
		}
		proof, err := l.prove(head.Size, v.says.Size)
		if err != nil {
			return Extract{}, err
		}
		e.Countersignatures = append(e.Countersignatures, CountersignatureLine{Signed: v.signed, Proof: proof})
	}
	var err error
	e.Proof, err = proveLeaves(head.Size, leaves, l.promised())
	return e, err
}

// receipt reads one from the disk.
func (l *Log) receipt(p place) ([]byte, error) {
	b := make([]byte, p.size)
	if _, err := l.file.ReadAt(b, p.offset); err != nil {
		return nil, err
	}
	_, line, _, err := readFrame(b)
	if err != nil {
		return nil, fmt.Errorf("%w: receipt %d: %w", ErrDamaged, p.index, err)
	}
	return bytes.Clone(line), nil
}
