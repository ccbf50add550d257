package room

import (
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
)

// Suspect tells the room that nothing has arrived from a node for so long that it may
// be dead, or that something does again. Nobody leaves for that: people and tracks are
// given up when the link has ended and none has followed for linkGrace.
func (r *Room) Suspect(peer residency.NodeName, suspect bool) {
	r.post(func() { r.doSuspect(peer, suspect) })
}

func (r *Room) doSuspect(peer residency.NodeName, suspect bool) {
	m := r.remotes[peer]
	if m == nil || m.suspect == suspect {
		return
	}
	m.suspect = suspect
	if suspect {
		r.goAround(peer)
	} else {
		r.refresh(peer)
	}
	r.poke()
}

// refresh asks for keyframes of what comes from a node: frames are missing.
func (r *Room) refresh(node residency.NodeName) {
	for _, t := range r.tracks {
		if f := &t.way.at; f.from == node && f.link != nil && t.kind() == sfu.Video {
			t.keyframes.Or(uint32(t.up.Wanted()))
		}
	}
}
