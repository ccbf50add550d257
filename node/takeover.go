package node

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/signal"
)

// takeOverWait is how long a node that has just entered a room waits to hear of the
// participant who wants to go on here. The room's nodes introduce themselves within
// two round trips; a client that is told to join anew loses more than a second.
const (
	takeOverWait = time.Second
	takeOverPoll = 10 * time.Millisecond
)

// takeOver has a client go on here whose session is on another node. It is asked
// what everybody who joins is asked: the policy, the country, the room's places.
func (n *Node) takeOver(r *http.Request, conn *signal.Conn, join signal.Join) string {
	rm, att, err := n.admit(r.Context(), r, join)
	if err != nil {
		n.remember(join.Room, join.Identity, err)
		n.log.Info("attendee is not taken over", "rule", asRefusal(err).Rule, "code", asRefusal(err).Code)
		return anew(conn)
	}
	defer rm.Expect(join.SID, att.Country)()
	if !n.meets(rm, join.SID) {
		return anew(conn)
	}
	n.attendees.Add(1)
	defer n.attendees.Add(-1)
	defer n.endTURN(rm.Name(), join.SID)
	err = rm.TakeOver(n.ctx, conn, join, att)
	if errors.Is(err, room.ErrNoSession) {
		return anew(conn)
	}
	n.log.Info("attendee's connection ended", "participant", join.SID, "reason", room.Ending(err))
	if err == nil {
		return ""
	}
	return err.Error()
}

// meets waits until a participant is known in the room.
func (n *Node) meets(rm *room.Room, sid string) bool {
	ctx, cancel := context.WithTimeout(n.ctx, takeOverWait)
	defer cancel()
	poll := time.NewTicker(takeOverPoll)
	defer poll.Stop()
	for !rm.Snapshot().Knows(sid) {
		select {
		case <-poll.C:
		case <-rm.Done():
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}
