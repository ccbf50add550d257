package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/domicile/domicile/node/orders"
	"github.com/domicile/domicile/node/owed"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// Every origin sweeps its own disk: what the policies' times or an order say has to go
// goes, unless a hold keeps it. The sweep remembers nothing but the orders: it looks
// at what lies there, so it does after a restart, or on a disk that was restored from
// a backup, what it would have done before.

const (
	// sweepEvery is how often the disk is looked at without an order: times of
	// retention are hours and more.
	sweepEvery = time.Minute
	// sweepAgain is how soon what could not be erased yet is tried again: a recording
	// that is being ended takes some 100 ms to be complete. What fails again and again
	// is tried after twice as long each time, up to sweepEvery.
	sweepAgain = 300 * time.Millisecond
	// maxWithdrawn bounds the withdrawals that wait for the disk.
	maxWithdrawn = 10_000
)

// source is a place where an origin keeps things.
type source interface {
	// objects lists them; with people, also whose data each has.
	objects(ctx context.Context, people bool) ([]retention.Object, error)
	// erase erases what the verdicts say, all of one source, and returns what went.
	// What cannot go yet is an error, and tried again.
	erase(ctx context.Context, due []retention.Verdict) ([]gone, error)
}

// gone is something that was erased.
type gone struct {
	retention.Verdict
	bytes int64
}

// retaining is the part of an origin that erases.
type retaining struct {
	book *orders.Book // nil unless the node is an origin
	owed *owed.Book   // likewise: what goes now, until its receipts are written
	wake chan struct{}

	sweeping sync.Mutex // held by whoever sweeps
	erasing  sync.Mutex // held while one thing is erased, by orders that were all there before

	mu        sync.Mutex
	swept     map[string]OrderState // by order: what the last sweep left, and all that went since the start
	withdrawn []retention.Order     // that are not on the disk yet
	tally     sweepTally
	told      map[residency.NodeName]told
}

// OrderState is how far an order is on one origin.
type OrderState struct {
	Swept   bool  `json:"swept"`   // the disk was looked at since the order came
	Objects int   `json:"objects"` // that went by it since the node started
	Bytes   int64 `json:"bytes"`
	// Unreadable are those of Objects that could not be read: nobody can tell whose they were.
	Unreadable int      `json:"unreadable,omitempty"`
	Left       int      `json:"left"` // that have to go and are still there
	Kept       int      `json:"kept"` // that are held
	Holds      []string `json:"holds,omitempty"`
	Why        string   `json:"why,omitempty"` // something is left
}

func (n *Node) openOrders() (err error) {
	k := &n.retaining
	k.wake, k.swept, k.told = make(chan struct{}, 1), map[string]OrderState{}, map[residency.NodeName]told{}
	if n.store != nil {
		k.book, err = orders.Open(filepath.Join(n.cfg.DataDir, "orders"))
	}
	return err
}

func (k *retaining) nudge() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// runRetention sweeps until ctx ends.
func (n *Node) runRetention(ctx context.Context) error {
	if n.retaining.book == nil {
		return nil
	}
	again := time.NewTimer(0)
	defer again.Stop()
	for next, left := time.Duration(0), 0; ; {
		select {
		case <-again.C:
		case <-n.retaining.wake:
			next = 0
		case <-ctx.Done():
			return nil
		}
		n.writeWithdrawals()
		before := left
		left = n.sweep(ctx)
		next = sweepNext(next, left, left < before)
		again.Reset(next)
	}
}

// sweepNext is how soon the disk is looked at again, after the last pause.
func sweepNext(last time.Duration, left int, progress bool) time.Duration {
	switch {
	case left == 0:
		return sweepEvery
	case progress || last == 0 || last == sweepEvery:
		return sweepAgain
	}
	return min(2*last, sweepEvery-1) // less, so that it is known for a pause after a failure
}

