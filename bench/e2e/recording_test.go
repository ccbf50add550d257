package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/steady"
	"github.com/domicile/domicile/residency/vault"
)

// recordingLine is what `domicile recordings list --json` says of a recording.
type recordingLine struct {
	ID, Room, Node, Country, Problem string
	State                            vault.State
	Started                          time.Time
	Ended                            *time.Time
	Tracks                           int
	Bytes                            int64
}

func (m *mesh) recordings() (list []recordingLine) {
	m.t.Helper()
	out, code := m.domicile("recordings", "list", "--json")
	if code != 0 {
		m.t.Fatalf("recordings list: exit code %d", code)
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		m.t.Fatal(err)
	}
	return list
}

// export writes the mesh's only recording into an MKV file.
func (m *mesh) export() (path string, r recordingLine) {
	m.t.Helper()
	list := m.recordings()
	if len(list) != 1 {
		m.t.Fatalf("recordings: %+v, want one", list)
	}
	path = filepath.Join(m.t.TempDir(), "recording.mkv")
	m.mustRun("recordings", "export", list[0].ID, "-o", path, "-q")
	return path, list[0]
}

// shows is JavaScript that is true when the page says that the room records.
const shows = `return window.__domicile.recording && !!document.querySelector("[data-testid=recording]")`

// TestRecording records ten seconds and more of a meeting between Warsaw and New
// York, started and stopped in New York: it is made in Frankfurt, is whole, in
// sync and sealed, and lies nowhere else. A second start of the demo finds it.
func TestRecording(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := startMesh(t, product, dir)
	waw, nyc := meetTwo(t, m, "recorded")
	// A browser or node that does not run for a while begins late or ends early.
	held := steady.Watch()
	nyc.click("Record")
	for _, p := range []*tab{waw, nyc} {
		p.until("shows that the room records", 5*time.Second, shows)
	}
	ten := time.NewTimer(time.Until(m.recordings()[0].Started.Add(10 * time.Second)))
	<-ten.C
	nyc.click("Stop recording")
	for _, p := range []*tab{waw, nyc} {
		p.until("shows that the recording has ended", 5*time.Second, `return !window.__domicile.recording`)
	}
	eventually(t, "the recording is complete", 5*time.Second, func() bool { return m.recordings()[0].State == vault.StateFinished })
	late := 2 * held()
	within := 500*time.Millisecond + late
	waw.close()
	nyc.close()

	file, r := m.export()
	if r.Node != "fra" || r.Country != "DE" || r.Tracks != 4 {
		t.Errorf("%+v, want four tracks on fra in DE", r)
	}
	length := r.Ended.Sub(r.Started)
	playable(t, file, length, within)
	inSync(t, file, late)
	sealed(t, m, file)
	onlyOn(t, m, "fra")

	m.twirp("fra", "CreateRoom", map[string]any{"name": "kept", "metadata": "still here"}, nil)
	m.stop()
	again := startMesh(t, product, dir)
	var rooms struct {
		Rooms []struct{ Name, Metadata string }
	}
	again.twirp("waw", "ListRooms", map[string]any{}, &rooms)
	if !slices.ContainsFunc(rooms.Rooms, func(r struct{ Name, Metadata string }) bool {
		return r.Name == "kept" && r.Metadata == "still here"
	}) {
		t.Errorf("after a second start the rooms are %+v", rooms)
	}
	if list := again.recordings(); len(list) != 1 || list[0].ID != r.ID || list[0].State != vault.StateFinished {
		t.Errorf("after a second start the recordings are %+v", list)
	}
	if file, _ := again.export(); file != "" {
		playable(t, file, length, within)
	}
}

// meetTwo has one attendee on waw and one on nyc meet in a room.
func meetTwo(t *testing.T, m *mesh, room string, more ...string) (waw, nyc *tab) {
	t.Helper()
	b := startBrowsers(t, "")
	waw, nyc = b.open("waw", m.page("waw", room, "waw", more...)), b.open("nyc", m.page("nyc", room, "nyc", more...))
	for _, p := range []*tab{waw, nyc} {
		p.until("sees and hears the other", 40*time.Second, fmt.Sprintf(sees, 1))
	}
	return waw, nyc
}

// says is JavaScript that is true when the page tells people something.
func says(text string) string {
	return `return [...document.querySelectorAll("[role=alert]")].some(e => e.textContent.includes("` + text + `"))`
}

// click presses a button of the page.
func (p *tab) click(name string) {
	p.t.Helper()
	if err := p.ask(map[string]any{"op": "click", "page": p.id, "role": "button", "name": name}, nil); err != nil {
		p.t.Fatalf("%s: pressing %q: %v", p.name, name, err)
	}
}

