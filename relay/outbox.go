package relay

import "sync"

const (
	// maxWaiting and maxWaitingBytes bound what waits for a peer's control stream.
	// The writer gives up a peer that reads nothing for SendTimeout, so this much
	// waits only if a room says more in two seconds than the path carries: then the
	// link ends, because a mesh that is seconds behind is no mesh.
	maxWaiting      = 8192
	maxWaitingBytes = 16 << 20

	// fewWaiting is how many may wait for what can be left out, such as reports.
	fewWaiting = 128
)

// outbox holds envelopes for the control stream, in order. Putting one in never
// waits: who sends is a room, and all of its people would wait with it.
type outbox struct {
	ready chan struct{} // has an entry when there may be something to take

	mu    sync.Mutex
	list  []outgoing
	bytes int
}

func newOutbox() *outbox { return &outbox{ready: make(chan struct{}, 1)} }

// put adds an envelope, unless so many wait already.
func (o *outbox) put(out outgoing) bool { return o.add(out, maxWaiting) }

// offer adds an envelope that can be left out, unless some wait already.
func (o *outbox) offer(out outgoing) bool { return o.add(out, fewWaiting) }

func (o *outbox) add(out outgoing, most int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) >= most || len(o.list) > 0 && o.bytes+len(out.envelope) > maxWaitingBytes {
		return false
	}
	o.list = append(o.list, out)
	o.bytes += len(out.envelope)
	o.signal()
	return true
}

// take removes the first envelope.
func (o *outbox) take() (out outgoing, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) == 0 {
		return outgoing{}, false
	}
	out, o.list[0] = o.list[0], outgoing{}
	o.list = o.list[1:]
	o.bytes -= len(out.envelope)
	if len(o.list) > 0 {
		o.signal()
	} else {
		o.list = nil
	}
	return out, true
}

func (o *outbox) signal() {
	select {
	case o.ready <- struct{}{}:
	default:
	}
}

func (o *outbox) len() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.list)
}
