package room

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// A node that drains hands its participants over: it prepares another node, and tells
// the client to go there. What the other node cannot know from the participant's record
// travels with the preparation. From there on it is a takeover as any other.

// Served is a participant of this node.
type Served struct {
	SID, Identity string
	Country       residency.Country
	Plain         bool // came without TLS, which is possible on the node's own machine alone
	Direct        bool // over WHIP or WHEP: it cannot be sent anywhere
}

// Served lists the participants of this node.
func (r *Room) Served(ctx context.Context) (list []Served, err error) {
	err = r.call(ctx, func() error {
		for _, p := range r.locals {
			list = append(list, Served{SID: p.sid, Identity: p.identity, Country: p.country, Plain: p.plain, Direct: p.direct})
		}
		return nil
	})
	return list, err
}

// Handover is what the node that serves a participant tells the one that will.
type Handover struct {
	SID     string            `json:"sid"`
	Country residency.Country `json:"country,omitempty"`
	// Last is the number of the last reliable message of the client's that was handled.
	Last uint32 `json:"last,omitempty"`
	// Settings are livekit.UpdateTrackSettings: what the client shows, and how large.
	Settings [][]byte `json:"settings,omitempty"`
	// Profile is how SRTP is sealed between the client and the node. 0: no media flows, or
	// the node is of a version that does not say.
	Profile rtc.Profile `json:"profile,omitempty"`
}

// handoverLife is how long a node that was prepared for somebody waits: a client that
// was told to come does so within seconds.
const handoverLife = 15 * time.Second

// ReadHandover reads a preparation.
func ReadHandover(b []byte) (h Handover, err error) {
	if len(b) > maxMessage {
		return h, errTooLong
	}
	if err = json.Unmarshal(b, &h); err == nil && (!validSID(h.SID) || len(h.Settings) > maxChoices) {
		err = errHandover
	}
	return h, err
}

// Handover says what another node has to know of a participant.
func (r *Room) Handover(ctx context.Context, sid string) ([]byte, error) {
	var p *Participant
	err := r.call(ctx, func() error {
		if p = r.bySID(sid); p == nil {
			return ErrAbsent
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	h := Handover{SID: sid, Country: p.country, Last: p.lastReliable.Load(), Profile: p.session.Profile()}
	done := make(chan struct{})
	p.post(func() {
		defer close(done)
		for id, s := range p.settings {
			s = proto.CloneOf(s)
			s.TrackSids = []string{string(id)}
			if b, err := proto.Marshal(s); err == nil {
				h.Settings = append(h.Settings, b)
			}
		}
	})
	select {
	case <-done:
	case <-p.gone:
		return nil, ErrAbsent
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return encode(h), nil
}

// Prepare awaits a participant of another node. Until they come, or for a while, the
// node is in the room for them.
func (r *Room) Prepare(h Handover) {
	unexpect := r.Expect(h.SID, h.Country)
	time.AfterFunc(handoverLife, unexpect)
	r.post(func() {
		if len(r.prepared) < maxRemote {
			r.prepared[h.SID] = h
		}
	})
	time.AfterFunc(handoverLife, func() { r.post(func() { delete(r.prepared, h.SID) }) })
}

// takePrepared gives a participant what the node before said of it.
func (r *Room) takePrepared(p *Participant) (last uint32) {
	h, lives := r.prepared[p.sid]
	delete(r.prepared, p.sid)
	p.origin.lives = lives
	var list []*livekit.UpdateTrackSettings
	for _, b := range h.Settings {
		s := &livekit.UpdateTrackSettings{}
		if proto.Unmarshal(b, s) == nil && len(s.TrackSids) == 1 {
			list = append(list, s)
		}
	}
	if len(list) > 0 {
		p.post(func() {
			for _, s := range list {
				p.settings[sfu.TrackID(s.TrackSids[0])] = s
			}
		})
	}
	p.post(func() { p.profile = h.Profile })
	return h.Last
}

func (r *Room) bySID(sid string) *Participant {
	for _, p := range r.locals {
		if p.sid == sid {
			return p
		}
	}
	return nil
}

// SendAway tells a client to go on at another node, or at one of several, the first
// first. One that can resume keeps its session here until that node has taken it over;
// others join anew.
func (r *Room) SendAway(ctx context.Context, sid string, to []*livekit.RegionInfo) error {
	return r.call(ctx, func() error {
		p := r.bySID(sid)
		if p == nil {
			return ErrAbsent
		}
		action := livekit.LeaveRequest_RECONNECT
		if p.goesOn() {
			action = livekit.LeaveRequest_RESUME
		}
		p.send(&livekit.SignalResponse{Message: &livekit.SignalResponse_Leave{Leave: &livekit.LeaveRequest{
			Reason: livekit.DisconnectReason_MIGRATION, Action: action, CanReconnect: true,
			Regions: &livekit.RegionSettings{Regions: to}}}})
		return nil
	})
}

// goesOn reports whether the client can go on at another node: it has one connection,
// which it offers, and does the DTLS handshake again where the other side's certificate
// is another one. Browsers do; clients made with pion, as LiveKit's Go SDK is, do not.
func (p *Participant) goesOn() bool {
	return p.join.Single && p.join.Protocol >= resumeProtocol && !slices.Contains([]string{"go"}, strings.ToLower(p.join.SDK))
}

// A node that was prepared begins the DTLS handshake with the client, which has begun that
// with the node before. A browser that begins sends its first message at once, the way to the
// node before, which it leaves up to a quarter of a second later; it repeats it after 50 ms,
// then 100, 200, 400, and the rest of such a wait is silence. Ours goes when the client's first
// check has come.
//
// libwebrtc lets the roles turn around when the fingerprint changes (since March 2023 at the
// latest: p2p/base/dtls_transport.cc, is_dtls_restart). Others may refuse the answer, so
// they begin as before.

// turning are the SDKs on libwebrtc that are no browsers.
var turning = []string{"swift", "android", "reactnative", "rust", "python", "node", "cpp", "unity"}

// turns reports whether the client, of which this is an offer, lets this node begin the
// handshake. Browsers say in offers alone who they are, and only Firefox does.
func (p *Participant) turns(offer string) bool {
	if p.join.SDK == "js" {
		return offer != "" && !strings.Contains(offer, "\no=mozilla")
	}
	return slices.Contains(turning, strings.ToLower(p.join.SDK))
}
