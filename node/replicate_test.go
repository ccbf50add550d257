package node

import (
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	recorder "github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// held is what a node has of a recording.
func held(t *testing.T, n *testNode, id vault.ID) (info vault.Info) {
	t.Helper()
	infos, err := n.vault.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		if i.ID == id {
			return i
		}
	}
	return vault.Info{}
}

// frames reads a recording on a node, with that node's keys, and counts what is in it.
func frames(t *testing.T, n *testNode, id vault.ID) (sum int) {
	t.Helper()
	r, err := n.vault.Read(id)
	if err != nil {
		t.Fatal(err)
	}
	checks, err := recorder.Verify(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range checks {
		sum += c.Frames
	}
	return sum
}

// TestRecordingIsCopied has a recording lie on a second origin of its zone while it is
// made, and not on one outside. The origin that holds the copy is restarted meanwhile,
// and can read it with its own keys alone.
func TestRecordingIsCopied(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "par FR origin", "nyc US origin", "waw PL")
	waw := m.node("waw")
	anna := enter(t, waw, "town", "anna", preset("eea-only"))
	anna.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("voice", livekit.TrackType_AUDIO)
	started, refusal := record(t, waw, "town", "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	id := vault.ID(started.ID)
	first, second := m.node("fra"), m.node("par")
	if started.Node == "par" {
		first, second = second, first
	}
	eventually(t, "the copy grows while it is recorded", func() bool {
		i := held(t, second, id)
		return i.Copy && i.Node == started.Node && len(i.Tracks) == 2 && i.Size() > 10_000
	})
	if i := held(t, second, id); i.State != vault.StateRecording || i.Room != "town" || i.Policy != "eea-only" {
		t.Errorf("the copy says %+v", i)
	}
	if n := frames(t, second, id); n == 0 {
		t.Error("the copy of a recording under way cannot be read")
	}

	name := second.cfg.Self.Name
	m.halt(name)
	eventually(t, "the others know that it is gone", func() bool {
		for _, n := range m.nodes {
			if _, _, there := n.peer(name); there {
				return false
			}
		}
		return true
	})
	second.cfg.Listen.Gossip, second.cfg.Mesh.Join = freePort(t), m.join
	second = m.start(second.cfg)
	m.converge()
	before := held(t, second, id).Size()
	eventually(t, "the copy goes on where it was", func() bool { return held(t, second, id).Size() > before+10_000 })

	if _, refusal := record(t, waw, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	finished(t, first, started.ID)
	eventually(t, "the copy is whole, and its recorder knows", func() bool {
		r := held(t, first, id).Replicas
		return held(t, second, id).State == vault.StateFinished && len(r) == 1 && r[0] == name
	})
	if a, b := frames(t, first, id), frames(t, second, id); a != b || a == 0 {
		t.Errorf("%d frames, and %d in the copy", a, b)
	}
	if held(t, second, id).Size() != held(t, first, id).Size() {
		t.Error("they differ in size")
	}
	if i := held(t, m.node("nyc"), id); i.ID != "" {
		t.Errorf("nyc, outside the zone, has %+v", i)
	}
	// Nor does it take one that somebody brings.
	man, _, err := first.vault.Manifest(id)
	if err != nil {
		t.Fatal(err)
	}
	rec := room.Record{Name: "town", Policy: "eea-only"}
	if _, v := first.copyPermit(rec, "nyc"); v.Allow || v.Class != residency.ClassRecording {
		t.Errorf("fra may bring it there: %+v", v)
	}
	if _, err := m.node("nyc").takeCopy(rec, first.cfg.Self.Name, copyMessage{Manifest: &man}); asRefusal(err).Code != CodeRefused {
		t.Errorf("nyc takes it: %v", err)
	}

	// The next one is never finished: its recorder is lost.
	started, refusal = record(t, waw, "town", "start")
	if refusal != nil || started.Node != first.cfg.Self.Name {
		t.Fatal(started, refusal)
	}
	id = vault.ID(started.ID)
	eventually(t, "the copy grows", func() bool { i := held(t, second, id); return i.State == vault.StateRecording && i.Size() > 10_000 })
	m.halt(started.Node)
	eventually(t, "the copy says that it is interrupted", func() bool { return held(t, second, id).State == vault.StateInterrupted })
	if i := held(t, second, id); !i.Copy || !i.Ended.After(i.Started) || frames(t, second, id) == 0 {
		t.Errorf("what is left of it: %+v", i)
	}
}

// TestCopyThatFailsStopsNoOther: one recording that a node does not take is tried again
// after a while, and the others at once.
func TestCopyThatFailsStopsNoOther(t *testing.T) {
	var c copies
	c.init(0)
	c.fails("RE_damaged", "par")
	for to, want := range map[copying]bool{{"RE_damaged", "par"}: true, {"RE_damaged", "mad"}: false, {"RE_whole", "par"}: false} {
		if got := c.pauses(to.id, to.to); got != want {
			t.Errorf("%s at %s waits: %v", to.id, to.to, got)
		}
	}
	c.failed[copying{"RE_damaged", "par"}] = time.Now().Add(-2 * copyRetry)
	if c.pauses("RE_damaged", "par") || c.stats.failures != 1 {
		t.Error("it is not tried again")
	}
}

// TestCopyOfALostNodeEnds: what nobody completes any more is kept no longer than the rest.
func TestCopyOfALostNodeEnds(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		info vault.Info
		want time.Time
	}{
		{vault.Info{State: vault.StateRecording, Started: at, Written: at.Add(time.Hour)}, time.Time{}},
		{vault.Info{State: vault.StateRecording, Copy: true, Started: at, Written: at.Add(time.Hour)}, at.Add(time.Hour)},
		{vault.Info{State: vault.StateRecording, Copy: true, Started: at}, at},
		{vault.Info{State: vault.StateFinished, Copy: true, Started: at, Ended: at.Add(time.Minute)}, at.Add(time.Minute)},
	} {
		if got := endOf(c.info); !got.Equal(c.want) {
			t.Errorf("%+v ends %s", c.info, got)
		}
	}
}
