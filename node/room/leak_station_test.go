package room

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"golang.org/x/time/rate"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
)

// visitor is somebody at a station.
type visitor struct {
	*Participant
	ups      []*sfu.UpTrack
	seq      uint16
	told     map[string]bool // recordings of which they have been told
	given    bool            // their token says that they have agreed
	said     map[string]bool // to which they have agreed at some time
	consent  string          // what they say of being recorded
	withdrew time.Time       // when they last said something else
}

func (s *station) clock() time.Time { return s.w.now.Add(s.skew) }

// wallClock is clock for any goroutine: recordings have some of their own.
func (s *station) wallClock() time.Time { return time.Unix(0, s.w.wall.Load()).UTC().Add(s.skew) }

// tells is town.tells of something at this node.
func (s *station) tells(format string, a ...any) { s.w.tells(string(s.self.Name)+" "+format, a...) }

func (s *station) fails(format string, a ...any) {
	s.w.wrong = append(s.w.wrong, fmt.Sprintf("%s at %s: ", s.self.Name, s.w.now.Sub(residencytest.Noon))+fmt.Sprintf(format, a...))
}

// facts are the policies and the room as this node has to see them.
func (s *station) facts(class residency.Class) residencytest.Facts {
	// What flows is asked about twice a second, what is sent each time.
	unprovable := s.unprovable != "" && (class != "media" || s.w.now.Sub(s.mute) > patienceOfEdges)
	return residencytest.Facts{Bundle: s.bundle, Tenant: s.w.record.Tenant, Policy: s.w.record.Policy, Class: class, Unprovable: unprovable, Now: s.clock()}
}

// about adds what this node was told of another, or knows of itself.
func (s *station) about(f residencytest.Facts, node residency.NodeName) residencytest.Facts {
	if node == s.self.Name {
		f.Peer, f.PeerEpoch, f.Outside = s.self, s.bundle.Epoch, s.serves(s.bundle)
		return f
	}
	m := s.view[node]
	f.Peer, f.PeerEpoch, f.Contradicted = m.node, m.epoch, m.contradiction != ""
	f.Outside = s.heard(s.w.station(node))
	return f
}

// serves reports whether somebody from outside the media zone is here.
func (s *station) serves(b *residency.Bundle) bool {
	for _, v := range s.people {
		if residencytest.Outside(b, s.w.record.Tenant, s.w.record.Policy, v.country) {
			return true
		}
	}
	return s.connecting != "" && residencytest.Outside(b, s.w.record.Tenant, s.w.record.Policy, s.connecting)
}

// heard reports whether this node may still take the other for one that serves
// somebody from outside: it does, or the news that it does no more may still be
// on its way. That takes as long as the slowest message since it could be sent:
// since the last one left, the link came up, and both go by the same policies again.
func (s *station) heard(o *station) bool {
	if o.serves(s.bundle) {
		return true
	}
	since := o.outsider
	if since.IsZero() {
		return false
	}
	for _, t := range []time.Time{s.linked[o.self.Name], s.told, o.told} {
		if t.After(since) {
			since = t
		}
	}
	wait := slowest + patienceOfEdges
	if o.forgot[s.self.Name] || o.unprovable != "" || o.proved.After(o.outsider) {
		// Whom gossip has lost, or does not believe, it cannot tell goodbye, nor anybody without
		// evidence; the home finds the silence out, and tells the others.
		wait = helloEvery + 2*doubtWait + patienceOfEdges + slowest
	}
	return s.w.now.Sub(since) <= wait
}

// deps is what the node gives its rooms.
func (s *station) deps() Deps {
	d := Deps{
		Self: s.self, Gate: func() *residency.Gate { return s.gate },
		Peer: func(n residency.NodeName) (residency.Node, residency.Epoch, bool) {
			if n == s.self.Name {
				return s.self, s.bundle.Epoch, true
			}
			m, ok := s.view[n]
			return m.node, m.epoch, ok
		},
		Link: func(n residency.NodeName) Link {
			if p := s.pipes[n]; p != nil {
				return p
			}
			return nil
		},
		Contradiction: func(n residency.NodeName) string { return s.view[n].contradiction },
		Home:          s.home,
		Save:          s.saves,
		Forget:        func(Record) error { return nil },
		ICEServers:    func(string, string) []*livekit.ICEServer { return nil },
		NoEvidence:    func(string) string { return s.unprovable },
		KeepChat:      s.keepsChat,
		Event:         s.happened,
		Consent:       s.noted,
		Places:        s.places(),
		FanOut:        s.w.fanOut,
		Now:           s.wallClock, Log: slog.New(slog.DiscardHandler),
	}
	if s.self.Has(residency.RoleOrigin) {
		d.Vault = &vault.Vault{}
	}
	return d
}

