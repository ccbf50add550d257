package node

import (
	"math"
	"sync"
)

// sessions counts the attendees' connections that are being served.
type sessions struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

// begin reports whether one more may be served; end must follow if so.
func (s *sessions) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.wg.Add(1)
	return true
}

func (s *sessions) end() { s.wg.Done() }

// close lets no further one begin and waits for the others.
func (s *sessions) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.wg.Wait()
}

// maxGraves bounds what a node remembers of deleted rooms: those that a node
// which was cut off may still take to be alive.
const maxGraves = 4096

// graveyard remembers the last deleted rooms by their sid.
type graveyard struct {
	mu   sync.Mutex
	sids map[string]uint64 // and the last of their terms
	ring []string
	next int
}

func (g *graveyard) add(sid string) { g.addTerm(sid, math.MaxUint64) }

// addTerm remembers a room that was over in a term of its home's: on another side of a
// torn mesh it may go on in a later one.
func (g *graveyard) addTerm(sid string, term uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sids == nil {
		g.sids = map[string]uint64{}
	}
	if old, known := g.sids[sid]; known {
		g.sids[sid] = max(old, term)
		return
	}
	g.sids[sid] = term
	if len(g.ring) < maxGraves {
		g.ring = append(g.ring, sid)
		return
	}
	delete(g.sids, g.ring[g.next])
	g.ring[g.next] = sid
	g.next = (g.next + 1) % maxGraves
}

func (g *graveyard) has(sid string, term uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.sids[sid]
	return known && term <= last
}
