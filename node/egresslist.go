package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/slips"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// The list of egresses outlives the node that records them: each is kept beside the
// recordings, sealed, by a permit to keep metadata of its room here. One whose room may
// not leave metadata on this origin is known for as long as the process lives.

// maxEgressesKept bounds what a node remembers of egresses: the oldest that have ended go
// first. What was recorded is in the vault whatever is remembered.
const maxEgressesKept = 1000

// egresses are those that are or were recorded on this node.
type egresses struct {
	box *slips.Box // static after openEgresses; nil unless the node is an origin

	mu    sync.Mutex
	byID  map[string]*egressEntry
	order []string // by start
	out   []string // fell out of the list, and are on the disk still

	writing sync.Mutex // held while the disk is brought in line with the list
}

type egressEntry struct {
	rec  room.Record
	who  string // identity; "": it is about nobody in particular
	info *livekit.EgressInfo
}

// keptEgress is what is kept of one, sealed.
type keptEgress struct {
	Identity string `json:"identity,omitempty"`
	Info     []byte `json:"info"` // livekit.EgressInfo, protobuf
}

// put adds an egress, or changes it.
func (e *egresses) put(rec room.Record, who string, info *livekit.EgressInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byID == nil {
		e.byID = map[string]*egressEntry{}
	}
	if e.byID[info.EgressId] == nil {
		e.order = append(e.order, info.EgressId)
	}
	e.byID[info.EgressId] = &egressEntry{rec, who, info}
	for len(e.order) > maxEgressesKept {
		i := max(0, slices.IndexFunc(e.order, func(id string) bool { return !runsOn(e.byID[id].info) }))
		delete(e.byID, e.order[i])
		e.out = append(e.out, e.order[i])
		e.order = slices.Delete(e.order, i, i+1)
	}
}

// change returns a copy of what is known of an egress with a change, which is kept.
func (e *egresses) change(id string, change func(*livekit.EgressInfo)) (*livekit.EgressInfo, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	x := e.byID[id]
	if x == nil {
		return nil, false
	}
	info := proto.CloneOf(x.info)
	change(info)
	e.byID[id] = &egressEntry{x.rec, x.who, info}
	return info, true
}

// list returns those that a request and a question about rooms let through.
func (e *egresses) list(req *livekit.ListEgressRequest, which func(room.Record) bool) (found []*livekit.EgressInfo) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range e.order {
		x := e.byID[id]
		if (req.EgressId == "" || req.EgressId == id) && (req.RoomName == "" || req.RoomName == x.rec.Name) &&
			(!req.Active || runsOn(x.info)) && which(x.rec) {
			found = append(found, x.info)
		}
	}
	return found
}

// forget takes one off the list.
func (e *egresses) forget(id string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.byID, id)
	e.order = slices.DeleteFunc(e.order, func(other string) bool { return other == id })
}

func (e *egresses) get(id string) (x egressEntry, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byID[id] == nil {
		return x, false
	}
	return *e.byID[id], true
}

// fallen returns what is on the disk and not in the list any more, once.
func (e *egresses) fallen() (ids []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ids, e.out = e.out, nil
	return ids
}

func runsOn(i *livekit.EgressInfo) bool { return i.Status <= livekit.EgressStatus_EGRESS_ENDING }

// keepEgress has the disk say of an egress what the list says. It waits for the disk.
func (n *Node) keepEgress(id string) {
	e := &n.egresses
	if e.box == nil {
		return
	}
	e.writing.Lock()
	defer e.writing.Unlock()
	var err error
	for _, old := range e.fallen() {
		err = errors.Join(err, e.box.Remove(old))
	}
	if x, ok := e.get(id); ok {
		err = errors.Join(err, n.putEgress(id, x))
	}
	if err != nil {
		n.log.Error("the list of egresses is not kept", "object", id, "error", err)
	}
}

