package node

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/domicile/domicile/residency/whereabouts"
)

// The node's metrics. Labels are nodes and drop reasons only: never rooms or people.
var (
	descAttendees = prometheus.NewDesc("domicile_attendees", "Attendees connected to this node.", nil, nil)
	descDraining  = prometheus.NewDesc("domicile_draining", "1 while the node is emptied: it takes nobody and sends away who is here.", nil, nil)
	descDrainLeft = prometheus.NewDesc("domicile_drain_left", "Attendees whom a node that drains has still to send away.", nil, nil)
	descRooms     = prometheus.NewDesc("domicile_rooms", "Rooms that live on this node.", nil, nil)
	descWHIP      = prometheus.NewDesc("domicile_whip_sessions", "Sessions of WHIP and WHEP on this node.", nil, nil)
	descMembers   = prometheus.NewDesc("domicile_mesh_members", "Verified nodes of the mesh, this one included.", nil, nil)
	descRefused   = prometheus.NewDesc("domicile_mesh_refused", "Nodes that gossip and are not part of the mesh.", nil, nil)
	descEpoch     = prometheus.NewDesc("domicile_policy_epoch", "Epoch of the policy bundle in force.", nil, nil)
	descRouting   = prometheus.NewDesc("domicile_routing_file_refused", "1 while the routing file as it stands does not count and older rules go on.", nil, nil)
	descDoubted   = prometheus.NewDesc("domicile_mesh_contradicted", "Nodes whose places are contradicted, by ground; those that an override believes are not in quarantine.", []string{"ground", "quarantined"}, nil)
	descGeoIP     = prometheus.NewDesc("domicile_geoip_usable", "1 if there is a GeoIP database, whole and not stale.", nil, nil)
	descMediaSent = prometheus.NewDesc("domicile_media_packets_sent_total", "Datagrams sent to attendees.", nil, nil)
	descMediaCall = prometheus.NewDesc("domicile_media_messages_sent_total", "Messages that these datagrams were handed to the kernel in.", nil, nil)
	descMediaDrop = prometheus.NewDesc("domicile_media_drops_total", "Datagrams of or for attendees that were dropped.", []string{"reason"}, nil)
	descConns     = prometheus.NewDesc("domicile_media_connections", "Media connections of attendees, up to two each.", nil, nil)
	descRTT       = prometheus.NewDesc("domicile_link_rtt_seconds", "Smoothed round-trip time of a link.", []string{"peer"}, nil)
	descSuspect   = prometheus.NewDesc("domicile_link_suspicions_total", "How often nothing arrived from a peer for an eighth of a second while media was to flow.", []string{"peer"}, nil)
	descCarriage  = prometheus.NewDesc("domicile_link_over_udp", "1 if media goes over UDP on a link, 0 if over QUIC.", []string{"peer"}, nil)
	descCarries   = prometheus.NewDesc("domicile_link_estimate_bps", "What the path of a link is believed to carry, in bit/s, where UDP passes.", []string{"peer"}, nil)
	descResent    = prometheus.NewDesc("domicile_link_resent_total", "Datagrams of a link that were lost on UDP and sent again.", []string{"peer"}, nil)
	descHeld      = prometheus.NewDesc("domicile_link_layers_held", "Layers of video that a link leaves out, as the path does not carry them.", []string{"peer"}, nil)
	descPlans     = prometheus.NewDesc("domicile_track_plans_total", "Trees made or changed for tracks published here that go to more nodes than one node sends to.", nil, nil)
	descMoves     = prometheus.NewDesc("domicile_track_moves_total", "Tracks that come from another node than before: as planned, or because nothing came.", []string{"reason"}, nil)
	descPackets   = prometheus.NewDesc("domicile_link_packets_total", "Media packets over a link.", []string{"peer", "direction"}, nil)
	descBytes     = prometheus.NewDesc("domicile_link_bytes_total", "Media bytes over a link.", []string{"peer", "direction"}, nil)
	descCertEnd   = prometheus.NewDesc("domicile_tls_certificate_not_after_timestamp_seconds", "When the certificate for attendees ends, in seconds since 1970; 0 while there is none that browsers believe.", nil, nil)
	descCertNew   = prometheus.NewDesc("domicile_tls_certificate_renewals_total", "Certificates for attendees that were taken over, by ACME or from changed files.", nil, nil)
	descCertFail  = prometheus.NewDesc("domicile_tls_certificate_failures_total", "Attempts to get a certificate for attendees that failed.", []string{"reason"}, nil)
	descNodeLeft  = prometheus.NewDesc("domicile_node_certificate_seconds_left", "Seconds until the certificate by which other nodes know this one ends; negative once it has.", nil, nil)
	descNodeNew   = prometheus.NewDesc("domicile_node_certificate_renewals_total", "Renewed certificates of the node that were taken over.", nil, nil)
	descNodeVoid  = prometheus.NewDesc("domicile_node_certificate_revoked", "1 if the policies in force revoke the node's certificate.", nil, nil)
	descTurned    = prometheus.NewDesc("domicile_gate_turned_away_total", "Messages and requests of other nodes that were dropped because the gate refuses their sender.", []string{"peer", "class", "rule"}, nil)
	descOverstays = prometheus.NewDesc("domicile_kept_refused", "Rooms, recordings and files of chat that this node keeps and may not keep any more.", []string{"class", "rule"}, nil)
	descDrops     = prometheus.NewDesc("domicile_link_drops_total", "Media packets that a link dropped.", []string{"peer", "reason"}, nil)
)

