package relay

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
)

// What goes from one node to another is counted at both ends, by accounts: one
// for each room, class, policy, rule and version of the policies. A packet is
// counted once, in the counters of its track; an account is the sum of its
// tracks and of its messages, added up when somebody asks.
//
//	sender                                receiver
//	OpenTrack ── ACCOUNT, TRACK ────────► alias → account
//	Send, Request ── number in each ────► message → account
//	every second ── TALLY ──────────────► sent so far; what did not arrive is lost
//	CloseAccounts ── TALLY, final ──────► nothing follows
//
// Accounts belong to the peer and not to the link, so that they go on when a
// link is lost and comes back.

const (
	// tallyBeats is how many heartbeats lie between two tallies of an account
	// whose count has changed: one second, so that what was lost is known soon
	// and a tally costs nothing beside what it counts.
	tallyBeats = 5
	// maxAccounts bounds the accounts that one peer may open with this node: 10,000
	// rooms, three classes, and a change of policy that has not been settled.
	maxAccounts = 64 << 10
	// maxAliases bounds the tracks of one peer that are open at once.
	maxAliases = 64 << 10
	// closeWait is how long a closed account waits for what is under way, and for a
	// link on which the peer can be told: longer than a request may take.
	closeWait = 15 * time.Second
)

// Account is what went one way between this node and a peer, of one room and
// class, under one permit's rule. Figures only rise.
type Account struct {
	ID      AccountID
	Serial  string // of the peer's certificate, hexadecimal
	Room    string
	Class   residency.Class
	Tenant  string          // of the sender's permit; inbound: not known to relay
	Policy  string          // likewise
	Rule    string          // likewise
	Epoch   residency.Epoch // under which it was sent; inbound: 0 until the peer has said so
	Packets uint64          // RTP packets and messages
	Bytes   uint64          // of RTP and of messages' bodies

	// What the peer says it has sent, of an inbound account. It lags behind by
	// up to a second; once Final, it is all that was sent.
	ToldPackets, ToldBytes uint64

	// Final says that the sender counts no more. Of an inbound account a little
	// may still be on its way.
	Final bool
}

// AccountID is unique among the accounts of a Fabric.
type AccountID struct {
	Peer    residency.NodeName
	Number  uint64
	Inbound bool // the peer sent it
}

// accountKey is what the sender tells accounts apart by.
type accountKey struct {
	room, tenant, policy, rule string
	class                      residency.Class
	epoch                      residency.Epoch
	serial                     string // of the peer's certificate
}

// account is one end of an Account.
type account struct {
	// Static.
	id AccountID

	// Of messages, and of tracks that have ended.
	packets, bytes atomic.Uint64
	uses           atomic.Int32 // outbound: open tracks, and messages on their way out

	// Guarded by the book's mu.
	key        accountKey // inbound: room and class, and the epoch once it is told
	told       wire.Tally // inbound: the peer's last; outbound: the last to the peer, on toldOn
	toldOn     *Link
	introduced *Link     // on which the peer was told what the number stands for
	closed     time.Time // outbound: when it was closed
}

// release says that a track or message that openAccount was called for is counted.
func (a *account) release() { a.uses.Add(-1) }

func (a *account) count(bytes int) {
	a.packets.Add(1)
	a.bytes.Add(uint64(bytes))
}

// book holds the accounts with one peer, over all links to it.
type book struct {
	mu   sync.Mutex
	out  map[uint64]*account
	open map[accountKey]*account // those of out that are not closed
	in   map[uint64]*account
}

func newBook() *book {
	return &book{out: map[uint64]*account{}, open: map[accountKey]*account{}, in: map[uint64]*account{}}
}

func (f *Fabric) book(peer residency.NodeName) *book {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.books[peer]
	if b == nil {
		b = newBook()
		f.books[peer] = b
	}
	return b
}

// firstAccount is where a process begins to number, so that a node that was
// started anew does not use its old numbers again.
func firstAccount() uint64 { return rand.Uint64() >> 1 }

