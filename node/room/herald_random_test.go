package room

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/signal"
)

// TestHeraldAgainstOneByOne plays the same meeting in two rooms, of which one tells
// every change at once, whatever its size. In the other, every client ends with the
// same picture, hears of every departure, and never of anything older than it knows.
func TestHeraldAgainstOneByOne(t *testing.T) {
	for seed := range uint64(10) {
		slow, quick := newMeeting(t), newMeeting(t)
		slow.herald.atOnce = 1 << 30
		for _, m := range []*meeting{slow, quick} {
			m.play(rand.New(rand.NewPCG(seed, 1)), 400)
		}
		var few, many int
		for i, c := range quick.clients {
			few, many = few+len(c.updates()), many+len(slow.clients[i].updates())
			c.compare(t, fmt.Sprintf("seed %d, client %d", seed, i), slow.clients[i])
		}
		if few > many*3/4 {
			t.Errorf("%d updates, one by one %d", few, many)
		}
		if t.Failed() {
			return
		}
	}
}

// meeting is a room with clients here and people on another node, who come, change,
// leave, and come again.
type meeting struct {
	*stage
	t       *testing.T
	here    []*Participant
	clients []*client // all connections that there were
	sids    int
}

// client is one signalling connection.
type client struct {
	*listener
	self string
	room *meeting
	p    *Participant
}

func newMeeting(t *testing.T) *meeting {
	m := &meeting{stage: newStage(t, "edge"), t: t}
	for i := range 2 * tellAtOnce {
		m.join(fmt.Sprintf("guest-%02d", i))
	}
	return m
}

func (m *meeting) sid() string {
	m.sids++
	return fmt.Sprintf("PA_%06d", m.sids)
}

func (m *meeting) join(identity string) {
	m.here = slices.DeleteFunc(m.here, func(p *Participant) bool { return p.identity == identity })
	c := &client{listener: &listener{}, self: identity, room: m}
	m.clients = append(m.clients, c)
	c.p = m.enters(m.t, m.sid(), identity, c)
	m.here = append(m.here, c.p)
}

func (m *meeting) resume(p *Participant) {
	c := &client{listener: &listener{}, self: p.identity, room: m, p: p}
	m.clients = append(m.clients, c)
	if _, err := m.doResume(newLine(c, time.Now), signal.Join{Identity: p.identity, SID: p.sid}, "DE"); err != nil {
		m.t.Fatal(err)
	}
}

// elsewhere lets the other node speak: somebody new or of a known name, a changed
// record, a departure, or the loss of the node and its return with the same people.
func (m *meeting) elsewhere(r *rand.Rand) {
	var there []string
	w := m.remotes["waw"]
	if w != nil {
		there = slices.Sorted(maps.Keys(w.participants))
	}
	msg := Participants{Presence: Presence{Node: "waw", Participants: len(there) + 1}}
	take := func(info *livekit.ParticipantInfo, version uint64) {
		msg.Changed = append(msg.Changed, recordOf(m.t, version, info))
	}
	one := func() *remoteParticipant { return w.participants[there[r.IntN(len(there))]] }
	switch k := r.IntN(8); {
	case k < 3 || len(there) == 0:
		p := person(m.sid(), m.name(r))
		p.JoinedAtMs = m.deps.Now().UnixMilli()
		take(p, 1)
	case k < 6:
		old := one()
		p := person(old.info.Sid, old.info.Identity)
		p.JoinedAtMs, p.Version = old.info.JoinedAtMs, uint32(old.version+1)
		take(p, old.version+1)
	case k < 7:
		msg.Left = []string{one().info.Sid}
	default:
		msg.Whole, msg.Here = true, there
		for _, sid := range there {
			take(w.participants[sid].info, w.participants[sid].version)
		}
		m.dropRemote("waw")
	}
	m.says("waw", KindParticipants, msg)
	m.here = slices.DeleteFunc(m.here, func(p *Participant) bool { return m.locals[p.identity] != p })
}

