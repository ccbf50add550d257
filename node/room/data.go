package room

import (
	"errors"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room/reliable"
	"github.com/domicile/domicile/residency"
)

// Data packets. Lossy ones are passed on. Reliable ones arrive at each client in
// order and once, whatever became of a link or of the client's connection
// meanwhile (node/room/reliable): each names, between nodes, the one that went to
// that node before it, and is kept for a while for nodes that ask for it again and
// for clients that come back.

// stream is the room's account of reliable data. Owned by Room.run.
type stream struct {
	log  *reliable.Log
	feed reliable.Feed // what other nodes were sent
}

// seqProtocol is the first version of the client protocol whose clients number
// what they send and state what they have.
const seqProtocol = 16

// DataAsk asks the publisher's node for what follows a number.
type DataAsk struct {
	Publisher string `json:"publisher"` // participant sid
	After     uint32 `json:"after"`
}

// DataHead says up to which number a publisher's messages were sent. With Skip set
// what is missing up to there does not come any more.
type DataHead struct {
	Publisher string `json:"publisher"`
	Seq       uint32 `json:"seq"`
	Skip      bool   `json:"skip,omitempty"`
}

func (d *DataAsk) check() error  { return checkPublisher(d.Publisher) }
func (d *DataHead) check() error { return checkPublisher(d.Publisher) }

func checkPublisher(sid string) error {
	if !validSID(sid) {
		return errors.New("the publisher's sid is missing or malformed")
	}
	return nil
}

// doData takes a data packet of the client, states who sent it, and passes it on.
func (p *Participant) doData(lossless bool, b []byte) {
	if !permission(p.token.Load()).CanPublishData {
		return
	}
	pkt := &livekit.DataPacket{}
	if err := proto.Unmarshal(b, pkt); err != nil {
		p.log.Debug("data packet is dropped", "error", err)
		return
	}
	if lossless && pkt.Sequence != 0 {
		fresh, missing := p.source.Take(pkt.Sequence)
		p.lastReliable.Store(p.source.Last())
		if !fresh {
			return // sent again
		}
		if missing > 0 {
			p.log.Warn("the client's channel has lost reliable data", "messages", missing)
		}
	}
	pkt.ParticipantSid, pkt.ParticipantIdentity = p.sid, p.identity
	pkt.Kind = livekit.DataPacket_LOSSY
	if lossless {
		pkt.Kind = livekit.DataPacket_RELIABLE
	}
	if u := pkt.GetUser(); u != nil {
		u.ParticipantSid, u.ParticipantIdentity = p.sid, p.identity //nolint:staticcheck // older clients read these
	}
	out, err := proto.Marshal(pkt)
	if err != nil {
		return
	}
	p.room.post(func() { p.room.doLocalData(p, lossless, pkt, out) })
}

// doLocalData delivers a participant's data here and on the other nodes.
func (r *Room) doLocalData(p *Participant, lossless bool, pkt *livekit.DataPacket, b []byte) {
	switch {
	case r.locals[p.identity] != p:
		if lossless && pkt.Sequence != 0 {
			r.passOn(p, b)
		}
	case p.info.Permission.CanPublishData:
		r.spread(Data{Reliable: lossless, Packet: b}, pkt)
		r.keepChat(p, pkt)
		if lossless {
			p.spoken = max(p.spoken, pkt.Sequence)
		}
	}
}

// spread delivers data here and hands it to the nodes that serve somebody who is meant.
func (r *Room) spread(d Data, pkt *livekit.DataPacket) {
	r.deliver(d.Reliable, pkt, d.Packet)
	whole := encode(d)
	for name, m := range r.remotes {
		if !m.addressed(pkt) {
			continue
		}
		body := whole
		if d.Reliable && pkt.Sequence != 0 {
			numbered := d
			numbered.Prev = r.data.feed.Next(string(name), pkt.ParticipantSid, pkt.Sequence)
			body = encode(numbered)
		}
		r.sendTo(name, KindData, body)
	}
}

