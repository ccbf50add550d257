package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/explain"
	"github.com/domicile/domicile/router/replan"
)

// service is the Backend of the RoomService API: any node takes any call and
// passes it on to the node that can carry it out.
type service struct{ n *Node }

// tenant names the caller's.
func (s service) tenant(ctx context.Context) string { return s.n.tenantOf(control.CallerKey(ctx)) }

// about asks for an existing room of the caller's.
func (s service) about(ctx context.Context, name string) resolveRequest {
	return resolveRequest{Spec: room.Record{Name: name, Tenant: s.tenant(ctx)}}
}

// CreateRoom implements control.Backend. An existing room is returned as it is.
func (s service) CreateRoom(ctx context.Context, req *livekit.CreateRoomRequest) (*livekit.Room, error) {
	rec, err := s.n.resolve(ctx, resolveRequest{Create: true, Spec: room.Record{
		Name: req.Name, Tenant: s.tenant(ctx), Policy: req.RoomPreset, Metadata: req.Metadata, EmptyTimeout: req.EmptyTimeout,
		DepartureTimeout: req.DepartureTimeout, MaxParticipants: req.MaxParticipants}})
	if err != nil {
		return nil, toControl(s.n.atHome(room.Record{Name: req.Name, Tenant: s.tenant(ctx)}, err))
	}
	return s.n.roomInfo(rec), nil
}

// atHome adds to a residency refusal the node to call instead: the room's home.
func (n *Node) atHome(rec room.Record, err error) error {
	var r *Refusal
	if !errors.As(err, &r) || !r.byPlace() {
		return err
	}
	rec.Policy = r.Policy
	return r.instead(router.Home(n.gate(), routed(rec), n.candidates(), n.now()), n.self().Name)
}

// roomInfo is a room with the number of participants, as far as this node knows it.
func (n *Node) roomInfo(rec room.Record) *livekit.Room {
	if r := n.rooms.get(rec.Name); r != nil {
		snap := r.Snapshot()
		return snap.Record.Info(len(snap.Participants))
	}
	return rec.Info(0)
}

// ListRooms implements control.Backend: the rooms that live here, and those
// that an origin may tell this node about.
func (s service) ListRooms(ctx context.Context, names []string) ([]*livekit.Room, error) {
	found := map[string]*livekit.Room{}
	tenant := s.tenant(ctx)
	for _, rm := range s.n.ownRooms(ctx, tenant) {
		found[rm.Name] = rm
	}
	for _, c := range s.n.candidates() {
		if c.Local || !c.Node.Has(residency.RoleOrigin) {
			continue
		}
		for _, rm := range s.n.roomsOf(ctx, c.Node, tenant) {
			if found[rm.Name] == nil {
				found[rm.Name] = rm
			}
		}
	}
	var list []*livekit.Room
	for _, rm := range found {
		if len(names) == 0 || slices.Contains(names, rm.Name) {
			list = append(list, rm)
		}
	}
	slices.SortFunc(list, func(a, b *livekit.Room) int { return int(a.CreationTimeMs - b.CreationTimeMs) })
	return list, nil
}

// roomsOf asks an origin for the rooms that it may tell this node about: one
// question for each policy, because the gate answers by policy.
func (n *Node) roomsOf(ctx context.Context, origin residency.Node, tenant string) []*livekit.Room {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var list []*livekit.Room
	for _, policy := range n.gate().Bundle().Names() {
		permit, v := n.permit(room.Record{Tenant: tenant, Policy: policy}, residency.ClassSignalling, origin.Name, false)
		if !v.Allow {
			continue
		}
		var out reply
		if err := n.ask(ctx, permit, kindCommand, command{Op: opRooms, Tenant: tenant, Policy: policy}, &out); err != nil {
			continue // it does not tell, or cannot be reached: the list is what this node may know
		}
		for _, rec := range out.Rooms {
			list = append(list, rec.Info(rec.Participants))
		}
	}
	return list
}

// listedRoom is a room in the answer to opRooms.
type listedRoom struct {
	room.Record
	Participants int `json:"participants"`
}

// doRooms lists this origin's rooms of one policy and tenant for a node that may
// know them.
func (n *Node) doRooms(ctx context.Context, from residency.NodeName, like room.Record) (reply, residency.Permit, error) {
	permit, v := n.permit(like, residency.ClassSignalling, from, false)
	if !v.Allow {
		return reply{}, permit, refused(v)
	}
	var out reply
	for _, rec := range n.ownRecords(ctx) {
		if rec.Policy == like.Policy && rec.Tenant == like.Tenant {
			out.Rooms = append(out.Rooms, rec)
		}
	}
	return out, permit, nil
}