// name is mostly somebody's who is or was there.
func (m *meeting) name(r *rand.Rand) string { return fmt.Sprintf("guest-%02d", r.IntN(4*tellAtOnce)) }

func (m *meeting) play(r *rand.Rand, steps int) {
	for range steps {
		switch k := r.IntN(20); {
		case k < 4:
			m.join(m.name(r))
		case k < 8 && len(m.here) > 1:
			i := r.IntN(len(m.here))
			m.removeLocal(m.here[i], livekit.DisconnectReason_CLIENT_INITIATED)
			m.here = slices.Delete(m.here, i, i+1)
		case k < 12 && len(m.here) > 0:
			m.changes(m.here[r.IntN(len(m.here))], fmt.Sprintf("name %d", r.IntN(1000)))
		case k < 13 && len(m.here) > 0:
			m.resume(m.here[r.IntN(len(m.here))])
		case k < 17:
			m.elsewhere(r)
		case k < 18:
			m.elapses(tickEvery)
		default:
			m.later(time.Duration(r.IntN(30)) * time.Millisecond)
		}
	}
	m.elapses(tickEvery)
}

// current reports whether the connection is its participant's to the end.
func (c *client) current() bool {
	l := c.p.line.Load()
	return c.room.locals[c.self] == c.p && l.conn == c
}

// compare holds what a client heard against what it would have heard one by one.
func (c *client) compare(t *testing.T, name string, slow *client) {
	t.Helper()
	got, want := c.follow(t, name), slow.follow(t, name+" (one by one)")
	for identity, list := range got {
		if !subsequence(list, want[identity]) {
			t.Errorf("%s heard of %s: %v, one by one: %v", name, identity, list, want[identity])
		}
	}
	if !c.current() {
		return
	}
	for identity, list := range want {
		if !slices.Equal(departures(got[identity]), departures(list)) || got[identity][len(got[identity])-1] != list[len(list)-1] {
			t.Errorf("%s heard of %s: %v, one by one: %v", name, identity, got[identity], list)
		}
	}
}

// told is one record that a client got.
type told struct {
	sid     string
	version uint32
	name    string
	gone    bool
}

func toldOf(i *livekit.ParticipantInfo) told {
	return told{i.Sid, i.Version, i.Name, i.State == livekit.ParticipantInfo_DISCONNECTED}
}

// follow does with the messages what a client does, and checks the picture that it
// ends with. It returns what it was told of each identity.
func (c *client) follow(t *testing.T, name string) map[string][]told {
	t.Helper()
	heard, picture := map[string][]told{}, map[string]told{}
	for _, m := range c.heard {
		for _, i := range slices.Concat(m.GetJoin().GetOtherParticipants(), m.GetUpdate().GetParticipants()) {
			now, old := toldOf(i), picture[i.Identity]
			heard[i.Identity] = append(heard[i.Identity], now)
			switch {
			case now.gone && i.Identity == c.self:
				t.Errorf("%s is told that it is gone", name)
			case now.gone:
				delete(picture, i.Identity)
			case old.sid == now.sid && old.version > now.version:
				t.Errorf("%s is told of %v after %v", name, now, old)
			default:
				picture[i.Identity] = now
			}
		}
	}
	want := map[string]told{}
	for _, i := range c.room.participants() {
		want[i.Identity] = toldOf(i)
	}
	delete(picture, c.self)
	delete(want, c.self)
	if c.current() && !maps.Equal(picture, want) {
		t.Errorf("%s ends with %v, want %v", name, picture, want)
	}
	return heard
}

func departures(list []told) []told {
	return slices.DeleteFunc(slices.Clone(list), func(x told) bool { return !x.gone })
}

// subsequence reports whether list is of whole, in the same order.
func subsequence(list, whole []told) bool {
	for _, x := range whole {
		if len(list) > 0 && list[0] == x {
			list = list[1:]
		}
	}
	return len(list) == 0
}
