package room

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/sfu/quality"
	"github.com/domicile/domicile/residency/vault"
)

// What is missing in a recorded track is marked there, with its cause (node/record). The
// room says what packets do not tell: whether a track is muted, and whether its publisher
// is away. A track that was gone and comes back, perhaps in another codec, goes on in a file
// of its own.

// recording is one track on its way to the vault: a receiver like any other.
type recording struct {
	down *sfu.DownTrack
	stop context.CancelFunc
	sink atomic.Pointer[record.Track]

	began time.Time // when its file was asked for
	left  time.Time // the track is gone; if it comes back, it gets another file
	codec sfu.Codec
	files []vault.TrackID // of the track in this recording, the newest last

	subject subject
}

// file names the next file of a track.
func file(id sfu.TrackID, before *recording) []vault.TrackID {
	if before == nil {
		return []vault.TrackID{vault.TrackID(id)}
	}
	return append(before.files, vault.TrackID(fmt.Sprintf("%s-%d", id, len(before.files)+1)))
}

// noteGaps tells the recorded tracks what the room knows of them.
func (r *Room) noteGaps() {
	for id, x := range r.recorder.tracks {
		if t, s := r.tracks[id], x.sink.Load(); t != nil && s != nil {
			s.Note(record.State{Muted: t.info.Muted, Away: r.away(t)})
		}
	}
}

// away reports whether nothing is heard of a track's publisher, or of their node.
func (r *Room) away(t *track) bool {
	lost := func(q Quality) bool { return q.Score > 0 && q.Level == quality.Lost } // 0: not judged yet
	if t.node == r.deps.Self.Name {
		p := r.locals[t.ownerIdentity]
		return p == nil || p.line.Load() == nil || lost(p.quality)
	}
	m := r.remotes[t.node]
	if m == nil || !m.lostAt.IsZero() {
		return true
	}
	p := m.participants[t.ownerSID]
	return p == nil || lost(p.quality)
}

// leave ends the file of a track that is gone. It may come back: to its node, after a
// link was lost, or to another node.
func (rc *recorder) leave(id sfu.TrackID, now time.Time) {
	if x := rc.tracks[id]; x != nil && !rc.stopped[id] && x.left.IsZero() {
		x.left = now
		x.stop()
	}
}

// drop ends the recording of one track for good, and marks why; 0: nobody wants it.
func (rc *recorder) drop(id sfu.TrackID, why record.Cause, now time.Time) {
	x := rc.tracks[id]
	if x == nil {
		return
	}
	rc.stopped[id] = true
	if s := x.sink.Load(); s != nil && why != 0 {
		s.Ends(why, now)
	}
	x.stop() // it stays in the map: a track that comes back is not recorded
}
