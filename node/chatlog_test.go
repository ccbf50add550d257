package node

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
	"github.com/domicile/domicile/residency/vault"
)

func host(g *control.Grants) { g.Video.RoomAdmin = true }

// getChat asks a node for what is kept of a room's chat.
func getChat(t *testing.T, n *testNode, name, token, format string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+n.addr.String()+"/api/rooms/"+name+"/chat?format="+format, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, b := fetched(t, req)
	return resp.StatusCode, string(b)
}

// textStream is a text as LiveKit's clients send it, in pieces.
func textStream(id, topic string, pieces ...string) (list []*livekit.DataPacket) {
	list = append(list, &livekit.DataPacket{Value: &livekit.DataPacket_StreamHeader{StreamHeader: &livekit.DataStream_Header{StreamId: id, Topic: topic,
		ContentHeader: &livekit.DataStream_Header_TextHeader{TextHeader: &livekit.DataStream_TextHeader{}}}}})
	for i, p := range pieces {
		list = append(list, &livekit.DataPacket{Value: &livekit.DataPacket_StreamChunk{StreamChunk: &livekit.DataStream_Chunk{StreamId: id, ChunkIndex: uint64(i), Content: []byte(p)}}})
	}
	return append(list, &livekit.DataPacket{Value: &livekit.DataPacket_StreamTrailer{StreamTrailer: &livekit.DataStream_Trailer{StreamId: id}}})
}

// TestChatLog keeps chat on the origin alone, sealed, where the policy has it
// kept, and gives it to the host alone (R8, R10).
func TestChatLog(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	logged := *b.Policies["global"]
	logged.Name, logged.ChatLog = "logged", true
	asked := *b.Policies["global"]
	asked.Name, asked.QALog = "asked", true
	b.Policies["logged"], b.Policies["asked"] = &logged, &asked
	m := newMesh(t, b, "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	for _, policy := range []string{"logged", "asked", "global"} {
		anna, eve := enter(t, fra, policy, "anna", preset(policy)), enter(t, nyc, policy, "eve", preset(policy))
		anna.sees("eve")
		eve.negotiate()
		for _, p := range slices.Concat(textStream("s1", "lk.chat", "=cmd|secret ", "canary-of-chat"), textStream("s2", "domicile.qa", "is this canary-of-qa kept?"),
			textStream("s3", "lk.chat", "canary-to-some")[:2], textStream("s4", "lk.chat", "the last word")) {
			eve.say(p)
		}
		eve.say(&livekit.DataPacket{DestinationIdentities: []string{"anna"}, Value: &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{Message: "canary-between-us"}}})
		eve.say(&livekit.DataPacket{Value: &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{Message: "canary at the end"}}})
		anna.await("the last message", func() bool {
			return slices.ContainsFunc(anna.data, func(p *livekit.DataPacket) bool { return p.GetChatMessage().GetMessage() == "canary at the end" })
		})
	}
	admin := func(name string) string { return tokenFor(t, name, "host", host) }
	eventually(t, "the chat is kept", func() bool {
		_, body := getChat(t, fra, "logged", admin("logged"), "text")
		return strings.Contains(body, "canary at the end")
	})
	_, body := getChat(t, fra, "logged", admin("logged"), "text")
	for _, want := range []string{"=cmd|secret canary-of-chat", "Name of eve", "the last word"} {
		if !strings.Contains(body, want) {
			t.Errorf("the chat lacks %q:\n%s", want, body)
		}
	}
	for _, no := range []string{"canary-of-qa", "canary-between-us", "canary-to-some"} {
		if strings.Contains(body, no) {
			t.Errorf("the chat has %q:\n%s", no, body)
		}
	}
	if _, csv := getChat(t, fra, "logged", admin("logged"), "csv"); !strings.Contains(csv, ",'=cmd|secret") {
		t.Errorf("a cell of the CSV is a formula:\n%s", csv)
	}
	eventually(t, "questions are kept", func() bool {
		_, body := getChat(t, fra, "asked", admin("asked"), "json")
		return strings.Contains(body, "canary-of-qa") && !strings.Contains(body, "canary-of-chat")
	})
	for what, c := range map[string]struct {
		n     *testNode
		token string
		code  int
		says  string
	}{
		"an attendee":    {fra, tokenFor(t, "logged", "anna", nil), 403, "does not grant roomAdmin"},
		"another's host": {fra, admin("asked"), 403, "another room"},
		"another node":   {nyc, admin("logged"), 403, "kept on node fra"},
		"nothing kept":   {fra, admin("global"), 403, "not to keep it by the room's policy"},
	} {
		name := "logged"
		if what == "nothing kept" {
			name = "global"
		}
		if code, body := getChat(t, c.n, name, c.token, "json"); code != c.code || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %s, want %d %q", what, code, body, c.code, c.says)
		}
	}
	why := "the log's disk is full"
	fra.testimony.problem.Store(&why)
	err := fra.storeChat(fra.rooms.get("logged").Snapshot().Record, []byte(`{"kind":"chat","text":"unproved"}`))
	if err == nil || asRefusal(err).Rule != residency.RuleEvidence {
		t.Errorf("kept without evidence: %v", err)
	}
	for _, n := range []*testNode{fra, nyc} {
		files := 0
		err := filepath.WalkDir(n.cfg.DataDir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			files++
			raw, err := os.ReadFile(path)
			if bytes.Contains(raw, []byte("canary")) {
				t.Errorf("%s: chat lies in clear in %s", n.self().Name, path)
			}
			return err
		})
		if err != nil || n == nyc && n.chats.vault != nil || n == fra && files == 0 {
			t.Errorf("%s: %d files, %v", n.self().Name, files, err)
		}
	}
	if strings.Contains(fra.log.String()+nyc.log.String(), "canary") {
		t.Error("chat is in a log")
	}
}

// TestFilesOfLinesEnd: a room that never rests has a file a day, and each track one of
// its own, so that their times of retention can begin.
func TestFilesOfLinesEnd(t *testing.T) {
	keys, err := vault.OpenKeyStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(t.TempDir(), keys, vault.Options{Disk: residencytest.Disk(residency.ClassMetadata)})
	if err != nil {
		t.Fatal(err)
	}
	l := lineLog{vault: v, files: map[lineKey]*lineFile{}}
	at, permit := time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC), residencytest.Keep("town", "", residency.ClassMetadata)
	for i := range 9 {
		for _, track := range []vault.TrackID{"a", "b"} {
			meta := vault.Meta{Room: "town", Policy: "eea-only"}
			if err := l.append(permit, lineKey{"RM_1", track}, meta, [][]byte{fmt.Appendf(nil, "%d", i)}, at.Add(time.Duration(i)*5*time.Hour)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var ended, open int
	infos, err := v.List()
	for _, i := range infos {
		if i.State == vault.StateFinished {
			ended++
		} else {
			open++
		}
	}
	if err != nil || ended != 2 || open != 2 {
		t.Errorf("%d files are complete, %d are not, %v", ended, open, err)
	}
	l.rest(time.Time{}, &Node{now: time.Now})
	lines, err := l.lines(room.Record{Name: "town", SID: "RM_1"})
	if err != nil || len(lines) != 18 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
}

// TestListsHaveAClass: also a node that keeps nothing asks the gate for those that do.
func TestListsHaveAClass(t *testing.T) {
	var l lists
	l.init()
	for i, log := range l.all() {
		if log.class == "" {
			t.Errorf("list %d has no class", i)
		}
	}
}
