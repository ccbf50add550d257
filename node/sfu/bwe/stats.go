package bwe

import (
	"fmt"
	"time"
)

// Stats is what an Estimator knows, for the API and for operators.
type Stats struct {
	Estimate    float64       // bit/s
	State       State         // what queues do
	Reason      Reason        // of the estimate
	Since       time.Duration // how long this is the reason
	Acked, Sent float64       // bit/s of the last half second
	Proven      float64       // bit/s that arrived or were probed, as far as believed
	Demand      float64       // bit/s that would be used
	REMB        float64       // bit/s, 0: none
	RTT         time.Duration // with the receiver's delay of feedback
	Queue       time.Duration // beyond the quickest packet of the last seconds
	Trend       float64       // ms, slope of the delay as compared with Threshold
	Threshold   float64       // ms
	Loss        float64       // 0 to 1, last window
	OwnLoss     float64       // of it taken for the path's own
	LossBound   float64       // bit/s, 0: none
	Transport   bool          // transport-wide feedback arrives
	Probes      int
	ProbesOK    uint64
	ProbesBad   uint64
	Ignored     Ignored
}

// Stats returns what is known at the last call.
func (e *Estimator) Stats() Stats {
	return Stats{
		Estimate: e.estimate, State: e.state, Reason: e.reason, Since: e.now - e.since,
		Acked: e.acked.long(), Sent: e.sending.long(), Proven: e.proven, Demand: e.demand, REMB: e.remb,
		RTT: e.rtt, Queue: e.path.queue(), Trend: e.trend.slope, Threshold: e.trend.gamma,
		Loss: e.loss.fraction, OwnLoss: e.loss.own, LossBound: e.loss.bound, Transport: e.transcc,
		Probes: e.probe.count, ProbesOK: e.probe.succeeded, ProbesBad: e.probe.failed, Ignored: e.ignored,
	}
}

// Explain says in a line what the estimate is and why.
func (e *Estimator) Explain() string {
	s := e.Stats()
	return fmt.Sprintf("%.0f kbit/s, %s: %s for %.1f s (arrived %.0f, wanted %.0f kbit/s; queue %d ms; loss %.1f %%, own %.1f %%)",
		s.Estimate/1e3, s.State, s.Reason, s.Since.Seconds(), s.Acked/1e3, s.Demand/1e3,
		s.Queue.Milliseconds(), 100*s.Loss, 100*s.OwnLoss)
}
