package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/orders"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/verify"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// keepsAll is a bundle whose default keeps everything, and erases what a participant
// has taken back.
func keepsAll(epoch residency.Epoch) *residency.Bundle {
	b := testBundle(epoch)
	kept := *b.Policies["global"]
	kept.Name, kept.ChatLog, kept.QALog = "kept", true, true
	asks := kept
	asks.Name, asks.Recording = "asks", residency.RecordingRule{Allowed: true, Notice: true, Consent: true, EraseWithdrawn: true}
	b.Policies["kept"], b.Policies["asks"] = &kept, &asks
	return b
}

// order gives an order on a node, as the admin's command does.
func order(t *testing.T, n *testNode, kind retention.Kind, q OrderRequest) (OrderReport, *Refusal) {
	t.Helper()
	body, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.setOrder(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/", bytes.NewReader(body)), kind)
	if err != nil {
		return r, asRefusal(err)
	}
	return r, nil
}

// settles waits until an erasure is in one of the states at every origin.
func settles(t *testing.T, n *testNode, id string, want map[residency.NodeName]string) {
	t.Helper()
	o, _ := n.retaining.book.Get(id)
	var last OrderReport
	eventually(t, "the order is carried out", func() bool {
		last = n.orderReport(t.Context(), o)
		for _, at := range last.Nodes {
			if want[at.Node] != at.State {
				return false
			}
		}
		return true
	})
}

// finds looks for a text in every file of the nodes, and opens what is sealed.
func finds(t *testing.T, text string, nodes ...*testNode) (where []string) {
	t.Helper()
	for _, n := range nodes {
		err := filepath.WalkDir(n.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // it went while it was looked for
			}
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, []byte(text)) {
				where = append(where, path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*vault.Vault{n.vault, n.chats.vault, n.lists.attendance.vault, n.lists.registrations.vault, n.lists.consents.vault} {
			if v == nil {
				continue
			}
			infos, err := v.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range infos {
				if strings.Contains(i.Room, text) {
					where = append(where, "the document of "+string(i.ID))
				}
				r, err := v.Read(i.ID)
				if err != nil {
					t.Fatal(err)
				}
				for _, track := range r.Tracks {
					if strings.Contains(track.Meta.Participant+track.Meta.Name, text) {
						where = append(where, "a track of "+string(i.ID))
					}
					c, err := track.Open()
					if err != nil {
						t.Fatal(err)
					}
					for {
						line, err := c.Next()
						if err != nil {
							break
						}
						if bytes.Contains(line, []byte(text)) {
							where = append(where, "a line of "+string(i.ID))
						}
					}
					c.Close()
				}
			}
		}
	}
	return where
}

// nothing wants a text to be nowhere: a receipt that is on its way to another origin has
// the room's name beside it for a second.
func nothing(t *testing.T, text string, nodes ...*testNode) {
	t.Helper()
	var where []string
	limit := time.NewTimer(patience)
	defer limit.Stop()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for {
		if where = finds(t, text, nodes...); len(where) == 0 {
			return
		}
		select {
		case <-look.C:
		case <-limit.C:
			t.Fatalf("%q was erased and is in %q", text, where)
		}
	}
}

// talks has two people meet in a room, say something and be recorded for a moment.
func (m *testMesh) talks(at *testNode, name string, who ...string) (people []*client) {
	t := m.t
	t.Helper()
	for _, id := range who {
		people = append(people, enter(t, at, name, id, func(g *control.Grants) { g.RoomPreset, g.Name = "kept", "name of "+id }))
	}
	voice := people[0].publish("voice", livekit.TrackType_AUDIO)
	camera := people[1].publish("camera", livekit.TrackType_VIDEO)
	people[1].hears(voice)
	started, refusal := record(t, at, name, "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	grows(t, m.node(started.Node), started.ID, voice)
	grows(t, m.node(started.Node), started.ID, camera)
	for i, c := range people {
		for _, topic := range []string{"lk.chat", "domicile.qa"} {
			for _, p := range textStream("s-"+topic, topic, "said by "+who[i]) {
				c.say(p)
			}
		}
	}
	eventually(t, "the chat is kept", func() bool {
		for _, n := range m.nodes {
			if _, body := getChat(t, n, name, tokenFor(t, name, "host", host), "text"); strings.Count(body, "said by ") >= 2*len(people) {
				return true
			}
		}
		return false
	})
	return people
}

// TestErasure erases a participant, a room that is live and being recorded, and one
// while an origin is away: nothing of them is found on any disk, sealed or not, holds
// win, and the evidence of it is whole.
func TestErasure(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, keepsAll(1), signed, "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	m.talks(fra, "canaryroom", "canaryanna", "canaryben")
	m.talks(fra, "other", "canaryanna", "carl")
	if _, refusal := record(t, fra, "other", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	rec, _, err := fra.known(t.Context(), "canaryroom")
	if err != nil {
		t.Fatal(err)
	}

	hold, refusal := order(t, fra, retention.Hold, OrderRequest{Room: "canaryroom", Reason: "file 7"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	if _, refusal := order(t, fra, retention.Erasure, OrderRequest{Room: "canaryroom"}); refusal == nil || refusal.Rule != ruleHold || !strings.Contains(refusal.Message, hold.ID) {
		t.Errorf("a room under a hold is erased: %+v", refusal)
	}
	gone, refusal := order(t, fra, retention.Erasure, OrderRequest{Participant: "canaryanna"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderHeld})
	infos, err := fra.vault.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.Room != "other" {
			continue
		}
		r, err := fra.vault.Read(i.ID)
		if err != nil || len(r.Tracks) != 1 || r.Tracks[0].Meta.Participant != "carl" {
			t.Errorf("of the other room is left %+v, %v", r, err)
		}
	}
	if where := finds(t, "said by canaryanna", fra); len(where) == 0 {
		t.Error("the hold has not kept what was said")
	}

	lift := httptest.NewRequestWithContext(t.Context(), "DELETE", "/holds?id="+hold.ID, nil)
	if r, err := fra.liftHold(lift); err != nil || r.Lifted == nil {
		t.Fatal(r, err)
	}
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderDone})
	nothing(t, "canaryanna", fra, nyc)
	if where := finds(t, "said by carl", fra); len(where) == 0 {
		t.Error("what others said is gone, too")
	}

	if started, refusal := record(t, fra, "canaryroom", "start"); refusal != nil || !started.Active {
		t.Fatal(refusal)
	}
	began := time.Now()
	gone, refusal = order(t, fra, retention.Erasure, OrderRequest{Room: "canaryroom"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderDone})
	t.Logf("a room that was being recorded was gone %s after the order", time.Since(began).Round(time.Millisecond))
	nothing(t, "canary", fra, nyc)
	if again, refusal := order(t, fra, retention.Erasure, OrderRequest{Room: "canaryroom"}); refusal != nil {
		t.Error(refusal)
	} else {
		settles(t, fra, again.ID, map[residency.NodeName]string{"fra": OrderDone})
	}
	erasedProof(t, m, fra, rec.SID)
}

// erasedProof exports a room's evidence after its erasure, and wants it to say so.
func erasedProof(t *testing.T, m *testMesh, n *testNode, sid string) {
	t.Helper()
	file, err := n.evidenceOf(sid)
	if err != nil {
		t.Fatal(err)
	}
	var classes []residency.Class
	r := verify.File(file, m.verifier())
	for _, f := range r.Flows {
		if f.Side == evidence.Erased && f.Rule == retention.RuleErasure && f.Packets > 0 {
			classes = append(classes, f.Class)
		}
	}
	for _, want := range []residency.Class{residency.ClassRecording, residency.ClassChat, residency.ClassMetadata} {
		if !slices.Contains(classes, want) {
			t.Errorf("no receipt of the erasure of %s, of %v", want, classes)
		}
	}
	for _, f := range r.Findings {
		if f.Severity() > verify.Gap {
			t.Errorf("%+v", f)
		}
	}
}

// TestErasureReachesWhoWasAway erases a room while another origin, which has something of
// it, is away: it erases when it is back, over its restart. A hold that was set and lifted
// meanwhile is known to it, and old messages change nothing.
func TestErasureReachesWhoWasAway(t *testing.T) {
	t.Parallel()
	m := newMesh(t, keepsAll(1), "fra DE origin", "waw PL origin")
	people := m.talks(m.node("fra"), "canaryroom", "canaryanna", "canaryben")
	eventually(t, "both origins have the record", func() bool {
		for _, n := range m.nodes {
			if row, err := n.store.s.Rooms(t.Context()); err != nil || len(row) == 0 {
				return false
			}
		}
		return true
	})
	for _, c := range people {
		c.close()
	}
	fra, waw := m.node("fra"), m.node("waw")
	m.halt("waw")
	gone, refusal := order(t, fra, retention.Erasure, OrderRequest{Room: "canaryroom"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderDone, "waw": OrderAway})
	hold, refusal := order(t, fra, retention.Hold, OrderRequest{Room: "town"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	nothing(t, "canary", fra)
	waw.cfg.Listen.Gossip = freePort(t)
	waw = m.start(waw.cfg)
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderDone, "waw": OrderDone})
	nothing(t, "canary", fra, waw)
	eventually(t, "the hold is known", func() bool { return len(waw.held(retention.Subject{Room: "town"})) == 1 })
	old, _ := waw.retaining.book.Get(hold.ID)
	if _, err := waw.liftHold(httptest.NewRequestWithContext(t.Context(), "DELETE", "/holds?id="+hold.ID, nil)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lift is known", func() bool { return len(fra.held(retention.Subject{Room: "town"})) == 0 })
	if err := fra.takeOrder(old.Sent()); err != nil || len(fra.held(retention.Subject{Room: "town"})) != 0 {
		t.Errorf("an old message sets the hold again: %v", err)
	}
	if _, refusal := order(t, fra, retention.Erasure, OrderRequest{}); refusal == nil {
		t.Error("everything may be erased at once")
	}
}

// TestWithdrawalErases takes consent back while others are recorded on: what was
// recorded of one goes, of the others nothing.
func TestWithdrawalErases(t *testing.T) {
	t.Parallel()
	m := newMesh(t, keepsAll(1), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	anna, ben := enter(t, fra, "town", "anna", preset("asks")), enter(t, nyc, "town", "ben", preset("asks"))
	annas, bens := anna.publish("voice", livekit.TrackType_AUDIO), ben.publish("voice", livekit.TrackType_AUDIO)
	anna.hears(bens)
	started, refusal := record(t, fra, "town", "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	for _, c := range []*client{anna, ben} {
		c.await("is told that the room records", func() bool { return c.room.ActiveRecording })
		c.agrees(started.ID)
	}
	grows(t, fra, started.ID, annas)
	grows(t, fra, started.ID, bens)
	began := time.Now()
	ben.agrees("")
	eventually(t, "what was recorded of ben is gone", func() bool { return recorded(t, fra, started.ID)[bens].Erased })
	t.Logf("it was gone %s after he took it back", time.Since(began).Round(time.Millisecond))
	eventually(t, "his file is gone", func() bool {
		files, err := filepath.Glob(filepath.Join(fra.cfg.DataDir, "recordings", started.ID, bens+"*"))
		return err == nil && len(files) == 0
	})
	grows(t, fra, started.ID, annas)
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	if info := finished(t, fra, started.ID); info.State != vault.StateFinished {
		t.Errorf("the recording is %s", info.State)
	}
	// That he took it back stays known, until somebody has all of him erased.
	eventually(t, "it is known", func() bool { return answered(t, fra, "town")["ben"] == "notice, given, withdrawn" })
	gone, refusal := order(t, fra, retention.Erasure, OrderRequest{Participant: "ben"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	settles(t, fra, gone.ID, map[residency.NodeName]string{"fra": OrderDone})
	if got := answered(t, fra, "town"); len(got) != 1 || got["anna"] != "notice, given" {
		t.Errorf("of the log is left %v", got)
	}
}

// TestRetention lets the policy's time pass: what is over goes, what is held stays, and
// goes when the hold is lifted.
func TestRetention(t *testing.T) {
	t.Parallel()
	b := keepsAll(1)
	b.Policies["kept"].Retention = map[residency.Kept]residency.Hours{residency.KeptRecording: 48, residency.KeptChat: 24, residency.KeptQA: 72, residency.KeptEvidence: 96}
	var ahead atomic.Int64
	m := newMeshOf(t, b, func(_ *testMesh, cfg *Config) {
		cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}, "fra DE origin")
	fra := m.node("fra")
	people := m.talks(fra, "town", "anna", "ben")
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	infos, err := fra.vault.List()
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	finished(t, fra, string(infos[0].ID))
	for _, c := range people {
		c.close()
	}
	fra.chats.rest(time.Time{}, fra.Node)
	hold, refusal := order(t, fra, retention.Hold, OrderRequest{Participant: "anna"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	kept := func() (kinds []residency.Kept) {
		for _, s := range fra.sources() {
			list, err := s.objects(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range list {
				if x.Kind != residency.KeptMetadata {
					kinds = append(kinds, x.Kind)
				}
			}
		}
		return kinds
	}
	all := []residency.Kept{residency.KeptRecording, residency.KeptChat, residency.KeptQA, residency.KeptEvidence}
	sweep := func(after time.Duration, want ...residency.Kept) {
		t.Helper()
		ahead.Store(int64(after))
		fra.sweep(t.Context())
		got := kept()
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("after %s there is %v, want %v", after, got, want)
		}
	}
	sweep(23*time.Hour, all...)
	sweep(73*time.Hour, all...) // she is in each of them, and ben's track alone is gone
	r, err := fra.vault.Read(infos[0].ID)
	if err != nil || len(r.Tracks) != 1 || r.Tracks[0].Meta.Participant != "anna" {
		t.Errorf("left of the recording is %+v, %v", r, err)
	}
	said := scrape(fra)
	for _, want := range []string{"domicile_sweep_held 3\n", "domicile_sweep_overdue 0\n", "domicile_sweep_oldest_overdue_seconds 0\n", `domicile_erased_total{rule="retention"} 1`, "domicile_sweep_receipts_owed 0\n", "domicile_sweep_last_timestamp_seconds "} {
		if !strings.Contains(said, want) {
			t.Errorf("the metrics lack %q:\n%s", want, said)
		}
	}
	ahead.Store(0) // it sweeps by itself now
	if _, err := fra.liftHold(httptest.NewRequestWithContext(t.Context(), "DELETE", "/holds?id="+hold.ID, nil)); err != nil {
		t.Fatal(err)
	}
	sweep(25*time.Hour, residency.KeptRecording, residency.KeptQA, residency.KeptEvidence)
	sweep(49*time.Hour, residency.KeptQA, residency.KeptEvidence)
	sweep(73*time.Hour, residency.KeptEvidence)
	sweep(97 * time.Hour)
}

// TestSweepsThatFailGetRarer: what cannot be erased now is tried again soon, what never
// can does not keep a node busy.
func TestSweepsThatFailGetRarer(t *testing.T) {
	pause := sweepNext(0, 1, false)
	if pause != sweepAgain || sweepNext(sweepEvery, 1, false) != sweepAgain || sweepNext(4*sweepAgain, 1, true) != sweepAgain {
		t.Errorf("at first %s", pause)
	}
	for range 20 {
		pause = sweepNext(pause, 1, false)
	}
	if pause < sweepEvery/2 || pause > sweepEvery || sweepNext(pause, 0, true) != sweepEvery {
		t.Errorf("in the end %s", pause)
	}
}

// slow is a source of things that take a hold of the first one's end to be erased.
type slow struct {
	erased []string
	during func()
}

func (s *slow) objects(context.Context, bool) ([]retention.Object, error) { return nil, nil }

func (s *slow) erase(_ context.Context, due []retention.Verdict) (out []gone, err error) {
	for _, v := range due {
		s.erased = append(s.erased, v.ID+v.Part)
		out = append(out, gone{v, 1})
	}
	s.during()
	return out, nil
}

// TestHoldHoldsAtOnce: nothing goes by what was judged before a hold was set, but for
// what was going already.
func TestHoldHoldsAtOnce(t *testing.T) {
	book, err := orders.Open(filepath.Join(t.TempDir(), "orders"))
	if err != nil {
		t.Fatal(err)
	}
	defer book.Close()
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	n := &Node{retaining: retaining{book: book, wake: make(chan struct{}, 1)}}
	var due []retention.Verdict
	for _, part := range []string{"1a", "1b", "2a", "3a"} {
		due = append(due, retention.Verdict{Object: retention.Object{ID: part[:1], Part: part[1:]}, Erase: true})
	}
	s := &slow{during: func() {}}
	s.during = func() {
		hold := retention.New(retention.Hold, retention.Subject{Room: "board"}, "12345678", make([]byte, 16), at)
		if _, err := book.Add(hold, at); err != nil {
			t.Error(err)
		}
	}
	went, err := n.eraseDue(t.Context(), s, due, book.Version())
	if !errors.Is(err, errNews) || len(went) != 2 || strings.Join(s.erased, " ") != "1a 1b" || len(n.retaining.wake) != 1 {
		t.Errorf("erased %v, %v", s.erased, err)
	}
	states := map[string]OrderState{}
	noteUnread(states, []retention.Order{{ID: "ER_1", Kind: retention.Erasure}, {ID: "HO_1", Kind: retention.Hold}}, errors.New("damaged"))
	if s := states["ER_1"]; s.Left != 1 || !strings.Contains(s.Why, "damaged") || len(states) != 1 {
		t.Errorf("an order whose things cannot be read is %+v", states)
	}
}
