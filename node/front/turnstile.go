package front

import (
	"context"
	"runtime"
)

// turnstile bounds how many TLS handshakes are computed at once, so that a flood
// of them leaves processors to media. A handshake that waits for its client is
// outside: slow clients hold nobody up.
type turnstile chan struct{}

// newTurnstile lets half of the processors compute.
func newTurnstile() turnstile { return make(turnstile, max(1, runtime.GOMAXPROCS(0)/2)) }

func (t turnstile) enter(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turnstile) leave() { <-t }

// handshaking is a connection during its handshake: whoever reads from it holds
// a place in the turnstile, save while it waits for bytes.
type handshaking struct {
	*peekedConn
	ctx   context.Context // ends with the budget
	gate  turnstile
	holds bool
	done  bool // the handshake is over: a connection as any other
}

// Read waits outside.
func (h *handshaking) Read(b []byte) (int, error) {
	if h.done {
		return h.peekedConn.Read(b)
	}
	h.release()
	n, err := h.peekedConn.Read(b)
	if n == 0 {
		return n, err
	}
	if gone := h.gate.enter(h.ctx); gone != nil {
		return 0, gone
	}
	h.holds = true
	return n, err
}

func (h *handshaking) release() {
	if h.holds {
		h.holds = false
		h.gate.leave()
	}
}

// finish is called when the handshake has ended, well or not.
func (h *handshaking) finish() {
	h.release()
	h.done = true
}
