package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
)

// continueWithin is how long another node is looked for that has a recording go on.
const continueWithin = 10 * time.Second

// continueRecording has a recording go on at another origin than the one that is lost;
// this node is the room's home. The gate is asked as for any recording: where no other
// may keep it, it ends.
func (n *Node) continueRecording(rec room.Record, after vault.After) {
	if !n.sessions.begin() {
		return
	}
	go func() {
		defer n.sessions.end()
		ctx, cancel := context.WithTimeout(n.ctx, continueWithin)
		defer cancel()
		if err := n.recordElsewhere(ctx, rec, after); err != nil {
			n.log.Warn("a recording does not go on", "room", rec.SID, "recording", after.ID, "error", err)
			if r := n.rooms.get(rec.Name); r != nil {
				r.NotContinued(after, asRefusal(err).Message)
			}
		}
	}()
}

// recordElsewhere tries the origins in their order.
func (n *Node) recordElsewhere(ctx context.Context, rec room.Record, after vault.After) error {
	asked := time.Now()
	var not []residency.NodeName
	if after.Node != n.self().Name { // else this process is another than the one that recorded
		not = append(not, after.Node)
	}
	var all error
	for {
		at, err := n.recordingNode(rec, not...)
		if err != nil {
			return errors.Join(all, err)
		}
		waited := after
		waited.Gap += time.Since(asked)
		_, err = n.command(ctx, at, rec, command{Op: opRecord, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, After: &waited, Term: rec.Term, Egress: rec.Recording.Egress})
		if err == nil || ctx.Err() != nil {
			return err
		}
		not, all = append(not, at), errors.Join(all, fmt.Errorf("node %s: %w", at, err))
	}
}

// recordingNode names the origin that may record a room and receive its media, of those
// that are not left out.
func (n *Node) recordingNode(rec room.Record, not ...residency.NodeName) (residency.NodeName, error) {
	list := slices.DeleteFunc(n.homes(), func(c router.Candidate) bool { return slices.Contains(not, c.Node.Name) })
	p := router.RecordingNode(n.gate(), routed(rec), list, n.now())
	if p.Chosen == nil {
		return "", &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: rec.Policy, Message: p.Reason, Hint: p.Hint}
	}
	if p.Chosen.Node == "" {
		return "", fmt.Errorf("recording of a room: no node")
	}
	return p.Chosen.Node, nil
}
