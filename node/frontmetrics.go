package node

import "github.com/prometheus/client_golang/prometheus"

// The front door's metrics. What became of a connection, and by which rule one was
// refused, are named in packages front and admission.
var (
	descFrontConns   = prometheus.NewDesc("domicile_front_connections_total", "TCP connections that were let in, by what became of them.", []string{"outcome"}, nil)
	descFrontRefused = prometheus.NewDesc("domicile_front_refused_total", "Connections that were refused, by bound.", []string{"transport", "bound"}, nil)
	descFrontOpen    = prometheus.NewDesc("domicile_front_open", "Connections that exist, whatever they speak.", []string{"transport"}, nil)
	descFrontPending = prometheus.NewDesc("domicile_front_half_open", "Of those, the ones that have not said yet what they want.", []string{"transport"}, nil)
	descHTTP3        = prometheus.NewDesc("domicile_http3_requests_total", "Requests over HTTP/3.", nil, nil)
	descQUICDrops    = prometheus.NewDesc("domicile_http3_drops_total", "Datagrams of HTTP/3 that were dropped.", []string{"reason"}, nil)
)

func describeFront(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descFrontConns, descFrontRefused, descFrontOpen, descFrontPending, descHTTP3, descQUICDrops} {
		ch <- d
	}
}

// collectFront hands out what the front door counts.
func (n *Node) collectFront(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	s := n.front.Stats()
	for what, v := range s.Outcomes {
		count(descFrontConns, v, what)
	}
	for bound, v := range s.Refused {
		count(descFrontRefused, v, "tcp", bound)
	}
	for bound, v := range s.QUICRefused {
		count(descFrontRefused, v, "quic", bound)
	}
	gauge(descFrontOpen, float64(s.Open), "tcp")
	gauge(descFrontOpen, float64(s.QUICOpen), "quic")
	gauge(descFrontPending, float64(s.Pending), "tcp")
	gauge(descFrontPending, float64(s.QUICPending), "quic")
	count(descHTTP3, s.HTTP3)
	if n.quic == nil {
		return
	}
	for reason, v := range n.quic.Drops() {
		count(descQUICDrops, v, reason)
	}
}
