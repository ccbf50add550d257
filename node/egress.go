package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// LiveKit's Egress API. An egress is a view of the room's recording on an origin in the
// zone of recordings: whatever asks for another place is refused by the gate, which
// knows no country of it. The origin that records knows its egresses; any node asks it.

const (
	opEgresses   = "egresses"    // list those of a room, or of a policy and tenant (origins)
	opStopEgress = "stop-egress" // end one (the origin that records)
)

// StartEgress implements control.EgressBackend.
func (s service) StartEgress(ctx context.Context, o control.EgressOrder) (*livekit.EgressInfo, error) {
	rec, err := s.n.resolve(ctx, s.about(ctx, o.Room))
	if err != nil {
		return nil, toControl(err)
	}
	if err := s.n.staysInside(rec, o); err != nil {
		return nil, toControl(err)
	}
	if o.Missing != nil {
		return nil, o.Missing
	}
	at, err := s.n.recordsAt(rec)
	if err != nil {
		return nil, toControl(err)
	}
	out, err := s.n.command(ctx, at, rec, command{Op: opRecord, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy,
		Egress: []room.Egress{s.n.egress(rec, o)}})
	if err != nil {
		return nil, toControl(err)
	}
	return out.oneEgress()
}

// staysInside has the gate answer for every place outside of the mesh. Nothing declares
// where such a place is, so it lies in no zone.
func (n *Node) staysInside(rec room.Record, o control.EgressOrder) error {
	for _, out := range o.Outside {
		q := keeping(rec, residency.ClassRecording)
		q.NoEvidence, q.Now = n.noEvidenceOf(rec.Name), n.now()
		if v := n.gate().Hand(q, residency.Recipient{Name: out.String()}); !v.Allow {
			return refused(v)
		}
	}
	return nil
}

// recordsAt names the node that records a room, or that would.
func (n *Node) recordsAt(rec room.Record) (residency.NodeName, error) {
	if rec.Recording != nil {
		return rec.Recording.Node, nil
	}
	return n.recordingNode(rec)
}

// egress is an order as the room carries it out.
func (n *Node) egress(rec room.Record, o control.EgressOrder) room.Egress {
	e := room.Egress{ID: room.NewID("EG_"), Identity: o.Identity, Screen: o.Screen, AudioOnly: o.AudioOnly, VideoOnly: o.VideoOnly}
	for _, id := range o.Tracks {
		e.Tracks = append(e.Tracks, sfu.TrackID(id))
	}
	now := n.now()
	info := o.Info
	info.EgressId, info.RoomId, info.RoomName = e.ID, rec.SID, rec.Name
	info.SourceType = livekit.EgressSourceType_EGRESS_SOURCE_TYPE_SDK
	info.StartedAt, info.UpdatedAt = now.UnixNano(), now.UnixNano()
	name := strings.NewReplacer("{room_name}", rec.Name, "{room_id}", rec.SID, "{time}", now.UTC().Format("2006-01-02T150405"),
		"{publisher_identity}", o.Identity, "{track_id}", strings.Join(o.Tracks, "-")).Replace(cmp.Or(o.File, "{room_name}-{time}"))
	info.FileResults = []*livekit.FileInfo{{Filename: name, StartedAt: info.StartedAt}}
	e.Info = encodeRequest(info)
	return e
}

// recordEgress begins an egress on this origin.
func (n *Node) recordEgress(ctx context.Context, rec room.Record, r *room.Room, e room.Egress) (reply, error) {
	recording, err := r.StartEgress(ctx, e)
	if err != nil {
		return reply{}, n.notRecorded(rec, err)
	}
	if recording.Node != n.self().Name {
		return reply{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("node %s has begun to record the room", recording.Node), Hint: "try again in a moment"}
	}
	n.keepEgress(e.ID) // before anybody knows its name
	out, err := n.egressReply(n.egresses.list(&livekit.ListEgressRequest{EgressId: e.ID}, func(room.Record) bool { return true }))
	out.Recording = recording
	return out, err
}

func (n *Node) egressReply(list []*livekit.EgressInfo) (out reply, err error) {
	for _, i := range list {
		b, err := protojson.Marshal(i)
		if err != nil {
			return reply{}, fmt.Errorf("egress: %w", err)
		}
		out.Egress = append(out.Egress, b)
	}
	return out, nil
}