// addressed reports whether somebody on the node is meant.
func (m *remote) addressed(pkt *livekit.DataPacket) bool {
	for _, p := range m.participants {
		if meant(pkt, p.info.Identity) {
			return true
		}
	}
	return false
}

func meant(pkt *livekit.DataPacket, identity string) bool {
	m := reliable.Message{From: pkt.ParticipantIdentity, To: destinations(pkt)}
	return m.For(identity)
}

// destinations are the identities that a packet is for; none: everybody.
func destinations(pkt *livekit.DataPacket) []string {
	if to := pkt.DestinationIdentities; len(to) > 0 {
		return to
	}
	return pkt.GetUser().GetDestinationIdentities() //nolint:staticcheck // older clients write these
}

// message is a packet as the account of reliable data has it.
func message(pkt *livekit.DataPacket, b []byte) reliable.Message {
	return reliable.Message{Publisher: pkt.ParticipantSid, Seq: pkt.Sequence, From: pkt.ParticipantIdentity,
		To: destinations(pkt), Packet: b}
}

// doRemoteData takes data of a participant that the sending node serves.
func (r *Room) doRemoteData(from residency.NodeName, d Data) {
	pkt := &livekit.DataPacket{}
	if err := proto.Unmarshal(d.Packet, pkt); err != nil {
		r.log.Warn("bad data packet of a node is dropped", "node", from, "error", err)
		return
	}
	m := r.remotes[from]
	if m == nil || !m.sent(pkt) && !(d.Server && fromServer(pkt)) {
		if m != nil && r.doLate(from, d, pkt) {
			return
		}
		r.log.Warn("data packet in the name of nobody at its node is dropped", "node", from)
		return
	}
	if p := m.participants[pkt.ParticipantSid]; p != nil && d.Reliable && pkt.Sequence != 0 {
		r.follow(m, pkt.ParticipantSid, p.order.Take(message(pkt, d.Packet), d.Prev, r.deps.Now()))
		return
	}
	r.deliver(d.Reliable, pkt, d.Packet)
}

// follow does what the order of a publisher elsewhere demands.
func (r *Room) follow(m *remote, publisher string, s reliable.Step) {
	for _, msg := range s.Deliver {
		r.deliverReliable(msg)
	}
	if s.Ask {
		r.sendTo(m.name, KindDataAsk, encode(DataAsk{Publisher: publisher, After: s.After})) //nolint:errcheck // asked again
	}
	for _, g := range s.Lost {
		r.log.Warn("reliable data of another node is lost", "node", m.name, "participant", publisher, "after", g.After, "upto", g.Upto)
	}
}

// doDataAsk sends a node again what it has missed, as far as it is kept.
func (r *Room) doDataAsk(from residency.NodeName, ask DataAsk) {
	m := r.remotes[from]
	if m == nil || !r.serves(ask.Publisher) {
		return
	}
	prev := ask.After
	for _, msg := range r.data.log.Since(ask.Publisher, ask.After, m.meantFor) {
		r.sendTo(from, KindData, encode(Data{Reliable: true, Packet: msg.Packet, Prev: prev})) //nolint:errcheck // asked again
		prev = msg.Seq
	}
	head := r.data.feed.Heads(string(from))[ask.Publisher]
	r.sendTo(from, KindDataHead, encode(DataHead{Publisher: ask.Publisher, Seq: head, Skip: true})) //nolint:errcheck // asked again
}

// serves reports whether a participant is on this node.
func (r *Room) serves(sid string) bool {
	for _, p := range r.locals {
		if p.sid == sid {
			return true
		}
	}
	return false
}

// meantFor reports whether a message is for somebody on the node.
func (m *remote) meantFor(msg *reliable.Message) bool {
	for _, p := range m.participants {
		if msg.For(p.info.Identity) {
			return true
		}
	}
	return false
}

// doDataHead takes a node's word on how far it has sent.
func (r *Room) doDataHead(from residency.NodeName, h DataHead) {
	m := r.remotes[from]
	if m == nil || m.participants[h.Publisher] == nil {
		return
	}
	o, now := &m.participants[h.Publisher].order, r.deps.Now()
	if h.Skip {
		r.follow(m, h.Publisher, o.Skip(h.Seq, now))
	} else {
		r.follow(m, h.Publisher, o.Head(h.Seq, now))
	}
}

