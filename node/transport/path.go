package transport

import (
	"sync/atomic"
	"time"
)

// path is a way on which a client has proved itself with a check: a 5-tuple of its
// own, or a tunnel. All that the batch and the workers ask of it is where to send
// and whose it is.
type path struct {
	// Static after construction.
	group  *group // nil for streams
	name   sockname
	tunnel *Tunnel // nil: directly

	conn  atomic.Pointer[Conn] // nil: the path is no more
	plain atomic.Bool          // the way to this client takes no segmentation
	heard atomic.Int64         // when something authenticated came, in ns of Unix time

	// Guarded by Conn.mu.
	era     uint32 // of the credentials of the last check
	checked int64  // when that was
}

// takeoverAfter is the silence after which a 5-tuple that another connection has
// is given to one that proves itself on it. Somebody with a session of his own who
// forges a participant's address cannot take a living path with it, and a NAT that
// gives a port again has been silent for longer.
const takeoverAfter = 5 * time.Second

// maxPaths bounds the 5-tuples of a connection. A client with four interfaces and
// two addresses of ours has eight; restarts double that for a moment.
const maxPaths = 16

// pathLife is how long a path that is not selected lives without a check: clients
// keep their second network warm with one every 15 to 30 s.
const pathLife = time.Minute

// tableKey is a way: one of our addresses and the client's, or a tunnel.
type tableKey struct {
	group  *group
	name   sockname
	tunnel *Tunnel
}

func (p *path) key() tableKey { return tableKey{p.group, p.name, p.tunnel} }

// lookup finds the path of a 5-tuple.
func (e *Engine) lookup(g *group, name *sockname) *path {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.table[tableKey{group: g, name: *name}]
}

// claim gives a way to a connection, unless another lives on it.
func (e *Engine) claim(c *Conn, key tableKey, now time.Time) *path {
	e.mu.Lock()
	defer e.mu.Unlock()
	if key.tunnel != nil && key.tunnel.closed.Load() {
		return nil
	}
	if _, ok := e.conns[c]; !ok {
		return nil // closed meanwhile
	}
	if old := e.table[key]; old != nil && old.conn.Load() != c {
		if now.UnixNano()-old.heard.Load() < int64(takeoverAfter) {
			return nil
		}
		old.conn.Store(nil)
		e.gone.Add(1)
	}
	p := &path{group: key.group, name: key.name, tunnel: key.tunnel}
	p.conn.Store(c)
	e.table[key] = p
	if p.tunnel != nil {
		p.tunnel.path.Store(p)
	}
	return p
}

// forget takes a path from the table. Workers find its connection gone.
func (e *Engine) forget(p *path) {
	key := p.key()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.table[key] == p {
		delete(e.table, key)
	}
	p.conn.Store(nil)
	e.gone.Add(1)
}

// full tells that media should be dropped before it is sealed.
func (p *path) full() bool { return p.tunnel != nil && p.tunnel.full() }