// account returns the account under which the bytes of a permit are counted, and
// tells the peer of it before anything else on this link refers to it. Whoever has
// got it releases it.
func (l *Link) account(p residency.Permit) (*account, error) {
	a, known, err := l.openAccount(p)
	if err != nil || known {
		return a, err
	}
	v := p.Verdict()
	err = l.enqueue(outgoing{permit: p, account: a, envelope: wire.AppendAccount(nil,
		wire.Account{Number: a.id.Number, Epoch: uint64(v.Epoch), Class: string(v.Class), Room: p.Room()})})
	if err != nil {
		a.release()
		l.unintroduce(a)
	}
	return a, err
}

func (l *Link) openAccount(p residency.Permit) (a *account, known bool, err error) {
	v := p.Verdict()
	key := accountKey{room: p.Room(), tenant: v.Tenant, policy: v.Policy, rule: v.Rule, class: v.Class, epoch: v.Epoch, serial: v.Serial}
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	if a = l.book.open[key]; a == nil {
		if len(l.book.out) >= maxAccounts {
			return nil, false, fmt.Errorf("relay: send to node %q: %d accounts are open", l.peer.Name, maxAccounts)
		}
		id := AccountID{Peer: l.peer.Name, Number: l.f.lastAccount.Add(1)}
		a = &account{id: id, key: key}
		l.book.out[id.Number], l.book.open[key] = a, a
	}
	a.uses.Add(1)
	known = a.introduced == l
	a.introduced = l
	return a, known, nil
}

// unintroduce has the peer told once more what an account is.
func (l *Link) unintroduce(a *account) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	if a.introduced == l {
		a.introduced = nil
	}
}

// inbound returns the peer's account of a number, a new one if need be: a request
// may overtake the ACCOUNT that says what it is.
func (l *Link) inbound(number uint64, class residency.Class, room string) (*account, error) {
	if number == 0 {
		return nil, protocolError(fmt.Errorf("data under account 0"))
	}
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	a := l.book.in[number]
	switch {
	case a == nil && len(l.book.in) >= maxAccounts:
		return nil, protocolError(fmt.Errorf("more than %d accounts", maxAccounts))
	case a == nil:
		a = &account{id: AccountID{l.peer.Name, number, true}, key: accountKey{class: class, room: room, serial: l.Peer().Serial}}
		l.book.in[number] = a
	case a.key.class != class || a.key.room != room:
		return nil, protocolError(fmt.Errorf("account %d is of another room or class", number))
	}
	return a, nil
}

// countReceived counts a message, request or reply of the peer's.
func (l *Link) countReceived(number uint64, class residency.Class, room string, bytes int) error {
	a, err := l.inbound(number, class, room)
	if err == nil {
		a.count(bytes)
	}
	return err
}

// takeAccount handles an ACCOUNT.
func (l *Link) takeAccount(w wire.Account) error {
	a, err := l.inbound(w.Number, residency.Class(w.Class), w.Room)
	if err != nil {
		return err
	}
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	if e := a.key.epoch; e != 0 && e != residency.Epoch(w.Epoch) {
		return protocolError(fmt.Errorf("account %d is of epoch %d, then of %d", w.Number, e, w.Epoch))
	}
	a.key.epoch = residency.Epoch(w.Epoch)
	return nil
}

// takeTally handles a TALLY. Figures do not fall: a peer that takes something
// back is not one of ours.
func (l *Link) takeTally(w wire.Tally) error {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	a := l.book.in[w.Account]
	switch {
	case a == nil: // settled and forgotten here
	case w.Packets < a.told.Packets || w.Bytes < a.told.Bytes || a.told.Final && !w.Final:
		return protocolError(fmt.Errorf("tally of account %d falls", w.Account))
	default:
		a.told = w
	}
	return nil
}

