package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// The operations of commands that carry a request of the API (command.Request).
const (
	opMute          = "mute"          // livekit.MuteRoomTrackRequest (the participant's node, or home)
	opUpdate        = "update"        // livekit.UpdateParticipantRequest (likewise)
	opSubscriptions = "subscriptions" // livekit.UpdateSubscriptionsRequest (likewise)
	opData          = "data"          // livekit.SendDataRequest (any node of the room)
	opMetadata      = "metadata"      // livekit.UpdateRoomMetadataRequest (home)
)

// class is the data class that a command is.
func (c command) class() residency.Class {
	if c.Op == opData || c.Op == opKeepChat {
		return residency.ClassChat
	}
	if c.Op == opAttendance || c.Op == opRegister || c.Op == opRegistrations {
		return residency.ClassMetadata
	}
	if c.Op == opConsents {
		return residency.ClassRecording
	}
	return residency.ClassSignalling
}

// MutePublishedTrack implements control.Moderation.
func (s service) MutePublishedTrack(ctx context.Context, req *livekit.MuteRoomTrackRequest) (*livekit.TrackInfo, error) {
	out, err := s.aboutParticipant(ctx, opMute, req)
	if err != nil {
		return nil, toControl(err)
	}
	info := &livekit.TrackInfo{}
	if err := protojson.Unmarshal(out.Track, info); err != nil {
		return nil, fmt.Errorf("track of another node: %w", err)
	}
	return info, nil
}

// UpdateParticipant implements control.Moderation.
func (s service) UpdateParticipant(ctx context.Context, req *livekit.UpdateParticipantRequest) (*livekit.ParticipantInfo, error) {
	out, err := s.aboutParticipant(ctx, opUpdate, req)
	if err != nil {
		return nil, toControl(err)
	}
	list, err := out.participants()
	if err == nil && len(list) != 1 {
		err = fmt.Errorf("update participant: the answer has %d participants", len(list))
	}
	if err != nil {
		return nil, err
	}
	return list[0], nil
}

// UpdateSubscriptions implements control.Moderation.
func (s service) UpdateSubscriptions(ctx context.Context, req *livekit.UpdateSubscriptionsRequest) error {
	_, err := s.aboutParticipant(ctx, opSubscriptions, req)
	return toControl(err)
}

// SendData implements control.Moderation. A node of the room sends to the others
// itself; any other node asks the home to.
func (s service) SendData(ctx context.Context, req *livekit.SendDataRequest) error {
	rec, err := s.n.resolve(ctx, s.about(ctx, req.Room))
	if err != nil {
		return toControl(err)
	}
	to := s.n.home(rec)
	if s.n.rooms.get(req.Room) != nil {
		to = s.n.self().Name
	}
	_, err = s.n.command(ctx, to, rec, command{Op: opData, Room: req.Room, Request: encodeRequest(req)})
	return toControl(err)
}

// UpdateRoomMetadata implements control.Moderation.
func (s service) UpdateRoomMetadata(ctx context.Context, name, metadata string) (*livekit.Room, error) {
	rec, err := s.n.resolve(ctx, s.about(ctx, name))
	if err != nil {
		return nil, toControl(err)
	}
	req := &livekit.UpdateRoomMetadataRequest{Room: name, Metadata: metadata}
	out, err := s.n.command(ctx, s.n.home(rec), rec, command{Op: opMetadata, Room: name, Request: encodeRequest(req)})
	if err != nil {
		return nil, toControl(err)
	}
	if len(out.Rooms) != 1 {
		return nil, fmt.Errorf("update room metadata: the answer has %d rooms", len(out.Rooms))
	}
	return out.Rooms[0].Info(out.Rooms[0].Participants), nil
}

// aboutParticipant has the node that serves a participant carry a request out.
func (s service) aboutParticipant(ctx context.Context, op string, req participantRequest) (reply, error) {
	rec, err := s.n.resolve(ctx, s.about(ctx, req.GetRoom()))
	if err != nil {
		return reply{}, err
	}
	return s.n.command(ctx, s.n.whereIs(rec, req.GetIdentity()), rec,
		command{Op: op, Room: req.GetRoom(), Identity: req.GetIdentity(), Request: encodeRequest(req)})
}

// participantRequest is a request of the API about one participant.
type participantRequest interface {
	proto.Message
	GetRoom() string
	GetIdentity() string
}

func encodeRequest(req proto.Message) []byte {
	b, err := proto.Marshal(req)
	if err != nil {
		panic(fmt.Sprintf("node: encoding %T: %v", req, err)) // it came as protobuf or JSON of the same text
	}
	return b
}

func decodeRequest(c command, req proto.Message) error {
	if err := proto.Unmarshal(c.Request, req); err != nil {
		return &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("command %q: its request is malformed", c.Op)}
	}
	return nil
}

