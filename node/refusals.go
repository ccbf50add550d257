package node

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router/explain"
)

// Who was refused lately, and why: so that an operator can be told what a person
// was told. It is in memory alone, for half an hour, and without names: rooms and
// people stand under a hash with a key that this process makes up and forgets. Who
// asks has to know both names; nobody can list them. Addresses are never in it.
const (
	refusalMemory = 30 * time.Minute
	// maxRefusedRooms and maxRefusedIn bound it, at some 300 bytes each: the oldest goes.
	maxRefusedRooms = 1024
	maxRefusedIn    = 64
)

type hashed [sha256.Size]byte

// refusals is that memory.
type refusals struct {
	mu    sync.Mutex
	key   []byte
	rooms map[hashed][]refusedOne // oldest first
}

type refusedOne struct {
	who hashed
	is  explain.Refusal
}

// hash is what a name stands under; mu is held.
func (m *refusals) hash(kind, name string) hashed {
	if m.key == nil {
		m.key = make([]byte, sha256.Size)
		rand.Read(m.key) // never fails
		m.rooms = map[hashed][]refusedOne{}
	}
	h := hmac.New(sha256.New, m.key)
	h.Write([]byte(kind + "\x00" + name))
	return hashed(h.Sum(nil))
}

// note remembers a refusal; a person's newer one replaces the older.
func (m *refusals) note(room, identity string, r explain.Refusal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, who := m.hash("room", room), m.hash("person", identity)
	list := fresh(m.rooms[at], r.At, who)
	if len(list) >= maxRefusedIn {
		list = list[1:]
	}
	if len(list) == 0 && len(m.rooms) >= maxRefusedRooms {
		m.drop(r.At)
	}
	m.rooms[at] = append(list, refusedOne{who, r})
}

// fresh leaves out what is too old, and what was said to somebody.
func fresh(list []refusedOne, now time.Time, but hashed) (left []refusedOne) {
	for _, x := range list {
		if now.Sub(x.is.At) < refusalMemory && x.who != but {
			left = append(left, x)
		}
	}
	return left
}

// drop forgets the rooms whose last refusal is too old, or else the oldest room.
func (m *refusals) drop(now time.Time) {
	var oldest hashed
	var since time.Time
	for at, list := range m.rooms {
		last := list[len(list)-1].is.At
		switch {
		case now.Sub(last) >= refusalMemory:
			delete(m.rooms, at)
		case since.IsZero() || last.Before(since):
			oldest, since = at, last
		}
	}
	if len(m.rooms) >= maxRefusedRooms {
		delete(m.rooms, oldest)
	}
}

// of returns the refusals of a room that are not forgotten: everybody's, or one person's.
func (m *refusals) of(room, identity string, now time.Time) (list []explain.Refusal) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, who := m.hash("room", room), m.hash("person", identity)
	for _, x := range fresh(m.rooms[at], now, hashed{}) {
		if identity == "" || x.who == who {
			list = append(list, x.is)
		}
	}
	return list
}

// remember notes what somebody was told instead of being let in. The room's name is
// taken out of the words.
func (n *Node) remember(room, identity string, err error) {
	r := asRefusal(err)
	if identity == "" || r.Code == CodeInternal || r.Code == CodeNotFound || r.Code == CodeInvalid {
		return
	}
	told := explain.Refusal{At: n.now(), Node: n.self().Name, Rule: r.Rule, Hint: r.Hint,
		Reason: strings.ReplaceAll(r.Message, fmt.Sprintf("room %q", room), "the room")}
	if told.Rule == "" {
		told.Rule = r.Code
	}
	if r.Use != nil {
		told.Use = r.Use.Node
	}
	n.refusals.note(room, identity, told)
}

// sentAway notes why somebody who was in a room here is not any more.
func (n *Node) sentAway(room, identity string, v residency.Verdict) {
	n.refusals.note(room, identity, explain.Refusal{At: n.now(), Node: n.self().Name, Rule: v.Rule, Reason: v.Reason, Hint: v.Hint})
}