func (n *Node) ownRooms(ctx context.Context, tenant string) []*livekit.Room {
	var list []*livekit.Room
	for _, rec := range n.ownRecords(ctx) {
		if rec.Tenant == tenant {
			list = append(list, rec.Info(rec.Participants))
		}
	}
	return list
}

// ownRecords are the rooms that live or are stored on this node.
func (n *Node) ownRecords(ctx context.Context) []listedRoom {
	var list []listedRoom
	seen := map[string]bool{}
	for _, r := range n.rooms.all() {
		snap := r.Snapshot()
		seen[snap.Record.Name] = true
		list = append(list, listedRoom{snap.Record, len(snap.Participants)})
	}
	if n.store == nil {
		return list
	}
	stored, err := n.store.all(ctx)
	if err != nil {
		n.log.Error("listing rooms", "error", err)
	}
	for _, rec := range stored {
		if !seen[rec.Name] {
			list = append(list, listedRoom{Record: rec})
		}
	}
	return list
}

// DeleteRoom implements control.Backend.
func (s service) DeleteRoom(ctx context.Context, name string) error {
	rec, err := s.n.resolve(ctx, s.about(ctx, name))
	if err != nil {
		return toControl(err)
	}
	_, err = s.n.command(ctx, s.n.home(rec), rec, command{Op: opDelete, Room: name})
	return toControl(err)
}

// ListParticipants implements control.Backend.
func (s service) ListParticipants(ctx context.Context, name string) ([]*livekit.ParticipantInfo, error) {
	rec, err := s.n.resolve(ctx, s.about(ctx, name))
	if err != nil {
		return nil, toControl(err)
	}
	if r := s.n.rooms.get(name); r != nil {
		return r.Snapshot().Participants, nil
	}
	reply, err := s.n.command(ctx, s.n.home(rec), rec, command{Op: opParticipants, Room: name})
	if err != nil {
		return nil, toControl(err)
	}
	return reply.participants()
}

// RemoveParticipant implements control.Backend.
func (s service) RemoveParticipant(ctx context.Context, name, who string) error {
	rec, err := s.n.resolve(ctx, s.about(ctx, name))
	if err != nil {
		return toControl(err)
	}
	_, err = s.n.command(ctx, s.n.whereIs(rec, who), rec, command{Op: opRemove, Room: name, Identity: who})
	return toControl(err)
}

// reply is the answer to a command.
type reply struct {
	Participants [][]byte        `json:"participants,omitempty"` // livekit.ParticipantInfo as JSON
	Recording    *room.Recording `json:"recording,omitempty"`
	Rooms        []listedRoom    `json:"rooms,omitempty"`
	Census       *census         `json:"census,omitempty"`
	Routing      *replan.Tally   `json:"routing,omitempty"`
	Track        []byte          `json:"track,omitempty"` // livekit.TrackInfo as JSON
	Explained    *Explained      `json:"explained,omitempty"`
	View         *explain.View   `json:"view,omitempty"`
	Egress       [][]byte        `json:"egress,omitempty"` // livekit.EgressInfo as JSON
	Lines        [][]byte        `json:"lines,omitempty"`  // of attendance or registrations
	More         bool            `json:"more,omitempty"`   // there are further lines
}

func (r reply) participants() ([]*livekit.ParticipantInfo, error) {
	var list []*livekit.ParticipantInfo
	for _, b := range r.Participants {
		p := &livekit.ParticipantInfo{}
		if err := protojson.Unmarshal(b, p); err != nil {
			return nil, fmt.Errorf("participant of another node: %w", err)
		}
		list = append(list, p)
	}
	return list, nil
}

