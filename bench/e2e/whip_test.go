package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/control"
)

// wished is what wish.js tells of a session.
type wished struct {
	Status, Trickled      int
	Link, Answer, Problem string
	Changed               bool
}

// TestWHIPAndWHEP lets a browser that knows no more than WHIP publish for one on
// livekit-client in another country, and the other way around.
func TestWHIPAndWHEP(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b, page := startBrowsers(t, ""), servePage(t)
	wish := strings.Replace(page, "client.html", "wish.html", 1)

	attendee := m.mustJoin(b, page, "waw", "studio", "attendee")
	encoder := b.open("WHIP client", wish)
	var answer wished
	encoder.must(`return await publish("`+m.origin("fra")+`/whip", "`+m.token("studio", "encoder", "")+`")`, &answer)
	if answer.Status != 201 || answer.Trickled != 204 {
		t.Fatalf("WHIP: %+v", answer)
	}
	contains(t, "the answer to WHIP", answer.Answer, "a=ice-lite", "a=recvonly", "a=setup:passive")
	if strings.Contains(answer.Answer, "a=sendrecv") || strings.Contains(answer.Answer, "a=sendonly") {
		t.Error("the answer to WHIP sends")
	}
	contains(t, "the Link of TURN", answer.Link, "<turns:", `rel="ice-server"`, `username="`, `credential="`)
	attendee.until("sees and hears the encoder", 30*time.Second,
		`const g = await growing(); return g.includes("encoder camera") && g.includes("encoder microphone")`)

	encoder.must(`return await restart()`, &answer)
	if answer.Status != 200 || !answer.Changed {
		t.Errorf("ICE restart: %+v", answer)
	}
	attendee.until("goes on seeing the encoder after an ICE restart", 20*time.Second,
		`const g = await growing(); return g.includes("encoder camera") && g.includes("encoder microphone")`)

	// The other way: what the attendee publishes, and what the room shows.
	attendee.must(`await room.localParticipant.enableCameraAndMicrophone()`, nil)
	hidden := m.mint(control.Grants{Identity: "player", Video: &auth.VideoGrant{RoomJoin: true, Room: "studio", Hidden: true}}, time.Now())
	for _, path := range []string{"/whep/studio/attendee", "/whep"} {
		player := b.open("WHEP player of "+path, wish)
		player.until("is answered", 20*time.Second,
			`const a = await play("`+m.origin("nyc")+path+`", "`+hidden+`"); window.last = a; return a.status === 201`)
		player.until("sees and hears", 30*time.Second, `return await plays()`)
		player.must(`return await restart()`, &answer)
		if answer.Status != 200 {
			t.Errorf("ICE restart of a player: %+v", answer)
		}
		player.until("goes on after an ICE restart", 20*time.Second, `return await plays()`)
		var status int
		if player.must(`return await stop()`, &status); status != 200 {
			t.Errorf("DELETE: %d", status)
		}
	}
	var others []string
	attendee.must(`return [...room.remoteParticipants.keys()]`, &others)
	if len(others) != 1 || others[0] != "encoder" {
		t.Errorf("the attendee sees %q", others)
	}
	var status int
	if encoder.must(`return await stop()`, &status); status != 200 {
		t.Errorf("DELETE: %d", status)
	}
	attendee.promptly("sees the encoder leave", `return seen.left.includes("encoder")`)
}