func (r reply) egresses() (list []*livekit.EgressInfo, err error) {
	for _, b := range r.Egress {
		i := &livekit.EgressInfo{}
		if err := protojson.Unmarshal(b, i); err != nil {
			return nil, fmt.Errorf("egress of another node: %w", err)
		}
		list = append(list, i)
	}
	return list, nil
}

func (r reply) oneEgress() (*livekit.EgressInfo, error) {
	list, err := r.egresses()
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("egress: the answer has %d", len(list))
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// ListEgress implements control.EgressBackend: as with rooms, each origin is asked for
// what it may tell this node.
func (s service) ListEgress(ctx context.Context, req *livekit.ListEgressRequest) ([]*livekit.EgressInfo, error) {
	n, tenant := s.n, s.tenant(ctx)
	found := n.egresses.list(req, func(rec room.Record) bool { return rec.Tenant == tenant })
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for _, c := range n.candidates() {
		if !c.Local && c.Node.Has(residency.RoleOrigin) {
			found = append(found, n.egressesOf(ctx, c.Node.Name, tenant, req)...)
		}
	}
	// Of one that goes on elsewhere, the newest is the truth.
	slices.SortFunc(found, func(a, b *livekit.EgressInfo) int {
		return cmp.Or(cmp.Compare(b.StartedAt, a.StartedAt), strings.Compare(a.EgressId, b.EgressId), cmp.Compare(b.UpdatedAt, a.UpdatedAt))
	})
	return slices.CompactFunc(found, func(a, b *livekit.EgressInfo) bool { return a.EgressId == b.EgressId }), nil
}

// egressesOf asks an origin: by policy, and by room where this node may not know of a
// policy's rooms but serves somebody in one of them.
func (n *Node) egressesOf(ctx context.Context, origin residency.NodeName, tenant string, req *livekit.ListEgressRequest) (list []*livekit.EgressInfo) {
	ask := func(like room.Record, outside bool) bool {
		permit, v := n.permit(like, residency.ClassSignalling, origin, outside)
		if !v.Allow {
			return false
		}
		var out reply
		if err := n.ask(ctx, permit, kindCommand, command{Op: opEgresses, Room: like.Name, Tenant: tenant, Policy: like.Policy, Request: encodeRequest(req)}, &out); err != nil {
			return false // as with rooms: the list is what this node may know
		}
		part, err := out.egresses()
		list = append(list, part...)
		return err == nil
	}
	told := map[string]bool{}
	for _, policy := range n.gate().Bundle().Names() {
		told[policy] = ask(room.Record{Tenant: tenant, Policy: policy}, false)
	}
	for _, r := range n.rooms.all() {
		if rec := r.Snapshot().Record; !told[rec.Policy] && rec.Tenant == tenant && (req.RoomName == "" || req.RoomName == rec.Name) {
			ask(rec, n.servesOutside(rec.Name, origin))
		}
	}
	return list
}

// doEgresses tells another node of the egresses of one policy and tenant.
func (n *Node) doEgresses(from residency.NodeName, c command) (reply, residency.Permit, error) {
	permit, v := n.permit(room.Record{Tenant: c.Tenant, Policy: c.Policy}, residency.ClassSignalling, from, false)
	if !v.Allow {
		return reply{}, permit, refused(v)
	}
	var req livekit.ListEgressRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, permit, err
	}
	out, err := n.egressReply(n.egresses.list(&req, func(rec room.Record) bool { return rec.Tenant == c.Tenant && rec.Policy == c.Policy }))
	return out, permit, err
}

// egressesIn lists the egresses of a room to a node of it.
func (n *Node) egressesIn(rec room.Record, c command) (reply, error) {
	var req livekit.ListEgressRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	return n.egressReply(n.egresses.list(&req, func(r room.Record) bool { return r.SID == rec.SID }))
}

// StopEgress implements control.EgressBackend.
func (s service) StopEgress(ctx context.Context, only, id string) (*livekit.EgressInfo, error) {
	list, err := s.ListEgress(ctx, &livekit.ListEgressRequest{EgressId: id, RoomName: only})
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: egress %.64q", control.ErrNotFound, id)
	}
	over := fmt.Errorf("%w: egress with status %s cannot be stopped", control.ErrPrecondition, list[0].Status)
	if list[0].Status >= livekit.EgressStatus_EGRESS_ENDING {
		return nil, over
	}
	rec, err := s.n.resolve(ctx, s.about(ctx, list[0].RoomName))
	switch {
	case err != nil:
		return nil, toControl(err)
	case rec.Recording == nil:
		return nil, over
	}
	out, err := s.n.command(ctx, rec.Recording.Node, rec, command{Op: opStopEgress, Room: rec.Name, Egress: []room.Egress{{ID: id}}})
	if err != nil {
		return nil, toControl(err)
	}
	return out.oneEgress()
}

