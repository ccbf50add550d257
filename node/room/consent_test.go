package room

import (
	"maps"
	"math/rand/v2"
	"testing"

	"github.com/domicile/domicile/residency"
)

func TestCapture(t *testing.T) {
	none := residency.RecordingRule{Allowed: true}
	notice := residency.RecordingRule{Allowed: true, Notice: true}
	consent := residency.RecordingRule{Allowed: true, Notice: true, Consent: true}
	for _, c := range []struct {
		what string
		c    capture
		want bool
	}{
		{"nobody need be told", capture{rule: none, recording: "RE_1"}, true},
		{"not told yet", capture{rule: notice, recording: "RE_1"}, false},
		{"told of the one before", capture{rule: notice, recording: "RE_2", told: "RE_1"}, false},
		{"told", capture{rule: notice, recording: "RE_1", told: "RE_1"}, true},
		{"told, has not answered", capture{rule: consent, recording: "RE_1", told: "RE_1"}, false},
		{"agreed to the one before", capture{rule: consent, recording: "RE_2", told: "RE_2", consent: "RE_1"}, false},
		{"agreed", capture{rule: consent, recording: "RE_1", told: "RE_1", consent: "RE_1"}, true},
		{"agreed, its node has told nobody", capture{rule: consent, recording: "RE_1", consent: "RE_1"}, false},
		{"agreed beforehand", capture{rule: consent, recording: "RE_1", told: "RE_1", consent: ConsentGiven}, true},
		{"agreed beforehand, not told", capture{rule: consent, recording: "RE_1", consent: ConsentGiven}, false},
		{"agreed beforehand, took it back", capture{rule: consent, recording: "RE_1", told: "RE_1", consent: ConsentGiven, withdrawn: true}, false},
		{"took it back, agreed again", capture{rule: consent, recording: "RE_1", told: "RE_1", consent: "RE_1", withdrawn: true}, true},
		{"consent without notice still tells", capture{rule: residency.RecordingRule{Allowed: true, Consent: true}, recording: "RE_1", consent: "RE_1"}, false},
	} {
		if got := c.c.allowed(); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// TestAgree lets a client say what it agrees to, and nothing that only its
// token may say.
func TestAgree(t *testing.T) {
	for _, c := range []struct {
		have, said map[string]string
		told       string
		want       map[string]string
	}{
		{map[string]string{}, map[string]string{ConsentAttribute: "RE_1"}, "", map[string]string{ConsentAttribute: "RE_1"}},
		{map[string]string{ConsentAttribute: "RE_1"}, map[string]string{"hand": "up"}, "RE_1", map[string]string{ConsentAttribute: "RE_1"}},
		{map[string]string{ConsentAttribute: "RE_1"}, map[string]string{ConsentAttribute: ""}, "", map[string]string{}},
		{map[string]string{}, map[string]string{ConsentAttribute: ""}, "RE_1", map[string]string{DeclinedAttribute: "RE_1"}},
		{map[string]string{DeclinedAttribute: "RE_1"}, map[string]string{ConsentAttribute: "RE_1"}, "RE_1", map[string]string{ConsentAttribute: "RE_1"}},
		{map[string]string{}, map[string]string{ConsentAttribute: ConsentGiven}, "", map[string]string{}},
		{map[string]string{ConsentAttribute: "RE_1"}, map[string]string{ConsentAttribute: "no\n"}, "", map[string]string{ConsentAttribute: "RE_1"}},
	} {
		got := maps.Clone(c.have)
		agree(got, c.said, c.told)
		if !maps.Equal(got, c.want) {
			t.Errorf("%v, says %v: %v, want %v", c.have, c.said, got, c.want)
		}
	}
}

// TestCaptureSchedules tries 10⁵ random schedules of notices, answers, rejoins and
// recordings that follow each other (G22): what is captured was told and agreed to,
// as a plain account of what happened says.
func TestCaptureSchedules(t *testing.T) {
	const schedules = 100_000
	rng := rand.New(rand.NewPCG(22, 5))
	ids := []string{"RE_1", "RE_2", "RE_3"}
	captured := 0
	for range schedules {
		attrs := map[string]string{}
		c := capture{rule: residency.RecordingRule{Allowed: true, Notice: true, Consent: true}}
		told, agreed, took := map[string]bool{}, map[string]bool{}, false // the account
		given := rng.IntN(4) == 0
		if given {
			attrs[ConsentAttribute] = ConsentGiven
		}
		for range 12 {
			id := ids[rng.IntN(len(ids))]
			switch rng.IntN(4) {
			case 0:
				c.recording, c.withdrawn, took = id, false, false
			case 1:
				c.told, told = id, map[string]bool{id: true}
			case 2:
				agree(attrs, map[string]string{ConsentAttribute: id}, "")
				agreed, given = map[string]bool{id: true}, false
			case 3:
				agree(attrs, map[string]string{ConsentAttribute: ""}, "")
				agreed, given, took = map[string]bool{}, false, true
				c.withdrawn = true
			}
			c.consent = attrs[ConsentAttribute]
			if !c.allowed() {
				continue
			}
			captured++
			if !told[c.recording] && c.recording != "" || !agreed[c.recording] && (!given || took) {
				t.Fatalf("captured by %+v; told %v, agreed %v, beforehand %v, taken back %v", c, told, agreed, given, took)
			}
		}
	}
	if captured < schedules/20 {
		t.Errorf("%d captures in %d schedules: the schedules try too little", captured, schedules)
	}
}
