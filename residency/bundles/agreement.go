package bundles

import (
	"maps"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
)

const (
	// fuse is how long a node that holds a newer bundle waits for the others to
	// hold it too. Shorter leaves slow nodes behind, and what flows to them stops
	// until they have caught up. Longer keeps what is forbidden flowing: with the
	// way of the bundle before it, and of the end of the flows after it, the whole
	// change has to be over within a second.
	fuse = 300 * time.Millisecond
	// lead is how long a node that got a bundle from another leaves it to that one
	// to offer it to the rest: the bundle then crosses the mesh n times, not n².
	lead = 150 * time.Millisecond
	// A bundle that a node does not take is offered again after firstAgain, then
	// after twice as long each time, up to lastAgain.
	firstAgain = time.Second
	lastAgain  = 5 * time.Minute
)

// Agreement changes the nodes of a mesh from one bundle to the next at the same
// moment, so that what both permit flows on. Nobody leads it:
//
//	a node that has verified a newer bundle says so to all ("has");
//	it switches when all it is linked with have said so, when one of them has
//	switched, or when the fuse has burnt, and says that it has ("force").
//
// A node that holds the newer bundle counts as deciding by it from the moment in
// which this one switches: it follows as soon as it hears of it. Until then it
// decides by the older one, and this one by the newer, so that only what both
// permit passes between them.
//
// It is not safe for concurrent use.
type Agreement struct {
	force, has Ref
	due        time.Time // when has comes into force at the latest
	offerFrom  time.Time // before that, whoever brought the bundle offers it
	peers      map[residency.NodeName]*peer
}

// peer is a node that this one is linked with.
type peer struct {
	heard   bool // it has stated something
	said    Statement
	offered Ref           // what it was offered last
	again   time.Time     // when it is offered that again
	wait    time.Duration // after the next time
}

// NewAgreement starts with a bundle in force.
func NewAgreement(force Ref) *Agreement {
	return &Agreement{force: force, has: force, peers: map[residency.NodeName]*peer{}}
}

// Statement is what the others are to be told, at each change.
func (a *Agreement) Statement() Statement { return Statement{Force: a.force, Has: a.has} }

// Prepare takes note of a newer bundle that is verified. Mine says that
// it was applied on this node, which has to bring it to the others.
func (a *Agreement) Prepare(now time.Time, r Ref, mine bool) error {
	if err := r.Follows(a.has); err != nil {
		return err
	}
	a.has, a.due, a.offerFrom = r, now.Add(fuse), now
	if !mine {
		a.offerFrom = now.Add(lead)
	}
	return nil
}

// Adopt puts a bundle in force at once, whatever was: at the start, and in tests.
func (a *Agreement) Adopt(r Ref) { a.force, a.has = r, r }

// Join takes note of a link to a node. It counts for nothing until it has spoken.
func (a *Agreement) Join(name residency.NodeName) { a.peers[name] = &peer{wait: firstAgain} }

// Leave takes note of a link's end.
func (a *Agreement) Leave(name residency.NodeName) { delete(a.peers, name) }

// Hear takes note of what a node states.
func (a *Agreement) Hear(name residency.NodeName, s Statement) {
	if p := a.peers[name]; p != nil {
		p.heard, p.said = true, s
	}
}

// Do is what is to be done now.
type Do struct {
	Switch bool                 // the bundle that the node has comes into force
	Offer  []residency.NodeName // who is to be sent it, by name
	Wake   time.Time            // ask again then; zero: when something happens
}

// Next decides what is to be done at now. A switch has been noted when it returns.
func (a *Agreement) Next(now time.Time) Do {
	var do Do
	if a.has != a.force {
		if do.Switch = a.ready(now); do.Switch {
			a.force = a.has
		} else {
			do.wake(a.due)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.peers)) {
		a.offer(&do, name, now)
	}
	return do
}

// wake asks to be asked at t, or before.
func (d *Do) wake(t time.Time) {
	if d.Wake.IsZero() || t.Before(d.Wake) {
		d.Wake = t
	}
}

// ready says whether the newer bundle comes into force.
func (a *Agreement) ready(now time.Time) bool {
	if !now.Before(a.due) {
		return true
	}
	all := true
	for _, p := range a.peers {
		if p.heard && p.said.Force == a.has {
			return true
		}
		all = all && p.heard && p.said.Has == a.has
	}
	return all
}

// offer decides whether a node is to be sent the bundle.
func (a *Agreement) offer(do *Do, name residency.NodeName, now time.Time) {
	p := a.peers[name]
	if !p.heard || p.said.Has.Epoch >= a.has.Epoch {
		return
	}
	from := a.offerFrom
	if p.offered == a.has {
		from = p.again
	} else {
		p.wait = firstAgain
	}
	if now.Before(from) {
		do.wake(from)
		return
	}
	p.offered, p.again = a.has, now.Add(p.wait)
	p.wait = min(2*p.wait, lastAgain)
	do.Offer = append(do.Offer, name)
	do.wake(p.again)
}

// View is what has been agreed on so far. It is immutable.
type View struct {
	Force Ref
	said  map[residency.NodeName]Statement // a zero one of who has not spoken yet
}

// View returns the present state.
func (a *Agreement) View() View {
	v := View{Force: a.force, said: make(map[residency.NodeName]Statement, len(a.peers))}
	for name, p := range a.peers {
		v.said[name] = p.said
	}
	return v
}

// Statement returns what a node has stated, and whether there is a link to it.
func (v View) Statement(name residency.NodeName) (Statement, bool) {
	s, ok := v.said[name]
	return s, ok
}

// Epoch is the policy epoch by which a node counts as deciding. Without a link to it,
// that is what gossip has; nothing can be sent to it then. A node with another
// bundle of the same epoch has none that counts.
func (v View) Epoch(name residency.NodeName, gossip residency.Epoch) residency.Epoch {
	s, linked := v.said[name]
	switch {
	case !linked:
		return gossip
	case s.Force == v.Force:
		return v.Force.Epoch
	case s.Has == v.Force && s.Force.Epoch < v.Force.Epoch: // it is about to follow
		return v.Force.Epoch
	case s.Force.Epoch == v.Force.Epoch:
		return 0
	}
	return s.Force.Epoch
}

// Statements are what all nodes have stated that this one is linked with.
func (v View) Statements() map[residency.NodeName]Statement { return maps.Clone(v.said) }

// Equal reports whether two views say the same.
func (v View) Equal(o View) bool { return v.Force == o.Force && maps.Equal(v.said, o.said) }

// Conflicts names the nodes that have another bundle of the same epoch.
func (v View) Conflicts() (names []residency.NodeName) {
	for name, s := range v.said {
		if s.Force.Epoch == v.Force.Epoch && s.Force != v.Force {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
