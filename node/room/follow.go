package room

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/sfu"
)

// A player over WHEP negotiates once, and people come and go, publish anew and
// speak in turn. So it does not receive a participant's tracks but followers:
// tracks of this node alone, which carry what their source publishes now.
//
//	camera of Anna ──┐ tap moves as the source does
//	camera of Bob ───┴──► follower ("" video, VP8) ──► DownTrack of each player
//
// A follower has one codec, that of its source when the first player came; a
// source that publishes in another is not shown while it does. What it gets after
// a move is a new RTP stream, which DownTracks join to the old one at a keyframe.

// speakerHold is how long a follower stays with somebody who has fallen silent
// while somebody else speaks: shorter, and a cough takes the picture over.
const speakerHold = 2 * time.Second

// followKey names a follower.
type followKey struct {
	source string // identity or track id; "": the active speaker
	kind   sfu.Kind
	mime   string
	svc    bool // one stream carries all the spatial layers
}

// follower is owned by Room.run, but for its track's up.
type follower struct {
	followKey
	track   *track   // in no list of the room's
	tap     *sfu.Tap // nil while there is nothing to show
	at      sfu.TrackID
	viewers map[string]string // identity → sid
}

// doFollow makes a player the viewer of what a source shows, one track for each
// of the kinds.
func (r *Room) doFollow(p *Participant, source string, kinds []sfu.Kind) ([]subscription, error) {
	if !p.info.Permission.CanSubscribe || source != "" && !r.names(source) {
		return nil, ErrNoSource
	}
	var list []subscription
	for _, kind := range kinds {
		t := r.shown(followKey{source: source, kind: kind}, "")
		if t == nil {
			continue
		}
		f := r.follower(followKey{source, kind, strings.ToLower(t.media.Codec.MimeType), t.media.SVC}, t)
		f.viewers[p.identity] = p.sid
		r.move(f, t)
		list = append(list, subscription{up: f.track.up, id: f.track.id, stream: t.ownerSID + "|whep"})
	}
	if len(list) == 0 {
		return nil, ErrSilent
	}
	return list, nil
}

// speaker is whom players see that named nobody: who spoke last and has something
// to show, else the one who has been here longest.
func (r *Room) speaker() string {
	shows := map[string]bool{} // owners' sids
	for _, t := range r.tracks {
		shows[t.ownerSID] = shows[t.ownerSID] || followKey{kind: t.kind()}.shows(t)
	}
	longest, since := "", int64(math.MaxInt64)
	for _, i := range r.participants() {
		switch {
		case !shows[i.Sid] || i.GetPermission().GetHidden():
		case i.Identity == r.spoke.identity:
			return i.Identity
		case i.JoinedAtMs < since || i.JoinedAtMs == since && i.Identity < longest:
			longest, since = i.Identity, i.JoinedAtMs
		}
	}
	return longest
}

// spoke is who spoke last, for players that follow the active speaker.
type spoke struct {
	identity string
	at       time.Time // when they were last heard
}

// noteSpeaker takes note of who is the loudest now.
func (r *Room) noteSpeaker(identity string, now time.Time) {
	if identity == r.spoke.identity || now.Sub(r.spoke.at) >= speakerHold {
		r.spoke = spoke{identity, now}
	}
}

// noteLoudest takes note of whoever is the loudest now, here or elsewhere.
func (r *Room) noteLoudest(now time.Time) {
	loudest, level := "", float32(0)
	note := func(sid string, l float32) {
		if (l > level || l == level && sid < loudest) && !r.hidden(sid) {
			loudest, level = sid, l
		}
	}
	for _, s := range r.selection.active.Now() {
		note(string(s.Owner), s.Level)
	}
	for _, m := range r.remotes {
		for sid, l := range m.speaking {
			note(sid, l)
		}
	}
	for _, i := range r.participants() {
		if i.Sid == loudest {
			r.noteSpeaker(i.Identity, now)
		}
	}
}

// names reports whether a source is somebody or something in the room. Who is
// hidden is not: a name must not tell that they are there.
func (r *Room) names(source string) bool {
	if t := r.tracks[sfu.TrackID(source)]; t != nil {
		return true
	}
	return slices.ContainsFunc(r.participants(), func(i *livekit.ParticipantInfo) bool {
		return i.Identity == source && !i.GetPermission().GetHidden()
	})
}

