package node

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/node/whip"
)

// restartWait bounds an ICE restart: it is a matter of milliseconds, unless the
// participant is stuck.
const restartWait = 5 * time.Second

// openWait bounds the wait for an answer, in all. OBS gives up after 8 s.
const openWait = 7 * time.Second

// silentRetry is when a player is told to ask again for a source that publishes
// nothing yet.
const silentRetry = 5 * time.Second

// Attributes of a token with which its issuer says what an encoder sends.
const (
	attrAudioSource = "whip.audio.source" // "microphone" (if absent) or "screen_share_audio"
	attrVideoSource = "whip.video.source" // "camera" (if absent) or "screen_share"
	attrAudioName   = "whip.audio.name"   // names of the tracks
	attrVideoName   = "whip.video.name"
)

func (n *Node) newWHIP() (*whip.Server, error) {
	return whip.New(whip.Config{
		Rooms: encoders{n}, Keys: n.cfg.Keys, Base: strings.TrimSuffix(n.cfg.PublicURL, "/"),
		Audio: []string{"opus"}, Video: []string{"VP8", "H264", "VP9", "AV1"},
		MaxSessions: n.cfg.Capacity, Now: n.now, Log: n.log,
	})
}

// encoders lets the clients of WHIP and WHEP into rooms, by the same door as
// everybody: placement, residency, and the room's own limits.
type encoders struct{ n *Node }

// Publish implements whip.Rooms.
func (e encoders) Publish(ctx context.Context, j whip.Join, offer whip.Offer) (whip.Session, whip.Answer, error) {
	join := directJoin(j)
	join.Token.Video.SetCanSubscribe(false) // it has no way to say what it would watch
	return e.open(ctx, j, join, livekit.ParticipantInfo_INGRESS, func(ctx context.Context, s *direct) (string, error) {
		return s.d.Publish(ctx, s.room, offer.SDP, announced(join.Attributes, offer))
	})
}

// Watch implements whip.Rooms. Players that nobody sees may share a token, so
// they get identities of their own; others take the place of their earlier
// connection, as in any client.
func (e encoders) Watch(ctx context.Context, j whip.Join, source string, offer whip.Offer) (whip.Session, whip.Answer, error) {
	join := directJoin(j)
	if j.Token.Video.Hidden {
		join.Identity += "#" + room.NewID("")
		if err := control.ValidIdentity(join.Identity); err != nil {
			return nil, whip.Answer{}, whip.Refuse(http.StatusForbidden, "token: %v, with what tells players apart", err)
		}
	}
	join.Token.Video.SetCanPublish(false)
	join.Token.Video.SetCanPublishData(false)
	var kinds []sfu.Kind
	if offer.Audio {
		kinds = append(kinds, sfu.Audio)
	}
	if offer.Video {
		kinds = append(kinds, sfu.Video)
	}
	return e.open(ctx, j, join, livekit.ParticipantInfo_STANDARD, func(ctx context.Context, s *direct) (string, error) {
		return s.d.Watch(ctx, s.room, offer.SDP, source, kinds...)
	})
}

// directJoin is what a client of signalling v1 with the same token would ask for.
func directJoin(j whip.Join) signal.Join {
	return signal.Join{Token: j.Token, Room: j.Room, Identity: j.Token.Identity, Attributes: maps.Clone(j.Token.Attributes), Single: true}
}

// announced are the tracks that an encoder's offer sends.
func announced(attributes map[string]string, offer whip.Offer) []*livekit.AddTrackRequest {
	var list []*livekit.AddTrackRequest
	if offer.Audio {
		source := livekit.TrackSource_MICROPHONE
		if attributes[attrAudioSource] == "screen_share_audio" {
			source = livekit.TrackSource_SCREEN_SHARE_AUDIO
		}
		list = append(list, &livekit.AddTrackRequest{Cid: "audio", Type: livekit.TrackType_AUDIO, Source: source, Name: attributes[attrAudioName], Stereo: true})
	}
	if offer.Video {
		source := livekit.TrackSource_CAMERA
		if attributes[attrVideoSource] == "screen_share" {
			source = livekit.TrackSource_SCREEN_SHARE
		}
		list = append(list, &livekit.AddTrackRequest{Cid: "video", Type: livekit.TrackType_VIDEO, Source: source, Name: attributes[attrVideoName]})
	}
	return list
}

// direct is a participant of a room that came over WHIP or WHEP.
type direct struct {
	d    *room.Direct
	room *room.Room
	sid  string
	done chan struct{}
}