// stopEgress ends an egress that this node records.
func (n *Node) stopEgress(ctx context.Context, c command) (reply, error) {
	r := n.rooms.get(c.Room)
	if r == nil || len(c.Egress) != 1 {
		return reply{}, notFound(c.Room)
	}
	err := r.StopEgress(ctx, c.Egress[0].ID)
	if errors.Is(err, room.ErrNoEgress) {
		return reply{}, &Refusal{Code: CodePrecondition, Message: err.Error()}
	}
	if err != nil {
		return reply{}, moderation(err)
	}
	info, ok := n.egresses.change(c.Egress[0].ID, func(i *livekit.EgressInfo) {
		i.UpdatedAt = n.now().UnixNano()
		i.Status = max(i.Status, livekit.EgressStatus_EGRESS_ENDING) // it may be complete already
	})
	if !ok {
		return reply{}, &Refusal{Code: CodeNotFound, Message: room.ErrNoEgress.Error()}
	}
	n.keepEgress(info.EgressId)
	if info.Status == livekit.EgressStatus_EGRESS_ENDING {
		n.tellEgress(r.Snapshot().Record, "egress_updated", info)
	}
	return n.egressReply([]*livekit.EgressInfo{info})
}

// noteEgress takes note of what has become of an egress on this node.
func (n *Node) noteEgress(rec room.Record, c room.EgressChange) {
	disk := func() { n.egressEnds(rec, c) }
	if c.State == room.EgressStarted {
		n.egressBegins(rec, c)
		disk = func() { n.keepEgress(c.Egress.ID) }
	}
	if !n.sessions.begin() {
		disk() // the node stops: nobody waits for the room any more
		return
	}
	go func() { // the room does not wait for the disk
		defer n.sessions.end()
		disk()
	}()
}

func (n *Node) egressBegins(rec room.Record, c room.EgressChange) {
	info := &livekit.EgressInfo{}
	if err := proto.Unmarshal(c.Egress.Info, info); err != nil || len(info.FileResults) != 1 {
		n.log.Error("an egress is not listed: it is malformed", "room", rec.SID)
		return
	}
	info.EgressId, info.Status, info.UpdatedAt = c.Egress.ID, livekit.EgressStatus_EGRESS_ACTIVE, n.now().UnixNano() // it may go on after a failure
	info.FileResults[0].Location = "recordings/" + string(c.Recording)
	info.Details = fmt.Sprintf("recorded on node %s in %s; `domicile recordings export %s` there makes a file of it", n.self().Name, n.self().Country, c.Recording)
	n.egresses.put(rec, c.Egress.Identity, info)
	n.tellEgress(rec, "egress_started", info)
}

func (n *Node) egressEnds(rec room.Record, c room.EgressChange) {
	recording, err := n.vault.Info(c.Recording)
	if err != nil {
		n.log.Error("looking at what an egress has recorded", "recording", c.Recording, "error", err)
	}
	info, ok := n.egresses.change(c.Egress.ID, func(i *livekit.EgressInfo) {
		now := n.now().UnixNano()
		i.Status, i.EndedAt, i.UpdatedAt = livekit.EgressStatus_EGRESS_COMPLETE, now, now
		file := i.FileResults[0]
		file.EndedAt, file.Duration, file.Size = now, now-file.StartedAt, sizeOf(recording, c.Tracks)
		switch {
		case c.Problem != "":
			i.Status, i.Error = livekit.EgressStatus_EGRESS_FAILED, c.Problem
		case len(c.Tracks) == 0:
			i.Status, i.Error = livekit.EgressStatus_EGRESS_ABORTED, "nothing was recorded: nobody was there who may be"
		}
		i.Result = &livekit.EgressInfo_File{File: file} //nolint:staticcheck // older clients read it
	})
	if ok {
		n.keepEgress(c.Egress.ID)
		n.tellEgress(rec, "egress_ended", info)
	}
}

// sizeOf is the size of some tracks of a recording.
func sizeOf(r vault.Info, tracks []vault.TrackID) (n int64) {
	for _, t := range r.Tracks {
		if slices.Contains(tracks, t.ID) {
			n += t.Size
		}
	}
	return n
}
