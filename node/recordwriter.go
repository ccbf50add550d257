package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// recordWriter writes room records to the store, one after the other, so that no room
// waits for the disk. Of what is to become of a room's record the last word alone
// waits: so at most maxRooms wait, and a room beyond them is told that its record is
// not kept, which it says in the log and tries again.
type recordWriter struct {
	save   func(residency.Permit, room.Record) error
	forget func(name, sid string) error
	failed func(name string, err error) // of what nobody waits for

	mu      sync.Mutex
	queue   []string // names, each once
	due     map[string]*recordWrite
	now     *recordWrite // being written
	working bool
	wg      sync.WaitGroup
}

// recordWrite is what is to become of a record.
type recordWrite struct {
	name   string
	permit residency.Permit
	rec    room.Record
	gone   bool
	done   []chan error
}

// errManyRecords says that a record is not kept because too many wait.
var errManyRecords = errors.New("too many records wait for the disk")

// put has a record written by a permit to keep it. It returns at once.
func (w *recordWriter) put(p residency.Permit, rec room.Record) error {
	return w.add(&recordWrite{name: rec.Name, permit: p, rec: rec})
}

// drop has a record forgotten. It returns at once.
func (w *recordWriter) drop(rec room.Record) error {
	return w.add(&recordWrite{name: rec.Name, rec: rec, gone: true})
}

// write has a record written, and waits for it.
func (w *recordWriter) write(p residency.Permit, rec room.Record) error {
	return w.wait(&recordWrite{name: rec.Name, permit: p, rec: rec})
}

// erase has a record forgotten, and waits for it.
func (w *recordWriter) erase(rec room.Record) error {
	return w.wait(&recordWrite{name: rec.Name, rec: rec, gone: true})
}

func (w *recordWriter) wait(x *recordWrite) error {
	done := make(chan error, 1)
	x.done = append(x.done, done)
	if err := w.add(x); err != nil {
		return err
	}
	return <-done // bounded by saveTimeout for each that waits before it
}

// settle waits until nothing of a room waits any more.
func (w *recordWriter) settle(ctx context.Context, name string) {
	done := make(chan error, 1)
	w.mu.Lock()
	x := w.due[name]
	if x == nil && w.now != nil && w.now.name == name {
		x = w.now
	}
	if x == nil {
		w.mu.Unlock()
		return
	}
	x.done = append(x.done, done)
	w.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// waiting returns what is to become of a room's record, if that has not been written yet.
func (w *recordWriter) waiting(name string) (rec room.Record, kept, waits bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.due[name]
	if x == nil && w.now != nil && w.now.name == name {
		x = w.now
	}
	if x == nil {
		return room.Record{}, false, false
	}
	return x.rec, !x.gone, true
}

func (w *recordWriter) add(x *recordWrite) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if old := w.due[x.name]; old != nil {
		x.done = append(x.done, old.done...) // who waited for that is answered with this
		w.due[x.name] = x
		return nil
	}
	if len(w.queue) >= maxRooms {
		return fmt.Errorf("keep room %q: %w", x.rec.SID, errManyRecords)
	}
	if w.due == nil {
		w.due = map[string]*recordWrite{}
	}
	w.due[x.name] = x
	w.queue = append(w.queue, x.name)
	if !w.working {
		w.working = true
		w.wg.Go(w.work)
	}
	return nil
}

// work writes until nothing waits.
func (w *recordWriter) work() {
	for {
		x := w.take()
		if x == nil {
			return
		}
		var err error
		if x.gone {
			err = w.forget(x.name, x.rec.SID)
		} else {
			err = w.save(x.permit, x.rec)
		}
		w.mu.Lock()
		w.now = nil
		done := x.done
		w.mu.Unlock()
		for _, ch := range done {
			ch <- err
		}
		if err != nil && len(done) == 0 && w.failed != nil {
			w.failed(x.name, err)
		}
	}
}

func (w *recordWriter) take() *recordWrite {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.queue, w.working = nil, false
		return nil
	}
	name := w.queue[0]
	w.queue = w.queue[1:]
	w.now = w.due[name]
	delete(w.due, name)
	return w.now
}

// close waits until everything is written.
func (w *recordWriter) close() { w.wg.Wait() }