// command has a node carry something out: this one, or another over the mesh.
func (n *Node) command(ctx context.Context, to residency.NodeName, rec room.Record, c command) (reply, error) {
	if to == "" {
		return reply{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("no node is home of room %q now", rec.Name)}
	}
	if to == n.self().Name {
		return n.obey(ctx, rec, c)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	permit, v := n.permit(rec, c.class(), to, n.servesOutside(rec.Name, to))
	if !v.Allow {
		return reply{}, refused(v)
	}
	var out reply
	err := n.ask(ctx, permit, kindCommand, c, &out)
	return out, err
}

// obey carries a command out on this node.
func (n *Node) obey(ctx context.Context, rec room.Record, c command) (reply, error) {
	switch c.Op {
	case opDelete:
		return reply{}, n.deleteRoom(ctx, rec)
	case opParticipants:
		return n.participantsOf(c.Room)
	case opRemove:
		return n.remove(ctx, c)
	case opMute:
		return n.mute(ctx, c)
	case opUpdate:
		return n.update(ctx, c)
	case opSubscriptions:
		return n.subscriptions(ctx, c)
	case opData:
		return n.sendData(ctx, c)
	case opMetadata:
		return n.setMetadata(ctx, rec, c)
	case opRecord:
		return n.record(ctx, rec, c)
	case opKeepChat:
		return reply{}, n.storeChat(rec, c.Request)
	case opExplain:
		return n.obeyExplain(ctx, rec, c)
	case opTake:
		return reply{}, n.getReady(rec, c)
	case opView:
		v := n.view(ctx, rec, c.Identity)
		return reply{View: &v}, nil
	case opAttendance:
		return n.tellLines(&n.lists.attendance, rec, c.From)
	case opConsents:
		return n.tellLines(&n.lists.consents, rec, c.From)
	case opRegistrations:
		return n.tellLines(&n.lists.registrations, rec, c.From)
	case opRegister:
		return reply{}, n.storeRegistration(rec, c.Request)
	case opTell:
		return reply{}, n.tellFor(rec, c)
	case opEgresses:
		return n.egressesIn(rec, c)
	case opStopEgress:
		return n.stopEgress(ctx, c)
	case opStopRecord:
		r := n.rooms.get(c.Room)
		if r == nil {
			return reply{}, notFound(c.Room)
		}
		return reply{}, r.StopRecording(ctx)
	}
	return reply{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("command %q is unknown to this version", c.Op)}
}

// deleteRoom ends a room and forgets it. A node that does not hear of it is told
// when it says hello.
func (n *Node) deleteRoom(ctx context.Context, rec room.Record) error {
	n.creating.Lock()
	defer n.creating.Unlock()
	if r := n.rooms.get(rec.Name); r != nil {
		rec = r.Snapshot().Record
		if err := r.Delete(ctx); err != nil {
			return &Refusal{Code: CodeUnavailable, Message: err.Error(), Hint: "try again in a moment"}
		}
	}
	n.deleted.add(rec.SID)
	if n.store == nil {
		return nil
	}
	n.replicas.bury(rec)
	if err := n.store.writer.erase(rec); err != nil {
		return fmt.Errorf("delete room: %w", err)
	}
	return nil
}

func (n *Node) participantsOf(name string) (reply, error) {
	var out reply
	r := n.rooms.get(name)
	if r == nil {
		return out, nil // it exists, and nobody is in it
	}
	for _, p := range r.Snapshot().Participants {
		b, err := protojson.Marshal(p)
		if err != nil {
			return out, fmt.Errorf("participants: %w", err)
		}
		out.Participants = append(out.Participants, b)
	}
	return out, nil
}

// record starts recording a room on this origin.
func (n *Node) record(ctx context.Context, rec room.Record, c command) (reply, error) {
	r, err := n.rooms.ensure(rec)
	if err != nil {
		return reply{}, &Refusal{Code: CodeUnavailable, Message: "this node is shutting down"}
	}
	var recording *room.Recording
	switch term := r.Snapshot().Record.Term; {
	case c.After == nil && len(c.Egress) > 0:
		return n.recordEgress(ctx, rec, r, c.Egress[0])
	case c.After == nil:
		recording, err = r.StartRecording(ctx)
	case c.Term < term:
		return reply{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("the room has another home, of term %d", term)}
	default:
		recording, err = r.ContinueRecording(ctx, *c.After, c.Egress)
	}
	return reply{Recording: recording}, n.notRecorded(rec, err)
}

// notRecorded says in the words of the API why a recording did not start.
func (n *Node) notRecorded(rec room.Record, err error) error {
	switch {
	case errors.Is(err, room.ErrRefused):
		return &Refusal{Code: CodeRefused, Rule: "recording", Policy: rec.Policy, Message: err.Error()}
	case errors.Is(err, vault.ErrDiskFull):
		return &Refusal{Code: CodeUnavailable, Hint: "ask its operator to make room",
			Message: fmt.Sprintf("recording cannot start: the disk of node %s is full", n.self().Name)}
	case errors.Is(err, room.ErrEgresses), errors.Is(err, room.ErrTaken):
		return &Refusal{Code: CodePrecondition, Message: err.Error()}
	}
	return moderation(err)
}
