package node

import (
	"context"
	"time"

	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node/room"
)

// records keeps room records in the origin's store. A recording that runs is
// not part of what is stored: it ends with the process that writes it.
type records struct{ s *store.Store }

// saveTimeout bounds a write; the room's actor waits for it.
const saveTimeout = 2 * time.Second

func (k *records) load(ctx context.Context, name string) (room.Record, bool, error) {
	r, ok, err := k.s.Room(ctx, name)
	return fromStore(r), ok, err
}

func (k *records) all(ctx context.Context) ([]room.Record, error) {
	rows, err := k.s.Rooms(ctx)
	list := make([]room.Record, 0, len(rows))
	for _, r := range rows {
		list = append(list, fromStore(r))
	}
	return list, err
}

func (k *records) save(r room.Record) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	return k.s.PutRoom(ctx, store.Room{
		Name: r.Name, SID: r.SID, Policy: r.Policy, Metadata: r.Metadata, EmptyTimeout: r.EmptyTimeout,
		DepartureTimeout: r.DepartureTimeout, MaxParticipants: r.MaxParticipants, Created: time.UnixMilli(r.CreatedMS)})
}

func (k *records) forget(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	return k.s.DeleteRoom(ctx, name)
}

func fromStore(r store.Room) room.Record {
	return room.Record{
		Name: r.Name, SID: r.SID, Policy: r.Policy, Metadata: r.Metadata, EmptyTimeout: r.EmptyTimeout,
		DepartureTimeout: r.DepartureTimeout, MaxParticipants: r.MaxParticipants, CreatedMS: r.Created.UnixMilli()}
}
