package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

// The node's metrics. Labels are nodes and drop reasons only: never rooms or people.
var (
	descAttendees = prometheus.NewDesc("domicile_attendees", "Attendees connected to this node.", nil, nil)
	descRooms     = prometheus.NewDesc("domicile_rooms", "Rooms that live on this node.", nil, nil)
	descWHIP      = prometheus.NewDesc("domicile_whip_sessions", "Sessions of WHIP and WHEP on this node.", nil, nil)
	descMembers   = prometheus.NewDesc("domicile_mesh_members", "Verified nodes of the mesh, this one included.", nil, nil)
	descRefused   = prometheus.NewDesc("domicile_mesh_refused", "Nodes that gossip and are not part of the mesh.", nil, nil)
	descEpoch     = prometheus.NewDesc("domicile_policy_epoch", "Epoch of the policy bundle in force.", nil, nil)
	descMediaSent = prometheus.NewDesc("domicile_media_packets_sent_total", "Datagrams sent to attendees.", nil, nil)
	descMediaCall = prometheus.NewDesc("domicile_media_messages_sent_total", "Messages that these datagrams were handed to the kernel in.", nil, nil)
	descMediaDrop = prometheus.NewDesc("domicile_media_drops_total", "Datagrams of or for attendees that were dropped.", []string{"reason"}, nil)
	descConns     = prometheus.NewDesc("domicile_media_connections", "Media connections of attendees, up to two each.", nil, nil)
	descRTT       = prometheus.NewDesc("domicile_link_rtt_seconds", "Smoothed round-trip time of a link.", []string{"peer"}, nil)
	descPackets   = prometheus.NewDesc("domicile_link_packets_total", "Media packets over a link.", []string{"peer", "direction"}, nil)
	descBytes     = prometheus.NewDesc("domicile_link_bytes_total", "Media bytes over a link.", []string{"peer", "direction"}, nil)
	descDrops     = prometheus.NewDesc("domicile_link_drops_total", "Media packets that a link dropped.", []string{"peer", "reason"}, nil)
)

// collector reads the node's state when Prometheus asks.
type collector struct{ n *Node }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAttendees, descRooms, descWHIP, descMembers, descRefused, descEpoch,
		descMediaSent, descMediaCall, descMediaDrop, descConns, descRTT, descPackets, descBytes, descDrops} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	s := c.n.state()
	gauge(descAttendees, float64(c.n.attendees.Load()))
	gauge(descRooms, float64(len(s.Rooms)))
	gauge(descWHIP, float64(c.n.whip.Sessions()))
	gauge(descMembers, float64(len(s.Members)))
	gauge(descRefused, float64(len(s.Refused)))
	gauge(descEpoch, float64(s.Epoch))
	m := c.n.engine.Stats()
	count(descMediaSent, m.PacketsSent)
	count(descMediaCall, m.MessagesSent)
	gauge(descConns, float64(m.Conns))
	for reason, v := range m.Drops {
		count(descMediaDrop, v, reason)
	}
	for _, l := range s.Links {
		peer := string(l.Peer)
		gauge(descRTT, l.RTT.Seconds(), peer)
		count(descPackets, l.TxPackets, peer, "tx")
		count(descPackets, l.RxPackets, peer, "rx")
		count(descBytes, l.TxBytes, peer, "tx")
		count(descBytes, l.RxBytes, peer, "rx")
		for reason, v := range l.Drops {
			count(descDrops, v, peer, reason)
		}
	}
}
