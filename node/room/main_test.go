package room

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/internal/leaks"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stage is a room whose actor does not run: the test is the actor. It has no
// links, so that what would be sent is not; what the gate refused is noted.
type stage struct {
	*Room
	now     time.Time
	passed  atomic.Int64       // time since now, in ns; for rooms whose actor runs
	at      residency.NodeName // the home
	bundle  *residency.Bundle
	members map[residency.NodeName]residency.Node
	forgot  []string
	saved   []Record
}

func newStage(t testing.TB, policy string) *stage {
	t.Helper()
	zone := residency.Zone{Name: "DE", Countries: []residency.Country{"DE", "PL"}}
	zones := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		zones[c] = zone
	}
	s := &stage{now: start, at: "fra", members: map[residency.NodeName]residency.Node{}}
	s.bundle = &residency.Bundle{Epoch: 1, Default: "edge", Policies: map[string]*residency.Policy{
		"edge":   {Name: "edge", Zones: zones, EdgeOutside: true, Recording: residency.RecordingRule{Allowed: true}},
		"closed": {Name: "closed", Zones: zones},
	}}
	for name, country := range map[residency.NodeName]residency.Country{"fra": "DE", "waw": "PL", "nyc": "US"} {
		s.members[name] = residency.Node{Name: name, Country: country, Operator: "o", OperatorCountry: "DE", Parent: "o", ParentCountry: "DE",
			Roles: residency.Roles(), NotBefore: start.Add(-time.Hour), NotAfter: start.Add(24 * time.Hour), Serial: string(name)}
	}
	s.Room = New(Record{Name: "town", SID: "RM_town", Policy: policy}.WithDefaults(), Deps{
		Self: s.members["fra"], Gate: func() *residency.Gate { return residency.NewGate(s.bundle) },
		Peer: func(n residency.NodeName) (residency.Node, residency.Epoch, bool) {
			m, ok := s.members[n]
			return m, s.bundle.Epoch, ok
		},
		Link:       func(residency.NodeName) Link { return nil },
		Home:       func(Record) residency.NodeName { return s.at },
		Save:       func(_ residency.Permit, r Record) error { s.saved = append(s.saved, r); return nil },
		ICEServers: func(string, string) []*livekit.ICEServer { return nil },
		Forget:     func(rec Record) error { s.forgot = append(s.forgot, rec.Name); return nil },
		Now:        func() time.Time { return s.now.Add(time.Duration(s.passed.Load())) }, Log: slog.New(slog.DiscardHandler),
	})
	s.doHome(s.now)
	return s
}

// later lets time pass.
func (s *stage) later(d time.Duration) { s.passed.Add(int64(d)) }

// says hands the room a message of a node.
func (s *stage) says(from residency.NodeName, kind relay.Kind, m any) {
	s.doMessage(from, kind, encode(m))
}

func person(sid, identity string, tracks ...string) *livekit.ParticipantInfo {
	p := &livekit.ParticipantInfo{Sid: sid, Identity: identity, JoinedAtMs: start.UnixMilli()}
	for _, id := range tracks {
		p.Tracks = append(p.Tracks, &livekit.TrackInfo{Sid: id, Type: livekit.TrackType_VIDEO})
	}
	return p
}

func recordOf(t testing.TB, version uint64, p *livekit.ParticipantInfo) ParticipantRecord {
	t.Helper()
	b, err := proto.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	r := ParticipantRecord{Version: version, Info: b, Media: map[sfu.TrackID]TrackRecord{}}
	for _, ti := range p.Tracks {
		r.Media[sfu.TrackID(ti.Sid)] = TrackRecord{Codec: vp8, Available: 1}
	}
	return r
}

// has adds a node with participants to the room.
func (s *stage) has(t testing.TB, node residency.NodeName, outside bool, people ...*livekit.ParticipantInfo) {
	t.Helper()
	m := Participants{Presence: Presence{Node: node, Participants: len(people), Outside: outside}, Whole: true}
	for _, p := range people {
		m.Changed = append(m.Changed, recordOf(t, 1, p))
		m.Here = append(m.Here, p.Sid)
	}
	s.says(node, KindParticipants, m)
}

// run gives the room its goroutine.
func (s *stage) run(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	return func() { cancel(); <-done }
}

// renamed is a record as waw writes it with other metadata.
func renamed(r Record, metadata string) Record {
	old := r
	r.Term++
	r.Metadata = metadata
	r.wrote(old, "waw")
	return r
}
