//go:build network

package e2e

import (
	"flag"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var (
	movesSamples = flag.Int("moves.samples", 10, "how many deaths and drains of a node TestMoveFigures measures")
	movesKinds   = flag.String("moves.kinds", "killed,frozen,drained", "what happens to the node in TestMoveFigures")
	movesRecord  = flag.Bool("moves.record", false, "write what TestMoveFigures measured into bench/results")
)

// moveGoals are what may be missed, in ms, on a machine that has nothing else to do: half a
// second of sound by who is moved from a node that is drained and by who listens to them, and
// two seconds by both when a node fails.
var moveGoals = map[string]float64{
	"drained_others_sound": 500, "drained_mover_sound": 500,
	"killed_others_sound": 2000, "killed_mover_sound": 2000,
	"frozen_others_sound": 2000, "frozen_mover_sound": 2000,
}

// watchPauses is JavaScript that watches the packets of one other person, sound and picture
// each: the longest pause between any two.
const watchPauses = `
	const room = window.__domicile.room
	window.watching = true
	window.watched = (async () => {
		const longest = { audio: 0, video: 0 }, last = {}, at = { audio: performance.now(), video: performance.now() }
		const note = kind => { longest[kind] = Math.max(longest[kind], performance.now() - at[kind]) }
		while (window.watching) {
			const now = { audio: '', video: '' }
			for (const p of room.remoteParticipants.values()) if (p.name === %[1]q)
				for (const pub of p.trackPublications.values())
					for (const s of ((await pub.track?.getRTCStatsReport())?.values() ?? [])) if (s.type === 'inbound-rtp') now[s.kind] += s.packetsReceived + ' '
			for (const kind of ['audio', 'video']) if (now[kind] !== '' && now[kind] !== last[kind]) { note(kind); at[kind] = performance.now(); last[kind] = now[kind] }
			await new Promise(r => setTimeout(r, 20))
		}
		note('audio'); note('video')
		return longest
	})()`

// pauses are the longest times without a packet, in ms, one of each round.
type pauses struct{ Sound, Picture []float64 }

func (p *pauses) take(at *tab) {
	at.t.Helper()
	var longest struct{ Audio, Video float64 }
	at.must(`window.watching = false; return await window.watched`, &longest)
	p.Sound, p.Picture = append(p.Sound, longest.Audio), append(p.Picture, longest.Video)
}

// spread is what is recorded of a list.
type spread struct {
	Samples int     `json:"samples"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"` // with fewer than a hundred samples the longest
	Max     float64 `json:"max_ms"`
}

func spreadOf(list []float64) (s spread) {
	slices.Sort(list)
	if s.Samples = len(list); s.Samples > 0 {
		s.P50, s.P99, s.Max = list[(s.Samples-1)/2], list[(s.Samples*99+99)/100-1], list[s.Samples-1]
	}
	return s
}

func (m *mesh) signal(name string, s syscall.Signal) {
	m.t.Helper()
	if err := syscall.Kill(m.node(name).PID, s); err != nil {
		m.t.Fatal(err)
	}
}

// TestMoveFigures measures what pages miss when the node of one of them is killed, when
// it stands still, and when it is drained: a page in Frankfurt watches one that begins in Warsaw, and that
// one watches the one in Frankfurt.
func TestMoveFigures(t *testing.T) {
	m := startMesh(t, product, t.TempDir())
	b := startBrowsers(t, "")
	found := map[string]spread{}
	for _, kind := range []struct {
		name string
		end  func()
		mend func()
	}{
		{"killed", func() { m.kill("waw") }, func() { m.node("waw").PID = m.run(m.node("waw")) }},
		{"frozen", func() { m.signal("waw", syscall.SIGSTOP) }, func() { m.signal("waw", syscall.SIGCONT) }},
		{"drained", func() {
			if out, err := exec.Command(product, "drain", "--config", m.node("waw").Config, "--deadline", "1m").CombinedOutput(); err != nil {
				t.Fatalf("drain: %v\n%s", err, out)
			}
		}, func() {
			if out, err := exec.Command(product, "drain", "--config", m.node("waw").Config, "--cancel").CombinedOutput(); err != nil {
				t.Fatalf("cancel: %v\n%s", err, out)
			}
		}},
	} {
		if !slices.Contains(strings.Split(*movesKinds, ","), kind.name) {
			continue
		}
		var others, mover pauses
		stays := b.open("stays", m.page("fra", "moves-"+kind.name, "stays"))
		for i := range *movesSamples {
			name := fmt.Sprintf("moves%d", i)
			moves := b.open(name, m.page("waw", "moves-"+kind.name, name))
			for _, p := range []*tab{stays, moves} {
				p.until("sees and hears the other", 60*time.Second, fmt.Sprintf(sees, 1))
			}
			var at string
			stays.must(`return [...window.__domicile.room.remoteParticipants.values()][0].attributes["domicile.node"]`, &at)
			if at != "waw" {
				t.Fatalf("who comes by way of waw is on %s", at)
			}
			stays.must(fmt.Sprintf(watchPauses, name), nil)
			moves.must(fmt.Sprintf(watchPauses, "stays"), nil)
			kind.end()
			for _, p := range []*tab{stays, moves} {
				p.until("sees and hears the other again", 30*time.Second, fmt.Sprintf(sees, 1))
			}
			others.take(stays)
			mover.take(moves)
			t.Logf("%s %d: the other missed %.0f ms of sound, %.0f of pictures; who moved %.0f and %.0f", kind.name, i,
				others.Sound[i], others.Picture[i], mover.Sound[i], mover.Picture[i])
			moves.close()
			kind.mend()
			stays.until("is alone", 40*time.Second, `return window.__domicile.room.remoteParticipants.size === 0`)
		}
		stays.close()
		found[kind.name+"_others_sound"], found[kind.name+"_others_picture"] = spreadOf(others.Sound), spreadOf(others.Picture)
		found[kind.name+"_mover_sound"], found[kind.name+"_mover_picture"] = spreadOf(mover.Sound), spreadOf(mover.Picture)
	}
	for what, s := range found {
		t.Logf("%s: %+v", what, s)
		if goal := moveGoals[what]; goal > 0 && s.P99 > goal {
			t.Errorf("%s: %.0f ms, want at most %.0f", what, s.P99, goal)
		}
	}
	if *movesRecord {
		record(t, "moves", fmt.Sprintf("make bench-moves N=%d KINDS=%s RECORD=1", *movesSamples, *movesKinds), found)
	}
}