// sources are the places, those first whose things may have something of everybody.
func (n *Node) sources() []source {
	var list []source
	if n.exports != nil {
		list = append(list, exportFiles{n})
	}
	list = append(list, recordings{n}, n.chatFiles())
	for _, l := range n.lists.all() {
		if l.vault != nil {
			list = append(list, n.listFiles(l))
		}
	}
	list = append(list, egressFiles{n}, hookFiles{n}, roomRecords{n})
	if n.testimony.keys != nil {
		list = append(list, keyFiles{n})
	}
	return list
}

// sweep erases what has to go, and returns how much is left of it.
func (n *Node) sweep(ctx context.Context) (left int) {
	n.retaining.sweeping.Lock()
	defer n.retaining.sweeping.Unlock()
	version := n.retaining.book.Version()
	list := n.retaining.book.All()
	notes := n.retaining.owed.Notes()
	people := len(notes) > 0 || slices.ContainsFunc(list, func(o retention.Order) bool { return o.Participant != "" && o.InForce() })
	states := map[string]OrderState{}
	n.endRooms(ctx, list, states)
	var objects []retention.Object
	sources := n.sources()
	whose := make([]map[string]bool, len(sources))
	for i, s := range sources {
		found, err := s.objects(ctx, people)
		if err != nil {
			n.log.Error("reading what is kept", "error", err)
			noteUnread(states, list, err)
			left++
		}
		whose[i] = map[string]bool{}
		for _, x := range found {
			whose[i][string(x.Kind)+"/"+x.ID] = true
		}
		objects = append(objects, found...)
	}
	verdicts := retention.Judge(objects, list, n.policyOf, n.now())
	if len(notes) > 0 && left == 0 { // all is read
		n.findOwed(objects, verdicts)
	}
	n.retaining.counts(func(t *sweepTally) { t.begins(n.now()) })
	for i, s := range sources {
		var due []retention.Verdict
		for _, v := range verdicts {
			if !whose[i][string(v.Kind)+"/"+v.ID] {
				continue
			}
			if v.Erase {
				due = append(due, v)
			} else {
				noteHeld(states, v)
				n.retaining.counts(func(t *sweepTally) { t.held++ })
			}
		}
		if len(due) == 0 {
			continue
		}
		note := n.owe(due)
		went, err := n.eraseDue(ctx, s, due, version)
		for _, g := range went {
			noteGone(states, g)
		}
		if err != nil {
			left += len(due) - len(went)
			noteLeft(states, due, went, err)
			failed := !errors.Is(err, vault.ErrBusy) && !errors.Is(err, errNews) // else it is only not yet
			n.retaining.counts(func(t *sweepTally) { t.stays(due, went, failed) })
			if failed {
				n.log.Error("erasing what has to go", "error", err)
			}
		}
		n.wentBy(note, went)
	}
	n.sweptBy(list, states, left)
	return left
}

// errNews ends a sweep that was judged by other orders than there are now.
var errNews = errors.New("there are new orders: it is looked at again")

// eraseDue erases what a source has to lose, thing by thing. It ends as soon as there is
// a new order: a hold that somebody has been told is set holds from then on.
func (n *Node) eraseDue(ctx context.Context, s source, due []retention.Verdict, version int) (went []gone, err error) {
	k := &n.retaining
	one := func(due []retention.Verdict) ([]gone, error) {
		k.erasing.Lock()
		defer k.erasing.Unlock()
		if k.book.Version() != version {
			k.nudge()
			return nil, errNews
		}
		return s.erase(ctx, due)
	}
	for len(due) > 0 {
		end := 1
		for end < len(due) && due[end].ID == due[0].ID { // the parts of one thing
			end++
		}
		gone, failed := one(due[:end])
		went, err = append(went, gone...), errors.Join(err, failed)
		if errors.Is(failed, errNews) {
			break
		}
		due = due[end:]
	}
	return went, err
}

