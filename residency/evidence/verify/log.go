package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/identity"
)

// within is a time at which both a certificate and an authority that may have
// issued it are valid.
func within(cert *x509.Certificate, roots []*x509.Certificate) time.Time {
	t := cert.NotBefore
	for _, root := range roots {
		if bytes.Equal(root.RawSubject, cert.RawIssuer) && root.NotBefore.After(t) && root.NotBefore.Before(cert.NotAfter) {
			t = root.NotBefore
		}
	}
	return t
}

// policies reads what the authority signed, and nothing else.
func (v *verifier) policies(f *evidence.File) {
	here := map[residency.Epoch]bool{}
	for _, p := range f.Policies {
		if err := identity.VerifySignature([]byte(p.Text), []byte(p.Signature), v.opts.Roots...); err != nil {
			v.find(BadPolicy, p.Epoch, err)
			continue
		}
		bundle, err := v.opts.Parse([]byte(p.Text))
		if err == nil && bundle.Epoch != p.Epoch {
			err = fmt.Errorf("the text is of epoch %d", bundle.Epoch)
		}
		if err != nil {
			v.find(BadPolicy, p.Epoch, err)
			continue
		}
		if form, err := evidence.PolicyForm(bundle); err != nil || !bytes.Equal(form, p.Form) {
			v.find(PolicyForm, p.Epoch)
		}
		if here[p.Epoch] || v.gates[p.Epoch] != nil && v.texts[p.Epoch] != p.Text {
			v.find(BadPolicy, p.Epoch, errors.New("it is there twice"))
		}
		here[p.Epoch], v.texts[p.Epoch] = true, p.Text
		v.bundles[p.Epoch], v.gates[p.Epoch] = bundle, residency.NewGate(bundle)
	}
}

// log checks one log: its head, the nodes that countersigned it, and that the
// receipts are in it.
func (v *verifier) log(e evidence.Extract) {
	h, ok := v.head(e.Head)
	if !ok {
		return
	}
	if err := evidence.CheckExtract(e, h); err != nil {
		v.find(NotInLog, h.Origin, err)
	}
	facts := LogFacts{Origin: h.Origin, Size: h.Size, Time: h.Time}
	newest := int64(-1)
	if n := len(e.Receipts); n > 0 {
		newest = e.Receipts[n-1].Index
	}
	others := false
	for _, line := range e.Receipts {
		r, err := evidence.Peek(line.Signed)
		if err != nil {
			v.find(BadReceipt, err)
			continue
		}
		others = others || r.Node != h.Origin
		v.receipts = append(v.receipts, entry{r, line.Signed})
	}
	covered := false
	for _, c := range e.Countersignatures {
		says, ok := v.countersignature(c, h)
		if ok && says.Witness != h.Origin {
			facts.Witnesses = append(facts.Witnesses, says.Witness)
			covered = covered || says.Size > newest
		}
	}
	if others && !covered {
		v.find(NotWitnessed, h.Origin)
	}
	v.held(e, h)
	v.result.Logs = append(v.result.Logs, facts)
}

// signer finds a trusted certificate that states the name in whose name
// something is signed.
func (v *verifier) signer(name residency.NodeName, fp evidence.Hash, at int64) (*holder, error) {
	h := v.certs[fp]
	switch {
	case h == nil:
		return nil, errors.New("its certificate is not in the file, or not trusted")
	case h.node.Name != name:
		return nil, fmt.Errorf("the certificate is that of node %s", h.node.Name)
	case !h.node.ValidAt(evidence.Time(at)):
		return nil, errors.New("its certificate was not valid then")
	}
	return h, nil
}

func (v *verifier) head(signed []byte) (evidence.Head, bool) {
	h, err := evidence.PeekHead(signed)
	if err == nil {
		var s *holder
		if s, err = v.signer(h.Origin, h.Certificate, h.Time); err == nil {
			_, err = evidence.OpenHead(signed, s.cert)
		}
	}
	if err != nil {
		v.find(BadHead, h.Origin, err)
	}
	return h, err == nil
}

// countersignature checks what another node signed, and that the head continues it.
func (v *verifier) countersignature(line evidence.CountersignatureLine, h evidence.Head) (evidence.Countersignature, bool) {
	c, err := evidence.PeekCountersignature([]byte(line.Signed))
	if err == nil {
		var s *holder
		if s, err = v.signer(c.Witness, c.Certificate, c.Time); err == nil {
			_, err = evidence.OpenCountersignature([]byte(line.Signed), s.cert)
		}
	}
	if err == nil && c.Origin != h.Origin {
		err = fmt.Errorf("it is of a log of origin %s", c.Origin)
	}
	if err != nil {
		v.find(BadVoucher, c.Witness, err)
		return c, false
	}
	if c.Log != h.Log || evidence.CheckConsistent(line.Proof, h.Size, h.Root, c.Size, c.Root) != nil {
		v.find(Forked, h.Origin, c.Witness, c.Size)
		return c, false
	}
	if c.Logs > 1 {
		v.find(AnotherLog, c.Witness, c.Logs, h.Origin)
	}
	return c, true
}