func (s *station) candidates() []router.Candidate {
	list := []router.Candidate{{Node: s.self, Epoch: s.bundle.Epoch, Local: true, Up: true}}
	for _, o := range s.w.stations {
		if m, ok := s.view[o.self.Name]; ok {
			list = append(list, router.Candidate{Node: m.node, Epoch: m.epoch, Up: true, Contradiction: m.contradiction})
		}
	}
	return list
}

func roomOf(rec Record) router.Room {
	return router.Room{Name: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy}
}

func (s *station) home(rec Record) residency.NodeName {
	return router.Home(s.gate, roomOf(rec), s.candidates(), s.clock()).Node()
}

// disk is where this node keeps a class.
func (s *station) disk(c residency.Class) residency.Disk {
	return residency.Disk{Node: s.self.Name, Class: c, Place: s.places()[c], Epoch: func() residency.Epoch { return s.bundle.Epoch }, Now: s.clock}
}

// writes shows a permit to the disk, as the store and the vault do.
func (s *station) writes(p residency.Permit, c residency.Class) {
	if err := s.disk(c).Admit(p, s.w.record.Name); err != nil {
		s.fails("writes %s without a permit for it: %v", c, err)
	}
}

// saves is Deps.Save.
func (s *station) saves(p residency.Permit, rec Record) error {
	s.writes(p, residency.ClassMetadata)
	s.kept = rec
	s.stores()
	return nil
}

// stores judges that the room's record is written here.
func (s *station) stores() {
	f := s.about(s.facts("metadata"), s.self.Name)
	f.Store = true
	s.w.seen["records kept"]++
	if broken := residencytest.Against(f); len(broken) > 0 {
		s.fails("keeps the room's record: %q", broken)
	}
}

// records asks whether the room may be recorded here.
func (s *station) records() {
	if s.room == nil {
		return
	}
	f := s.about(s.facts("recording"), s.self.Name)
	f.Store, f.Outside, f.Place = true, false, s.outside.store
	s.w.seen["recordings refused"]++
	if _, permit, err := s.room.mayRecord(); err == nil {
		s.w.seen["recordings allowed"]++
		s.writes(permit, residency.ClassRecording)
		if broken := residencytest.Against(f); len(broken) > 0 {
			s.fails("would record: %q", broken)
		}
		s.rolls()
	}
}

// opens makes the room live here.
func (s *station) opens(rec Record) {
	if s.room != nil {
		return
	}
	s.tells("enters the room, home %q", s.home(rec))
	s.room, s.idle, s.refused = New(rec, s.deps()), s.w.now, time.Time{}
	s.plansBeside(s.room)
	s.room.doHome(s.clock())
	s.ends()
}

// plansBeside has a room, in one case of two, plan as if it were over hundreds of nodes:
// what a tree goes by may be as old as it can be when the room takes it.
func (s *station) plansBeside(r *Room) {
	if s.w.seed%2 == 0 {
		return
	}
	r.planHere = 0
	r.aside = func(work, then func()) {
		work()
		s.w.sends(s.w.drafts.Between(0, slowestDraft), func() {
			if s.room == r {
				s.w.seen["trees made beside the room"]++
				then()
				s.ends()
			}
		})
	}
}

// ends forgets a room that is over.
func (s *station) ends() {
	if s.room != nil && s.room.ended {
		s.tells("leaves the room")
		s.w.past = append(s.w.past, s.room)
		s.room, s.people = nil, nil
	}
}

// comes lets somebody join here, if the node may take them: they come to know the
// room by an origin, and the router agrees.
func (s *station) comes(from residency.Country) {
	if o := s.tries(from); o != nil {
		o.tries(from)
	}
}

// tries is comes; it returns the node to go to instead, as people are told.
func (s *station) tries(from residency.Country) (instead *station) {
	s.connecting = from
	defer func() { s.connecting = "" }()
	if s.serves(s.bundle) {
		s.outsider = s.w.now
		s.w.seen["people from outside"]++
	}
	p := router.Place(s.gate, router.Question{Room: roomOf(s.w.record),
		Attendee: router.Attendee{Country: from, Known: from != ""}, Candidates: s.candidates(), Now: s.clock()})
	for _, c := range p.Ranked {
		if c.Node == s.self.Name && c.Allowed {
			if s.room != nil || s.asks(from) {
				s.admits(from)
			}
			return nil
		}
	}
	s.w.seen["people refused"]++
	return s.w.station(p.Node())
}

