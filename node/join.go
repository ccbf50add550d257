package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
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
	if !n.sessions.begin() {
		signal.WriteRefusal(w, toSignal(errShutdown))
		return
	}
	defer n.sessions.end()
	if join.Reconnect {
		if conn, err := signal.Accept(w, r, signal.Options{}); err == nil {
			conn.Close(n.resume(r, conn, join))
		}
		return
	}
	rm, att, err := n.admit(r.Context(), r, join)
	if err != nil {
		n.remember(join.Room, join.Identity, err)
		n.log.Info("attendee is refused", "rule", asRefusal(err).Rule, "code", asRefusal(err).Code)
		signal.WriteRefusal(w, toSignal(err))
		return
	}
	conn, err := signal.Accept(w, r, signal.Options{})
	if err != nil {
		return // Accept has answered
	}
	n.attendees.Add(1)
	defer n.attendees.Add(-1)
	conn.Close(n.serve(rm, r, conn, join, att))
}

var errShutdown = &Refusal{Code: CodeUnavailable, Message: "this node is shutting down", Hint: "join again, another node takes over"}

// resume gives a client its session back. If that is on another node, or the client
// is in another country now, this node takes it over, if it may serve the client.
func (n *Node) resume(r *http.Request, conn *signal.Conn, join signal.Join) string {
	rm := n.rooms.get(join.Room)
	att, err := n.attendee(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), "")
	if err != nil {
		return anew(conn)
	}
	if rm != nil && n.ownedBy(rm.Snapshot().Record, join.Token.APIKey) == nil && rm.Resume(n.ctx, conn, join, n.whereabouts(att)) == nil {
		return ""
	}
	return n.takeOver(r, conn, join)
}

// anew tells a client that wants its old session back to join from the start.
func anew(conn *signal.Conn) string {
	conn.Send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: &livekit.LeaveRequest{
		Reason: livekit.DisconnectReason_STATE_MISMATCH, Action: livekit.LeaveRequest_RECONNECT, CanReconnect: true}}})
	return room.ErrNoSession.Error()
}

// serve runs the attendee in the room. When the room ends at the very moment of
// joining, all is asked once more: it may have been deleted.
func (n *Node) serve(rm *room.Room, r *http.Request, conn *signal.Conn, join signal.Join, att room.Attendee) string {
	defer n.endTURN(rm.Name(), att.Sid)
	from := geo.ClientAddr(r, n.cfg.Geo.TrustedProxies)
	defer n.arrivals.came(att.Sid, n.geo.Attendee(from))()
	ctx, stop := context.WithCancel(n.ctx)
	var line sync.WaitGroup
	line.Go(func() { n.measureLine(ctx, conn, from) })
	defer line.Wait()
	defer stop()
	err := rm.Serve(n.ctx, conn, join, att)
	if errors.Is(err, room.ErrClosed) {
		var again *room.Room
		if again, _, err = n.admit(n.ctx, r, join); err == nil {
			err = again.Serve(n.ctx, conn, join, att)
		}
	}
	n.log.Info("attendee's connection ended", "participant", att.Sid, "reason", room.Ending(err))
	if err == nil {
		return ""
	}
	return err.Error()
}

// admit decides whether an attendee may join through this node, and prepares the room.
func (n *Node) admit(ctx context.Context, r *http.Request, join signal.Join) (*room.Room, room.Attendee, error) {
	rec, country, err := n.mayJoin(ctx, r, join)
	if err != nil {
		return nil, room.Attendee{}, err
	}
	rm, err := n.rooms.ensure(rec)
	if errors.Is(err, room.ErrClosed) {
		return nil, room.Attendee{}, errShutdown
	}
	if err != nil {
		return nil, room.Attendee{}, &Refusal{Code: CodeUnavailable, Message: err.Error(), Hint: "join through another node"}
	}
	return rm, room.Attendee{Sid: room.NewID("PA_"), Country: country, Plain: r.TLS == nil}, nil
}