// held compares the log with signed heads that somebody else has.
func (v *verifier) held(e evidence.Extract, h evidence.Head) {
	for _, signed := range v.opts.Held {
		o, err := evidence.PeekHead([]byte(signed))
		if err != nil || o.Origin != h.Origin {
			continue
		}
		s := v.certs[o.Certificate]
		if s == nil {
			v.find(NotComparable, o.Size, o.Origin)
			continue
		}
		if _, err := evidence.OpenHead([]byte(signed), s.cert); err != nil {
			v.find(BadHead, o.Origin, err)
			continue
		}
		v.compare(e, h, o)
	}
}

// compare looks for what the file can say about a log at another size.
func (v *verifier) compare(e evidence.Extract, h, o evidence.Head) {
	known := map[int64]evidence.Hash{h.Size: h.Root}
	for _, c := range e.Countersignatures {
		if says, err := evidence.PeekCountersignature([]byte(c.Signed)); err == nil && says.Log == h.Log &&
			evidence.CheckConsistent(c.Proof, h.Size, h.Root, says.Size, says.Root) == nil {
			known[says.Size] = says.Root
		}
	}
	root, ok := known[o.Size]
	switch {
	case ok && o.Log == h.Log && root != o.Root, o.Log == h.Log && o.Size > h.Size && o.Time < h.Time:
		v.find(Forked, o.Origin, "?", o.Size)
	case !ok || o.Log != h.Log:
		v.find(NotComparable, o.Size, o.Origin)
	}
}

// stay is one chain: a node's receipts between entering the room and leaving it.
type stay struct {
	node residency.NodeName
	run  int64
}

// chains checks that each node's receipts are all there, in order, and its own.
func (v *verifier) chains() {
	stays := map[stay][]entry{}
	for _, e := range v.receipts {
		if e.Room != v.result.Room.Pseudonym {
			v.find(OtherRoom, e.Seq, e.Node)
			continue
		}
		k := stay{e.Node, e.Run}
		stays[k] = append(stays[k], e)
	}
	keys := make([]stay, 0, len(stays))
	for k := range stays {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b stay) int {
		if a.node != b.node {
			return bytes.Compare([]byte(a.node), []byte(b.node))
		}
		return int(a.run - b.run)
	})
	for _, k := range keys {
		chain := stays[k]
		slices.SortStableFunc(chain, func(a, b entry) int { return int(a.Seq) - int(b.Seq) })
		v.chain(chain)
	}
}

// chain walks one. A signature covers all receipts before it through the hashes
// that link them, so one is checked where a certificate is used last.
func (v *verifier) chain(chain []entry) {
	want := uint64(1)
	var before *entry
	for i := range chain {
		e := &chain[i]
		switch {
		case before != nil && e.Seq == before.Seq && bytes.Equal(e.signed, before.signed):
			continue // in the log twice
		case before != nil && e.Seq == before.Seq:
			v.find(TwoReceipts, e.Seq, e.Node)
		case e.Seq != want:
			v.find(MissingReceipt, want, e.Node)
		case before != nil && e.Previous != evidence.LineHash(before.signed):
			v.find(WrongLink, e.Seq, e.Node)
		}
		if before != nil && before.Final {
			v.find(AfterFinal, before.Seq, e.Node)
		}
		broken := before != nil && (e.Seq != before.Seq+1 || e.Previous != evidence.LineHash(before.signed))
		if before != nil && (broken || e.Certificate != before.Certificate) {
			v.signed(before)
		}
		v.certificateOf(e, before)
		want, before = e.Seq+1, e
	}
	v.signed(before)
	v.writes[before.Node] = true
	if !before.Final {
		v.open[before.Node] = true
		v.find(NotFinal, before.Node, before.Seq, stamp(before.Last))
	}
}

// certificateOf asks, once for each certificate in a row, whose it is.
func (v *verifier) certificateOf(e, before *entry) {
	if before != nil && before.Certificate == e.Certificate {
		return
	}
	h := v.certs[e.Certificate]
	switch {
	case h == nil:
		v.find(NoCertificate, e.Node, e.Certificate)
	case h.node.Name != e.Node:
		v.find(WrongName, e.Node, h.node.Name)
	}
}

func (v *verifier) signed(e *entry) {
	h := v.certs[e.Certificate]
	if h == nil {
		return // said already
	}
	if err := evidence.CheckReceipt(e.signed, h.cert); err != nil {
		v.find(BadSignature, e.Seq, e.Node)
	}
}

// stamp is how findings say a time.
func stamp(ms int64) string { return evidence.Time(ms).Format("2006-01-02 15:04:05 UTC") }
