package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// An origin shows the newest head of its log to the nodes that it is linked with
// and that its policies let know of it. They remember it, complain of one that does
// not continue what they were shown, and countersign the others.

// headReply answers a head: signed, or with the size to prove from.
type headReply struct {
	Countersignature string `json:"countersignature,omitempty"`
	Size             int64  `json:"size,omitempty"`
}

// showHead shows every linked node a head that is new to it.
func (n *Node) showHead(ctx context.Context) {
	log := n.testimony.log
	if log == nil || n.fabric == nil {
		return
	}
	head, _ := log.Head()
	for _, l := range n.fabric.Links() {
		peer := l.Peer().Name
		if head.Size == 0 || n.testimony.shown[peer] == head.Size {
			continue
		}
		if err := n.showHeadTo(ctx, peer); err != nil {
			n.log.Debug("head is not countersigned", "peer", peer, "error", err)
			continue
		}
		n.testimony.shown[peer] = head.Size
	}
}

func (n *Node) showHeadTo(ctx context.Context, peer residency.NodeName) error {
	from := n.testimony.shown[peer]
	for range 2 {
		a, err := n.testimony.log.Announce(from)
		if err != nil {
			return err
		}
		permit, v := n.headPermit(peer)
		if !v.Allow {
			return refused(v)
		}
		var reply headReply
		if err := n.ask(ctx, permit, kindHead, a, &reply); err != nil {
			return err
		}
		if reply.Countersignature != "" {
			m, ok := n.mesh.Snapshot().Member(peer)
			if !ok || m.Cert == nil {
				return fmt.Errorf("node %s is no member any more", peer)
			}
			return n.testimony.log.Countersigned([]byte(reply.Countersignature), m.Cert)
		}
		from = reply.Size
	}
	return errors.New("the two nodes do not agree from where to prove")
}

// headPermit asks by the default policy: a head is of no room.
func (n *Node) headPermit(peer residency.NodeName) (residency.Permit, residency.Verdict) {
	gate := n.gate()
	node, epoch, ok := n.peerBy(gate, peer)
	if !ok {
		return residency.Permit{}, residency.Verdict{Peer: peer, Class: residency.ClassMetadata, Rule: residency.RuleCertificate,
			Reason: fmt.Sprintf("node %s is not a verified member of the mesh", peer)}
	}
	return gate.Permit(residency.Request{Class: residency.ClassMetadata, Peer: node, PeerEpoch: epoch,
		Contradiction: n.contradiction(peer), Now: n.now()})
}

// doHead looks at an origin's head.
func (n *Node) doHead(_ context.Context, q question) ([]byte, residency.Permit, error) {
	if err := q.about("", residency.ClassMetadata); err != nil {
		return nil, residency.Permit{}, err
	}
	from := q.from
	var a evidence.Announcement
	if err := json.Unmarshal(q.body, &a); err != nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: "head: malformed"}
	}
	m, ok := n.mesh.Snapshot().Member(from)
	permit, v := n.headPermit(from)
	if !ok || m.Cert == nil || !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	p := &n.testimony
	p.mu.Lock()
	defer p.mu.Unlock()
	var reply headReply
	_, size := p.witness.Newest(from)
	_, err := p.witness.Observe(a, from, m.Cert)
	var c *evidence.Complaint
	switch {
	case errors.As(err, &c):
		p.count++
		p.complaint = c
		n.log.Error("AN ORIGIN'S LOG IS NOT WHAT IT WAS", "node", from, "rule", c.Kind, "reason", c.Reason)
		if c.Kind != evidence.NewLog {
			return nil, residency.Permit{}, &Refusal{Code: CodeRefused, Message: c.Error()}
		}
	case err != nil && a.From != size:
		reply.Size = size
	case err != nil:
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	if reply.Size == 0 {
		if err := n.saveWitness(); err != nil {
			return nil, residency.Permit{}, err
		}
		cert, key := n.signer()
		signed, err := p.witness.Countersign(from, n.self().Name, cert, key, n.now())
		if err != nil {
			return nil, residency.Permit{}, err
		}
		reply.Countersignature = string(signed)
	}
	b, err := json.Marshal(reply)
	return b, permit, err
}

// saveWitness puts what this origin remembers of other logs on its disk, before it
// countersigns: a restart must not forget what a signature says. An edge, which keeps
// nothing, forgets with a restart. p.mu is held.
func (n *Node) saveWitness() error {
	if n.testimony.log == nil {
		return nil
	}
	return n.testimony.witness.Save(n.evidenceDir())
}

// EvidenceState is what an operator sees of the evidence.
type EvidenceState struct {
	Problem    string `json:"problem,omitempty"` // why none can be written; rooms that need it are refused
	Waiting    int    `json:"waiting"`           // receipts that no origin has taken yet
	Receipts   int64  `json:"receipts"`          // in this origin's log
	Complaints uint64 `json:"complaints"`        // of other origins' logs
	// Complaint is the last one, with both heads as the origin signed them.
	Complaint *evidence.Complaint `json:"complaint,omitempty"`
}

func (n *Node) evidenceState() EvidenceState {
	p := &n.testimony
	s := EvidenceState{Problem: n.noEvidence()}
	if p.log != nil {
		h, _ := p.log.Head()
		s.Receipts = h.Size
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Waiting, s.Complaints, s.Complaint = p.box.Len(), p.count, p.complaint
	return s
}

// exportEvidence is GET /evidence/export on the admin socket: the file of a room,
// named by its name or id, also after it has ended.
func (n *Node) exportEvidence(w http.ResponseWriter, r *http.Request) {
	b, err := n.evidenceOf(r.FormValue("room"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Write(b) //nolint:errcheck // the client is gone then
}

func (n *Node) evidenceOf(name string) ([]byte, error) {
	p := &n.testimony
	if p.log == nil {
		return nil, &Refusal{Code: CodeRefused, Message: fmt.Sprintf("node %s is no origin and keeps no evidence", n.self().Name),
			Hint: "ask the origin that was the room's home"}
	}
	rk, ok, err := p.keys.find(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("node %s has no room %q, and had none", n.self().Name, name)}
	}
	if rk.Key == "" {
		return nil, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("node %s has receipts of room %q and not its key, without which nobody could tell whose they are", n.self().Name, name),
			Hint: "ask the origin that was the room's home before; when the two are linked and the room lives, the key comes by itself"}
	}
	b, err := p.log.Export(evidence.ExportOptions{SID: rk.SID, Key: rk.Key, Authorities: n.cfg.Authorities,
		Parse: n.cfg.Policies.Parse, Now: n.now()})
	if errors.Is(err, evidence.ErrNoReceipts) {
		return nil, &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("the log holds no receipt of room %q", name)}
	}
	return b, err
}
