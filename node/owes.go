package node

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/node/outbox"
	"github.com/domicile/domicile/node/owed"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// Receipts of what is erased. What is about to go is noted on the disk first (owe), then
// it goes, then its receipts are written and the note is forgotten (wentBy). A node that
// was killed in between finds its notes again and looks what of them is gone (findOwed).

func (n *Node) openOwed(keys *vault.KeyStore) {
	var err error
	n.retaining.owed, err = owed.Open(filepath.Join(n.cfg.DataDir, "owed"), keys)
	if err != nil {
		n.log.Error("receipts of what was erased before the last stop are missing", "error", err)
	}
}

// owe notes what is about to go. What cannot be noted goes all the same: a full disk must
// not keep what has to go.
func (n *Node) owe(due []retention.Verdict) owed.Note {
	if n.testimony.keys == nil || !n.proves() {
		return owed.Note{}
	}
	began := map[string]time.Time{}
	for _, v := range due {
		if t, ok := began[v.Room]; !ok || v.Began.Before(t) {
			began[v.Room] = v.Began
		}
	}
	things, known := make([]owed.Thing, len(due)), map[string]evidence.Pseudonym{}
	for i, v := range due {
		if _, ok := known[v.Room]; !ok {
			known[v.Room] = n.pseudonymOf(v, began[v.Room])
		}
		things[i] = owed.Thing{Kind: v.Kind, ID: v.ID, Part: v.Part, Lines: len(v.Gone) > 0, Rule: v.Rule, Bytes: v.Size,
			Room: v.Room, Tenant: v.Tenant, Policy: v.Policy, Pseudonym: known[v.Room]}
	}
	note, err := n.retaining.owed.Begin(n.now(), things)
	if err != nil {
		n.log.Error("what goes now is not noted: its receipts are lost if the node is killed at this moment", "error", err)
	}
	return note
}

// pseudonymOf is that of the room that a thing is of, "" if no receipt is wanted.
func (n *Node) pseudonymOf(v retention.Verdict, began time.Time) evidence.Pseudonym {
	rec := room.Record{Name: v.Room, Tenant: v.Tenant, Policy: v.Policy}
	if rec.Name == "" || !n.wantsEvidence(rec) {
		return "" // an export of many rooms
	}
	rk, ok := n.testimony.keys.of(rec.Name, began)
	if !ok {
		n.log.Error("a receipt of what is erased will be missing", "object", v.ID, "error", errNoPseudonym)
	}
	return rk.Pseudonym
}

var errNoPseudonym = errors.New("the room's pseudonym is not known here")

// wentBy writes receipts of what went of a note, and waits until they are there.
func (n *Node) wentBy(note owed.Note, went []gone) {
	for _, g := range went {
		n.log.Info("erased", "class", keptClass(g.Kind), "object", g.ID, "rule", g.Rule)
		if g.Unknown {
			n.log.Warn("what was erased could not be read: no receipt can say of which room it was", "object", g.ID)
		}
	}
	n.retaining.counts(func(t *sweepTally) { t.went(went) })
	if note.Number == 0 {
		return
	}
	var things []owed.Thing
	for _, t := range note.Things {
		if i := slices.IndexFunc(went, func(g gone) bool { return g.Kind == t.Kind && g.ID == t.ID && g.Part == t.Part }); i >= 0 {
			t.Bytes = went[i].bytes
			things = append(things, t)
		}
	}
	n.retaining.owed.Settle(note.Number, things)
	n.payOwed()
}

// payOwed writes the receipts that are owed. What cannot be written stays owed until the
// next sweep.
func (n *Node) payOwed() {
	var paid []int64
	for _, note := range n.retaining.owed.Notes() {
		if !note.Gone {
			continue
		}
		if err := n.writeErased(note); err != nil {
			n.log.Error("receipts of what was erased cannot be written yet", "error", err)
			break
		}
		paid = append(paid, note.Number)
	}
	if err := n.retaining.owed.Done(paid...); err != nil {
		n.log.Error("receipts that are written count as owed", "error", err)
	}
}

// findOwed looks what of the notes that were found on the disk is gone, among all that
// lies there and all that has to go of it.
func (n *Node) findOwed(objects []retention.Object, verdicts []retention.Verdict) {
	here, due := map[owed.Thing]bool{}, map[owed.Thing]bool{}
	for _, x := range objects {
		here[owed.Thing{Kind: x.Kind, ID: x.ID}], here[owed.Thing{Kind: x.Kind, ID: x.ID, Part: x.Part}] = true, true
	}
	for _, v := range verdicts {
		due[owed.Thing{Kind: v.Kind, ID: v.ID, Part: v.Part}] = true
	}
	for _, note := range n.retaining.owed.Notes() {
		if note.Gone {
			continue
		}
		var went []owed.Thing
		for _, t := range note.Things {
			thing := owed.Thing{Kind: t.Kind, ID: t.ID, Part: t.Part}
			if !here[thing] || t.Lines && !due[thing] {
				went = append(went, t)
			}
		}
		n.retaining.owed.Settle(note.Number, went)
	}
	n.payOwed()
}

