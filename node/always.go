package node

import (
	"context"
	"fmt"

	"github.com/domicile/domicile/node/room"
)

// beginRecording begins the recording that a room's policy asks for, at the origin at
// which a host's would; this node is the room's home.
func (n *Node) beginRecording(rec room.Record) {
	if !n.sessions.begin() {
		return
	}
	go func() {
		defer n.sessions.end()
		ctx, cancel := context.WithTimeout(n.ctx, continueWithin)
		defer cancel()
		if _, err := n.recordWhole(ctx, rec); err != nil {
			if r := n.rooms.get(rec.Name); r != nil {
				r.NotBegun(asRefusal(err).Message)
			}
		}
	}()
}

// recordWhole has a room recorded, all of it.
func (n *Node) recordWhole(ctx context.Context, rec room.Record) (reply, error) {
	at, err := n.recordsAt(rec)
	if err != nil {
		return reply{}, err
	}
	return n.command(ctx, at, rec, command{Op: opRecord, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy})
}

// mayStop refuses to end a recording that the policy asks for.
func (n *Node) mayStop(rec room.Record) error {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	if err != nil || !p.Recording.Allowed || !p.Recording.Always {
		return nil //nolint:nilerr // a policy that is not known does not ask for a recording
	}
	return &Refusal{Code: CodeRefused, Rule: "recording", Policy: p.Name,
		Message: fmt.Sprintf("policy %q has every meeting recorded: nobody can stop it", p.Name),
		Hint:    "it ends when the room is empty"}
}
