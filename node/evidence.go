package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/outbox"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/witness"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/bundles"
	"github.com/domicile/domicile/residency/evidence"
)

// The evidence of what this node does with rooms' data:
//
//	relay counts ──┐
//	store, vault ──┤                                        outbox
//	the gate's no ─┴─► witness.Ledger ─► signed receipts ─► queue ─► the room's home
//	                   every second       this node's key            log on its disk
//
// While receipts cannot be written, the gate is told so with every question, and
// refuses under every policy that wants evidence.
const (
	// evidenceTick is how often counts are looked at.
	evidenceTick = time.Second
	// probeTick is how often an origin tries whether its log could be written: rooms
	// that need evidence have stopped a second after the disk is full.
	probeTick = 250 * time.Millisecond
	// evidencePatience is how long receipts may wait for an origin that takes them,
	// unless the configuration says otherwise: longer than a home takes to move, short
	// enough that little is unproved.
	evidencePatience = 15 * time.Second
	// unusedAfter is how long an account stays open of a room that does not live
	// here: who asks about a room joins it within that time, or never.
	unusedAfter = 30 * time.Second
	// maxNoted bounds the rooms whose pseudonyms are known and that do not live here.
	maxNoted = 10_000
)

// testimony is the evidence side of a node.
type testimony struct {
	log  *evidence.Log // nil unless the node is an origin
	keys *roomKeys     // nil unless the node is an origin

	box *outbox.Box // receipts that no log has taken yet

	problem          atomic.Pointer[string] // why no evidence can be written; nil if it can
	wake             chan struct{}          // the shipper has something to do
	shipping         sync.Mutex             // held by whoever ships: runShipping, and at the end runEvidence
	written, shipped atomic.Uint64          // receipts since the start
	lost             atomic.Uint64          // receipts that could not be signed

	// Owned by runEvidence.
	books  map[string]*book // by room name
	unkept string           // why policies could not be kept, the last time
	idle   map[relay.AccountID]time.Time
	away   map[residency.NodeName]time.Time // since when a peer with open accounts is not linked

	unreached time.Time            // since when no origin is there for a room that lives here
	unhoused  map[string]time.Time // rooms that live here and that no origin may keep, by name: since when

	// homeless are those of unhoused that have waited too long. The map is never
	// written again.
	homeless atomic.Pointer[map[string]bool]

	// Owned by runShipping.
	shown  map[residency.NodeName]int64           // sizes of heads that were countersigned
	shared map[string]map[residency.NodeName]bool // origins that have a room's key, by sid

	// Guarded by mu.
	mu        sync.Mutex
	certs     certificates
	noted     map[string]room.Record // rooms that this node was told of, by name
	troubles  [troubles]string       // what keeps evidence from being written, by where it is felt
	acts      map[string]*acts       // what was kept or refused here and is in no book yet, by room name
	policies  []evidence.Policy      // that came into force and are not beside the log yet
	witness   *evidence.Witness      // of other origins' logs
	complaint *evidence.Complaint    // the last one
	count     uint64                 // complaints
}

// book is one stay of this node in a room.
type book struct {
	rec    room.Record
	ledger *witness.Ledger
	chain  *evidence.Chain
	rules  map[relay.AccountID]string // by which the gate let a peer's data in
	acts   map[act]*sum               // what was kept or refused here, since the stay began
}

// openEvidence opens the log of an origin.
func (n *Node) openEvidence() error {
	p := &n.testimony
	p.wake = make(chan struct{}, 1)
	p.books, p.idle, p.away = map[string]*book{}, map[relay.AccountID]time.Time{}, map[residency.NodeName]time.Time{}
	p.shown, p.shared = map[residency.NodeName]int64{}, map[string]map[residency.NodeName]bool{}
	p.certs = certificates{bySerial: map[string]evidence.Hash{}}
	p.noted, p.acts, p.witness = map[string]room.Record{}, map[string]*acts{}, evidence.NewWitness()
	var err error
	p.box, err = outbox.Open("", residency.Disk{})
	if err != nil || !n.self().Has(residency.RoleOrigin) || n.certificate() == nil || len(n.certificate().Certificate) == 0 {
		return err
	}
	return n.openLog(n.evidenceDir())
}