// takeTrack handles a TRACK.
func (l *Link) takeTrack(w wire.Track) error {
	if w.Account == 0 {
		l.receiver.endAlias(l, w.Alias)
		return nil
	}
	l.book.mu.Lock()
	a := l.book.in[w.Account]
	l.book.mu.Unlock()
	if a == nil {
		return protocolError(fmt.Errorf("track %d under account %d, which is not open", w.Alias, w.Account))
	}
	return l.receiver.nameAlias(l, w.Alias, a)
}

// figures are a count being added up.
type figures struct{ packets, bytes uint64 }

// tally tells the peer of every account whose count has changed. It never waits:
// what does not fit is told the next time.
func (l *Link) tally() {
	sums := make(map[*account]figures)
	l.book.mu.Lock()
	for _, a := range l.book.out {
		if a.introduced == l || !a.closed.IsZero() {
			sums[a] = figures{a.packets.Load(), a.bytes.Load()}
		}
	}
	l.book.mu.Unlock()
	l.addTracks(sums)
	for a, s := range sums {
		if w, news := l.untold(a, s); news {
			if !l.outbox.offer(outgoing{tally: true, envelope: wire.AppendTally(nil, w)}) {
				return
			}
			l.tellTally(a, w)
		}
	}
}

// untold is what the peer is to be told of an account, if it does not know yet.
func (l *Link) untold(a *account, s figures) (w wire.Tally, news bool) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	w = wire.Tally{Account: a.id.Number, Packets: s.packets, Bytes: s.bytes}
	if w.Packets < a.told.Packets || w.Bytes < a.told.Bytes {
		return w, false // a track that ends right now is in neither count
	}
	if w.Final = a.final(time.Now()); w.Final { // what its last track has counted is in the account by now
		w.Packets, w.Bytes = a.packets.Load(), a.bytes.Load()
	}
	return w, a.toldOn != l || w != a.told
}

func (l *Link) tellTally(a *account, w wire.Tally) {
	l.book.mu.Lock()
	defer l.book.mu.Unlock()
	a.toldOn, a.told = l, w
}

// unhanded is what the track has counted and not handed to its account; the
// link's mu is held.
func (t *Track) unhanded() figures {
	return figures{t.count.txPackets.Load() - t.handed.packets, t.count.txBytes.Load() - t.handed.bytes}
}

// hand adds to the account what the track has counted; the link's mu is held.
func (t *Track) hand() {
	n := t.unhanded()
	t.handed.add(n)
	t.account.add(n)
}

// recount has the track counted under another permit's account from now on. What
// is under way may end up in either at the two ends; no packet is counted twice
// or left out.
func (t *Track) recount(p residency.Permit) error {
	a, err := t.l.account(p)
	if err != nil {
		return err
	}
	t.l.mu.Lock()
	same := t.account == a
	old := t.account
	if !same {
		t.hand()
		t.account = a
	}
	t.l.mu.Unlock()
	old.release() // of two uses by one track, if it is the same
	if same {
		return nil
	}
	return t.l.enqueue(outgoing{permit: p, account: a, envelope: wire.AppendTrack(nil, wire.Track{Alias: t.alias, Account: a.id.Number})})
}

// unhanded is what a binding has counted and not handed to its account; the
// receiver's mu is held.
func (b *binding) unhanded() figures {
	return figures{b.count.rxPackets.Load() - b.handed.packets, b.count.rxBytes.Load() - b.handed.bytes}
}

func (b *binding) hand(a *account) {
	n := b.unhanded()
	b.handed.add(n)
	a.add(n)
}

func (f *figures) add(n figures) { f.packets, f.bytes = f.packets+n.packets, f.bytes+n.bytes }

func (a *account) add(n figures) {
	a.packets.Add(n.packets)
	a.bytes.Add(n.bytes)
}