// playable checks that ffprobe and ffmpeg open a file, that it has sound and
// pictures, and that it is as long as the recording was. How long somebody took to
// press a button is not the recorder's doing, and neither is that a machine without
// time to spare publishes in fits and starts: the file may miss as much more as is
// between two of its packets anyway.
func playable(t *testing.T, file string, want, within time.Duration) {
	t.Helper()
	var probe struct {
		Format  struct{ Duration string }
		Streams []struct {
			CodecType string `json:"codec_type"`
		}
	}
	out, err := exec.Command("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", file).Output()
	if err != nil {
		t.Fatalf("ffprobe: %v", err)
	}
	if err := json.Unmarshal(out, &probe); err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, s := range probe.Streams {
		kinds[s.CodecType]++
	}
	if kinds["audio"] == 0 || kinds["video"] == 0 {
		t.Errorf("streams: %v, want audio and video", kinds)
	}
	gap := longestGap(slices.Concat(slices.Collect(maps.Values(packetTimes(t, file)))...))
	if gap > silent {
		t.Errorf("for %s nothing was recorded", gap)
	}
	got := seconds(t, probe.Format.Duration)
	if off := got - want; off.Abs() > within+gap {
		t.Errorf("the recording is %s long, want %s ± %s and its longest gap, %s", got, want, within, gap)
	}
	t.Logf("%v, %s long of %s, longest gap %s", kinds, got, want, gap)
	if out, err := exec.Command("ffmpeg", "-v", "error", "-i", file, "-map", "0", "-f", "null", "-").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("ffmpeg: %v\n%s", err, out)
	}
}

// silent is how long no packet of anybody's sound or picture may be missing,
// however busy the machine: two people publish two tracks each, sound fifty times a
// second.
const silent = 2 * time.Second

func seconds(t *testing.T, s string) time.Duration {
	t.Helper()
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) {
		t.Fatalf("a time of ffprobe: %q", s)
	}
	return time.Duration(f * float64(time.Second))
}

// packetTimes lists when the packets of each stream are to be shown.
func packetTimes(t *testing.T, file string) map[string][]time.Duration {
	t.Helper()
	out, err := exec.Command("ffprobe", "-v", "error", "-show_entries", "packet=stream_index,pts_time", "-of", "csv=p=0", file).Output()
	if err != nil {
		t.Fatalf("ffprobe: %v", err)
	}
	times := map[string][]time.Duration{}
	for line := range strings.Lines(string(out)) {
		index, pts, _ := strings.Cut(strings.TrimRight(strings.TrimSpace(line), ","), ",")
		times[index] = append(times[index], seconds(t, pts))
	}
	return times
}

// longestGap is the longest time between two packets.
func longestGap(times []time.Duration) (longest time.Duration) {
	slices.Sort(times)
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i]-times[i-1])
	}
	return longest
}

// inSync checks that all tracks are on one timeline, which can be told without
// looking into pictures: they begin together, with the recording, and end together.
// A picture begins with a key frame, which has to be asked for; a track ends with
// its last packet, which is as long before the recording's end as the packets of a
// busy machine are apart, and a picture is as late as it takes to encode, and late
// by how long the machine stood still. How exact the timeline is, package record tests.
func inSync(t *testing.T, file string, late time.Duration) {
	t.Helper()
	first, last, gap := map[string]time.Duration{}, map[string]time.Duration{}, map[string]time.Duration{}
	for i, times := range packetTimes(t, file) {
		gap[i] = longestGap(times)
		first[i], last[i] = times[0], times[len(times)-1]
	}
	for i := range first {
		for j := range first {
			more := max(gap[i], gap[j]) + late
			if off := (first[i] - first[j]).Abs(); off > time.Second+more {
				t.Errorf("stream %s begins at %s, stream %s at %s", i, first[i], j, first[j])
			}
			if off := (last[i] - last[j]).Abs(); off > time.Second+more {
				t.Errorf("stream %s ends at %s, stream %s at %s", i, last[i], j, last[j])
			}
		}
	}
	t.Logf("streams begin at %v and end at %v; their longest gaps: %v", first, last, gap)
}

// run of a frame that must not be found in clear.
type run [16]byte

// clear cuts the frames of a file into runs; those with little in them, such as
// silence, could be found anywhere and are left out.
func clear(t *testing.T, file string) map[run]bool {
	t.Helper()
	runs := map[run]bool{}
	for _, stream := range []string{"0:v:0", "0:v:1", "0:a:0", "0:a:1"} {
		raw, err := exec.Command("ffmpeg", "-v", "error", "-i", file, "-map", stream, "-c", "copy", "-f", "data", "-").Output()
		if err != nil {
			t.Fatalf("ffmpeg: frames of stream %s: %v", stream, err)
		}
		for b := range slices.Chunk(raw, len(run{})) {
			distinct := map[byte]bool{}
			for _, x := range b {
				distinct[x] = true
			}
			if len(b) == len(run{}) && len(distinct) >= 10 {
				runs[run(b)] = true
			}
		}
	}
	return runs
}

func (r run) String() string { return fmt.Sprintf("%x", r[:]) }

// find counts the runs that are in a file.
func find(t *testing.T, runs map[run]bool, path string) (found int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+len(run{}) <= len(b); i++ {
		if runs[run(b[i:])] {
			found++
		}
	}
	return found
}

