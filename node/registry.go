package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/domicile/domicile/node/room"
)

// maxRooms bounds the rooms of a node: each has a goroutine and a clock.
const maxRooms = 10_000

// registry holds the rooms that live on this node and the goroutines that run them.
type registry struct {
	deps func() room.Deps

	mu     sync.Mutex
	ctx    context.Context // of Node.Run
	rooms  map[string]*room.Room
	wg     sync.WaitGroup
	closed bool
}

// get returns the live room of a name, nil if there is none. A room that has
// ended and is still writing its recording is none.
func (g *registry) get(name string) *room.Room {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.rooms[name]; r != nil && !r.Snapshot().Ended {
		return r
	}
	return nil
}

// all returns the live rooms.
func (g *registry) all() []*room.Room {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Values(g.rooms))
}

// ensure returns the live room of a record, starting it if need be.
func (g *registry) ensure(rec room.Record) (*room.Room, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.rooms[rec.Name]; r != nil && !r.Snapshot().Ended {
		return r, nil
	}
	if g.closed {
		return nil, room.ErrClosed
	}
	if len(g.rooms) >= maxRooms {
		return nil, fmt.Errorf("this node has %d rooms and takes no more", len(g.rooms))
	}
	r := room.New(rec, g.deps())
	g.rooms[rec.Name] = r
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		r.Run(g.ctx)
		g.mu.Lock()
		if g.rooms[rec.Name] == r {
			delete(g.rooms, rec.Name)
		}
		g.mu.Unlock()
	}()
	return r, nil
}

// close lets no further room start and waits for the others, which end with
// the context.
func (g *registry) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
