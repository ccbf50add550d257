package transport

import "time"

// State of a connection.
type State uint8

// The states, in the order in which a connection meets them; from Disconnected it
// can come back to Connected. Failed and Closed are final: nothing is sent or
// taken any more, and the owner has only Close left.
const (
	Connecting   State = iota // the client's description is known
	Connected                 // ICE, DTLS and SRTP stand
	Disconnected              // nothing was heard for silentAfter
	Failed                    // no connection within failedAfter, or silence as long, or another certificate
	Closed                    // the client said goodbye
)

func (s State) String() string {
	return [...]string{"connecting", "connected", "disconnected", "failed", "closed"}[s]
}

// A client that changes networks gets 5 s before it is called disconnected, and 20
// more before the session is given up. Browsers send a check every 2.5 s.
const (
	silentAfter = 5 * time.Second
	failedAfter = 25 * time.Second
)

// facts are what a State follows from.
type facts struct {
	started time.Time // when the client's description was given
	heard   time.Time // when something authenticated came last
	secured bool      // the handshake is through
	broken  bool      // the handshake failed
	goodbye bool      // the client ended the connection
}

// next is the state that the facts make of s.
func (s State) next(f facts, now time.Time) State {
	since := f.heard
	if since.Before(f.started) {
		since = f.started
	}
	silence := now.Sub(since)
	switch {
	case s == Failed || s == Closed:
		return s
	case f.goodbye:
		return Closed
	case f.broken, silence >= failedAfter, !f.secured && now.Sub(f.started) >= failedAfter:
		return Failed
	case !f.secured:
		return Connecting
	case silence >= silentAfter:
		return Disconnected
	default:
		return Connected
	}
}
