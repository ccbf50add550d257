package transport

import "time"

// BeatEvery is how long reports wait at most, and the period of Config.Beat. A
// hundred subscribers send a thousand reports a second, each of which woke a thread
// when it came: that was a third of the CPU time of a meeting. A report tells of
// the last 50 to 100 ms, and what is asked for in one (NACK, PLI) is on its way for
// longer than this.
const BeatEvery = 10 * time.Millisecond

// beat does what can wait until somebody is awake anyway.
func (e *Engine) beat() {
	t := time.NewTicker(BeatEvery)
	defer t.Stop()
	for e.used() {
		select {
		case <-e.stop:
			return
		case <-t.C:
		}
		for _, w := range e.reports {
			w.gather()
		}
		if e.cfg.Beat != nil {
			e.cfg.Beat()
		}
	}
}

// used waits until there are connections; false: the engine is closed.
func (e *Engine) used() bool {
	for {
		e.mu.RLock()
		n := len(e.conns)
		e.mu.RUnlock()
		if n > 0 {
			return true
		}
		select {
		case <-e.stop:
			return false
		case <-e.inUse:
		}
	}
}

// gather handles all that lies in a socket.
func (w *Worker) gather() {
	for n := maxRead; n == maxRead; {
		if n = w.in.poll(); n == 0 {
			return
		}
		w.busy.Lock()
		w.take(0, n)
		w.drained()
		w.busy.Unlock()
	}
}
