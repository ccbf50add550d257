package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo"
)

// serveRTC is GET /rtc: an attendee's signalling connection, for as long as
// the attendee stays.
func (n *Node) serveRTC(w http.ResponseWriter, r *http.Request) {
	join, err := signal.ParseJoin(r, n.cfg.Keys, n.now())
	if err != nil {
		signal.WriteRefusal(w, err)
		return
	}
	rm, att, err := n.admit(r.Context(), r, join)
	if err != nil {
		n.log.Info("attendee is refused", "reason", asRefusal(err).Rule, "error", asRefusal(err).Code)
		signal.WriteRefusal(w, toSignal(err))
		return
	}
	conn, err := signal.Accept(w, r, signal.Options{})
	if err != nil {
		return // Accept has answered
	}
	n.sessions.Add(1)
	defer n.sessions.Done()
	if join.Reconnect {
		conn.Close(anew(conn))
		return
	}
	n.attendees.Add(1)
	defer n.attendees.Add(-1)
	conn.Close(n.serve(rm, conn, join, att))
}

// anew tells a client that wants its old session back to join afresh: sessions
// end with their connection, and every node takes a new one.
func anew(conn *signal.Conn) string {
	conn.Send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: &livekit.LeaveRequest{
		Reason: livekit.DisconnectReason_STATE_MISMATCH, Action: livekit.LeaveRequest_RECONNECT, CanReconnect: true}}})
	return "session is unknown: join again"
}

// serve runs the attendee in the room. A room that ends at the very moment of
// joining is made anew once.
func (n *Node) serve(rm *room.Room, conn *signal.Conn, join signal.Join, att room.Attendee) string {
	defer n.endTURN(rm.Name(), att.Sid)
	err := rm.Serve(n.ctx, conn, join, att)
	if errors.Is(err, room.ErrClosed) {
		if again, e := n.rooms.ensure(rm.Snapshot().Record); e == nil {
			err = again.Serve(n.ctx, conn, join, att)
		}
	}
	n.log.Info("attendee's connection ended", "participant", att.Sid, "reason", err)
	if err == nil {
		return ""
	}
	return err.Error()
}

// admit decides whether an attendee may join through this node, and prepares the room.
func (n *Node) admit(ctx context.Context, r *http.Request, join signal.Join) (*room.Room, room.Attendee, error) {
	rec, outside, err := n.mayJoin(ctx, r, join)
	if err != nil {
		return nil, room.Attendee{}, err
	}
	rm, err := n.rooms.ensure(rec)
	if err != nil {
		return nil, room.Attendee{}, &Refusal{Code: CodeUnavailable, Message: "this node is shutting down", Hint: "join again, another node takes over"}
	}
	return rm, room.Attendee{Sid: room.NewID("PA_"), Outside: outside}, nil
}

// mayJoin finds the room and asks whether this node may serve this attendee in it.
func (n *Node) mayJoin(ctx context.Context, r *http.Request, join signal.Join) (rec room.Record, outside bool, err error) {
	att, err := n.attendee(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), "")
	if err != nil {
		return rec, false, err
	}
	country := n.whereabouts(att)
	rec, err = n.resolve(ctx, resolveRequest{
		Spec: room.Record{Name: join.Room, Policy: join.Token.RoomPreset}, Create: true, Country: country})
	if err != nil {
		return rec, false, n.elsewhere(join.Room, att, err)
	}
	placement := n.place(rec.Name, rec.Policy, att)
	for _, c := range placement.Ranked {
		if c.Node == n.cfg.Self.Name && c.Allowed {
			return rec, n.outside(rec.Policy, country), nil
		}
	}
	return rec, false, n.notHere(placement, rec.Policy)
}

// elsewhere adds to a residency refusal the node that would do.
func (n *Node) elsewhere(name string, att router.Attendee, err error) error {
	var r *Refusal
	if !errors.As(err, &r) || r.Code != CodeRefused || r.Rule == "policy-mismatch" {
		return err
	}
	return r.instead(n.place(name, r.Policy, att))
}

// notHere explains why this node does not serve an attendee.
func (n *Node) notHere(p router.Placement, policy string) error {
	r := &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: policy, Message: p.Reason}
	for _, c := range p.Ranked {
		if c.Node == n.cfg.Self.Name {
			r.Rule, r.Message = c.Rule, c.Reason
		}
	}
	return r.instead(p)
}

// validate is GET /rtc/validate: what clients ask after a refusal, because
// browsers hide the answer to a failed upgrade.
func (n *Node) validate(w http.ResponseWriter, r *http.Request) {
	signal.Validate(n.cfg.Keys, n.now, func(j signal.Join) error {
		if _, _, err := n.mayJoin(r.Context(), r, j); err != nil {
			return toSignal(err)
		}
		return nil
	}).ServeHTTP(w, r)
}

// roomDeps is what rooms get from this node.
func (n *Node) roomDeps() room.Deps {
	d := room.Deps{
		Self: n.cfg.Self, City: n.cfg.City, Gate: n.gate, Peer: n.peer, Link: n.link, Home: n.home,
		Save:   func(room.Record) error { return nil },
		Forget: func(string) error { return nil },
		Vault:  n.vault, Engine: n.engine, ICEServers: n.iceServers, Now: n.now, Log: n.log,
	}
	if n.store != nil {
		d.Save, d.Forget = n.store.save, n.store.forget
	}
	return d
}

// mayRecord reports whether the policy of a room lets it be recorded, and where.
func (n *Node) recordingNode(rec room.Record) (residency.NodeName, error) {
	p := router.RecordingNode(n.gate(), rec.Name, rec.Policy, n.homes(), n.now())
	if p.Chosen == nil {
		return "", &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: rec.Policy, Message: p.Reason, Hint: p.Hint}
	}
	if p.Chosen.Node == "" {
		return "", fmt.Errorf("recording of a room: no node")
	}
	return p.Chosen.Node, nil
}