// asks gets the room's record from its home, as far as that may answer.
func (s *station) asks(from residency.Country) bool {
	home := s.w.station(s.home(s.w.record))
	if home == nil {
		return false
	}
	if home != s {
		back := home.pipes[s.self.Name]
		m, ok := home.view[s.self.Name]
		if s.pipes[home.self.Name] == nil || back == nil || !ok {
			return false
		}
		outside := residencytest.Outside(home.bundle, s.w.record.Tenant, s.w.record.Policy, from)
		permit, v := home.gate.Permit(residency.Request{Room: s.w.record.Name, Tenant: s.w.record.Tenant, Policy: s.w.record.Policy, Class: residency.ClassSignalling,
			Peer: m.node, PeerEpoch: m.epoch, OutsideParticipant: outside, Contradiction: m.contradiction, NoEvidence: home.unprovable, Now: home.clock()})
		if !v.Allow {
			return false
		}
		back.leaves(permit, residency.ClassSignalling, "the room's record")
	} else if s.room == nil {
		if s.unprovable != "" {
			return false
		}
		s.stores()
	}
	s.opens(s.w.record)
	return s.room != nil
}

func (s *station) admits(from residency.Country) {
	s.admitsAs(fmt.Sprintf("guest-%d", s.w.serial+1), from)
}

func (s *station) admitsAs(identity string, from residency.Country) (sid string) {
	s.w.serial++
	sid = fmt.Sprintf("PA_%d", s.w.serial)
	yes := true
	p := &Participant{room: s.room, log: s.room.log, sid: sid, identity: identity, country: from,
		join: signal.Join{Identity: identity, Room: "town", AutoSubscribe: true, SDK: "js", Protocol: 17,
			Token: &control.Grants{Identity: identity, Name: identity, Video: &auth.VideoGrant{RoomJoin: true, Room: "town",
				CanPublish: &yes, CanSubscribe: &yes, CanPublishData: &yes}}},
		inbox: make(chan func(), participantQ), due: make(chan struct{}, 1), gone: make(chan struct{}), done: make(chan struct{}),
		stop: func(error) {}, pending: newPendingTracks(), renamed: rate.NewLimiter(updateRate, updateBurst),
		wanted: map[sfu.TrackID]bool{}, muted: map[sfu.TrackID]bool{}, refused: map[sfu.TrackID]bool{}, starved: map[sfu.TrackID]bool{},
		cannot: map[string]bool{}, lacking: map[sfu.TrackID]bool{}, hopeless: map[sfu.TrackID]bool{},
	}
	given := s.w.In(4)
	if given {
		p.join.Token.Attributes = map[string]string{ConsentAttribute: ConsentGiven}
	}
	p.token.Store(p.join.Token)
	s.tells("takes %s from %q", identity, from)
	s.people = append(s.people, &visitor{Participant: p, told: map[string]bool{}, given: given, said: map[string]bool{}})
	if err := s.room.doAdmit(p, Attendee{Sid: sid, Country: from}); err != nil {
		s.people = s.people[:len(s.people)-1]
	}
	s.hears() // of a recording with the greeting, also if it ends before anything else happens
	s.sees()
	s.ends()
	return sid
}

func (s *station) leaves() {
	if s.room == nil || len(s.people) == 0 {
		return
	}
	i := s.w.IntN(len(s.people))
	v := s.people[i]
	s.sees() // somebody from outside is here to this moment
	s.people = append(s.people[:i:i], s.people[i+1:]...)
	s.tells("loses %s from %q", v.identity, v.country)
	s.room.removeLocal(v.Participant, livekit.DisconnectReason_CLIENT_INITIATED)
	s.ends()
}