// addTracks adds what the tracks of the link have counted and not handed over yet.
func (l *Link) addTracks(sums map[*account]figures) {
	l.mu.Lock()
	for _, t := range l.tracks {
		if s, ok := sums[t.account]; ok {
			n := t.unhanded()
			sums[t.account] = figures{s.packets + n.packets, s.bytes + n.bytes}
		}
	}
	l.mu.Unlock()
	l.receiver.mu.Lock()
	defer l.receiver.mu.Unlock()
	for alias, b := range *l.receiver.bound.Load() {
		a := l.receiver.aliases[alias]
		if s, ok := sums[a]; ok {
			n := b.unhanded()
			sums[a] = figures{s.packets + n.packets, s.bytes + n.bytes}
		}
	}
}

// Accounts returns all accounts that have not been forgotten, in no order. What a
// track counts while it ends may be missing until the next call.
func (f *Fabric) Accounts() []Account {
	now := time.Now()
	var list []Account
	sums := make(map[*account]figures)
	var ends []*account
	for _, b := range f.allBooks() {
		b.mu.Lock()
		for _, side := range []map[uint64]*account{b.out, b.in} {
			for _, a := range side {
				v := a.view(now)
				list, ends, sums[a] = append(list, v), append(ends, a), figures{v.Packets, v.Bytes}
			}
		}
		b.mu.Unlock()
	}
	for _, l := range f.Links() {
		l.addTracks(sums)
	}
	for i, a := range ends {
		list[i].Packets, list[i].Bytes = sums[a].packets, sums[a].bytes
	}
	return list
}

func (f *Fabric) allBooks() []*book {
	f.mu.Lock()
	defer f.mu.Unlock()
	books := make([]*book, 0, len(f.books))
	for _, b := range f.books {
		books = append(books, b)
	}
	return books
}

// view is the account as others see it, without its open tracks; the book's mu
// is held.
func (a *account) view(now time.Time) Account {
	v := Account{ID: a.id, Serial: a.key.serial, Room: a.key.room, Class: a.key.class,
		Tenant: a.key.tenant, Policy: a.key.policy, Rule: a.key.rule, Epoch: a.key.epoch, Final: a.told.Final}
	if a.id.Inbound {
		v.ToldPackets, v.ToldBytes = a.told.Packets, a.told.Bytes
	} else if !v.Final {
		v.Final = !a.closed.IsZero() && now.Sub(a.closed) >= closeWait // the peer cannot be told
	}
	v.Packets, v.Bytes = a.packets.Load(), a.bytes.Load()
	return v
}

// final reports whether nothing more is counted under an account; the book's mu is held.
func (a *account) final(now time.Time) bool {
	return !a.closed.IsZero() && (a.uses.Load() == 0 || now.Sub(a.closed) >= closeWait)
}

// CloseAccounts says that no more is sent under these accounts: the room has
// ended here, or the policies have changed. What is sent all the same opens new
// ones. They are Final when their tracks have ended and the peer knows the count.
func (f *Fabric) CloseAccounts(ids []AccountID) {
	now := time.Now()
	for _, id := range ids {
		b := f.book(id.Peer)
		b.mu.Lock()
		if a := b.out[id.Number]; a != nil && !id.Inbound && a.closed.IsZero() {
			a.closed = now
			delete(b.open, a.key)
		}
		b.mu.Unlock()
	}
}

// ForgetAccounts drops accounts that are Final, or whose peer is gone for good.
func (f *Fabric) ForgetAccounts(ids []AccountID) {
	for _, id := range ids {
		b := f.book(id.Peer)
		b.mu.Lock()
		if id.Inbound {
			delete(b.in, id.Number)
		} else if a := b.out[id.Number]; a != nil {
			delete(b.out, id.Number)
			maps.DeleteFunc(b.open, func(_ accountKey, o *account) bool { return o == a })
		}
		b.mu.Unlock()
	}
}

// settle hands the counts of all tracks of a link that has ended to their accounts.
func (l *Link) settle() {
	l.mu.Lock()
	tracks := slices.Collect(maps.Values(l.tracks))
	l.mu.Unlock()
	for _, t := range tracks {
		l.forget(t)
	}
	for alias := range *l.receiver.bound.Load() {
		l.Unbind(alias)
	}
}
