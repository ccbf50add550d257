//go:build linux && heal

package healing

import (
	"encoding/json"
	"flag"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/residency/vault"
)

var recordings = flag.Int("heal.recordings", 3, "how many recordings lose their node")

// TestRecordingOutlivesItsNode kills the origin that records a room: it goes on at the
// other one as a second part, which states a gap that covers what is in neither.
func TestRecordingOutlivesItsNode(t *testing.T) {
	s := newStage(t, 3, nil) // fra and waw are origins, par serves the publisher
	for range *recordings {
		s.losesRecorder()
	}
}

// recordingState is what the API says of a recording.
type recordingState struct {
	Active   bool
	ID, Node string
}

func (s *stage) losesRecorder() {
	t := s.t
	r := &room{name: "recorded-" + time.Now().Format("150405.000")}
	a := &attendee{s: s, room: r, who: "speaker", home: 1, publish: true}
	a.goTo(1)
	if a.err != nil {
		t.Fatal(a.err)
	}
	defer a.close()
	first := s.record(r.name, "start")
	lost, other := s.named(first.Node), s.named("fra")
	if lost == other {
		other = s.named("waw")
	}
	s.eventually("sound is recorded", func() bool { return grown(s.parts(lost, first.ID)) })

	killed := time.Now()
	s.kill(lost)
	var second vault.Info
	s.eventually("it goes on at "+other.Name, func() bool {
		for _, i := range s.parts(other, "") {
			if i.After != nil && string(i.After.ID) == first.ID {
				second = i
			}
		}
		return grown([]vault.Info{second})
	})
	flows := time.Since(killed)
	missing := second.Started.Sub(killed)
	t.Logf("%s was killed; part %d at %s begins %s later, %s later it has sound; the gap stated is %s", lost.Name, second.After.Part, other.Name,
		missing.Round(ms), flows.Round(ms), second.After.Gap.Round(ms))
	if second.After.Part != 2 || string(second.After.Node) != lost.Name || second.After.Gap < missing || second.After.Gap > 30*time.Second {
		t.Errorf("it says %+v, and %s are missing", *second.After, missing)
	}
	s.record(r.name, "stop")
	s.eventually("the second part is complete", func() bool {
		list := s.parts(other, string(second.ID))
		return len(list) == 1 && list[0].State == vault.StateFinished
	})
	s.start(lost)
	s.allLinked()
}

func grown(list []vault.Info) bool {
	for _, i := range list {
		if i.Size() > 0 {
			return true
		}
	}
	return false
}

func (s *stage) named(name string) *process {
	for _, p := range s.nodes {
		if p.Name == name {
			return p
		}
	}
	s.t.Fatalf("no node %q", name)
	return nil
}

// parts are the recordings on a node's disk, or the one of an id.
func (s *stage) parts(p *process, id string) []vault.Info {
	data := filepath.Join(p.dir(), "data")
	keys, err := vault.OpenKeyStore(filepath.Join(data, "keys"))
	if err != nil {
		s.t.Fatal(err)
	}
	v, err := vault.Open(filepath.Join(data, "recordings"), keys, vault.Options{})
	if err != nil {
		s.t.Fatal(err)
	}
	all, err := v.List()
	if err != nil {
		s.t.Fatal(err)
	}
	var list []vault.Info
	for _, i := range all {
		if id == "" || string(i.ID) == id {
			list = append(list, i)
		}
	}
	return list
}

// record starts or stops the recording of a room by the API of the publisher's node.
func (s *stage) record(room, action string) (state recordingState) {
	t := s.t
	t.Helper()
	token, err := control.MintToken(apiKey, apiSecret, control.Grants{Identity: "host",
		Video: &auth.VideoGrant{RoomJoin: true, RoomRecord: true, RoomAdmin: true, Room: room}}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), "POST", strings.Replace(s.url(s.nodes[1]), "wss", "https", 1)+"/api/rooms/"+room+"/recording",
		strings.NewReader(`{"action":"`+action+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	c := http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&state); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s of a recording: %s, %v", action, resp.Status, err)
	}
	return state
}