// collector reads the node's state when Prometheus asks.
type collector struct{ n *Node }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAttendees, descDraining, descDrainLeft, descRooms, descWHIP, descMembers, descRefused, descEpoch, descRouting, descDoubted, descGeoIP, descTurned, descOverstays,
		descMediaSent, descMediaCall, descMediaDrop, descConns, descRTT, descPlans, descMoves, descSuspect, descCarriage, descCarries, descResent, descHeld, descPackets, descBytes, descDrops,
		descCertEnd, descCertNew, descCertFail, descNodeLeft, descNodeNew, descNodeVoid} {
		ch <- d
	}
	describeFront(ch)
	describeTURN(ch)
	ch <- descDNSQuestions
	ch <- descWebhooks
	describeEvidence(ch)
	describeCopies(ch)
	describeStore(ch)
	describeRetention(ch)
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
	drained := c.n.drainState()
	gauge(descDraining, map[bool]float64{true: 1}[drained.Draining])
	gauge(descDrainLeft, float64(drained.Left))
	gauge(descRooms, float64(len(s.Rooms)))
	gauge(descWHIP, float64(c.n.whip.Sessions()))
	gauge(descMembers, float64(len(s.Members)))
	gauge(descRefused, float64(len(s.Refused)))
	gauge(descEpoch, float64(s.Epoch))
	gauge(descRouting, map[bool]float64{true: 1}[s.Routing != nil && s.Routing.Problem != ""])
	c.collectPlaces(s, gauge)
	m := c.n.engine.Stats()
	count(descMediaSent, m.PacketsSent)
	count(descMediaCall, m.MessagesSent)
	gauge(descConns, float64(m.Conns))
	for reason, v := range m.Drops {
		count(descMediaDrop, v, reason)
	}
	count(descPlans, c.n.trees.Plans.Load())
	count(descMoves, c.n.trees.Moved.Load(), "plan")
	count(descMoves, c.n.trees.Lost.Load(), "lost")
	c.n.collectFront(gauge, count)
	c.n.collectTURN(gauge, count)
	c.n.collectDNS(count)
	c.n.collectWebhooks(count)
	c.n.collectEvidence(gauge, count)
	c.n.collectCopies(gauge, count)
	collectStore(s.Store, gauge, count)
	c.n.collectRetention(gauge, count)
	if crt := s.Certificate; crt != nil {
		end := float64(crt.NotAfter.Unix())
		if crt.SelfMade {
			end = 0
		}
		gauge(descCertEnd, end)
		count(descCertNew, crt.Renewals)
		for reason, v := range crt.Failures {
			count(descCertFail, v, string(reason))
		}
	}
	if own := s.Identity; own != nil {
		gauge(descNodeLeft, float64(own.SecondsLeft))
		count(descNodeNew, own.Renewals)
		gauge(descNodeVoid, map[bool]float64{true: 1}[own.Revoked])
	}
	over := map[[2]string]float64{}
	for _, o := range s.Overstays {
		over[[2]string{string(o.Class), o.Rule}]++
	}
	for labels, v := range over {
		gauge(descOverstays, v, labels[0], labels[1])
	}
	for _, t := range s.TurnedAway {
		count(descTurned, t.Count, string(t.Node), string(t.Class), t.Rule)
	}
	for _, l := range s.Links {
		peer := string(l.Peer)
		gauge(descRTT, l.RTT.Seconds(), peer)
		count(descSuspect, l.Suspicions, peer)
		gauge(descCarriage, map[string]float64{"udp": 1}[l.Carriage], peer)
		if u := l.UDP; u != nil {
			gauge(descCarries, u.Estimate, peer)
			count(descResent, u.Resent, peer)
			gauge(descHeld, float64(u.Held), peer)
		}
		count(descPackets, l.TxPackets, peer, "tx")
		count(descPackets, l.RxPackets, peer, "rx")
		count(descBytes, l.TxBytes, peer, "tx")
		count(descBytes, l.RxBytes, peer, "rx")
		for reason, v := range l.Drops {
			count(descDrops, v, peer, reason)
		}
	}
}

// collectPlaces counts the nodes whose places are contradicted.
func (c collector) collectPlaces(s NodeState, gauge func(*prometheus.Desc, float64, ...string)) {
	count := map[[2]string]float64{}
	for _, g := range whereabouts.Grounds() {
		count[[2]string{string(g), "true"}], count[[2]string{string(g), "false"}] = 0, 0
	}
	for _, d := range s.Doubted {
		count[[2]string{string(d.Ground), strconv.FormatBool(d.Quarantined)}]++
	}
	for labels, n := range count {
		gauge(descDoubted, n, labels[0], labels[1])
	}
	usable := 1.0
	if s.GeoIP != "" {
		usable = 0
	}
	gauge(descGeoIP, usable)
}
