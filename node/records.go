package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// records keeps room records in the origin's store.
type records struct {
	s *store.Store
	// pseudonymise gives a record what receipts call the room; nil: nothing.
	pseudonymise func(*room.Record) error
	writer       recordWriter
}

// recordState is what a stored record says of the room's homes. The recording is there
// so that another origin has it go on when the one that records is gone.
type recordState struct {
	Term      uint64          `json:"term,omitempty"`
	Versions  room.Versions   `json:"versions,omitzero"`
	Recording *room.Recording `json:"recording,omitempty"`
}

func (k *records) read(row store.Room) (room.Record, error) {
	r, err := fromStore(row)
	if err == nil && k.pseudonymise != nil {
		err = k.pseudonymise(&r)
	}
	return r, err
}

// openStore opens where an origin's records of rooms are kept.
func (n *Node) openStore() error {
	if err := n.clearBackups(); err != nil {
		return err
	}
	s, err := store.Open(n.ctx, filepath.Join(n.cfg.DataDir, "rooms.db"), store.Options{
		Disk: n.shelf(residency.ClassMetadata), Log: n.log, KeyFile: n.cfg.Store.KeyFile, Postgres: n.cfg.Store.Postgres,
		JournalBytes: n.cfg.Store.JournalBytes, Merge: mergeRows, May: n.mayRead,
	})
	if err != nil {
		return err
	}
	n.files, n.store = s, &records{s: s, pseudonymise: n.pseudonymise}
	n.store.writer = recordWriter{save: n.writeRecord, forget: n.store.forget, failed: n.notSaved}
	return nil
}

// runStore brings a shared database that was away what has waited for it.
func (n *Node) runStore(ctx context.Context) error {
	if n.files == nil {
		return nil
	}
	return n.files.Run(ctx)
}

// mayRead asks the gate about a room that another origin has put into the shared
// database: this node takes no copy of what it might not keep itself.
func (n *Node) mayRead(row store.Room) bool {
	self, gate := n.self(), n.gate()
	q := keeping(room.Record{Name: row.Name, Tenant: row.Tenant, Policy: row.Policy}, residency.ClassMetadata)
	q.Peer, q.PeerEpoch, q.Contradiction = self, gate.Epoch(), n.contradiction(self.Name)
	q.Store, q.Now = true, n.now()
	return gate.Decide(q).Allow
}

// mergeRows puts together what two origins have written of one room. Of a row that
// cannot be read the other is kept.
func mergeRows(kept, put store.Room) store.Room {
	a, err := fromStore(kept)
	if err != nil {
		return put
	}
	b, err := fromStore(put)
	if err != nil {
		return kept
	}
	merged, err := toStore(a.Merge(b))
	if err != nil {
		return put
	}
	return merged
}

// toStore is a record as the store keeps it.
func toStore(r room.Record) (store.Room, error) {
	state, err := json.Marshal(recordState{Term: r.Term, Versions: r.Versions, Recording: r.Recording})
	if err != nil {
		return store.Room{}, err
	}
	return store.Room{Name: r.Name, SID: r.SID, Tenant: r.Tenant, Policy: r.Policy, Metadata: r.Metadata, EmptyTimeout: r.EmptyTimeout,
		DepartureTimeout: r.DepartureTimeout, MaxParticipants: r.MaxParticipants, Created: time.UnixMilli(r.CreatedMS), State: string(state)}, nil
}

// saveTimeout bounds a write.
const saveTimeout = 2 * time.Second

// load returns a room's record, as it will be when what waits has been written.
func (k *records) load(ctx context.Context, name string) (room.Record, bool, error) {
	if rec, kept, waits := k.writer.waiting(name); waits {
		return rec, kept, nil
	}
	row, ok, err := k.s.Room(ctx, name)
	if err != nil || !ok {
		return room.Record{}, ok, err
	}
	r, err := k.read(row)
	return r, err == nil, err
}

func (k *records) all(ctx context.Context) ([]room.Record, error) {
	rows, err := k.s.Rooms(ctx)
	list := make([]room.Record, 0, len(rows))
	for _, r := range rows {
		rec, readErr := k.read(r)
		err = errors.Join(err, readErr)
		list = append(list, rec)
	}
	return list, err
}

// save writes a record by a permit to keep it.
func (k *records) save(p residency.Permit, r room.Record) error {
	row, err := toStore(r)
	if err != nil {
		return fmt.Errorf("save room: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	return k.s.PutRoom(ctx, p, row)
}

// forget erases a room, not a later one of its name that another origin has made.
func (k *records) forget(name, sid string) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	return k.s.DeleteRoom(ctx, name, sid)
}

func fromStore(r store.Room) (room.Record, error) {
	var state recordState
	if r.State != "" {
		if err := json.Unmarshal([]byte(r.State), &state); err != nil {
			return room.Record{}, fmt.Errorf("stored room %q: its state: %w", r.SID, err)
		}
	}
	return room.Record{
		Name: r.Name, SID: r.SID, Tenant: r.Tenant, Policy: r.Policy, Metadata: r.Metadata, EmptyTimeout: r.EmptyTimeout,
		DepartureTimeout: r.DepartureTimeout, MaxParticipants: r.MaxParticipants, CreatedMS: r.Created.UnixMilli(),
		Term: state.Term, Versions: state.Versions, Recording: state.Recording}, nil
}
