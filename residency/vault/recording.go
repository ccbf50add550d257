package vault

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/domicile/domicile/residency"
)

// Recording is a recording that is being written. Its methods are safe for
// concurrent use; they write to the disk and flush it, so they are never called
// from where media flows.
type Recording struct {
	// Static after construction.
	v       *Vault
	id      ID
	dir     string
	lock    *os.File // held while this process writes
	license *license

	// Guarded by mu, which also keeps the writes of the document in order.
	mu   sync.Mutex
	doc  document
	open map[TrackID]bool
}

// ID returns the recording's id.
func (r *Recording) ID() ID { return r.id }

// Started returns when the recording began: the zero of its timeline.
func (r *Recording) Started() time.Time { return r.doc.Started } // never written after Create

func (r *Recording) create() (err error) {
	if err := r.v.layer.mkdir(r.dir); err != nil {
		return explain(err)
	}
	defer func() {
		if err != nil {
			if r.lock != nil {
				r.lock.Close()
			}
			os.RemoveAll(r.dir)
		}
	}()
	if r.lock, err = tryLock(r.dir); err != nil {
		return explain(err)
	}
	if r.lock == nil {
		return fmt.Errorf("folder of the new recording %q is locked by another process", r.id)
	}
	if err := r.doc.saveOn(r.v.layer, r.dir, r.v.keys); err != nil {
		return err
	}
	return r.v.layer.syncDir(r.v.dir)
}

// Renew has the recording go on by another permit to keep the same: of newer
// policies, or of a renewed certificate. It never waits.
func (r *Recording) Renew(p residency.Permit) error {
	if err := r.license.renew(p); err != nil {
		return fmt.Errorf("renew recording %q: %w", r.id, err)
	}
	return nil
}

// Revoke takes the permit away: what has not been handed to the kernel yet is not
// written any more. Tracks can still be closed, and the recording finished. It
// never waits.
func (r *Recording) Revoke() { r.license.revoke() }

// Track adds a track and returns its writer. A track can be added once.
func (r *Recording) Track(m TrackMeta) (*TrackWriter, error) {
	w, err := r.addTrack(m)
	if err != nil {
		return nil, fmt.Errorf("recording %q: add track %q: %w", r.id, m.TrackID, err)
	}
	return w, nil
}

func (r *Recording) addTrack(m TrackMeta) (*TrackWriter, error) {
	if err := checkTrackID(m.TrackID); err != nil {
		return nil, err
	}
	if err := r.license.permitted(); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doc.State != StateRecording {
		return nil, fmt.Errorf("recording is %s", r.doc.State)
	}
	if r.doc.track(m.TrackID) != nil {
		return nil, errors.New("track is already in the recording")
	}
	w, err := newTrackWriter(r, m)
	if err != nil {
		return nil, err
	}
	// The document names a track only after its header is safe on the disk.
	r.doc.Tracks = append(r.doc.Tracks, TrackInfo{ID: m.TrackID})
	if r.v.keys.foreign(r.doc.Private.Tenant) {
		r.doc.Private.Metas[m.TrackID] = m
	}
	if err := r.doc.saveOn(r.v.layer, r.dir, r.v.keys); err != nil {
		r.doc.Tracks = r.doc.Tracks[:len(r.doc.Tracks)-1]
		// The file stays: the document on the disk may name it all the same.
		w.f.Close()
		return nil, err
	}
	r.open[m.TrackID] = true
	return w, nil
}

// trackClosed takes note of a track's end.
func (r *Recording) trackClosed(t TrackInfo, final []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, t.ID)
	*r.doc.track(t.ID) = t
	if t.Finished {
		r.doc.Private.Finals[t.ID] = final
	}
	return r.doc.saveOn(r.v.layer, r.dir, r.v.keys)
}

// Finish ends the recording at now. Every track must be closed before. The
// recording is finished when all its tracks are, and interrupted otherwise; it
// is over in either case.
func (r *Recording) Finish(now time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doc.State != StateRecording {
		return fmt.Errorf("finish recording %q: it is %s already", r.id, r.doc.State)
	}
	if n := len(r.open); n > 0 {
		return fmt.Errorf("finish recording %q: %d tracks are still open", r.id, n)
	}
	r.doc.Ended, r.doc.State = now.UTC(), StateFinished
	for _, t := range r.doc.Tracks {
		if !t.Finished && !t.Erased {
			r.doc.State = StateInterrupted
		}
	}
	err := r.doc.saveOn(r.v.layer, r.dir, r.v.keys)
	r.v.written(r.id)
	if err := errors.Join(err, r.lock.Close()); err != nil {
		return fmt.Errorf("finish recording %q: %w", r.id, err)
	}
	return nil
}