// noteUnread says of every erasure that it may not be complete: nobody knows what there
// is of it. That of a recording knows what it is about, if the others are listed.
func noteUnread(states map[string]OrderState, list []retention.Order, err error) {
	var bad unreadables
	listed := errors.As(err, &bad)
	for _, o := range list {
		if o.Kind == retention.Erasure && !(listed && o.Recording != "") {
			s := states[o.ID]
			if s.Left++; s.Why != "" {
				s.Why += "; "
			}
			s.Why += "not all that is kept can be read: " + err.Error()
			states[o.ID] = s
		}
	}
}

func noteHeld(states map[string]OrderState, v retention.Verdict) {
	for _, id := range v.Orders {
		s := states[id]
		s.Kept++
		for _, h := range v.Held {
			if !slices.Contains(s.Holds, h) {
				s.Holds = append(s.Holds, h)
			}
		}
		states[id] = s
	}
}

func noteGone(states map[string]OrderState, g gone) {
	for _, id := range g.Orders {
		s := states[id]
		s.Objects, s.Bytes = s.Objects+1, s.Bytes+g.bytes
		if g.Unknown {
			s.Unreadable++
		}
		states[id] = s
	}
}

func noteLeft(states map[string]OrderState, due []retention.Verdict, went []gone, err error) {
	for _, v := range due {
		if isGone(went, v) {
			continue
		}
		for _, id := range v.Orders {
			s := states[id]
			s.Left++
			s.Why = err.Error()
			states[id] = s
		}
	}
}

func isGone(went []gone, v retention.Verdict) bool {
	return slices.ContainsFunc(went, func(g gone) bool { return g.ID == v.ID && g.Part == v.Part && g.Kind == v.Kind })
}

func (k *retaining) counts(what func(*sweepTally)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	what(&k.tally)
}

// sweptBy notes how far each order is.
func (n *Node) sweptBy(list []retention.Order, states map[string]OrderState, left int) {
	k := &n.retaining
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, o := range list {
		s, before := states[o.ID], k.swept[o.ID]
		s.Swept, s.Objects, s.Bytes = true, s.Objects+before.Objects, s.Bytes+before.Bytes
		s.Unreadable += before.Unreadable
		if o.Kind == retention.Erasure && o.Participant == "" && n.livesOn(o) {
			s.Left, s.Why = s.Left+1, "the room is being ended"
		}
		k.swept[o.ID] = s
	}
}

// state is how far an order is here.
func (k *retaining) state(id string) OrderState {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.swept[id]
}

func (n *Node) policyOf(x retention.Object) *residency.Policy {
	p, err := n.gate().Bundle().PolicyFor(x.Tenant, x.Policy)
	if err != nil {
		p, err = n.gate().Bundle().Policy(x.Policy) // of a tenant that is gone
	}
	if err != nil || x.Policy == "" {
		return nil // nobody says for how long
	}
	return p
}

// covers reports whether an erasure is about a room as it is now.
func covers(o retention.Order, rec room.Record) bool {
	return o.Kind == retention.Erasure && len(o.Only) == 0 && rec.CreatedMS < o.BeforeMS &&
		o.Covers(retention.Subject{Tenant: rec.Tenant, Room: rec.Name})
}

// livesOn reports whether a room that has to go is still there: where nobody is and that
// is not its home, it is an empty shell in memory.
func (n *Node) livesOn(o retention.Order) bool {
	return slices.ContainsFunc(n.rooms.all(), func(r *room.Room) bool {
		snap := r.Snapshot()
		rec := snap.Record
		return !snap.Ended && (len(snap.Participants) > 0 || n.home(rec) == n.self().Name) && covers(o, rec) && len(n.held(retention.Subject{Tenant: rec.Tenant, Room: rec.Name})) == 0
	})
}

