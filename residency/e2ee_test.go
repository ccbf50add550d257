package residency

import (
	"strings"
	"testing"
)

// TestLostToE2EE compares the list with R15, word by word.
func TestLostToE2EE(t *testing.T) {
	want := strings.Fields(`recording livestream recording-publication breakout-rooms waiting-room video-playback
		sms-invitations email-invitations social-sharing qr-code telephone call-to-action polls tests transcription
		presentation whiteboard chat-moderation chat-export`)
	got := LostToE2EE()
	if len(got) != len(want) {
		t.Fatalf("got %d features, want %d", len(got), len(want))
	}
	for i, l := range got {
		if l.Feature != Feature(want[i]) || l.Reason == "" {
			t.Errorf("got %+v, want %s", l, want[i])
		}
		ok, why := E2EEKeeps(l.Feature)
		if ok || !strings.Contains(why, string(l.Feature)) || !strings.Contains(why, l.Reason) {
			t.Errorf("%s: got %v, %q", l.Feature, ok, why)
		}
	}
	if ok, why := E2EEKeeps(FeatureQA); !ok {
		t.Errorf("questions and answers do not stay: %s", why)
	}
	if ok, why := E2EEKeeps("telepathy"); ok || !strings.Contains(why, "unknown") {
		t.Errorf("an unknown feature stays: %q", why)
	}
	got[0].Feature = FeatureQA
	if ok, _ := E2EEKeeps("recording"); ok || LostToE2EE()[0].Feature != "recording" {
		t.Error("a caller changed the list")
	}
}

func TestEncrypts(t *testing.T) {
	for rule, want := range map[E2EERule][2]bool{ // plain, encrypted
		"": {true, true}, E2EEAllowed: {true, true}, E2EERequired: {false, true}, E2EEOff: {true, false},
	} {
		p := &Policy{Name: "p", E2EE: rule}
		for i, encrypted := range []bool{false, true} {
			if ok, why := p.Encrypts(encrypted); ok != want[i] || ok == strings.Contains(why, `policy "p"`) {
				t.Errorf("e2ee %q, encrypted %v: got %v, %q", rule, encrypted, ok, why)
			}
		}
	}
}
