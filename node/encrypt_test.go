package node

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// refusedTrack announces a track and returns why the node refuses it, "" if it
// does not.
func (c *client) refusedTrack(cid string, sealed livekit.Encryption_Type) string {
	c.t.Helper()
	c.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_AddTrack{AddTrack: &livekit.AddTrackRequest{
		Cid: cid, Type: livekit.TrackType_AUDIO, Source: livekit.TrackSource_MICROPHONE, Encryption: sealed}}})
	var why string
	c.await("an answer to the track "+cid, func() bool {
		for _, r := range c.replies {
			if t := r.GetAddTrack(); t != nil && t.Cid == cid {
				why = r.Message
				return true
			}
		}
		return c.tracks[cid] != nil
	})
	return why
}

// TestEncryptionByPolicy has a room that must be end-to-end encrypted and one
// that must not (R14 to R16): each track, client and feature that does not fit is
// refused with its reason.
func TestEncryptionByPolicy(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	for name, rule := range map[string]residency.E2EERule{"sealed": residency.E2EERequired, "open": residency.E2EEOff} {
		p := *b.Policies["eea-only"]
		p.Name, p.E2EE = name, rule
		b.Policies[name] = &p
	}
	m := newMesh(t, b, "fra DE origin")
	fra := m.node("fra")
	anna, olga := enter(t, fra, "sealed", "anna", preset("sealed")), enter(t, fra, "open", "olga", preset("open"))
	for _, c := range []struct {
		who    *client
		sealed livekit.Encryption_Type
		want   string
	}{
		{anna, livekit.Encryption_NONE, "wants every room end-to-end encrypted"},
		{anna, livekit.Encryption_GCM, ""},
		{olga, livekit.Encryption_GCM, "has no end-to-end encrypted rooms"},
		{olga, livekit.Encryption_NONE, ""},
	} {
		why := c.who.refusedTrack("mic "+c.sealed.String(), c.sealed)
		if (c.want == "") != (why == "") || !strings.Contains(why, c.want) {
			t.Errorf("%s, %s: %q, want %q", c.who.room.GetName(), c.sealed, why, c.want)
		}
	}

	_, refusal := record(t, fra, "sealed", "start")
	if refusal == nil || !strings.Contains(refusal.Message, "switches recording off") {
		t.Errorf("recording: %v", refusal)
	}
	if _, refusal := record(t, fra, "open", "start"); refusal != nil {
		t.Errorf("recording an open room: %v", refusal)
	}
	var state roomJSON
	if refusal := call(t, fra, "GET", "/api/rooms/sealed", tokenFor(t, "sealed", "anna", nil), "", &state); refusal != nil {
		t.Fatal(refusal)
	}
	for _, l := range residency.LostToE2EE() {
		if !slices.Contains(state.Lost, l) {
			t.Errorf("the room does not say that %s is off", l.Feature)
		}
	}
	if slices.ContainsFunc(state.Lost, func(l residency.Lost) bool { return l.Feature == residency.FeatureQA }) {
		t.Error("Q&A is said to be off")
	}
	if refusal := call(t, fra, "POST", "/api/join", "", `{"room":"sealed","name":"Guest"}`, nil); refusal == nil || refusal.Rule != "e2ee" {
		t.Errorf("the page, which cannot encrypt, is let in: %v", refusal)
	}

	res, body := newDirectClient(t, fra, "sealed", "player", preset("sealed")).receives().tryPost("/whep")
	if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "have no key of it") {
		t.Errorf("a player over WHEP got %s: %s", res.Status, body)
	}
}