// endRooms ends the rooms that have to go, where this node is their home, and sends
// away those of whom nothing is to be left.
func (n *Node) endRooms(ctx context.Context, list []retention.Order, states map[string]OrderState) {
	for _, r := range n.rooms.all() {
		snap := r.Snapshot()
		rec := snap.Record
		if snap.Ended || n.home(rec) != n.self().Name {
			continue
		}
		for _, o := range list {
			if covers(o, rec) && o.Participant == "" && len(n.held(retention.Subject{Tenant: rec.Tenant, Room: rec.Name})) == 0 {
				v := retention.Verdict{Object: retention.Object{ID: rec.SID, Kind: residency.KeptMetadata, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy,
					Began: time.UnixMilli(rec.CreatedMS), Size: int64(len(rec.Name) + len(rec.Metadata))}, Erase: true, Rule: o.Rule, Orders: []string{o.ID}}
				note := n.owe([]retention.Verdict{v})
				if err := n.deleteRoom(ctx, rec); err != nil {
					n.log.Error("ending a room that has to go", "room", rec.SID, "error", err)
					n.wentBy(note, nil)
					break
				}
				g := gone{v, v.Size}
				noteGone(states, g)
				n.wentBy(note, []gone{g})
				break
			}
			if o.Kind != retention.Erasure || o.Rule != retention.RuleErasure || o.Participant == "" {
				continue
			}
			for _, p := range snap.Participants {
				if o.Covers(retention.Subject{Tenant: rec.Tenant, Room: rec.Name, Participant: p.Identity}) && p.JoinedAtMs < o.BeforeMS {
					_, err := n.command(ctx, n.whereIs(rec, p.Identity), rec, command{Op: opRemove, Room: rec.Name, Identity: p.Identity})
					if err != nil {
						n.log.Error("sending away a participant whose data has to go", "room", rec.SID, "error", err)
					}
				}
			}
		}
	}
}

// erasedRoom reports whether a room's record is one of those that have to go.
func (n *Node) erasedRoom(rec room.Record) bool {
	if n.retaining.book == nil {
		return false
	}
	return slices.ContainsFunc(n.retaining.book.All(), func(o retention.Order) bool { return o.Participant == "" && covers(o, rec) })
}

// withdraws has what was recorded of a participant in a room erased everywhere. It is
// called by rooms and does not wait.
func (n *Node) withdraws(rec room.Record, identity string) {
	k := &n.retaining
	if k.book == nil {
		return // only origins record
	}
	o := newOrder(retention.Erasure, retention.Subject{Tenant: rec.Tenant, Room: rec.Name, Participant: identity, NoTenant: rec.Tenant == ""}, n.now())
	o.Rule, o.Only = retention.RuleWithdrawal, []residency.Kept{residency.KeptRecording}
	k.mu.Lock()
	full := len(k.withdrawn) >= maxWithdrawn
	if !full {
		k.withdrawn = append(k.withdrawn, o)
	}
	k.mu.Unlock()
	if full {
		n.log.Error("what somebody who took back their consent wants erased is not: too many wait for the disk", "room", rec.SID)
	}
	k.nudge()
}

func (n *Node) writeWithdrawals() {
	k := &n.retaining
	k.mu.Lock()
	list := k.withdrawn
	k.withdrawn = nil
	k.mu.Unlock()
	for i, o := range list {
		if _, err := k.book.Add(o, n.now()); err != nil {
			n.log.Error("a withdrawal is not on the disk yet", "error", err)
			k.mu.Lock()
			k.withdrawn = append(list[i:], k.withdrawn...)
			k.mu.Unlock()
			return
		}
	}
}

func newOrder(k retention.Kind, s retention.Subject, at time.Time) retention.Order {
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand)
	return retention.New(k, s, rand.Text()[:16], salt, at)
}

// held reports the holds in force on what is kept of a room, as far as this origin knows.
func (n *Node) held(s retention.Subject) (ids []string) {
	if n.retaining.book == nil {
		return nil
	}
	for _, o := range n.retaining.book.All() {
		if o.Kind == retention.Hold && o.InForce() && o.Covers(s) {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

// holdsAnything reports whether there is a hold in force: it may be on what nobody can read.
func (n *Node) holdsAnything() bool {
	return n.retaining.book != nil && slices.ContainsFunc(n.retaining.book.All(), func(o retention.Order) bool { return o.Kind == retention.Hold && o.InForce() })
}

var errNoBook = fmt.Errorf("this node is no origin and keeps nothing: ask one")