// evidenceDir is where an origin keeps its log and what belongs to it.
func (n *Node) evidenceDir() string { return filepath.Join(n.cfg.DataDir, "evidence") }

func (n *Node) openLog(dir string) (err error) {
	p := &n.testimony
	if p.log, err = evidence.OpenLog(dir, evidence.LogOptions{Node: n.self().Name, Identity: n.signer}); err != nil {
		return err
	}
	if p.keys, err = openRoomKeys(filepath.Join(dir, "rooms"), n.disk(residency.ClassMetadata)); err != nil {
		return err
	}
	if p.box, err = outbox.Open(filepath.Join(dir, "outbox"), n.disk(residency.ClassMetadata)); err != nil {
		return err
	}
	if p.witness, err = evidence.LoadWitness(dir); err != nil {
		return err
	}
	n.notePolicy(n.cfg.Bundle, n.cfg.Policies.Signed)
	n.onBundle(n.notePolicy)
	n.keepPolicies()
	return nil
}

// notePolicy has policies that came into force kept beside the log, for whoever reads the
// receipts later.
func (n *Node) notePolicy(b *residency.Bundle, s bundles.Signed) {
	if b == nil || len(s.Policy) == 0 {
		return // a test's bundle, which nobody has signed
	}
	p := &n.testimony
	p.mu.Lock()
	defer p.mu.Unlock()
	p.policies = append(p.policies, evidence.Policy{Epoch: b.Epoch, Text: s.Policy, Signature: s.Signature})
}

// keepPolicies writes what notePolicy has noted. What cannot be written is tried again.
func (n *Node) keepPolicies() {
	p := &n.testimony
	p.mu.Lock()
	noted := p.policies
	p.policies = nil
	p.mu.Unlock()
	var failed []evidence.Policy
	var why error
	for _, v := range noted {
		if err := p.log.KeepPolicy(v); err != nil {
			failed, why = append(failed, v), err
		}
	}
	if len(failed) > 0 {
		p.mu.Lock()
		p.policies = append(failed, p.policies...)
		p.mu.Unlock()
	}
	if why != nil && why.Error() != p.unkept {
		n.log.Error("keeping the policies for evidence", "error", why)
	}
	p.unkept = fmt.Sprint(why)
}

// signer is the certificate and key that sign at this moment.
func (n *Node) signer() (*x509.Certificate, crypto.Signer) {
	pair := n.certificate()
	if pair == nil || len(pair.Certificate) == 0 {
		return nil, nil
	}
	key, _ := pair.PrivateKey.(crypto.Signer)
	cert := pair.Leaf
	if cert == nil {
		var err error
		if cert, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, nil
		}
	}
	return cert, key
}

// proves reports whether this node writes evidence at all: one without a mesh has
// no certificate to sign with, and nobody to prove anything about.
func (n *Node) proves() bool { return n.mesh != nil }

// noteRoom remembers the pseudonym of a room that this node asked about.
func (n *Node) noteRoom(rec room.Record) {
	if rec.Pseudonym == "" {
		return
	}
	p := &n.testimony
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.noted) >= maxNoted {
		clear(p.noted)
	}
	p.noted[rec.Name] = rec
}

// runEvidence writes receipts until ctx ends, and then the last ones.
func (n *Node) runEvidence(ctx context.Context) error {
	tick, probe := time.NewTicker(evidenceTick), time.NewTicker(probeTick)
	defer tick.Stop()
	defer probe.Stop()
	for {
		select {
		case <-tick.C:
			n.doEvidence(n.now(), false)
		case <-probe.C:
			n.probeLog()
		case <-ctx.Done():
			n.doEvidence(n.now(), true)
			n.ship(context.WithoutCancel(ctx))
			return nil
		}
	}
}

