package front

import (
	"sync/atomic"

	"github.com/domicile/domicile/node/front/admission"
)

// outcome is what becomes of a connection once it is let in. Each is a label of
// a metric.
type outcome uint8

const (
	toHTTP       outcome = iota // handed to the HTTP server
	toTURN                      // handed to TURN, over TLS or not
	toICE                       // handed to ICE-TCP
	toRedirect                  // HTTP in clear, told where to go
	toChallenge                 // an ACME server has seen its certificate (RFC 8737)
	failSilent                  // budget used up
	failGone                    // closed by the client before it was clear what it wants
	failBytes                   // none of our protocols
	failShake                   // TLS handshake failed
	failProxy                   // a trusted proxy sent no header, or a bad one
	failUnserved                // a protocol that is not served here
	outcomes
)

func (o outcome) String() string {
	return [...]string{"http", "turn", "ice_tcp", "redirect", "acme_challenge", "silent", "gone", "garbage", "handshake",
		"proxy_header", "unserved"}[o]
}

// Stats are counts since the start, and gauges.
type Stats struct {
	Accepted uint64            // TCP connections
	Refused  map[string]uint64 // of those, closed at once, by rule (package admission)
	Outcomes map[string]uint64 // of the rest, what became of them
	Open     int               // connections that exist now, whatever they speak
	Pending  int               // of those, inside their budget

	QUICRefused map[string]uint64 // QUIC connections that were refused, by rule
	QUICOpen    int
	QUICPending int
	HTTP3       uint64 // requests
}

type counters struct {
	accepted atomic.Uint64
	refused  [8]atomic.Uint64 // by admission.Verdict
	outcomes [outcomes]atomic.Uint64

	quicRefused [8]atomic.Uint64
	http3       atomic.Uint64
}

// Stats returns the counts at this moment.
func (f *Front) Stats() Stats {
	s := Stats{Accepted: f.counts.accepted.Load(), Refused: map[string]uint64{}, Outcomes: map[string]uint64{},
		QUICRefused: map[string]uint64{}, HTTP3: f.counts.http3.Load()}
	for _, v := range admission.Refusals {
		s.Refused[v.String()] = f.counts.refused[v].Load()
		s.QUICRefused[v.String()] = f.counts.quicRefused[v].Load()
	}
	for o := range outcomes {
		s.Outcomes[o.String()] = f.counts.outcomes[o].Load()
	}
	s.Open, s.Pending = f.ledger.Count()
	if f.quic != nil {
		s.QUICOpen, s.QUICPending = f.quic.ledger.Count()
	}
	return s
}
