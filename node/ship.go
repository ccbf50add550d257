package node

import (
	"context"
	"slices"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/vault"
)

// Where the configuration names a bucket, a recording goes there when it is over: by a
// permit that was asked for the bucket's place, too. Until then, and while the bucket is
// away, it lies in the node's folder.

// Bucket is the object store to which an origin brings its recordings. Its place is in
// Config.Places, under the recording class.
type Bucket struct {
	Store     vault.Remote // nil: none
	KeepLocal bool         // recordings stay on the node's disk, too
}

const (
	// shipWait is how long the bucket is left alone after it failed.
	shipWait = 5 * time.Second
	// shipLongest bounds what one recording may take: 36 GB at 10 MB/s.
	shipLongest = time.Hour
)

// shipments is what runShipments knows of recordings.
type shipments struct {
	settled map[vault.ID]string // what the document was when there was nothing left to do
	failed  map[vault.ID]time.Time
}

// order puts those last that have failed, the last one behind all: it may be that
// recording's fault, for which the others need not wait.
func (s shipments) order(ids []vault.ID) {
	slices.SortStableFunc(ids, func(a, b vault.ID) int { return s.failed[a].Compare(s.failed[b]) })
}

// runShipments brings recordings that are over to the bucket, and has it lose what was
// erased, until ctx ends.
func (n *Node) runShipments(ctx context.Context) error {
	if n.vault == nil || n.cfg.Bucket.Store == nil {
		return nil
	}
	s := shipments{settled: map[vault.ID]string{}, failed: map[vault.ID]time.Time{}}
	tick := time.NewTicker(copyEvery)
	defer tick.Stop()
	for {
		if err := n.doShipments(ctx, s); err != nil && ctx.Err() == nil {
			n.log.Warn("recordings wait for the bucket", "bucket", n.cfg.Bucket.Store.Name(), "error", err)
			tick.Reset(shipWait)
		} else {
			tick.Reset(copyEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// doShipments looks at every recording once, and stops where the bucket does not answer.
func (n *Node) doShipments(ctx context.Context, s shipments) error {
	if _, err := n.vault.SettleRemote(ctx); err != nil {
		return err
	}
	ids, err := n.vault.IDs()
	if err != nil {
		return err
	}
	s.order(ids)
	for _, id := range ids {
		was := n.vault.Changed(id)
		if was == "" || s.settled[id] == was {
			continue
		}
		done, err := n.shipOne(ctx, id)
		if err != nil {
			s.failed[id] = time.Now()
			return err
		}
		delete(s.failed, id)
		if done && n.vault.Changed(id) == was { // else look again: a track may have been erased meanwhile
			s.settled[id] = was
		}
	}
	if len(s.settled)+len(s.failed) > 2*len(ids)+100 { // of recordings that are there no more
		clear(s.settled)
		clear(s.failed)
	}
	return nil
}

func (n *Node) shipOne(ctx context.Context, id vault.ID) (done bool, err error) {
	info, err := n.vault.Info(id)
	switch {
	case err != nil:
		return true, nil //nolint:nilerr // List tells of it
	case info.Copy:
		return true, nil
	case info.State == vault.StateRecording:
		return false, nil
	}
	rec := recordOfInfo(info)
	ask := keeping(rec, residency.ClassRecording)
	ask.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.keep(ask)
	if !v.Allow {
		return false, nil // the policies are others now; see Overstay
	}
	ctx, cancel := context.WithTimeout(ctx, shipLongest)
	defer cancel()
	if err := n.vault.Ship(ctx, permit, id); err != nil {
		return false, err
	}
	n.noteAct(rec.Name, rec, act{side: evidence.Stored, class: residency.ClassRecording, rule: residency.RuleZone, epoch: n.gate().Epoch()}, len(info.Tracks), int(info.Size()))
	n.log.Info("a recording is in the bucket", "recording", id, "bucket", n.cfg.Bucket.Store.Name())
	return true, nil
}