func (n *Node) putEgress(id string, x egressEntry) error {
	q := keeping(x.rec, residency.ClassMetadata)
	q.NoEvidence = n.noEvidenceOf(x.rec.Name)
	permit, v := n.keep(q)
	if !v.Allow {
		return nil // it is listed until this process ends
	}
	info, err := proto.Marshal(x.info)
	if err != nil {
		return err
	}
	body, err := json.Marshal(keptEgress{x.who, info})
	if err != nil {
		return err
	}
	s := slips.Slip{ID: id, Room: x.rec.Name, SID: x.rec.SID, Tenant: x.rec.Tenant, Policy: x.rec.Policy, AtMS: x.info.StartedAt / 1e6, Body: body}
	if x.who != "" {
		s.People = []string{x.who}
	}
	if err := n.egresses.box.Put(permit, s); err != nil {
		return err
	}
	n.noteStored(x.rec, residency.ClassMetadata, false, len(body))
	return nil
}

// openEgresses reads the list that an earlier process left. What it was recording when it
// ended has ended, too; the room has it go on if it can, and then says so.
func (n *Node) openEgresses(keys *vault.KeyStore) (err error) {
	e := &n.egresses
	if e.box, err = slips.Open(filepath.Join(n.cfg.DataDir, "egresses"), slips.Options{Keys: keys, Disk: n.disk(residency.ClassMetadata), Flush: true}); err != nil {
		return err
	}
	list, err := e.box.All()
	if err != nil {
		n.log.Error("some egresses are not listed any more", "error", err)
	}
	slices.SortFunc(list, func(a, b slips.Slip) int { return cmp.Or(cmp.Compare(a.AtMS, b.AtMS), strings.Compare(a.ID, b.ID)) })
	for _, s := range list {
		var k keptEgress
		info := &livekit.EgressInfo{}
		if err := json.Unmarshal(s.Body, &k); err == nil {
			err = proto.Unmarshal(k.Info, info)
		}
		if err != nil || info.EgressId != s.ID || len(info.FileResults) != 1 {
			n.log.Error("an egress is not listed any more: it is malformed", "object", s.ID)
			continue
		}
		if runsOn(info) {
			n.endLost(info)
		}
		e.put(room.Record{Name: s.Room, SID: s.SID, Tenant: s.Tenant, Policy: s.Policy}, k.Identity, info)
	}
	return nil
}

// endLost ends an egress whose process is gone with the last byte that it recorded.
func (n *Node) endLost(i *livekit.EgressInfo) {
	file := i.FileResults[0]
	at := i.UpdatedAt
	if r, err := n.vault.Info(recordedIn(i)); err == nil && !r.Ended.IsZero() {
		at = max(at, r.Ended.UnixNano())
	}
	i.Status, i.EndedAt, i.UpdatedAt = livekit.EgressStatus_EGRESS_FAILED, at, at
	i.Error = "node " + string(n.self().Name) + " stopped while it recorded; what it had recorded is kept"
	file.EndedAt, file.Duration = at, at-file.StartedAt
	i.Result = &livekit.EgressInfo_File{File: file} //nolint:staticcheck // older clients read it
}

// recordedIn is the recording that an egress is a view of.
func recordedIn(i *livekit.EgressInfo) vault.ID {
	return vault.ID(strings.TrimPrefix(i.FileResults[0].Location, "recordings/"))
}

// egressFiles are the egresses, as the sweep sees them: a part of what is known of a room.
type egressFiles struct{ n *Node }

func (s egressFiles) objects(context.Context, bool) (out []retention.Object, err error) {
	e := &s.n.egresses
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, id := range e.order {
		x := e.byID[id]
		o := retention.Object{ID: id, Kind: residency.KeptMetadata, Room: x.rec.Name, Tenant: x.rec.Tenant, Policy: x.rec.Policy, Began: time.Unix(0, x.info.StartedAt)}
		if !runsOn(x.info) {
			o.Ended = time.Unix(0, x.info.EndedAt)
		}
		if x.who != "" {
			o.People = []string{x.who}
		}
		out = append(out, o)
	}
	return out, nil
}

func (s egressFiles) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	e := &s.n.egresses
	e.writing.Lock()
	defer e.writing.Unlock()
	for _, v := range due {
		x, ok := e.get(v.ID)
		if !ok {
			continue
		}
		if failed := e.box.Remove(v.ID); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		e.forget(v.ID)
		out = append(out, gone{v, int64(proto.Size(x.info))})
	}
	return out, err
}