// Restart implements whip.Session.
func (s *direct) Restart(client whip.Credentials) (whip.Restarted, error) {
	ctx, cancel := context.WithTimeout(context.Background(), restartWait)
	defer cancel()
	ice, err := s.d.Restart(ctx, s.room, client.Ufrag, client.Pwd)
	if err != nil {
		return whip.Restarted{}, asProblem(err)
	}
	return whip.Restarted{Credentials: whip.Credentials{Ufrag: ice.Ufrag, Pwd: ice.Pwd}, Candidates: ice.Candidates}, nil
}

// Connected implements whip.Session.
func (s *direct) Connected() <-chan struct{} { return s.d.Connected() }

// Done implements whip.Session.
func (s *direct) Done() <-chan struct{} { return s.done }

// Close implements whip.Session.
func (s *direct) Close() { s.d.Leave() }

// negotiate answers the offer of a participant who is about to join.
type negotiate func(context.Context, *direct) (answer string, err error)

// open lets a client in. When the room ends at the very moment, all is asked
// once more: it may have been deleted.
func (e encoders) open(ctx context.Context, j whip.Join, join signal.Join, kind livekit.ParticipantInfo_Kind, answer negotiate) (whip.Session, whip.Answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openWait, errSlow)
	defer cancel()
	for again := true; ; again = false {
		rm, att, err := e.n.admit(ctx, j.Request, join)
		if err != nil {
			e.n.remember(join.Room, join.Identity, err)
			e.n.log.Info("WHIP or WHEP client is refused", "rule", asRefusal(err).Rule, "code", asRefusal(err).Code)
			return nil, whip.Answer{}, asProblem(err)
		}
		att.Kind = kind
		s, sdp, err := e.n.serveDirect(ctx, rm, join, att, answer)
		switch {
		case errors.Is(err, room.ErrClosed) && again:
			continue
		case err != nil:
			return nil, whip.Answer{}, asProblem(err)
		}
		return s, whip.Answer{SDP: sdp, ICEServers: whipServers(e.n.iceServers(rm.Name(), att.Sid))}, nil
	}
}

var errSlow = &Refusal{Code: CodeUnavailable, Message: "the room did not answer in time"}

// serveDirect runs a participant until it ends, and returns once its offer is
// answered, or cannot be.
func (n *Node) serveDirect(ctx context.Context, rm *room.Room, join signal.Join, att room.Attendee, answer negotiate) (*direct, string, error) {
	if !n.sessions.begin() {
		return nil, "", errShutdown
	}
	s := &direct{d: room.NewDirect(), room: rm, sid: att.Sid, done: make(chan struct{})}
	ctx, refused := context.WithCancelCause(ctx)
	go func() {
		defer n.sessions.end()
		defer close(s.done)
		defer n.endTURN(rm.Name(), att.Sid)
		n.attendees.Add(1)
		defer n.attendees.Add(-1)
		err := rm.Serve(n.ctx, s.d, join, att)
		refused(err)
		n.log.Info("WHIP or WHEP session ended", "participant", att.Sid, "reason", room.Ending(err))
	}()
	sdp, err := answer(ctx, s)
	if err != nil {
		s.d.Leave()
		<-s.done
		return nil, "", err
	}
	return s, sdp, nil
}

func whipServers(list []*livekit.ICEServer) (out []whip.ICEServer) {
	for _, s := range list {
		for _, u := range s.Urls {
			out = append(out, whip.ICEServer{URL: u, Username: s.Username, Credential: s.Credential})
		}
	}
	return out
}

// asProblem is what a client of WHIP or WHEP is told. One that another node
// would take is sent there.
func asProblem(err error) error {
	switch {
	case errors.Is(err, room.ErrNoSource):
		return whip.Refuse(http.StatusNotFound, "%v", err)
	case errors.Is(err, room.ErrSilent):
		p := whip.Refuse(http.StatusConflict, "%v", err)
		p.RetryAfter = silentRetry
		return p
	case errors.Is(err, room.ErrCodec), errors.Is(err, room.ErrOffer):
		return whip.Refuse(http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, room.ErrTrackRefused), errors.Is(err, room.ErrFull), errors.Is(err, room.ErrEncrypted):
		return whip.Refuse(http.StatusForbidden, "%v", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = errSlow
	}
	var r *Refusal
	if !errors.As(err, &r) {
		return err
	}
	p := whip.Refuse(r.status(), "%s", r.Message)
	p.Hint, p.Rule, p.Policy = r.Hint, r.Rule, r.Policy
	if r.Use != nil {
		p.Node, p.URL, p.Redirect = string(r.Use.Node), r.Use.URL, r.Use.URL
	}
	if r.Code == CodeUnavailable {
		p.RetryAfter = silentRetry
	}
	return p
}
