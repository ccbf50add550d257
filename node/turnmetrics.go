package node

import "github.com/prometheus/client_golang/prometheus"

// TURN's metrics. What became of a message is named in package alloc.
var (
	descTURNAllocations = prometheus.NewDesc("domicile_turn_allocations", "TURN allocations of attendees, over all transports.", nil, nil)
	descTURNStreams     = prometheus.NewDesc("domicile_turn_streams", "TURN connections over TCP and TLS.", nil, nil)
	descTURNMessages    = prometheus.NewDesc("domicile_turn_messages_total", "TURN messages by what became of them.", []string{"result"}, nil)
	descTURNPackets     = prometheus.NewDesc("domicile_turn_packets_total", "Packets through TURN.", []string{"direction"}, nil)
	descTURNBytes       = prometheus.NewDesc("domicile_turn_bytes_total", "Bytes through TURN, without its own.", []string{"direction"}, nil)
)

func describeTURN(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTURNAllocations, descTURNStreams, descTURNMessages, descTURNPackets, descTURNBytes} {
		ch <- d
	}
}

// collectTURN hands out what the relay counts.
func (n *Node) collectTURN(gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	s := n.turn.Stats()
	gauge(descTURNAllocations, float64(s.Allocations))
	gauge(descTURNStreams, float64(s.Streams))
	for result, v := range s.Messages {
		count(descTURNMessages, v, result)
	}
	count(descTURNPackets, s.PacketsUp, "up")
	count(descTURNPackets, s.PacketsDown, "down")
	count(descTURNBytes, s.BytesUp, "up")
	count(descTURNBytes, s.BytesDown, "down")
}