func (s *station) publishes() {
	if s.room == nil || len(s.people) == 0 {
		return
	}
	v := residencytest.Pick(s.w.Rand, s.people...)
	v.ups = slices.DeleteFunc(v.ups, func(up *sfu.UpTrack) bool { return s.room.tracks[up.ID()] == nil })
	encryption := residencytest.Pick(s.w.Rand, livekit.Encryption_NONE, livekit.Encryption_NONE, livekit.Encryption_NONE, livekit.Encryption_GCM)
	if len(v.ups) > 1 || !s.mayPublish(encryption) {
		return
	}
	s.w.serial++
	info := &livekit.TrackInfo{Sid: fmt.Sprintf("TR_%d", s.w.serial), Type: livekit.TrackType_VIDEO, Source: livekit.TrackSource_CAMERA, MimeType: vp8.MimeType, Encryption: encryption}
	media := TrackRecord{Codec: vp8}
	up := newUp(sfu.TrackID(info.Sid), sfu.Video, info, media, false)
	v.ups = append(v.ups, up)
	s.room.doPublished(v.Participant, info, media, up)
}

// chats sends a message to everybody.
func (s *station) chats() {
	if s.room == nil || len(s.people) == 0 {
		return
	}
	v := residencytest.Pick(s.w.Rand, s.people...)
	s.w.serial++
	pkt := &livekit.DataPacket{ParticipantSid: v.sid, ParticipantIdentity: v.identity, Kind: livekit.DataPacket_LOSSY,
		Value: &livekit.DataPacket_User{User: &livekit.UserPacket{ParticipantSid: v.sid, ParticipantIdentity: v.identity, Payload: []byte("canary")}}}
	lossless := s.w.In(2)
	if lossless {
		pkt.Kind, pkt.Sequence = livekit.DataPacket_RELIABLE, uint32(s.w.serial)
	}
	b, err := marshal(pkt)
	if err != nil {
		s.fails("%v", err)
		return
	}
	s.room.doLocalData(v.Participant, lossless, pkt, b)
}

// setMeta changes the room's record, which its home writes.
func (r *Room) setMeta(s *station) {
	if r.home.name == s.self.Name {
		r.setRecord(func(rec *Record) { rec.Metadata = fmt.Sprint(s.w.serial) })
	}
}

// sees notes that somebody from outside is here.
func (s *station) sees() {
	for _, o := range s.w.stations {
		if s.serves(o.bundle) {
			s.outsider = s.w.now
		}
	}
}

// adopts puts newer policies in force, as the node does.
func (s *station) adopts(b *residency.Bundle) {
	if b.Epoch <= s.bundle.Epoch {
		return
	}
	s.sees()
	if s.room != nil {
		s.w.seen["policies changed in mid-call"]++
	}
	s.tells("adopts epoch %d", b.Epoch)
	s.bundle, s.gate, s.told = b, residency.NewGate(b), s.w.now
	s.changed()
	s.announces()
}

// changed makes the room ask again.
func (s *station) changed() {
	s.told = s.w.now
	if s.room != nil {
		s.room.doPolicyChanged()
		s.ends()
	}
}

// announces lets the others hear of this node, in their time.
func (s *station) announces() {
	m := member{node: s.self, epoch: s.bundle.Epoch, at: s.w.now}
	for _, o := range s.w.stations {
		if o != s {
			s.w.sends(s.w.Between(0, slowestNews), func() { o.learns(m) })
		}
	}
}

func (s *station) learns(m member) {
	old, ok := s.view[m.node.Name]
	if ok && old.at.After(m.at) {
		return // older news, late
	}
	s.tells("learns that %s has epoch %d", m.node.Name, m.epoch)
	m.contradiction, m.learned = old.contradiction, s.w.now
	if ok && old.epoch == m.epoch {
		m.learned = old.learned
	}
	s.view[m.node.Name] = m
	s.changed()
}

// renews gives the node a new certificate.
func (s *station) renews() {
	now := s.w.now
	s.self.NotBefore, s.self.NotAfter = now.Add(-time.Hour), now.Add(s.w.Between(10*time.Second, time.Hour))
	s.w.serial++
	s.self.Serial = fmt.Sprintf("fe%02x", s.w.serial)
	if s.room != nil {
		s.room.deps.Self = s.self
	}
	s.announces()
}

// contradicts makes this node doubt where another is, or believe it again.
func (s *station) contradicts(o *station) {
	m, ok := s.view[o.self.Name]
	if !ok {
		return
	}
	if m.contradiction == "" {
		m.contradiction = "8 ms to a node 3,000 km away"
		s.forgot[o.self.Name] = true
	} else {
		m.contradiction = ""
	}
	s.view[o.self.Name] = m
	s.changed()
}