// doEvidence looks at all counts and writes what is due.
func (n *Node) doEvidence(now time.Time, last bool) {
	p := &n.testimony
	n.keepPolicies() // before any receipt of them
	live := n.openBooks(now)
	accounts := n.fabric.Accounts()
	var closing, forgotten []relay.AccountID
	for _, a := range accounts {
		b := p.books[a.Room]
		if !a.ID.Inbound && !a.Final && (last || n.outdated(a, live[a.Room], now)) {
			closing = append(closing, a.ID)
		}
		if a.ID.Inbound {
			a.Final = a.Final || n.gone(a.ID.Peer, now)
		}
		if b != nil {
			n.take(b, a, now)
		} else if a.Final {
			forgotten = append(forgotten, a.ID)
		}
	}
	n.fabric.CloseAccounts(closing)
	var out []outbox.Item
	var unsigned string
	for name, b := range p.books {
		n.takeActs(name, b, now)
		if !live[name] || last {
			b.ledger.Leave(now)
		} else {
			b.ledger.Return()
		}
		at := now
		if last {
			at = now.Add(time.Hour) // nothing more will be counted
		}
		items, err := n.writeDue(b, at, now)
		if out = append(out, items...); err != nil {
			unsigned = err.Error()
		}
		for _, id := range b.ledger.Settled(now) {
			forgotten = append(forgotten, relay.AccountID{Peer: id.Peer, Number: id.Number, Inbound: id.Side == evidence.Received})
		}
		if b.ledger.Done() {
			delete(p.books, name)
		}
	}
	n.queue(out)
	n.setTrouble(troubleSign, unsigned)
	n.dropActs(now)
	n.fabric.ForgetAccounts(forgotten)
	n.checkReach(now, live)
}

// openBooks begins a book for each room that is new, and returns which rooms live.
func (n *Node) openBooks(now time.Time) map[string]bool {
	live := map[string]bool{}
	p := &n.testimony
	begin := func(rec room.Record) {
		if b := p.books[rec.Name]; b != nil && b.rec.SID == rec.SID {
			b.rec = rec
			return
		}
		ps, err := evidence.ParsePseudonym(rec.Pseudonym)
		if err != nil || !n.wantsEvidence(rec) || p.books[rec.Name] != nil { // the last stay of another room of that name is being settled
			return
		}
		p.books[rec.Name] = &book{rec: rec, ledger: witness.NewLedger(),
			chain: evidence.NewChain(ps, n.self().Name, now), rules: map[relay.AccountID]string{}, acts: map[act]*sum{}}
	}
	p.mu.Lock()
	for _, rec := range p.noted {
		begin(rec)
	}
	clear(p.noted)
	for _, a := range p.acts {
		begin(a.rec)
	}
	p.mu.Unlock()
	for _, r := range n.rooms.all() {
		if rec := r.Snapshot().Record; !r.Snapshot().Ended {
			live[rec.Name] = true
			begin(rec)
		}
	}
	return live
}

// wantsEvidence reports whether a room's policy wants receipts.
func (n *Node) wantsEvidence(rec room.Record) bool {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	return err == nil && p.Evidence != residency.EvidenceOff
}

// outdated reports whether nothing will be sent under an account any more: it is
// of other policies than those in force, or its room has ended here.
func (n *Node) outdated(a relay.Account, lives bool, now time.Time) bool {
	if a.Room == "" {
		return false // questions about no room in particular
	}
	if a.Epoch != n.gate().Epoch() {
		return true
	}
	if lives {
		delete(n.testimony.idle, a.ID)
		return false
	}
	since, known := n.testimony.idle[a.ID]
	if !known {
		n.testimony.idle[a.ID] = now
		return false
	}
	wait := unusedAfter
	if b := n.testimony.books[a.Room]; b != nil {
		wait = 2 * time.Second // it has lived here, and has said goodbye
	}
	if now.Sub(since) < wait {
		return false
	}
	delete(n.testimony.idle, a.ID)
	return true
}

// gone reports whether a peer has been away for so long that it will not go on
// with the accounts that it had.
func (n *Node) gone(peer residency.NodeName, now time.Time) bool {
	if n.link(peer) != nil {
		delete(n.testimony.away, peer)
		return false
	}
	since, known := n.testimony.away[peer]
	if !known {
		n.testimony.away[peer], since = now, now
	}
	return now.Sub(since) >= unusedAfter
}