// follower returns the follower of a key, a new one with the codec of t.
func (r *Room) follower(key followKey, t *track) *follower {
	if f := r.followers[key]; f != nil {
		return f
	}
	up := newUp(sfu.TrackID(NewID("TR_")), key.kind, t.info, t.media, true)
	f := &follower{followKey: key, viewers: map[string]string{}, track: &track{id: up.ID(), up: up}}
	r.followers[key] = f
	return f
}

// doMoveFollowers lets every follower show what it should, and forgets those
// that nobody watches.
func (r *Room) doMoveFollowers(now time.Time) {
	if len(r.followers) > 0 {
		r.noteLoudest(now)
	}
	for key, f := range r.followers {
		maps.DeleteFunc(f.viewers, func(identity, sid string) bool {
			p := r.locals[identity]
			return p == nil || p.sid != sid
		})
		if len(f.viewers) == 0 {
			r.move(f, nil)
			delete(r.followers, key)
			continue
		}
		r.move(f, r.shown(key, f.at))
		f.track.up.Tick(now)
	}
}

// move ties a follower to a track, or to none.
func (r *Room) move(f *follower, t *track) {
	if t != nil && f.tap != nil && f.tap.From() == t.heard() {
		f.track.up.SetAvailable(t.heard().Available())
		return
	}
	if f.tap != nil {
		f.tap.Close()
		f.tap, f.at = nil, ""
	}
	if t == nil {
		return
	}
	r.ensureUp(t)
	up := t.heard()
	f.track.up.SetAvailable(up.Available())
	f.track.up.OnKeyframeRequest(func(l sfu.Layer) { up.RequestKeyframe(l, r.deps.Now()) })
	f.tap, f.at = sfu.NewTap(up, f.track.up), t.id
}

// shown picks the track that a follower shows: of its source, of its kind, and
// in its codec if it has one. now is the one it shows already.
func (r *Room) shown(key followKey, now sfu.TrackID) *track {
	owner, hidden := key.source, map[string]bool{}
	if owner == "" {
		owner, hidden = r.speaker(), r.hiddenOnes()
	}
	var best *track
	for _, t := range r.tracks {
		if key.shows(t) && !hidden[t.ownerSID] && (best == nil || preferred(owner, now, t, best) < 0) {
			best = t
		}
	}
	return best
}

// hiddenOnes are those whom nobody is to see, by sid.
func (r *Room) hiddenOnes() map[string]bool {
	sids := map[string]bool{}
	for _, i := range r.participants() {
		if i.GetPermission().GetHidden() {
			sids[i.Sid] = true
		}
	}
	return sids
}

// shows reports whether a follower may show a track at all: not one that a
// player has no key for, and not one whose owner chooses who receives it.
func (key followKey) shows(t *track) bool {
	if t.kind() != key.kind || t.media.Codec.MimeType == "" || t.info.Encryption != livekit.Encryption_NONE || t.allow != nil {
		return false
	}
	if key.mime != "" && (!strings.EqualFold(key.mime, t.media.Codec.MimeType) || key.svc != t.media.SVC) {
		return false
	}
	return key.source == "" || key.source == t.ownerIdentity || key.source == string(t.public())
}

// preferred orders the tracks that a follower may show. It never says that two
// are equal: the choice must not change from one tick to the next without cause.
func preferred(owner string, now sfu.TrackID, a, b *track) int {
	return cmp.Or(
		first(a.ownerIdentity == owner, b.ownerIdentity == owner),
		first(!a.info.Muted, !b.info.Muted),
		cmp.Compare(rank(a.info.Source), rank(b.info.Source)),
		first(a.id == now, b.id == now),
		first(a.base == "", b.base == ""),
		cmp.Compare(a.id, b.id),
	)
}

// first sorts what is true to the front.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// rank orders sources: people before their screens, whose sound is seldom there.
func rank(s livekit.TrackSource) int {
	switch s {
	case livekit.TrackSource_CAMERA, livekit.TrackSource_MICROPHONE:
		return 0
	case livekit.TrackSource_UNKNOWN:
		return 1
	}
	return 2
}
