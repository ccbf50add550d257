package readme

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

// planned is what a target of the Makefile would run.
func planned(t *testing.T, target string) string {
	t.Helper()
	cmd := exec.Command("make", "-n", target)
	cmd.Dir = root
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS=") {
			cmd.Env = append(cmd.Env, v) // not as a part of the make that runs this test
		}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("make -n %s: %v\n%s", target, err, out)
	}
	return string(out)
}

// The README opens with two commands. That they exist, what they run, and that
// continuous integration runs the second is checked here; the test below does
// what the first one does last.
func TestReadmeOpensWithTwoCommands(t *testing.T) {
	first := blocksOf(t, "README.md")[0]
	if first.text != "make run\nmake test\n" {
		t.Fatalf("%s: the first example is %q", first, first.text)
	}
	if plan := planned(t, "test"); !strings.Contains(plan, "go test") {
		t.Errorf("make test does not run go test:\n%s", plan)
	}
	if ci := read(t, ".ci/run"); !strings.Contains(ci, "make test") {
		t.Error(".ci/run does not run make test")
	}
}

var demoCommand = regexp.MustCompile(`(?m)^(?:exec )?bin/domicile (demo .*)$`)

func TestReadmeDemo(t *testing.T) {
	page := blocksOf(t, "README.md")
	plan := planned(t, "run")
	last := demoCommand.FindStringSubmatch(plan)
	if last == nil || !strings.Contains(plan, "go build") {
		t.Fatalf("make run does not build and start a demo:\n%s", plan)
	}
	dir := workplace(t)
	demo := start(t, dir, strings.Fields(last[1])...)
	printed := demo.until("Logs are in")

	network := regexp.MustCompile(`127\.20\.\d+\.`).FindString(printed)
	here := strings.NewReplacer("127.20.0.", network, " .demo/", " "+filepath.Join(dir, ".demo")+"/")
	if want := here.Replace(named(t, page, "demo").text); !shows(want, printed) {
		t.Errorf("the demo prints:\n%s\nthe README says:\n%s", printed, want)
	}

	id := recordSomething(t, filepath.Join(dir, ".demo", "fra", "data"))
	shown := regexp.MustCompile(`RE_\w+`).FindString(read(t, "README.md"))
	edit := strings.NewReplacer(shown, string(id), "127.20.0.", network)
	for _, b := range page {
		if b.lang == "console" {
			transcribe(t, dir, b, edit)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "meeting.mkv")); err != nil || info.Size() == 0 {
		t.Errorf("the exported recording: %v", err)
	}
	explainsExistingRoom(t, dir, printed)
}

// recordSomething puts a second of silence into a node's vault, as recorded at
// the time that the README shows.
func recordSomething(t *testing.T, data string) vault.ID {
	t.Helper()
	keys, err := vault.OpenKeyStore(filepath.Join(data, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(filepath.Join(data, "recordings"), keys, vault.Options{Disk: residencytest.Disk(residency.ClassRecording)})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 11, 21, 18, 34, 33, 0, time.Local)
	rec, err := v.Create(residencytest.Keep("demo", "", residency.ClassRecording), vault.Meta{Room: "demo", Policy: "eu-origin-global-edge", Node: "fra", Country: "DE"}, began)
	if err != nil {
		t.Fatal(err)
	}
	opus := sfu.Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}
	w, err := rec.Track(vault.TrackMeta{TrackID: "TR_microphone", Participant: "attendee", Name: "An attendee",
		Source: "microphone", Kind: "audio", MimeType: opus.MimeType, ClockRate: opus.ClockRate, Channels: opus.Channels})
	if err != nil {
		t.Fatal(err)
	}
	track, err := record.NewTrack(w, opus, record.Options{Start: began})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		track.WriteRTP(silence(i), began.Add(time.Duration(i)*20*time.Millisecond))
	}
	done, cancel := context.WithCancel(t.Context())
	cancel() // it writes what is queued
	if err := track.Run(done); err != nil {
		t.Fatal(err)
	}
	if err := rec.Finish(began.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	return rec.ID()
}

// silence is the i-th RTP packet of 20 ms of nothing.
func silence(i int) []byte {
	p := make([]byte, 12, 15)
	p[0], p[1] = 0x80, 111
	binary.BigEndian.PutUint16(p[2:], uint16(i))
	binary.BigEndian.PutUint32(p[4:], uint32(i*960))
	p[11] = 1 // SSRC
	return append(p, 0xf8, 0xff, 0xfe)
}

// A room that exists has its own policy, whoever asks.
func explainsExistingRoom(t *testing.T, dir, printed string) {
	t.Helper()
	key := regexp.MustCompile(`API key (\w+), secret (\w+)`).FindStringSubmatch(printed)
	plain := regexp.MustCompile(`http://[0-9.]+:\d+`).FindString(printed)
	token, err := control.MintToken(key[1], key[2], control.Grants{Video: &auth.VideoGrant{RoomCreate: true}}, time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	call(t, token, plain+"/twirp/livekit.RoomService/CreateRoom", `{"name":"council","room_preset":"eea-only"}`)
	cmd := exec.Command("bin/domicile", "explain", "--room", "council", "--ip", "203.0.113.10", "--json")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	var placement struct{ Chosen struct{ Node string } }
	if err := json.Unmarshal(out, &placement); err != nil || placement.Chosen.Node != "fra" {
		t.Errorf("an attendee in New York of a room that exists is placed on %q, want fra: %v\n%s", placement.Chosen.Node, err, out)
	}
}

// call posts JSON with a token and wants it taken.
func call(t *testing.T, token, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	if status, answer := fetch(t, req); status != http.StatusOK {
		t.Fatalf("POST %s: %d %s", url, status, answer)
	}
}

func fetch(t *testing.T, req *http.Request) (status int, body string) {
	t.Helper()
	client := &http.Client{Timeout: patience}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestReadmeDev(t *testing.T) {
	tcp, udp := fmt.Sprint(freePort(t)), fmt.Sprint(freePort(t))
	dev := start(t, workplace(t), "dev", "--port", tcp, "--udp-port", udp)
	want := strings.NewReplacer(":7880", ":"+tcp, ":7882", ":"+udp, "/tmp", strings.TrimSuffix(os.TempDir(), "/")).
		Replace(named(t, blocksOf(t, "README.md"), "dev").text)
	if printed := dev.until("recordings:"); !shows(want, printed) {
		t.Errorf("domicile dev prints:\n%s\nthe README says:\n%s", printed, want)
	}
	token, err := control.MintToken("devkey", "secret", control.Grants{Identity: "ada",
		Video: &auth.VideoGrant{RoomJoin: true, Room: "lab"}}, time.Minute, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for path, status := range map[string]int{
		"/":                                   http.StatusOK,
		"/rtc/validate":                       http.StatusUnauthorized,
		"/rtc/validate?access_token=" + token: http.StatusOK,
		"/rtc/v1/validate":                    http.StatusUnauthorized,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+tcp+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, body := fetch(t, req); got != status {
			t.Errorf("GET %.20s: %d %.200s, want %d", path, got, body, status)
		}
	}
}
