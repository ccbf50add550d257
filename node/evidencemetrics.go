package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/domicile/domicile/node/outbox"
	"github.com/domicile/domicile/residency/evidence"
)

// The metrics of the evidence that this node writes, and of the log that an origin
// keeps. A node without a mesh has neither, and shows none.
var (
	descWritable = prometheus.NewDesc("domicile_evidence_writable", "1 if what happens now can be proved afterwards; rooms that need evidence stop while it is 0.", nil, nil)
	descWritten  = prometheus.NewDesc("domicile_evidence_receipts_written_total", "Receipts that this node has signed.", nil, nil)
	descShipped  = prometheus.NewDesc("domicile_evidence_receipts_shipped_total", "Of those, the ones that a log has taken.", nil, nil)
	descWaiting  = prometheus.NewDesc("domicile_evidence_receipts_waiting", "Receipts that no log has taken yet.", nil, nil)
	descGivenUp  = prometheus.NewDesc("domicile_evidence_receipts_dropped_total", "Receipts that no log will ever have.", []string{"reason"}, nil)
	descLogSize  = prometheus.NewDesc("domicile_evidence_log_receipts", "Receipts in this origin's log.", nil, nil)
	descLogBytes = prometheus.NewDesc("domicile_evidence_log_bytes", "Size of this origin's log on the disk.", nil, nil)
	descHeadAge  = prometheus.NewDesc("domicile_evidence_head_age_seconds", "Time since this origin signed its log last, which it does with each batch of receipts.", nil, nil)
	descWitness  = prometheus.NewDesc("domicile_evidence_complaints_total", "Logs of other origins that were not what they had been.", nil, nil)
)

// unsignable is the reason of receipts that were lost before they were one.
const unsignable = "unsigned"

func describeEvidence(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descWritable, descWritten, descShipped, descWaiting, descGivenUp, descLogSize, descLogBytes, descHeadAge, descWitness} {
		ch <- d
	}
}

// collectEvidence hands out what is known of the evidence.
func (n *Node) collectEvidence(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	p := &n.testimony
	if !n.proves() {
		return
	}
	s := n.evidenceState()
	gauge(descWritable, map[bool]float64{true: 1}[s.Problem == ""])
	count(descWritten, p.written.Load())
	count(descShipped, p.shipped.Load())
	gauge(descWaiting, float64(s.Waiting))
	dropped := p.box.Dropped()
	for _, why := range outbox.Reasons() {
		count(descGivenUp, dropped[why], string(why))
	}
	count(descGivenUp, p.lost.Load(), unsignable)
	count(descWitness, s.Complaints)
	if p.log == nil {
		return
	}
	gauge(descLogSize, float64(s.Receipts))
	gauge(descLogBytes, float64(p.log.Bytes()))
	if h, signed := p.log.Head(); signed != nil {
		gauge(descHeadAge, n.now().Sub(evidence.Time(h.Time)).Seconds())
	}
}
