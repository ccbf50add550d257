package node

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/residency"
)

// StoreState is how the records of rooms are kept.
type StoreState struct {
	store.State
	// Country is where the shared database is, by the configuration.
	Country residency.Country `json:"country,omitempty"`
}

var (
	descStoreAway     = prometheus.NewDesc("domicile_store_away", "1 while the shared database is away and writes wait in the journal.", nil, nil)
	descStoreWaiting  = prometheus.NewDesc("domicile_store_journal_entries", "Writes that wait for the shared database.", nil, nil)
	descStoreBytes    = prometheus.NewDesc("domicile_store_journal_bytes", "Bytes of them.", nil, nil)
	descStoreLimit    = prometheus.NewDesc("domicile_store_journal_limit_bytes", "Bytes at which no more are taken.", nil, nil)
	descStoreReplayed = prometheus.NewDesc("domicile_store_replayed_total", "Writes that have waited and that the shared database has taken.", nil, nil)
	descStoreRefused  = prometheus.NewDesc("domicile_store_refused_total", "Writes that have waited and that the shared database has refused.", nil, nil)
	descStoreAside    = prometheus.NewDesc("domicile_store_aside_entries", "Refused writes that are kept aside.", nil, nil)
)

// storeLook bounds how long who asks for the state waits for the disk.
const storeLook = time.Second

// storeState is nil on a node that is no origin, and while the disk does not answer.
func (n *Node) storeState() *StoreState {
	if n.files == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, storeLook)
	defer cancel()
	s, err := n.files.State(ctx)
	if err != nil {
		s.Problem = err.Error()
	}
	return &StoreState{State: s, Country: n.cfg.Places[residency.ClassMetadata].Country}
}

func describeStore(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descStoreAway, descStoreWaiting, descStoreBytes, descStoreLimit, descStoreReplayed, descStoreRefused, descStoreAside} {
		ch <- d
	}
}

// collectStore reports on a shared database; there is nothing to tell of a file.
func collectStore(s *StoreState, gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	if s == nil || s.LimitBytes == 0 {
		return
	}
	gauge(descStoreAway, map[bool]float64{true: 1}[s.Away])
	gauge(descStoreWaiting, float64(s.Waiting))
	gauge(descStoreBytes, float64(s.WaitingBytes))
	gauge(descStoreLimit, float64(s.LimitBytes))
	count(descStoreReplayed, s.Replayed)
	count(descStoreRefused, s.Refused)
	gauge(descStoreAside, float64(s.Aside))
}