// take shows an account to the room's ledger.
func (n *Node) take(b *book, a relay.Account, now time.Time) {
	fp := n.fingerprintOf(a.ID.Peer, a.Serial)
	if fp == "" || a.Epoch == 0 {
		return // not known yet
	}
	about := witness.About{PeerCertificate: fp, Class: a.Class, Policy: a.Policy, Tenant: a.Tenant, Rule: a.Rule, Epoch: a.Epoch}
	side, policy := evidence.Sent, n.policyName(b.rec)
	if a.ID.Inbound {
		side, about.Policy, about.Tenant = evidence.Received, policy, b.rec.Tenant
		if about.Rule = n.ruleIn(b, a); about.Rule == "" {
			return // the gate has let nothing of it in
		}
	} else if a.Policy != policy || a.Tenant != b.rec.Tenant {
		// Origins were asked for the room before its policy was known. What its own
		// policy allows, too, is stated under that; what it does not stands as it was.
		if rule := n.ruleIn(b, a); rule != "" {
			about.Policy, about.Tenant, about.Rule = policy, b.rec.Tenant, rule
		}
	}
	b.ledger.Take(now, witness.ID{Side: side, Peer: a.ID.Peer, Number: a.ID.Number}, about,
		witness.Count{Packets: a.Packets, Bytes: a.Bytes, ToldPackets: a.ToldPackets, ToldBytes: a.ToldBytes, Final: a.Final})
}

// ruleIn is the rule by which the gate lets a peer's data in, or let it in last:
// the goodbye of a node that may not be in the room any more comes after that.
func (n *Node) ruleIn(b *book, a relay.Account) string {
	peer := a.ID.Peer
	if _, v := n.permit(b.rec, a.Class, peer, n.servesOutside(b.rec.Name, peer)); v.Allow && v.Epoch == a.Epoch {
		b.rules[a.ID] = v.Rule
	}
	return b.rules[a.ID]
}

// writeDue signs what is due.
func (n *Node) writeDue(b *book, at, now time.Time) (out []outbox.Item, err error) {
	due := b.ledger.Due(at)
	if len(due) == 0 {
		return nil, nil
	}
	cert, key := n.signer()
	if cert == nil || key == nil {
		n.testimony.lost.Add(uint64(len(due)))
		return nil, errors.New("this node has no certificate to sign receipts with")
	}
	n.keepCertificate(cert)
	permit := n.spool(b.rec)
	for _, r := range due {
		line, failed := b.chain.Write(r, cert, key)
		if failed != nil {
			n.testimony.lost.Add(1)
			n.log.Error("writing a receipt", "room", b.rec.SID, "error", failed)
			err = fmt.Errorf("a receipt cannot be signed: %w", failed)
			continue
		}
		out = append(out, outbox.Item{Room: b.rec.Name, Tenant: b.rec.Tenant, Policy: b.rec.Policy, Line: string(line),
			Certificates: []evidence.Hash{evidence.Fingerprint(cert.Raw), r.PeerCertificate}, Since: evidence.Millis(now), Permit: permit})
	}
	return out, err
}

// keepCertificate remembers this node's own, which its receipts are sent with.
func (n *Node) keepCertificate(cert *x509.Certificate) {
	n.testimony.mu.Lock()
	defer n.testimony.mu.Unlock()
	n.testimony.certs.add(n.self().Serial, evidence.Fingerprint(cert.Raw), cert.Raw)
}

// fingerprintOf finds the certificate of a node by its serial number.
func (n *Node) fingerprintOf(name residency.NodeName, serial string) evidence.Hash {
	if n.mesh == nil {
		return ""
	}
	m, ok := n.mesh.Snapshot().Member(name)
	n.testimony.mu.Lock()
	defer n.testimony.mu.Unlock()
	if ok && m.Cert != nil {
		n.testimony.certs.add(m.Node.Serial, evidence.Fingerprint(m.Cert.Raw), m.Cert.Raw)
	}
	return n.testimony.certs.bySerial[serial]
}