// TrackWriter seals the clusters of one track. It belongs to one goroutine.
type TrackWriter struct {
	rec   *Recording
	f     layerFile
	chain *chain
	buf   []byte
	info  TrackInfo
	err   error // of the first failed write; nothing is written after it
}

func encodeMeta(m TrackMeta) ([]byte, error) { return json.Marshal(m) }

func newTrackWriter(r *Recording, m TrackMeta) (*TrackWriter, error) {
	if err := r.v.checkSpace(roomToStart); err != nil {
		return nil, err
	}
	meta, err := encodeMeta(m)
	if err != nil {
		return nil, err
	}
	key, header, err := newHeader(r.v.keys, r.doc.Private.Tenant)
	if err != nil {
		return nil, err
	}
	c, err := newChain(key, header, r.id, m.TrackID)
	if err != nil {
		return nil, err
	}
	f, err := r.v.layer.create(trackPath(r.dir, m.TrackID))
	if err != nil {
		return nil, explain(err)
	}
	w := &TrackWriter{rec: r, f: f, chain: c, info: TrackInfo{ID: m.TrackID}}
	w.buf = append(w.buf, header...)
	if err := errors.Join(w.append(kindMeta, meta), w.f.Sync()); err != nil {
		f.Close()
		r.v.layer.remove(trackPath(r.dir, m.TrackID)) //nolint:errcheck // the error that matters is the first
		return nil, err
	}
	return w, nil
}

// append seals one record behind what is in buf and writes both.
func (w *TrackWriter) append(kind byte, body []byte) error {
	w.buf = w.chain.seal(w.buf, kind, body)
	_, err := w.f.Write(w.buf)
	if err != nil {
		// Take the incomplete record away. If that fails too, a reader stops before it.
		err = errors.Join(explain(err), w.f.Truncate(w.info.Size))
		// The nonce is spent, so no other record may be written in its place.
		w.err = err
		return err
	}
	w.info.Size += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}

// Write seals a cluster and hands it to the kernel: from its return on it
// survives the death of the process. It survives a power loss after Sync. The
// cluster may be reused afterwards.
//
// Where the vault's reserve is reached Write refuses with ErrDiskFull, without a
// permit in force with residency.ErrNotKept, and Close still finishes the track. Where the file system itself refuses, the track ends
// with its last whole cluster and is not finished.
func (w *TrackWriter) Write(cluster []byte) error {
	if err := w.write(cluster); err != nil {
		return fmt.Errorf("write track %q of recording %q: %w", w.info.ID, w.rec.id, err)
	}
	return nil
}

func (w *TrackWriter) write(cluster []byte) error {
	if w.err != nil {
		return w.err
	}
	if n := len(cluster); n == 0 || n > maxBody {
		return fmt.Errorf("cluster of %d bytes, want 1 to %d", n, maxBody)
	}
	if err := w.rec.license.permitted(); err != nil {
		return err
	}
	if err := w.rec.v.checkSpace(len(cluster)); err != nil {
		return err
	}
	if err := w.append(kindCluster, cluster); err != nil {
		return err
	}
	w.info.Clusters++
	return nil
}

// Sync makes what was written survive a power loss.
func (w *TrackWriter) Sync() error {
	if w.err != nil {
		return w.err
	}
	if err := w.f.Datasync(); err != nil {
		return fmt.Errorf("sync track %q of recording %q: %w", w.info.ID, w.rec.id, explain(err))
	}
	return nil
}

var errClosed = errors.New("track is closed")

// Close finishes the track. After a failed write it closes the track as it is
// and returns that error again.
func (w *TrackWriter) Close() error {
	if errors.Is(w.err, errClosed) {
		return nil
	}
	err := w.err
	if err == nil {
		err = w.append(kindFinal, binary.BigEndian.AppendUint64(nil, uint64(w.info.Clusters)))
	}
	if err == nil {
		err = explain(w.f.Sync())
	}
	w.info.Finished = err == nil
	w.err = errClosed
	if err := errors.Join(err, w.f.Close(), w.rec.trackClosed(w.info, w.chain.link)); err != nil {
		return fmt.Errorf("close track %q of recording %q: %w", w.info.ID, w.rec.id, err)
	}
	return nil
}
