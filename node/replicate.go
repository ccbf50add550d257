package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/vault"
)

// A recording lies on two origins in the zone of the recording class, where there are
// two: the one that records brings it to another while it is being written, sealed as
// it lies there. What a node's links carry for it is bounded: a copy that comes later
// costs nothing, a meeting that does is spoilt. A copy that was broken off goes on where
// it was.

// copyMessage is what the origin that recorded tells one that is to hold a copy. It is
// about the recording itself, or about bytes of one of its tracks.
type copyMessage struct {
	Manifest *vault.Manifest `json:"manifest,omitempty"`

	ID     vault.ID      `json:"id,omitempty"`
	Track  vault.TrackID `json:"track,omitempty"`
	Offset int64         `json:"offset,omitempty"`
	Bytes  []byte        `json:"bytes,omitempty"`
	// Room, Tenant and Policy are whose the bytes are.
	Room   string `json:"room,omitempty"`
	Tenant string `json:"tenant,omitempty"`
	Policy string `json:"policy,omitempty"`
}

// copyAnswer is what it answers.
type copyAnswer struct {
	Have   map[vault.TrackID]int64 `json:"have,omitempty"`
	Whole  bool                    `json:"whole,omitempty"`
	Erased bool                    `json:"erased,omitempty"`
}

const (
	// copyEvery is how often what was recorded meanwhile is brought away: so much, and
	// what is on its way, is on one node alone.
	copyEvery = time.Second
	// copyChunk is how much goes in one message. JSON makes a third more of it, and
	// 1 MiB is the most that a message carries.
	copyChunk = 512 << 10
	// copyRate is what copies take of a node's lines if the configuration does not say:
	// 50 Mbit/s, two dozen cameras that are recorded at a time.
	copyRate = 50_000_000
	// copyRetry is how soon an origin that failed is tried again.
	copyRetry = 3 * time.Second
)

// copies is what this node has brought to others.
type copies struct {
	limit *rate.Limiter // bytes

	// Owned by runCopies.
	settled map[vault.ID]string // what the document was when there was nothing left to do
	failed  map[copying]time.Time

	// Guarded by mu.
	mu      sync.Mutex
	stats   copyStats
	growing map[vault.ID]residency.NodeName // copies here that are not whole, and who records
}

// copying is a recording on its way to a node.
type copying struct {
	id vault.ID
	to residency.NodeName
}

// pauses reports whether a node is left alone with a recording for a while.
func (c *copies) pauses(id vault.ID, to residency.NodeName) bool {
	return time.Since(c.failed[copying{id, to}]) < copyRetry
}

// fails notes that a node has not taken a recording. That may be the recording's fault:
// the others go on.
func (c *copies) fails(id vault.ID, to residency.NodeName) {
	c.mu.Lock()
	c.stats.failures++
	c.mu.Unlock()
	for x, at := range c.failed {
		if time.Since(at) > copyRetry {
			delete(c.failed, x)
		}
	}
	c.failed[copying{id, to}] = time.Now()
}

// copyStats is what the metrics show.
type copyStats struct {
	bytes, whole, failures uint64
	behind                 int // recordings without a whole copy
}

func (c *copies) init(mbits float64) {
	bytes := mbits * 1e6 / 8
	if mbits == 0 {
		bytes = copyRate / 8
	}
	c.limit = rate.NewLimiter(rate.Limit(bytes), copyChunk)
	c.settled, c.failed = map[vault.ID]string{}, map[copying]time.Time{}
}

