package room

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// Flow is a track of the room on this node, and where it goes from here.
type Flow struct {
	Track     string
	Kind      string               // "audio" or "video"
	Source    string               // such as "camera"
	Owner     string               // identity; empty unless it was asked for
	From      residency.NodeName   // serves its publisher
	Over      residency.NodeName   // the node from which it comes, if that is another; empty here
	To        []residency.NodeName // other nodes
	Receivers []string             // identities of those here who want it and may have it; likewise
}

// Part is what goes through this node's part of a room now.
type Part struct {
	Flows    []Flow
	SID      string            // of the participant who was asked about, if they are here
	Country  residency.Country // theirs, as it was known when they joined
	Withheld int               // tracks that are not recorded, for want of notice or consent
}

// Part tells what goes through this node's part of the room: of everybody without
// saying whose it is, or, if somebody is named, of what they send and get.
func (r *Room) Part(ctx context.Context, identity string) (p Part, err error) {
	err = r.call(ctx, func() error {
		if l := r.locals[identity]; l != nil {
			p.SID, p.Country = l.sid, l.country
		}
		for _, t := range r.tracks {
			if f, about := r.flow(t, identity); about {
				p.Flows = append(p.Flows, f)
			}
		}
		if r.recorder != nil {
			p.Withheld = len(r.recorder.withheld)
		}
		return nil
	})
	slices.SortFunc(p.Flows, func(a, b Flow) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Track, b.Track)) })
	return p, err
}

// flow is a track and where it goes; about says that it is of interest: the named
// one, if one is, sends or gets it, or may get it elsewhere.
func (r *Room) flow(t *track, identity string) (f Flow, about bool) {
	f = Flow{Track: string(t.id), Kind: t.kind().String(), Source: strings.ToLower(t.info.Source.String()), From: t.node,
		To: slices.Sorted(maps.Keys(t.serving))}
	if t.way.at.link != nil && t.way.at.from != t.node {
		f.Over = t.way.at.from
	}
	if identity == "" {
		return f, true
	}
	f.Owner = t.ownerIdentity
	for _, p := range r.locals {
		if t.base == "" && p.desires(t) && t.allow.allow(p.info, t.id) {
			f.Receivers = append(f.Receivers, p.identity)
		}
	}
	slices.Sort(f.Receivers)
	switch {
	case f.Owner == identity:
	case slices.Contains(f.Receivers, identity):
		f.Receivers = []string{identity} // nobody asked who else gets what others send
	default:
		f.Owner, f.Receivers = "", nil // that it goes on from here matters to who gets it elsewhere
		return f, len(f.To) > 0
	}
	return f, true
}