// sealed checks that no file of the mesh holds a piece of a frame in clear, and
// that the exported file, in which they are clear, does.
func sealed(t *testing.T, m *mesh, file string) {
	t.Helper()
	runs := clear(t, file)
	if len(runs) < 10_000 {
		t.Errorf("%d pieces of frames to look for, want more", len(runs))
	}
	if n := find(t, runs, file); n < len(runs)/2 {
		t.Errorf("only %d of %d pieces found where they are in clear: the search is broken", n, len(runs))
	}
	var size int64
	for path, info := range files(t, m.Dir) {
		size += info.Size()
		if n := find(t, runs, path); n > 0 {
			t.Errorf("%s holds %d pieces of frames in clear", path, n)
		}
	}
	t.Logf("looked for %d pieces of frames in %d bytes on the disk", len(runs), size)
}

// files lists the regular files below a directory.
func files(t testing.TB, dir string) map[string]fs.FileInfo {
	t.Helper()
	list := map[string]fs.FileInfo{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		list[path], err = d.Info()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// onlyOn checks that the directories of all nodes but one hold nothing but
// configuration, certificates and a log.
func onlyOn(t *testing.T, m *mesh, node string) {
	t.Helper()
	for _, n := range m.Nodes {
		media := 0
		for path, info := range files(t, n.dir()) {
			switch name := filepath.Base(path); {
			case name == "node.yaml", name == "node.log", filepath.Ext(name) == ".pem":
			case n.Name == node:
				if filepath.Ext(name) == ".dtr" && info.Size() > 10_000 {
					media++
				}
			default:
				t.Errorf("node %s holds %s, %d bytes", n.Name, path, info.Size())
			}
		}
		if n.Name == node && media == 0 {
			t.Errorf("node %s holds no track", node)
		}
	}
}

// TestRecordingOfAKilledNode kills the node that records: what was written is
// exported up to the cut, and the meeting goes on. When the node is back, the host
// watches what it left in the browser, and erases it there.
func TestRecordingOfAKilledNode(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := startMesh(t, product, dir)
	waw, nyc := meetTwo(t, m, "killed")
	held := steady.Watch()
	nyc.click("Record")
	nyc.until("shows that the room records", 5*time.Second, shows)
	eventually(t, "six seconds are recorded", 20*time.Second, func() bool {
		r := m.recordings()[0]
		return r.Bytes > 100_000 && time.Since(r.Started) > 6*time.Second
	})
	m.kill("fra")
	cut := time.Now()
	late := 2 * held()
	for _, p := range []*tab{waw, nyc} {
		p.until("goes on seeing and hearing the other", 10*time.Second, fmt.Sprintf(sees, 1))
	}
	nyc.until("is no longer shown that the room records", 10*time.Second, `return !window.__domicile.recording`)
	t.Logf("the page was told %s after the cut", time.Since(cut).Round(time.Millisecond))
	file, r := m.export()
	if r.State != vault.StateInterrupted {
		t.Errorf("the recording is %q, want interrupted", r.State)
	}
	playable(t, file, cut.Sub(r.Started), time.Second+late)

	waw.close()
	m.stop()
	m = startMesh(t, product, dir)
	watchable(t, m, nyc, "fra", "killed", cut.Sub(r.Started))
	nyc.click("Erase this recording…")
	nyc.click("Erase it for good")
	nyc.until("says that it is gone", 10*time.Second, `return document.querySelector("[data-erasure]")?.textContent.includes("it is gone")`)
	if list := m.recordings(); len(list) != 0 {
		t.Errorf("after it was erased the recordings are %+v", list)
	}
}

// TestRecordingOnAFullDisk fills the disk under the recordings: the recording
// ends and is kept, the page says why, and the meeting does not notice.
func TestRecordingOnAFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := filepath.Join(dir, "fra", "data", "recordings")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	disk := func(left int) string { return fmt.Sprintf("size=%d", 64_000_000+left) } // the demo leaves 64 MB free
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, disk(700_000)); err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	m := startMesh(t, product, dir)
	waw, nyc := meetTwo(t, m, "full")
	held := steady.Watch()
	nyc.click("Record")
	nyc.until("shows that the room records", 5*time.Second, shows)
	nyc.until("is told that the disk is full", 25*time.Second,
		`return !window.__domicile.recording && (window.__domicile.roomState?.recording?.problem ?? "").includes("full")`)
	late := 2 * held()
	for _, p := range []*tab{waw, nyc} {
		p.until("goes on seeing and hearing the other", 10*time.Second, fmt.Sprintf(sees, 1))
	}
	for _, p := range []*tab{waw, nyc} {
		p.until("says that the disk is full", 10*time.Second, says("full"))
	}
	file, r := m.export()
	if r.Bytes < 200_000 {
		t.Errorf("%+v, want what was written", r)
	}
	playable(t, file, r.Ended.Sub(r.Started), 1500*time.Millisecond+late)
	if n := strings.Count(m.log("fra"), "level=ERROR"); n > r.Tracks {
		t.Errorf("fra logged %d errors, want one a track at most", n)
	}

	nyc.click("Record") // there is no room for a start either
	nyc.until("says that it cannot start", 5*time.Second, says("cannot start"))
}
