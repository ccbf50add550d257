package node

import (
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	fields "github.com/domicile/domicile/residency/registry"
)

// canaries are what no log line, no metric and no file in clear of a node may hold.
var canaries = []string{
	"canaryname", "canaryidentity", // of a person
	"canarychat", "canarymetadata", "canaryattribute", "canarydata",
	"203.0.113.77", "198.51.100.7", // of an attendee: in a candidate, a description and a header
	"canarytoken", "canarysdp", "canaryquery", "canarybody", "canarytrack", "canarypath",
}

// meetsWithCanaries holds a meeting over two nodes in which everything that an attendee
// says of themselves is a canary, also what is malformed. It is recorded, and its
// chat is kept. It returns the tokens that were used.
func meetsWithCanaries(t *testing.T, m *testMesh) (tokens []string) {
	fra, nyc := m.node("fra"), m.node("nyc")
	named := func(g *control.Grants) {
		g.Name, g.Metadata, g.RoomPreset = "canaryname", "canarymetadata", "logged"
		g.Attributes = map[string]string{"mood": "canaryattribute"}
	}
	anna, eve := enter(t, fra, "canaryroom", "canaryidentity-a", named), enter(t, nyc, "canaryroom", "canaryidentity-e", named)
	anna.sees("canaryidentity-e")
	camera := eve.publish("canarytrack", livekit.TrackType_VIDEO)
	anna.hears(camera)
	if _, refusal := record(t, fra, "canaryroom", "start"); refusal != nil {
		t.Fatal(refusal)
	}
	for _, p := range slices.Concat(textStream("canarychat", "lk.chat", "canarychat ", "goes on"), textStream("s2", "domicile.qa", "canarychat?")) {
		eve.say(p)
	}
	eve.say(&livekit.DataPacket{Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Payload: []byte("canarydata")}}})
	anna.hears(camera)
	tokens = append(tokens, knocks(t, fra)...)
	eventually(t, "the chat is kept", func() bool {
		_, body := getChat(t, fra, "canaryroom", tokenFor(t, "canaryroom", "host", host), "text")
		return strings.Contains(body, "canarychat goes on")
	})
	if _, refusal := record(t, fra, "canaryroom", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	misbehaves(eve)
	eve.close()
	anna.sees()
	return tokens
}

// misbehaves sends what cannot be used.
func misbehaves(c *client) {
	for _, candidate := range []string{
		`{"candidate":"candidate:1 1 udp 1 203.0.113.77 5000 typ host","sdpMid":"0"}`,
		`{"candidate":"candidate:1 1 canaryname 1 203.0.113.77 x typ host"}`, `canarysdp 203.0.113.77`, `{"candidate":203.0113}`,
	} {
		c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Trickle{Trickle: &livekit.TrickleRequest{CandidateInit: candidate}}})
	}
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{Cid: strings.Repeat("canarytrack", 40), Name: "canarytrack"}}})
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_UpdateMetadata{UpdateMetadata: &livekit.UpdateParticipantMetadata{Name: strings.Repeat("canaryname", 500)}}})
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_SubscriptionPermission{SubscriptionPermission: &livekit.SubscriptionPermission{
		TrackPermissions: []*livekit.TrackPermission{{ParticipantIdentity: "canaryidentity\n", ParticipantSid: "canaryidentity"}}}}})
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Simulate{Simulate: &livekit.SimulateScenario{}}})
	c.ws.Write(c.ctx, websocket.MessageBinary, []byte("canarybody")) //nolint:errcheck // it may end the connection
}