// loses makes this node forget another, until it hears of it again.
func (s *station) loses(o *station) {
	if _, ok := s.view[o.self.Name]; !ok {
		return
	}
	s.tells("forgets %s", o.self.Name)
	s.forgot[o.self.Name] = true
	delete(s.view, o.self.Name)
	s.changed()
	s.w.sends(s.w.Between(0, 4*time.Second), func() {
		if _, ok := s.view[o.self.Name]; !ok {
			s.learns(member{node: o.self, epoch: o.bundle.Epoch, at: s.w.now})
		}
	})
}

// lives is a tick of this node.
func (s *station) lives() {
	s.sees()
	if s.room == nil {
		return
	}
	for _, v := range s.people {
		for _, up := range v.ups {
			s.sends(v, up)
		}
	}
	home := s.room.home.name
	s.room.doTick(s.clock())
	if s.room.home.name != home {
		s.w.seen["home moved"]++
	}
	for _, v := range s.people {
		for len(v.inbox) > 0 {
			<-v.inbox
		}
		select {
		case <-v.due:
		default:
		}
	}
	s.watches()
	s.hears()
	s.spreads()
	s.ends()
}

// sends has a camera send a packet, of a keyframe each time.
func (s *station) sends(v *visitor, up *sfu.UpTrack) {
	v.seq++
	raw := make([]byte, 12, 24)
	raw[0], raw[1] = 0x80, 0x80|96
	raw[2], raw[3], raw[6], raw[11] = byte(v.seq>>8), byte(v.seq), byte(v.seq), 7
	raw = append(raw, 0x90, 0xe0, 0x80, byte(v.seq), byte(v.seq), 0x20, 0, 1, 1)
	up.Ingest(0, []sfu.Inbound{{Raw: raw, Arrival: s.clock()}}, &sfu.Scratch{})
}

// watches has everybody here want all the tracks of the others.
func (s *station) watches() {
	for _, t := range s.room.tracks {
		if t.node != s.self.Name && t.up != nil && t.up.Wanted() == 0 {
			t.up.AddSink(eye{})
		}
	}
	s.room.doReconcile()
}

// eye is somebody who looks at a track.
type eye struct{}

func (eye) Wants() sfu.LayerSet                { return 1 }
func (eye) Offer([]sfu.Packet, sfu.Out)        {}
func (eye) Report(sfu.Layer, sfu.SenderReport) {}

// checks holds what this node does now against what it should.
func (s *station) checks() {
	s.sees()
	if s.room == nil {
		return
	}
	s.hears()
	s.passesOn()
	s.listens()
	s.plain()
	if len(s.people) > 0 {
		s.idle = s.w.now
		s.mayServe()
		return
	}
	s.refused = time.Time{}
	if s.room.home.name == s.self.Name || s.room.recorder != nil {
		s.idle = s.w.now
		return
	}
	if d := s.w.now.Sub(s.idle); s.room.served && d > patienceOfEdges+2*time.Second || d > firstJoinWait+patienceOfEdges+2*time.Second {
		s.fails("is still in the room %s after its last one left (R3)", d)
	}
}

// passesOn judges that tracks of others go on from here: not from a node that is there
// for its own people from outside alone.
func (s *station) passesOn() {
	passing := false
	for _, t := range s.room.tracks {
		passing = passing || t.node != s.self.Name && len(t.serving) > 0
	}
	f := s.about(s.facts("media"), s.self.Name)
	f.Outside = false
	switch broken := residencytest.Against(f); {
	case !passing || len(broken) == 0:
		s.passing = time.Time{}
	case s.passing.IsZero():
		s.passing = s.w.now
	case s.w.now.Sub(s.passing) > patienceOfEdges:
		s.fails("has passed tracks on for %s: %q", s.w.now.Sub(s.passing), broken)
	}
	if passing {
		s.w.seen["tracks passed on"]++
	}
}

// mayServe judges that the people here are served.
func (s *station) mayServe() {
	var broken []string
	for _, class := range []residency.Class{"media", "signalling"} {
		broken = append(broken, residencytest.Against(s.about(s.facts(class), s.self.Name))...)
	}
	switch {
	case len(broken) == 0:
		s.refused = time.Time{}
	case s.refused.IsZero():
		s.refused = s.w.now
	case s.w.now.Sub(s.refused) > patienceOfEdges+2*time.Second:
		s.fails("has served for %s whom it may not: %q", s.w.now.Sub(s.refused), broken)
	}
}
