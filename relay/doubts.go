package relay

import (
	"slices"

	"github.com/domicile/domicile/relay/wire"
)

// Doubt has every peer told what this node measured of others that contradicts
// their certificates: all of it, now and at the start of each link. It never waits.
func (f *Fabric) Doubt(list []wire.Doubt) {
	list = slices.Clone(list)
	f.doubts.Store(&list)
	for _, l := range f.Links() {
		l.doubt()
	}
}

// doubt has the peer told, if there is anything that it may not know.
func (l *Link) doubt() {
	if l.f.doubts.Load() == nil {
		return
	}
	select {
	case l.doubting <- struct{}{}:
	default:
	}
}

func (l *Link) writeDoubts() error { return l.write(wire.AppendDoubts(nil, *l.f.doubts.Load())) }

// readDoubts takes what the peer says of others.
func (l *Link) readDoubts(payload []byte) error {
	list, err := wire.ParseDoubts(payload)
	if err != nil {
		return protocolError(err)
	}
	if l.cfg.Doubts != nil {
		l.cfg.Doubts(l, list)
	}
	return nil
}