// runCopies brings recordings of this node to another origin until ctx ends.
func (n *Node) runCopies(ctx context.Context) error {
	if n.vault == nil {
		return nil
	}
	n.copies.init(n.cfg.Copies.Mbits)
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	for {
		if !n.cfg.Copies.Off {
			n.doCopies(ctx)
		}
		n.doOrphans()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// doCopies looks at every recording once.
func (n *Node) doCopies(ctx context.Context) {
	c := &n.copies
	ids, err := n.vault.IDs()
	if err != nil {
		n.log.Error("recordings are not copied", "error", err)
		return
	}
	behind := 0
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		was := n.vault.Changed(id)
		if was == "" || c.settled[id] == was {
			continue
		}
		done, err := n.copyOne(ctx, id)
		switch {
		case done:
			c.settled[id] = n.vault.Changed(id)
		default:
			behind++
		}
		if err != nil && ctx.Err() == nil {
			n.log.Debug("a recording is not copied yet", "recording", id, "error", err)
		}
	}
	if len(c.settled) > 2*len(ids)+100 { // of recordings that are there no more
		clear(c.settled)
	}
	c.mu.Lock()
	c.stats.behind = behind
	c.mu.Unlock()
}

// doOrphans says of copies here that they are interrupted when the mesh has given up the
// node that records. It may come back, and then they go on.
func (n *Node) doOrphans() {
	n.copies.mu.Lock()
	var gone []vault.ID
	for id, from := range n.copies.growing {
		if _, _, there := n.peer(from); !there {
			gone = append(gone, id)
			delete(n.copies.growing, id)
		}
	}
	n.copies.mu.Unlock()
	for _, id := range gone {
		switch marked, err := n.vault.Interrupt(id); {
		case err != nil && !errors.Is(err, vault.ErrNotFound):
			n.log.Error("a copy cannot be marked as interrupted", "recording", id, "error", err)
		case marked:
			n.log.Warn("the node that records is gone: its copy here is interrupted", "recording", id)
		}
	}
}

// noteGrowing takes note of whether a copy here is whole.
func (n *Node) noteGrowing(id vault.ID, from residency.NodeName, whole bool) {
	n.copies.mu.Lock()
	defer n.copies.mu.Unlock()
	switch {
	case whole:
		delete(n.copies.growing, id)
	case n.copies.growing == nil:
		n.copies.growing = map[vault.ID]residency.NodeName{id: from}
	default:
		n.copies.growing[id] = from
	}
}

// copyOne brings what another origin lacks of a recording there. done says that there
// is nothing left to do until the recording changes.
func (n *Node) copyOne(ctx context.Context, id vault.ID) (done bool, err error) {
	info, err := n.vault.Info(id)
	if err != nil {
		return errors.Is(err, vault.ErrTampered), err
	}
	if info.Copy {
		return true, nil
	}
	to, permit, err := n.copyTo(info)
	if err != nil || to == "" {
		return false, err
	}
	if err = n.copyWhole(ctx, info, permit); err == nil {
		return n.copied(id, to, info)
	}
	if errors.Is(err, errGrowing) {
		return false, nil
	}
	n.copies.fails(id, to)
	return errors.Is(err, vault.ErrErased) || errors.Is(err, vault.ErrAway), err
}

// errGrowing says that a copy has all that there is so far.
var errGrowing = errors.New("the recording goes on")

// copied notes a copy that is whole.
func (n *Node) copied(id vault.ID, to residency.NodeName, info vault.Info) (bool, error) {
	if slices.Contains(info.Replicas, to) {
		return true, nil
	}
	if err := n.vault.NoteReplica(id, to); err != nil {
		return false, err
	}
	n.copies.mu.Lock()
	n.copies.stats.whole++
	n.copies.mu.Unlock()
	n.log.Info("another origin has a copy of a recording", "recording", id, "peer", to)
	return true, nil
}

// copyTo names the origin that is to hold a copy: one that has one, or begun one, and
// else the first that may, in an order that is the recording's own.
func (n *Node) copyTo(info vault.Info) (to residency.NodeName, p residency.Permit, err error) {
	type place struct {
		name   residency.NodeName
		permit residency.Permit
		order  uint64
	}
	var places []place
	for _, l := range n.fabric.Links() {
		peer := l.Peer()
		if !peer.Has(residency.RoleOrigin) || l.Suspect() || n.copies.pauses(info.ID, peer.Name) {
			continue
		}
		permit, v := n.copyPermit(recordOfInfo(info), peer.Name)
		if !v.Allow {
			err = refused(v)
			continue
		}
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %s", info.ID, peer.Name)
		order := h.Sum64()
		if slices.Contains(info.Replicas, peer.Name) {
			order = 0
		}
		places = append(places, place{peer.Name, permit, order})
	}
	if len(places) == 0 {
		return "", residency.Permit{}, err
	}
	first := slices.MinFunc(places, func(a, b place) int {
		if a.order < b.order {
			return -1
		}
		return 1
	})
	return first.name, first.permit, nil
}

// recordOfInfo is what the gate is asked about, of a recording's room.
func recordOfInfo(i vault.Info) room.Record {
	return room.Record{Name: i.Room, Tenant: i.Tenant, Policy: i.Policy}
}

// copyPermit lets a recording be kept by another origin.
func (n *Node) copyPermit(rec room.Record, at residency.NodeName) (residency.Permit, residency.Verdict) {
	return n.originPermit(rec, residency.ClassRecording, at)
}

// copyWhole brings everything over that one node lacks.
func (n *Node) copyWhole(ctx context.Context, info vault.Info, permit residency.Permit) error {
	m, _, err := n.vault.Manifest(info.ID)
	if err != nil {
		return err
	}
	answer, err := n.sendCopy(ctx, permit, copyMessage{Manifest: &m})
	if err != nil || answer.Whole {
		return err
	}
	buf := make([]byte, copyChunk)
	for _, p := range m.Parts {
		for at := answer.Have[p.Track]; at < p.Size; {
			b := buf[:min(int64(len(buf)), p.Size-at)]
			got, err := n.vault.ReadTrack(info.ID, p.Track, at, b)
			if err != nil || got == 0 {
				return errors.Join(errors.New("a track is shorter than it was"), err)
			}
			if err := n.copies.limit.WaitN(ctx, got); err != nil {
				return err
			}
			if _, err := n.sendCopy(ctx, permit, copyMessage{ID: info.ID, Track: p.Track, Offset: at, Bytes: b[:got],
				Room: info.Room, Tenant: info.Tenant, Policy: info.Policy}); err != nil {
				return err
			}
			at += int64(got)
		}
	}
	if info.State == vault.StateRecording {
		return errGrowing
	}
	if answer, err = n.sendCopy(ctx, permit, copyMessage{Manifest: &m}); err == nil && !answer.Whole {
		err = errors.New("what arrived is not what was sent")
	}
	return err
}

func (n *Node) sendCopy(ctx context.Context, p residency.Permit, m copyMessage) (answer copyAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if err := n.ask(ctx, p, kindCopy, m, &answer); err != nil {
		return answer, err
	}
	if answer.Erased {
		return answer, vault.ErrErased
	}
	n.copies.mu.Lock()
	n.copies.stats.bytes += uint64(len(m.Bytes))
	n.copies.mu.Unlock()
	return answer, nil
}

// doCopy takes what another origin brings of its recordings, if this node may keep
// it. The one that asks may be told what of it is here.
func (n *Node) doCopy(_ context.Context, q question) ([]byte, residency.Permit, error) {
	invalid := func(err error) ([]byte, residency.Permit, error) {
		return nil, residency.Permit{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("copy: %v", err)}
	}
	var m copyMessage
	if err := json.Unmarshal(q.body, &m); err != nil {
		return invalid(err)
	}
	if n.vault == nil {
		return nil, residency.Permit{}, &Refusal{Code: CodeRefused, Message: fmt.Sprintf("node %s is no origin and keeps no recordings", n.self().Name)}
	}
	rec := room.Record{Name: m.Room, Tenant: m.Tenant, Policy: m.Policy}
	if m.Manifest != nil {
		_, meta, err := m.Manifest.Meta()
		if err == nil && meta.Node != q.from {
			err = fmt.Errorf("node %s has not recorded it", q.from)
		}
		if err != nil {
			return invalid(err)
		}
		rec = room.Record{Name: meta.Room, Tenant: meta.Tenant, Policy: meta.Policy}
	}
	if err := q.about(rec.Name, residency.ClassRecording); err != nil {
		return nil, residency.Permit{}, err
	}
	tell, v := n.copyPermit(rec, q.from)
	if !v.Allow {
		return nil, residency.Permit{}, refused(v)
	}
	answer, err := n.takeCopy(rec, q.from, m)
	if err != nil {
		return nil, residency.Permit{}, err
	}
	b, err := json.Marshal(answer)
	return b, tell, err
}

// takeCopy keeps what came.
func (n *Node) takeCopy(rec room.Record, from residency.NodeName, m copyMessage) (answer copyAnswer, err error) {
	ask := keeping(rec, residency.ClassRecording)
	ask.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.keep(ask)
	if !v.Allow {
		return answer, refused(v)
	}
	if m.Manifest == nil {
		if info, err := n.vault.Info(m.ID); err != nil || info.Node != from || info.Room != rec.Name {
			return answer, &Refusal{Code: CodeInvalid, Message: "copy: bytes of a recording that was not told of"}
		}
		if err = n.vault.Append(permit, m.ID, m.Track, m.Offset, m.Bytes); err == nil {
			n.noteAct(rec.Name, rec, act{side: evidence.Stored, class: residency.ClassRecording, rule: residency.RuleZone, epoch: n.gate().Epoch()}, 1, len(m.Bytes))
		}
	} else {
		answer.Have, answer.Whole, err = n.vault.Receive(permit, *m.Manifest)
		if id, _, bad := m.Manifest.Meta(); err == nil && bad == nil {
			n.noteGrowing(id, from, answer.Whole)
		}
	}
	if errors.Is(err, vault.ErrErased) {
		return copyAnswer{Erased: true}, nil
	}
	return answer, err
}

var (
	descCopies     = prometheus.NewDesc("domicile_recording_copies_total", "Recordings of this origin of which another has a whole copy.", nil, nil)
	descCopyBytes  = prometheus.NewDesc("domicile_recording_copy_bytes_total", "Bytes sent to other origins for copies of recordings.", nil, nil)
	descCopyFailed = prometheus.NewDesc("domicile_recording_copy_failures_total", "Attempts to copy a recording that failed.", nil, nil)
	descCopyBehind = prometheus.NewDesc("domicile_recording_copies_behind", "Recordings of this origin without a whole copy.", nil, nil)
)

func describeCopies(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCopies, descCopyBytes, descCopyFailed, descCopyBehind} {
		ch <- d
	}
}

func (n *Node) collectCopies(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	n.copies.mu.Lock()
	s := n.copies.stats
	n.copies.mu.Unlock()
	count(descCopies, s.whole)
	count(descCopyBytes, s.bytes)
	count(descCopyFailed, s.failures)
	gauge(descCopyBehind, float64(s.behind))
}
