package readme

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/control"
)

// docs/residency.md explains a meeting and changes the policy under it: the demo
// runs, Anna is in Frankfurt and Ben in New York, and the transcripts are played.
func TestResidency(t *testing.T) {
	dir := workplace(t)
	demo := start(t, dir, "demo", "--dir", ".demo")
	printed := demo.until("Logs are in")
	key := regexp.MustCompile(`API key (\w+), secret (\w+)`).FindStringSubmatch(printed)
	plain := regexp.MustCompile(`http://([0-9.]+:\d+)`).FindAllStringSubmatch(printed, 3)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token := func(identity, room, policy string) string {
		s, err := control.MintToken(key[1], key[2], control.Grants{Identity: identity, RoomPreset: policy,
			Video: &auth.VideoGrant{RoomJoin: true, Room: room}}, time.Hour, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	join := func(at int, identity string, publish bool) *client.Client {
		c, err := client.Join(ctx, client.Config{URL: "ws://" + plain[at][1], Token: token(identity, "board", ""), Subscribe: !publish, Audio: publish})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	anna := join(0, "anna", true)
	defer anna.Close()
	ben := join(2, "ben", false)
	defer ben.Close()
	anna.Start()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for ben.Inbound().Packets() < 10 {
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Fatalf("%d packets arrive in New York", ben.Inbound().Packets())
		}
	}
	for _, b := range blocksOf(t, "docs/residency.md") {
		switch {
		case b.lang != "console":
		case b.name == "refused":
			refusesCarl(t, plain[2][1], token("carl", "council", "eea-only"))
			transcribe(t, dir, b, strings.NewReplacer())
		default:
			transcribe(t, dir, b, strings.NewReplacer())
		}
	}
}

// refusesCarl has somebody ask for a room that the node may not serve.
func refusesCarl(t *testing.T, addr, token string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/rtc?access_token="+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("carl: %s", resp.Status)
	}
}