// erasedLot is what stands in one receipt.
type erasedLot struct {
	room                 evidence.Pseudonym
	name, tenant, policy string
	class                residency.Class
	rule                 string
}

// lotsOf sorts a note's things into receipts, those of one room together. Of what was
// found after a restart some may be written already.
func (n *Node) lotsOf(note owed.Note) ([]erasedLot, map[erasedLot]evidence.Receipt) {
	lots := map[erasedLot]evidence.Receipt{}
	var keys []erasedLot
	for _, t := range note.Things {
		if t.Pseudonym == "" || note.Found && n.wrote(t.Pseudonym, note.Number) {
			continue
		}
		lot := erasedLot{t.Pseudonym, t.Room, t.Tenant, t.Policy, keptClass(t.Kind), t.Rule}
		r, known := lots[lot]
		if !known {
			keys = append(keys, lot)
		}
		r.Packets, r.Bytes = r.Packets+1, r.Bytes+uint64(max(0, t.Bytes))
		lots[lot] = r
	}
	slices.SortFunc(keys, func(a, b erasedLot) int {
		return cmp.Or(strings.Compare(string(a.room), string(b.room)), strings.Compare(string(a.class), string(b.class)), strings.Compare(a.rule, b.rule), strings.Compare(a.policy, b.policy))
	})
	return keys, lots
}

// writeErased writes the receipts of a note, for each room a chain of their own that
// begins at the note's number: into this origin's log if it may have them, to the room's
// home if not.
func (n *Node) writeErased(note owed.Note) error {
	keys, lots := n.lotsOf(note)
	if len(keys) == 0 {
		return nil
	}
	cert, key := n.signer()
	if cert == nil {
		return errors.New("this node has no certificate to sign receipts with")
	}
	n.keepCertificate(cert)
	var list []permitted
	var waiting []outbox.Item
	var chain *evidence.Chain
	for i, k := range keys {
		if i == 0 || keys[i-1].room != k.room {
			chain = evidence.NewChain(k.room, n.self().Name, time.UnixMilli(note.Number))
		}
		rec := room.Record{Name: k.name, Tenant: k.tenant, Policy: k.policy}
		r := lots[k]
		r.Side, r.Class, r.Policy, r.Tenant, r.Rule, r.Epoch = evidence.Erased, k.class, n.policyName(rec), k.tenant, k.rule, n.gate().Epoch()
		r.First, r.Last, r.Final = note.Number, note.Number, i == len(keys)-1 || keys[i+1].room != k.room
		line, err := chain.Write(r, cert, key)
		if err != nil {
			return err
		}
		if permit, v := n.receiptPermit(line); v.Allow && (len(waiting) == 0 || waiting[len(waiting)-1].Room != k.name) {
			list = append(list, permitted{permit, line})
			continue
		}
		waiting = append(waiting, outbox.Item{Room: k.name, Tenant: k.tenant, Policy: k.policy, Line: string(line),
			Certificates: []evidence.Hash{evidence.Fingerprint(cert.Raw)}, Since: note.Number, Permit: n.spool(rec)})
	}
	if err := n.keepErased(list, cert); err != nil {
		return err
	}
	n.queue(waiting)
	return nil
}

// keepErased puts receipts into this origin's own log, all or none.
func (n *Node) keepErased(list []permitted, cert *x509.Certificate) error {
	if len(list) == 0 {
		return nil
	}
	if err := n.testimony.log.KeepCertificate(cert.Raw); err != nil {
		return fmt.Errorf("keep this node's certificate: %w", err)
	}
	if err := n.appendReceipts(list); err != nil {
		return err
	}
	n.testimony.written.Add(uint64(len(list)))
	return nil
}

// wrote reports whether the log has receipts of a note already.
func (n *Node) wrote(of evidence.Pseudonym, number int64) bool {
	e, err := n.testimony.log.Extract(of)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(e.Receipts, func(i evidence.Indexed) bool {
		r, err := evidence.Peek(i.Signed)
		return err == nil && r.Side == evidence.Erased && r.Node == n.self().Name && r.Run == number
	})
}
