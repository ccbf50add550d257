package node

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/domicile/domicile/node/outbox"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/identity"
)

// receipts is what a node sends to a room's home: what it signed, and the
// certificates that are needed to read it. No room is named in it.
type receipts struct {
	Certificates [][]byte `json:"certificates"` // DER
	Receipts     []string `json:"receipts"`
}

// maxShipped bounds one request: 300 receipts of 1 kB and a few certificates.
const maxShipped = 300

// certificates remembers nodes' certificates for as long as receipts may name
// them; it is bounded by forgetting all when there are too many.
type certificates struct {
	bySerial map[string]evidence.Hash
	der      map[evidence.Hash][]byte
}

func (c *certificates) add(serial string, fp evidence.Hash, der []byte) {
	if c.der == nil || len(c.der) > 4096 {
		c.bySerial, c.der = map[string]evidence.Hash{}, map[evidence.Hash][]byte{}
	}
	c.bySerial[serial], c.der[fp] = fp, der
}

// certificate is the DER form of one that receipts name, nil if it is not known.
func (n *Node) certificateOf(fp evidence.Hash) []byte {
	n.testimony.mu.Lock()
	defer n.testimony.mu.Unlock()
	return n.testimony.certs.der[fp]
}

// queue hands receipts to the shipper.
func (n *Node) queue(items []outbox.Item) {
	if len(items) == 0 {
		return
	}
	p := &n.testimony
	p.written.Add(uint64(len(items)))
	err := p.box.Put(items, n.certificateOf)
	if errors.Is(err, outbox.ErrFull) {
		n.setTrouble(troubleQueue, outbox.ErrFull.Error())
	}
	if errors.Is(err, outbox.ErrDisk) {
		n.log.Error("receipts wait in memory alone", "error", err)
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// spool is the permit by which receipts of a room may wait on this node's disk, none
// where the policy does not let it keep the room's metadata. Its home has the log for
// that. Asked without NoEvidence: this is the evidence.
func (n *Node) spool(rec room.Record) residency.Permit {
	if n.home(rec) == n.self().Name {
		return residency.Permit{}
	}
	permit, _ := n.keep(keeping(rec, residency.ClassMetadata))
	return permit
}

// runShipping brings receipts into the log until ctx ends.
func (n *Node) runShipping(ctx context.Context) error {
	retry := time.NewTicker(evidenceTick)
	defer retry.Stop()
	for {
		select {
		case <-n.testimony.wake:
		case <-retry.C:
		case <-ctx.Done():
			return nil
		}
		n.ship(ctx)
		n.showHead(ctx)
		n.shareKeys(ctx)
	}
}

// destination is where receipts of one permit go.
type destination struct {
	home           residency.NodeName
	tenant, policy string
}

// ship brings what waits to where it belongs, oldest first, and notes what stands
// in the way.
func (n *Node) ship(ctx context.Context) {
	p := &n.testimony
	p.shipping.Lock()
	defer p.shipping.Unlock()
	bound := map[destination][]outbox.Item{}
	for _, i := range n.fresh(p.box.Waiting()) {
		to := destination{n.home(recordOf(i)), i.Tenant, i.Policy}
		bound[to] = append(bound[to], i)
	}
	var own, away string
	for to, list := range bound {
		if to.home == "" && n.anyOrigin() {
			continue // the policies have changed: checkReach tells the room, and nobody else is concerned
		}
		for part := range slices.Chunk(list, maxShipped) {
			err := n.shipPart(ctx, to.home, part)
			switch {
			case err == nil:
				continue
			case to.home == n.self().Name && asRefusal(err).Code != CodeRefused:
				// A refusal is of policies that changed after the home was named.
				own = fmt.Sprintf("the log of node %s cannot be written: %v", to.home, err)
			case asRefusal(err).Code == CodeInvalid:
				away = fmt.Sprintf("node %s refuses receipts of this node: %v", to.home, err)
			case n.now().Sub(evidence.Time(part[0].Since)) >= n.cfg.patience():
				away = fmt.Sprintf("no origin has taken receipts for %s: %v", n.cfg.patience(), err)
			}
			break
		}
	}
	if p.box.Len() < outbox.Max/2 {
		n.setTrouble(troubleQueue, "")
	}
	n.setTrouble(troubleLog, own)
	n.setTrouble(troubleShip, away)
}

// shipWithin is how long a receipt may wait at most: those of a room whose policy is
// there no more would else keep those of other rooms out, in the end.
const shipWithin = 24 * time.Hour

// fresh gives up what has waited for too long, and returns the rest.
func (n *Node) fresh(waiting []outbox.Item) []outbox.Item {
	oldest := evidence.Millis(n.now().Add(-shipWithin))
	var stale []outbox.Item
	waiting = slices.DeleteFunc(waiting, func(i outbox.Item) bool {
		if i.Since < oldest {
			stale = append(stale, i)
		}
		return i.Since < oldest
	})
	if len(stale) > 0 {
		err := n.testimony.box.Drop(stale, outbox.Stale)
		n.log.Error("receipts are given up that no origin has taken for a day", "messages", len(stale), "error", err)
	}
	return waiting
}

// recordOf is what is known of a waiting receipt's room.
func recordOf(i outbox.Item) room.Record {
	return room.Record{Name: i.Room, Tenant: i.Tenant, Policy: i.Policy}
}

// shipPart brings receipts of one home there. Those that the origin says are none are
// given up, one by one, so that they keep no others waiting; the chain shows the hole.
func (n *Node) shipPart(ctx context.Context, home residency.NodeName, part []outbox.Item) error {
	p := &n.testimony
	err := n.shipTo(ctx, home, part)
	if err == nil {
		p.shipped.Add(uint64(len(part)))
		return p.box.Done(part)
	}
	if ref := asRefusal(err); ref.Code != CodeInvalid {
		return err
	}
	if len(part) == 1 {
		n.log.Error("an origin refuses a receipt of this node for good", "peer", home, "error", err)
		return errors.Join(err, p.box.Drop(part, outbox.Invalid))
	}
	half := len(part) / 2
	return errors.Join(n.shipPart(ctx, home, part[:half]), n.shipPart(ctx, home, part[half:]))
}

func (n *Node) shipTo(ctx context.Context, home residency.NodeName, part []outbox.Item) error {
	m := receipts{Certificates: n.testimony.box.Certificates(part)}
	for _, i := range part {
		m.Receipts = append(m.Receipts, i.Line)
	}
	switch {
	case home == "":
		return errors.New("no origin may keep the room's metadata now")
	case home == n.self().Name:
		return n.keepReceipts(m, home)
	}
	// Asked without NoEvidence: this is how it becomes possible to prove things again.
	permit, v := n.storePermit(recordOf(part[0]), home)
	if !v.Allow {
		return refused(v)
	}
	link := n.link(home)
	if link == nil {
		return fmt.Errorf("node %s cannot be reached", home)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("ship receipts: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err = link.Request(ctx, permit, kindReceipts, body); err != nil {
		return decodeRefusal(err.Error())
	}
	return nil
}

// storePermit lets pseudonymous receipts be kept by a room's home.
func (n *Node) storePermit(rec room.Record, home residency.NodeName) (residency.Permit, residency.Verdict) {
	gate := n.gate()
	peer, epoch, ok := n.peerBy(gate, home)
	if !ok {
		return residency.Permit{}, residency.Verdict{Peer: home, Class: residency.ClassMetadata, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", home)}
	}
	return gate.Permit(residency.Request{Tenant: rec.Tenant, Policy: rec.Policy, Class: residency.ClassMetadata, Store: true,
		Peer: peer, PeerEpoch: epoch, Contradiction: n.contradiction(home), Now: n.now()})
}

// doReceipts takes another node's receipts into the log. Its answer is empty:
// the node may be one that may know nothing of what is stored.
func (n *Node) doReceipts(_ context.Context, q question) ([]byte, residency.Permit, error) {
	if err := q.about("", residency.ClassMetadata); err != nil {
		return nil, residency.Permit{}, err
	}
	var m receipts
	if err := json.Unmarshal(q.body, &m); err != nil || len(m.Receipts) == 0 || len(m.Receipts) > maxShipped || len(m.Certificates) > 2*maxShipped {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: "receipts: malformed"}
	}
	return nil, residency.Permit{}, n.keepReceipts(m, q.from)
}

// keepReceipts appends receipts of one node to the log, after checking that it
// wrote them with a certificate of the operator's authority. Who was not told that a
// receipt arrived sends it again; it stands there once.
func (n *Node) keepReceipts(m receipts, from residency.NodeName) error {
	log := n.testimony.log
	if log == nil {
		return &Refusal{Code: CodeRefused, Message: fmt.Sprintf("node %s is no origin and keeps no receipts", n.self().Name)}
	}
	certs := map[evidence.Hash]*x509.Certificate{}
	for _, der := range m.Certificates {
		cert, err := n.issued(der)
		if err != nil {
			continue // the log may have it
		}
		if err := log.KeepCertificate(cert.Raw); err != nil {
			return err
		}
		certs[evidence.Fingerprint(cert.Raw)] = cert
	}
	var list []permitted
	for _, line := range m.Receipts {
		if err := n.checkReceipt([]byte(line), from, certs); err != nil {
			return &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
		if log.Has([]byte(line)) {
			continue
		}
		permit, v := n.receiptPermit([]byte(line))
		if !v.Allow {
			return refused(v)
		}
		list = append(list, permitted{permit, []byte(line)})
	}
	if len(list) == 0 {
		return nil
	}
	return n.appendReceipts(list)
}

// permitted is a receipt with the permit to keep it.
type permitted struct {
	residency.Permit
	line []byte
}

// receiptPermit asks whether this node may keep a receipt: as the metadata of a
// room of its tenant and policy, whose name it does not tell. Asked without
// NoEvidence: this is the evidence.
func (n *Node) receiptPermit(line []byte) (residency.Permit, residency.Verdict) {
	r, err := evidence.Peek(line)
	if err != nil {
		return residency.Permit{}, residency.Verdict{Class: residency.ClassMetadata, Rule: residency.RuleNoPolicy, Reason: err.Error()}
	}
	return n.keep(residency.Request{Tenant: r.Tenant, Policy: r.Policy, Class: residency.ClassMetadata})
}

// appendReceipts puts receipts into the log, all or none.
func (n *Node) appendReceipts(list []permitted) error {
	disk, lines := n.disk(residency.ClassMetadata), make([][]byte, len(list))
	for i, r := range list {
		if err := disk.Admit(r.Permit, ""); err != nil {
			return fmt.Errorf("keep receipts: %w", err)
		}
		lines[i] = r.line
	}
	_, err := n.testimony.log.Append(n.now(), lines...)
	return err
}

// issued verifies that the operator's authority issued a certificate. One that has
// ended since a receipt was signed is no less a proof of who signed it.
func (n *Node) issued(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	at := n.now()
	if at.After(cert.NotAfter) {
		at = cert.NotAfter
	}
	cert, _, err = identity.Verify(der, n.cfg.Roots, at)
	return cert, err
}

// checkReceipt verifies that a receipt is the sender's own.
func (n *Node) checkReceipt(line []byte, from residency.NodeName, certs map[evidence.Hash]*x509.Certificate) error {
	r, err := evidence.Peek(line)
	if err != nil {
		return err
	}
	cert := certs[r.Certificate]
	if cert == nil {
		if cert, err = n.testimony.log.Certificate(r.Certificate); err != nil {
			return err
		}
	}
	writer, err := identity.Parse(cert)
	if err == nil && (writer.Name != from || r.Node != from) {
		err = fmt.Errorf("a receipt of node %s comes from node %s", r.Node, from)
	}
	if err == nil {
		_, err = evidence.Open(line, cert)
	}
	return err
}

// checkReach finds out that no origin could be reached before there is anything
// to bring to it.
func (n *Node) checkReach(now time.Time, live map[string]bool) {
	p := &n.testimony
	var lost string
	unhoused, homeless := map[string]time.Time{}, map[string]bool{}
	for name, b := range p.books {
		if !live[name] {
			continue
		}
		switch home := n.home(b.rec); {
		case home == n.self().Name:
			if p.log == nil {
				lost = "this node keeps no log"
			}
		case home == "" && n.anyOrigin():
			if unhoused[name] = now; !p.unhoused[name].IsZero() {
				unhoused[name] = p.unhoused[name]
			}
			if now.Sub(unhoused[name]) >= n.cfg.patience() {
				homeless[name] = true
			}
		case home == "":
			lost = "no origin may keep the room's metadata now"
		case n.link(home) == nil:
			lost = fmt.Sprintf("node %s cannot be reached", home)
		}
	}
	p.unhoused = unhoused
	n.setHomeless(homeless)
	switch {
	case lost == "":
		p.unreached = time.Time{}
		n.setTrouble(troubleReach, "")
	case p.unreached.IsZero():
		p.unreached = now
	case now.Sub(p.unreached) >= n.cfg.patience():
		n.setTrouble(troubleReach, fmt.Sprintf("no origin can be reached for %s: %s", n.cfg.patience(), lost))
	}
}