// knocks has strangers at the door: with bad tokens, addresses, bodies and paths. It
// returns their tokens.
func knocks(t *testing.T, n *testNode) (tokens []string) {
	base := "http://" + n.addr.String()
	good := tokenFor(t, "canaryroom", "canaryidentity-x", nil)
	bad := good[:len(good)-4] + "AAAA"
	ask := func(method, path, token, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("X-Forwarded-For", "198.51.100.7")
		req.Header.Set("User-Agent", "canaryquery")
		req.Header.Set("Content-Type", "application/sdp")
		if resp, err := http.DefaultClient.Do(req); err == nil {
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // what it says is the attendee's
			resp.Body.Close()
		}
	}
	defer http.DefaultClient.CloseIdleConnections()
	for _, token := range []string{good, bad, "canarytoken", "canarytoken.canarytoken.canarytoken"} {
		for _, path := range []string{"/rtc/validate?access_token=" + token, "/rtc?access_token=" + token + "&sdk=canaryquery", "/api/rooms/canaryroom",
			"/api/rooms/canarypath%2f..%2fcanarypath/chat", "/api/join", "/whip/canaryroom", "/whip", "/whep", "/canarypath?canaryquery=1"} {
			ask("GET", path, token, "")
			ask("POST", path, token, "v=0\r\no=canarysdp 1 1 IN IP4 203.0.113.77\r\ncanarysdp\r\n")
			ask("POST", path, token, `{"name":"canarybody`)
		}
		tokens = append(tokens, token)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if ws, _, err := websocket.Dial(ctx, "ws://"+n.addr.String()+"/rtc?access_token="+good+"&sdk=canaryquery", nil); err == nil { //nolint:bodyclose // the library closes it
		ws.Write(ctx, websocket.MessageBinary, []byte("canarybody")) //nolint:errcheck // nothing waits for it
		ws.CloseNow()                                                //nolint:errcheck // likewise
	}
	return tokens
}

// TestNothingOfAPersonIsWrittenDown greps what nodes log, count and write in clear
// while people meet and misbehave: no name, address, token or word of theirs is there.
// Every file in the data directories is one that the registry knows.
func TestNothingOfAPersonIsWrittenDown(t *testing.T) {
	b := testBundle(1)
	logged := *b.Policies["global"]
	logged.Name, logged.ChatLog, logged.QALog = "logged", true, true
	b.Policies["logged"] = &logged
	m := newMesh(t, b, "fra DE origin", "nyc US")
	tokens := meetsWithCanaries(t, m)
	forbidden := append(slices.Clone(canaries), "canaryroom")
	for _, token := range tokens {
		if i := strings.LastIndexByte(token, '.'); i >= 0 {
			forbidden = append(forbidden, token[:i]) // with any signature
		}
	}
	for _, n := range m.nodes {
		for _, secret := range forbidden {
			for line := range strings.Lines(n.log.String()) {
				if strings.Contains(line, secret) {
					t.Errorf("node %s logs %q: %s", n.cfg.Self.Name, secret, line)
					break
				}
			}
		}
		if !strings.Contains(n.log.String(), "participant joined") {
			t.Errorf("node %s does not log what it does: the test looks at nothing", n.cfg.Self.Name)
		}
		holdsFiles(t, n, forbidden)
	}
}

// holdsFiles compares a node's data directory with the registry.
func holdsFiles(t *testing.T, n *testNode, forbidden []string) {
	t.Helper()
	found := map[string]bool{}
	err := filepath.WalkDir(n.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a file that went while it was looked for
		}
		name, err := filepath.Rel(n.cfg.DataDir, path)
		if err != nil {
			return err
		}
		f, ok := fields.FileAt(filepath.ToSlash(name))
		if !ok {
			if !strings.Contains(name, ".new-") { // one that is about to get its name
				t.Errorf("node %s has written %s, which is not in residency/registry", n.cfg.Self.Name, name)
			}
			return nil
		}
		found[f.Path] = true
		b, err := os.ReadFile(path)
		if err != nil || f.Personal && !f.Sealed {
			return nil //nolint:nilerr // a socket
		}
		for _, secret := range forbidden {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s holds %q and is registered as a file that tells of nobody in clear", name, secret)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if n.cfg.Self.Name == "fra" && (!found["chats/RE_*/chat.dtr"] || !found["recordings/RE_*/*.dtr"] || !found["rooms.db"]) {
		b, _ := json.Marshal(found)
		t.Errorf("an origin keeps less than it should: %s", b)
	}
}