// tellHeads tells a node whose link is back how far it was sent each publisher's data.
func (r *Room) tellHeads(to residency.NodeName) {
	for publisher, seq := range r.data.feed.Heads(string(to)) {
		r.sendTo(to, KindDataHead, encode(DataHead{Publisher: publisher, Seq: seq})) //nolint:errcheck // the next message says it too
	}
}

// doOrders asks again for what is missing, or gives it up.
func (r *Room) doOrders(now time.Time) {
	for _, m := range r.remotes {
		for sid, p := range m.participants {
			if !p.order.Idle() {
				r.follow(m, sid, p.order.Tick(now))
			}
		}
	}
}

// sent reports whether the packet names a participant of this node as its
// sender, and nobody else in any of its fields.
func (m *remote) sent(pkt *livekit.DataPacket) bool {
	p := m.participants[pkt.ParticipantSid]
	if p == nil || pkt.ParticipantIdentity != p.info.Identity {
		return false
	}
	return ofOne(pkt)
}

// ofOne reports whether the packet names one sender in all of its fields.
func ofOne(pkt *livekit.DataPacket) bool {
	u := pkt.GetUser()
	return u == nil || u.ParticipantSid == pkt.ParticipantSid && u.ParticipantIdentity == pkt.ParticipantIdentity //nolint:staticcheck // older clients read these
}

// deliver hands data to the participants here that are meant.
func (r *Room) deliver(lossless bool, pkt *livekit.DataPacket, b []byte) {
	r.introduced(pkt.ParticipantSid)
	if lossless {
		r.deliverReliable(message(pkt, b))
		return
	}
	for _, p := range r.locals {
		if p.info.Permission.CanSubscribe && meant(pkt, p.identity) {
			p.sendData(false, b)
		}
	}
}

// deliverReliable keeps a message and hands it to those who can take it now.
func (r *Room) deliverReliable(m reliable.Message) {
	r.data.log.Add(m, r.deps.Now())
	for _, p := range r.locals {
		if p.info.Permission.CanSubscribe && m.For(p.identity) && !r.data.log.Held(p.identity) {
			p.sendData(true, m.Packet)
		}
	}
}

func (p *Participant) sendData(lossless bool, packets ...[]byte) {
	p.post(func() {
		for _, b := range packets {
			if err := p.session.SendData(lossless, b); err != nil {
				p.log.Debug("data is not delivered", "error", err)
			}
		}
	})
}

// holdData keeps what comes for a participant whose media connection is in doubt.
func (r *Room) holdData(p *Participant) {
	if r.locals[p.identity] == p {
		r.data.log.Hold(p.identity)
	}
}

// resumeData sends a participant what it has missed. have is the last number that
// it has of each publisher, nil if it did not say.
func (r *Room) resumeData(p *Participant, have map[string]uint32) {
	if r.locals[p.identity] != p || have == nil && !r.data.log.Held(p.identity) {
		return
	}
	again, lost := r.data.log.Resume(p.identity, have, r.deps.Now())
	packets := make([][]byte, 0, len(again))
	for _, m := range again {
		packets = append(packets, m.Packet)
	}
	if p.info.Permission.CanSubscribe && len(packets) > 0 {
		p.sendData(true, packets...)
	}
	for publisher, g := range lost {
		p.log.Warn("reliable data is lost", "publisher", publisher, "after", g.After, "upto", g.Upto)
	}
}

// received is what a client says that it has, nil if it keeps no account.
func received(p *Participant, s *livekit.SyncState) map[string]uint32 {
	states := s.GetDatachannelReceiveStates()
	if len(states) == 0 && p.join.Protocol < seqProtocol || len(states) > maxChoices {
		return nil
	}
	have := make(map[string]uint32, len(states))
	for _, st := range states {
		have[st.GetPublisherSid()] = st.GetLastSeq()
	}
	return have
}