// mayJoin finds the room and asks whether this node may serve this attendee in it.
func (n *Node) mayJoin(ctx context.Context, r *http.Request, join signal.Join) (room.Record, residency.Country, error) {
	att, err := n.attendee(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), "")
	if err != nil {
		return room.Record{}, "", err
	}
	country := n.whereabouts(att)
	spec := room.Record{Name: join.Room, Tenant: n.tenantOf(join.Token.APIKey), Policy: join.Token.RoomPreset}
	found, err := n.lookup(ctx, resolveRequest{
		Spec: spec, Create: true, Country: country, Identity: join.Identity})
	if err != nil {
		return room.Record{}, "", n.elsewhere(spec, att, err)
	}
	rec := found.Record
	placement := n.place(rec, att, found.seat())
	if !slices.ContainsFunc(placement.Ranked, func(c router.Ranked) bool { return c.Node == n.self().Name && c.Allowed }) {
		return rec, "", n.notHere(placement, rec.Policy)
	}
	if err := n.canProve(rec); err != nil {
		return rec, "", err
	}
	if rec.MaxParticipants > 0 && found.Participants >= int(rec.MaxParticipants) && !n.replaces(join) {
		return rec, "", &Refusal{Code: CodeForbidden, Rule: "full", Message: fmt.Sprintf("%v: %d participants at most", room.ErrFull, rec.MaxParticipants)}
	}
	return rec, country, nil
}

// replaces reports whether the attendee is in the room already and takes the
// place of its own earlier connection.
func (n *Node) replaces(join signal.Join) bool {
	r := n.rooms.get(join.Room)
	if r == nil {
		return false
	}
	_, there := r.Snapshot().Where(join.Identity)
	return there
}

// elsewhere adds to a residency refusal the node that would do.
func (n *Node) elsewhere(rec room.Record, att router.Attendee, err error) error {
	var r *Refusal
	if !errors.As(err, &r) || !r.byPlace() {
		return err
	}
	rec.Policy = r.Policy
	return r.instead(n.place(rec, att, n.seatHere(rec.Name, "")), n.self().Name)
}

// notHere explains why this node does not serve an attendee.
func (n *Node) notHere(p router.Placement, policy string) error {
	r := &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: policy, Message: p.Reason}
	for _, c := range p.Ranked {
		if c.Node == n.self().Name {
			r.Rule, r.Message = c.Rule, c.Reason
		}
	}
	return r.instead(p, n.self().Name)
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
	d := room.Deps{KeepChat: n.keepChat, Continue: n.continueRecording, Begin: n.beginRecording, Egress: n.noteEgress, Event: n.noteEvent, Consent: n.noteConsent, SentAway: n.sentAway,
		Self: n.self(), City: n.cfg.City, Gate: n.gate, Peer: n.peer, Contradiction: n.contradiction, NoEvidence: n.noEvidenceOf, Kept: n.noteKept, Withdrawn: n.withdraws, Refused: n.noteRefused, TurnedAway: n.turned.add, Link: n.roomLink, Home: n.home,
		Save:         func(residency.Permit, room.Record) error { return nil },
		Forget:       func(room.Record) error { return nil },
		RemoteUnmute: n.cfg.Rooms.RemoteUnmute,
		Places:       n.cfg.Places, Vault: n.vault, Engine: n.engine, ICEServers: n.iceServers, Owner: n.owner, Mint: n.mint, MaxSpeakers: n.cfg.MaxSpeakers, FanOut: n.cfg.FanOut, RoundTrip: n.roundTrip, Load: n.loadOf, Trees: &n.trees, Now: time.Now, Date: n.now, Log: n.log,
	}
	if n.store != nil {
		d.Save, d.Forget = n.store.writer.put, n.forgetRoom
	}
	return d
}

// mint renews the token of somebody who is here, with the key that made the first.
func (n *Node) mint(g control.Grants, ttl time.Duration) (string, error) {
	return control.MintToken(g.APIKey, n.cfg.Keys[g.APIKey], g, ttl, n.now())
}
