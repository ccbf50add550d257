package room

import (
	"context"
	"log/slog"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// The receiver asks, too: what another node sends is looked at only if this node's
// own gate lets that class go between the two. The sender has asked its own gate,
// but it may know less, or may not be what it says it is.

// maxStrangers bounds the nodes outside the room whose refusals are remembered.
const maxStrangers = 1000

// hears asks the gate about the sender of a message. A node's statement of its part
// in the room is judged with what it states, by admits: it may be what makes it a
// node of the room, and it may be its goodbye, which takes nothing but itself away.
func (r *Room) hears(from residency.NodeName, kind relay.Kind) bool {
	_, v := r.permit(from, Class(kind))
	if v.Allow || states(kind) && v.Rule != residency.RuleEpoch {
		return true
	}
	r.turnAway(from, v) // it is told everything, and asked for everything, once it is allowed
	return false
}

// states reports whether a kind of message states its sender's part in the room.
func states(kind relay.Kind) bool { return kind == KindHello || kind == KindParticipants }

// turnAway counts what is dropped because the gate refuses its sender.
func (r *Room) turnAway(from residency.NodeName, v residency.Verdict) {
	if r.deps.TurnedAway != nil {
		r.deps.TurnedAway(from, v.Class, v.Rule)
	}
	r.noteRefusal(from, v)
}

// noteRefusal logs a refusal when it is new.
func (r *Room) noteRefusal(to residency.NodeName, v residency.Verdict) {
	if m := r.remotes[to]; m == nil {
		if r.strangers[to] == v.Rule {
			return
		}
		if len(r.strangers) >= maxStrangers {
			clear(r.strangers)
		}
		r.strangers[to] = v.Rule
	} else if m.refused == v.Reason {
		return
	} else {
		m.refused = v.Reason
	}
	level := slog.LevelWarn
	if v.Rule == residency.RuleEdgeEmpty || v.Rule == residency.RuleEpoch {
		level = slog.LevelInfo // an edge outside has lost its last outside participant; the policies are changing
	}
	r.log.Log(context.Background(), level, "residency refuses", "node", to, "class", v.Class, "rule", v.Rule, "reason", v.Reason)
}