// whereIs names the node that serves a participant, or else the home, which knows.
func (n *Node) whereIs(rec room.Record, identity string) residency.NodeName {
	if r := n.rooms.get(rec.Name); r != nil {
		if at, ok := r.Snapshot().Where(identity); ok {
			return at
		}
	}
	return n.home(rec)
}

// withParticipant carries a command out on this node if it serves the participant;
// a home passes it on to the node that does.
func (n *Node) withParticipant(ctx context.Context, c command, do func(*room.Room) (reply, error)) (reply, error) {
	absent := &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("participant %q is not in room %q", c.Identity, c.Room)}
	r := n.rooms.get(c.Room)
	if r == nil {
		return reply{}, absent
	}
	out, err := do(r)
	if !errors.Is(err, room.ErrAbsent) {
		return out, moderation(err)
	}
	at, ok := r.Snapshot().Where(c.Identity)
	if !ok || at == n.self().Name || c.Passed {
		return reply{}, absent
	}
	c.Passed = true
	return n.command(ctx, at, r.Snapshot().Record, c)
}

// moderation says in the words of the API what a room answered.
func moderation(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, room.ErrNoTrack):
		return &Refusal{Code: CodeNotFound, Message: err.Error()}
	case errors.Is(err, room.ErrUnmute):
		return &Refusal{Code: CodePrecondition, Message: err.Error()}
	case errors.Is(err, control.ErrInvalid):
		return &Refusal{Code: CodeInvalid, Message: err.Error()}
	case errors.Is(err, room.ErrClosed), errors.Is(err, room.ErrNotHome):
		return &Refusal{Code: CodeUnavailable, Message: err.Error(), Hint: "try again in a moment"}
	}
	return err
}

// remove sends a participant away.
func (n *Node) remove(ctx context.Context, c command) (reply, error) {
	return n.withParticipant(ctx, c, func(r *room.Room) (reply, error) {
		found, err := r.Remove(ctx, c.Identity)
		if err == nil && !found {
			err = room.ErrAbsent
		}
		return reply{}, err
	})
}

func (n *Node) mute(ctx context.Context, c command) (reply, error) {
	var req livekit.MuteRoomTrackRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	return n.withParticipant(ctx, c, func(r *room.Room) (out reply, err error) {
		info, err := r.MuteTrack(ctx, c.Identity, sfu.TrackID(req.TrackSid), req.Muted)
		if err != nil {
			return reply{}, err
		}
		out.Track, err = protojson.Marshal(info)
		return out, err
	})
}

func (n *Node) update(ctx context.Context, c command) (reply, error) {
	var req livekit.UpdateParticipantRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	req.Identity = c.Identity
	return n.withParticipant(ctx, c, func(r *room.Room) (reply, error) {
		info, err := r.UpdateParticipant(ctx, &req)
		if err != nil {
			return reply{}, err
		}
		b, err := protojson.Marshal(info)
		return reply{Participants: [][]byte{b}}, err
	})
}

func (n *Node) subscriptions(ctx context.Context, c command) (reply, error) {
	var req livekit.UpdateSubscriptionsRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	req.Identity = c.Identity
	return n.withParticipant(ctx, c, func(r *room.Room) (reply, error) { return reply{}, r.UpdateSubscriptions(ctx, &req) })
}

// sendData hands data to a room that lives here. In one that does not, there is nobody.
func (n *Node) sendData(ctx context.Context, c command) (reply, error) {
	var req livekit.SendDataRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	if r := n.rooms.get(c.Room); r != nil {
		return reply{}, moderation(r.SendData(ctx, &req))
	}
	return reply{}, nil
}

// setMetadata changes a room's record at its home, be somebody in the room or not.
func (n *Node) setMetadata(ctx context.Context, rec room.Record, c command) (reply, error) {
	var req livekit.UpdateRoomMetadataRequest
	if err := decodeRequest(c, &req); err != nil {
		return reply{}, err
	}
	n.creating.Lock()
	defer n.creating.Unlock()
	if r := n.rooms.get(rec.Name); r != nil {
		rec, err := r.UpdateMetadata(ctx, req.Metadata)
		if n.store != nil {
			n.store.writer.settle(ctx, rec.Name) // who asked for it is answered when it is kept
		}
		return reply{Rooms: []listedRoom{{rec, len(r.Snapshot().Participants)}}}, moderation(err)
	}
	if n.store == nil || n.home(rec) != n.self().Name {
		return reply{}, moderation(room.ErrNotHome)
	}
	if err := control.ValidMetadata(req.Metadata); err != nil {
		return reply{}, moderation(err)
	}
	rec = rec.Rewritten(req.Metadata, n.self().Name)
	if err := n.keepRecord(rec); err != nil {
		return reply{}, fmt.Errorf("update room metadata: %w", err)
	}
	return reply{Rooms: []listedRoom{{Record: rec}}}, nil
}
