package room

import (
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// Link is a room's way to another node. Everything that a room sends there goes
// through it, each piece with a permit of the gate's; tests put a mesh of their
// own in its place, which sees every byte.
type Link interface {
	Send(p residency.Permit, kind relay.Kind, body []byte) error
	OpenTrack(p residency.Permit, video bool) (OutTrack, error)
	Bind(p residency.Permit, alias uint32, s relay.MediaSink) error
	Rebind(p residency.Permit, alias uint32) error
	Bound(alias uint32) bool
	Unbind(alias uint32)
}

// OutTrack is a track on its way to another node, as relay.Track says.
type OutTrack interface {
	Alias() uint32
	Offer(layer uint8, marker bool, rtp []byte)
	Report(layer uint8, sr wire.SenderReport)
	// Renew has the track go on by another permit for the same: of a newer epoch,
	// or of a renewed certificate.
	Renew(p residency.Permit) error
	Revoke(reason string)
	Revoked() string
	// Held are the layers, as bits, that the path does not carry now.
	Held() uint8
	Close()
}

// LinkOf is a link as rooms see it, nil if there is none.
func LinkOf(l *relay.Link) Link {
	if l == nil {
		return nil
	}
	return relayed{l}
}

type relayed struct{ *relay.Link }

// OpenTrack implements Link.
func (r relayed) OpenTrack(p residency.Permit, video bool) (OutTrack, error) {
	t, err := r.Link.OpenTrack(p, video)
	if err != nil {
		return nil, err
	}
	return t, nil
}
