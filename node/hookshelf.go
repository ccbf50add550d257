package node

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/slips"
	"github.com/domicile/domicile/node/webhook"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// What webhooks have still to be told outlives the node that tells it: each event waits
// sealed on the disk of an origin, by a permit to keep metadata of its room there, until
// it is told or too old. A node that may not keep it has it in memory alone.

// hookShelf is what waits, of all webhooks.
type hookShelf struct {
	box    *slips.Box // static after openHookShelf; nil unless the node is an origin
	last   atomic.Int64
	erased sync.Map // ids of what may not be told any more: the little that is sent meanwhile
}

// keptEvent is an event on the disk, sealed.
type keptEvent struct {
	Hook  string `json:"hook"`  // whose it is: a hash of URL and key
	Seq   int64  `json:"seq"`   // the order in which events happened
	Event []byte `json:"event"` // livekit.WebhookEvent, protobuf
}

// seq numbers events, also over a restart.
func (s *hookShelf) seq(now time.Time) int64 {
	for {
		last := s.last.Load()
		next := max(last+1, now.UnixNano())
		if s.last.CompareAndSwap(last, next) {
			return next
		}
	}
}

func (h *hook) name() string {
	sum := sha256.Sum256([]byte(h.URL + "\n" + h.APIKey))
	return hex.EncodeToString(sum[:8])
}

// pending is an event on its way to one webhook.
type pending struct {
	rec   room.Record
	event *livekit.WebhookEvent
	seq   int64
	since time.Time
}

// hookItem is an event as the sender of a webhook takes it.
func (n *Node) hookItem(h *hook, p pending, id string) webhook.Item {
	return webhook.Item{ID: id, Since: p.since, Of: p,
		May: func() bool {
			if _, gone := n.told.erased.LoadAndDelete(id); gone {
				return false
			}
			return n.mayTell(h, p.rec)
		},
		Body: func(dropped int) []byte { return n.hookBody(p.event, dropped) },
	}
}

// hookQueue is the shelf of one webhook's sender.
type hookQueue struct {
	n *Node
	h *hook
}

// Keep implements webhook.Shelf.
func (q hookQueue) Keep(i webhook.Item) bool {
	p, ok := i.Of.(pending)
	if !ok || q.n.told.box == nil || !i.May() {
		return false
	}
	ask := keeping(p.rec, residency.ClassMetadata)
	ask.NoEvidence = q.n.noEvidenceOf(p.rec.Name)
	permit, v := q.n.keep(ask)
	if !v.Allow {
		return false
	}
	s, err := p.slip(q.h, i.ID)
	if err == nil {
		err = q.n.told.box.Put(permit, s)
	}
	if err != nil {
		q.n.log.Error("an event for a webhook waits in memory alone", "room", p.rec.SID, "error", err)
		return false
	}
	return true
}

// Done implements webhook.Shelf.
func (q hookQueue) Done(i webhook.Item) {
	q.n.told.erased.Delete(i.ID)
	if err := q.n.told.box.Remove(i.ID); err != nil {
		q.n.log.Error("an event that a webhook was told stays on the disk", "object", i.ID, "error", err)
	}
}

func (p pending) slip(h *hook, id string) (slips.Slip, error) {
	event, err := proto.Marshal(p.event)
	if err != nil {
		return slips.Slip{}, err
	}
	body, err := json.Marshal(keptEvent{h.name(), p.seq, event})
	s := slips.Slip{ID: id, Room: p.rec.Name, SID: p.rec.SID, Tenant: p.rec.Tenant, Policy: p.rec.Policy, AtMS: p.since.UnixMilli(), Body: body}
	for _, who := range []string{p.event.GetParticipant().GetIdentity(), p.event.GetEgressInfo().GetParticipant().GetIdentity()} {
		if who != "" {
			s.People = append(s.People, who)
		}
	}
	return s, err
}

// openHookShelf has the senders tell what an earlier process has not told. What is for a
// webhook that is gone goes, too.
func (n *Node) openHookShelf(keys *vault.KeyStore) (err error) {
	if n.told.box, err = slips.Open(filepath.Join(n.cfg.DataDir, "webhooks"), slips.Options{Keys: keys, Disk: n.disk(residency.ClassMetadata)}); err != nil {
		return err
	}
	list, err := n.told.box.All()
	if err != nil {
		n.log.Error("some events are not told to webhooks any more", "error", err)
	}
	type waiting struct {
		hook *hook
		item webhook.Item
		seq  int64
	}
	var all []waiting
	for _, s := range list {
		h, p, err := n.keptEvent(s)
		if err != nil {
			n.log.Warn("an event is not told to a webhook any more", "object", s.ID, "error", err)
			if err := n.told.box.Remove(s.ID); err != nil {
				return err
			}
			continue
		}
		item := n.hookItem(h, p, s.ID)
		item.Kept = true
		all = append(all, waiting{h, item, p.seq})
		n.told.last.Store(max(n.told.last.Load(), p.seq))
	}
	slices.SortFunc(all, func(a, b waiting) int { return cmp.Compare(a.seq, b.seq) })
	for _, w := range all {
		w.hook.sender.Restore(w.item)
	}
	return nil
}

var errNoHook = errors.New("no webhook of the configuration is its receiver")

func (n *Node) keptEvent(s slips.Slip) (h *hook, p pending, err error) {
	var k keptEvent
	if err := json.Unmarshal(s.Body, &k); err != nil {
		return nil, p, err
	}
	i := slices.IndexFunc(n.hooks, func(h *hook) bool { return h.name() == k.Hook })
	if i < 0 {
		return nil, p, errNoHook
	}
	p = pending{rec: room.Record{Name: s.Room, SID: s.SID, Tenant: s.Tenant, Policy: s.Policy}, event: &livekit.WebhookEvent{}, seq: k.Seq, since: time.UnixMilli(s.AtMS)}
	return n.hooks[i], p, proto.Unmarshal(k.Event, p.event)
}

// hookFiles are the events that wait on the disk, as the sweep sees them.
type hookFiles struct{ n *Node }

func (f hookFiles) objects(context.Context, bool) (out []retention.Object, err error) {
	list, err := f.n.told.box.All()
	for _, s := range list {
		at := time.UnixMilli(s.AtMS)
		out = append(out, retention.Object{ID: s.ID, Kind: residency.KeptMetadata, Room: s.Room, Tenant: s.Tenant, Policy: s.Policy, People: s.People, Began: at, Ended: at})
	}
	return out, err
}

func (f hookFiles) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		f.n.told.erased.Store(v.ID, true)
		if failed := f.n.told.box.Remove(v.ID); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		out = append(out, gone{v, 0})
	}
	return out, err
}
