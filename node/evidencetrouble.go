package node

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// trouble is where it is felt that evidence cannot be written. There may be several
// at once; the first in this order is what people are told.
type trouble int

const (
	troubleSign  trouble = iota // receipts cannot be signed
	troubleProbe                // there is no room on the disk of this node's log
	troubleLog                  // this node's log did not take receipts
	troubleQueue                // as many receipts wait as may
	troubleShip                 // receipts have waited for too long, or are refused
	troubleReach                // no origin can be reached for a room that lives here
	troubles
)

// patience is how long no origin may take receipts.
func (c *Config) patience() time.Duration {
	if c.EvidencePatience > 0 {
		return c.EvidencePatience
	}
	return evidencePatience
}

// noEvidence says why what happens now could not be proved afterwards.
func (n *Node) noEvidence() string {
	if p := n.testimony.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// noEvidenceOf says why what happens now in a room could not be proved afterwards: for
// a reason that holds for all, or because no origin may keep what belongs to it.
func (n *Node) noEvidenceOf(room string) string {
	if why := n.noEvidence(); why != "" {
		return why
	}
	if m := n.testimony.homeless.Load(); m != nil && (*m)[room] {
		return fmt.Sprintf("no origin may keep the room's metadata for %s", n.cfg.patience())
	}
	return ""
}

// setHomeless notes which rooms no origin may keep, and has these asked about anew
// where that is new or over. Other rooms, of other tenants maybe, do not suffer for it.
func (n *Node) setHomeless(list map[string]bool) {
	var old map[string]bool
	if m := n.testimony.homeless.Load(); m != nil {
		old = *m
	}
	if maps.Equal(old, list) {
		return
	}
	n.testimony.homeless.Store(&list)
	for _, r := range n.rooms.all() {
		if name := r.Snapshot().Record.Name; old[name] != list[name] {
			r.PolicyChanged()
		}
	}
}

// anyOrigin says whether an origin can be reached, whatever it may keep.
func (n *Node) anyOrigin() bool {
	return slices.ContainsFunc(n.candidates(), func(c router.Candidate) bool {
		return c.Node.Has(residency.RoleOrigin) && (c.Local || n.link(c.Node.Name) != nil)
	})
}

// setTrouble notes that evidence cannot be written, or that it is not for this that it
// cannot, "", and has everything asked about anew when that changes the answer.
func (n *Node) setTrouble(t trouble, why string) {
	p := &n.testimony
	p.mu.Lock()
	p.troubles[t] = why
	old, why := n.noEvidence(), ""
	for _, w := range p.troubles {
		if why == "" {
			why = w
		}
	}
	if why == "" {
		p.problem.Store(nil)
	} else {
		p.problem.Store(&why)
	}
	p.mu.Unlock()
	if (old == "") == (why == "") {
		return // still
	}
	if why != "" {
		n.log.Error("no evidence can be written: rooms whose policies want it stop", "reason", why)
	} else {
		n.log.Info("evidence can be written again")
	}
	if n.fabric != nil {
		n.fabric.Recheck()
	}
	n.recheckRooms()
}

// canProve refuses who would join or make a room while nothing of it could be proved
// afterwards, if its policy wants that.
func (n *Node) canProve(rec room.Record) error {
	if _, v := n.permit(rec, residency.ClassMetadata, n.self().Name, false); v.Rule == residency.RuleEvidence {
		return unprovable(v)
	}
	return nil
}

func unprovable(v residency.Verdict) *Refusal {
	r := refused(v)
	r.Hint = "try again in a moment; the operator sees under evidence.problem of the node's state what to mend"
	return r
}

// probeLog finds out that the disk of this node's log is full before there is a
// receipt to write.
func (n *Node) probeLog() {
	log := n.testimony.log
	if log == nil {
		return
	}
	why := ""
	if err := log.Probe(); err != nil {
		why = "the log of node " + string(n.self().Name) + " cannot be written: " + err.Error()
	}
	n.setTrouble(troubleProbe, why)
}
