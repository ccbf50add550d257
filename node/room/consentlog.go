package room

import (
	"cmp"
	"maps"
	"slices"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// What people were told and what they answered is written down by the node that records,
// as it acts by it: of each connection, when it was shown the notice of a recording,
// agreed, declined, or took it back. What is written says by which policy was asked.

// ConsentEvent is what happened between a recording and somebody in its room.
type ConsentEvent string

// The events.
const (
	ConsentShown     ConsentEvent = "notice"    // their node has told them of the recording
	ConsentAgreed    ConsentEvent = "given"     // they have agreed, or whoever signed their token says so
	ConsentDeclined  ConsentEvent = "declined"  // they have said no and had not agreed before
	ConsentWithdrawn ConsentEvent = "withdrawn" // they had agreed and have taken it back
)

// DeclinedAttribute is what a participant's node states when they have said no: the id
// of the recording. Clients cannot set it; it changes nothing but what is written down.
const DeclinedAttribute = "domicile.consent.declined"

// ConsentLine says that something of this happened, as it is kept.
type ConsentLine struct {
	AtMS      int64              `json:"at_ms"` // Unix milliseconds by the clock of the node that records
	Event     ConsentEvent       `json:"event"`
	Recording string             `json:"recording"`
	SID       string             `json:"sid"` // of the connection
	Identity  string             `json:"identity"`
	Name      string             `json:"name"`
	Token     bool               `json:"token,omitempty"` // agreed by what the token says (ConsentGiven)
	Node      residency.NodeName `json:"node"`            // that serves them, and has shown them the notice
	Policy    string             `json:"policy"`
	Epoch     residency.Epoch    `json:"epoch"` // version of the policies
}

// answer is what was written down of a connection.
type answer struct{ shown, agreed, declined bool }

// hears takes what is known of somebody now, and returns what is new.
func (a *answer) hears(c capture, declined string) (events []ConsentEvent) {
	if c.told == c.recording && !a.shown {
		a.shown = true
		events = append(events, ConsentShown)
	}
	switch agreed := c.agreed(); {
	case agreed && !a.agreed:
		events = append(events, ConsentAgreed)
		a.agreed, a.declined = true, false
	case !agreed && a.agreed:
		events = append(events, ConsentWithdrawn)
		a.agreed, a.declined = false, true
	case !agreed && !a.declined && declined == c.recording:
		events = append(events, ConsentDeclined)
		a.declined = true
	}
	return events
}

// maxAnswers bounds what is remembered of connections that are not there any more: one
// may be on its way from one node to another.
const maxAnswers = 1000

// noteConsents has written down what is new about the recording under way here.
func (r *Room) noteConsents() {
	rc := r.recorder
	bundle := r.deps.Gate().Bundle()
	policy, err := bundle.PolicyFor(r.record.Tenant, r.record.Policy)
	if err != nil || r.deps.Consent == nil || rc.state.ID == "" || !policy.Recording.KeepsConsents() {
		return
	}
	here := make(map[string]bool, len(rc.answers))
	note := func(p *livekit.ParticipantInfo, told string) {
		here[p.Sid] = true
		a := rc.answers[p.Sid]
		if a == nil {
			a = &answer{}
			rc.answers[p.Sid] = a
		}
		c := capture{rule: policy.Recording, recording: rc.state.ID, told: told, consent: p.Attributes[ConsentAttribute], withdrawn: rc.withdrawn[p.Identity]}
		for _, e := range a.hears(c, p.Attributes[DeclinedAttribute]) {
			r.deps.Consent(r.record, ConsentLine{Event: e, Recording: rc.state.ID, SID: p.Sid, Identity: p.Identity, Name: p.Name,
				Token: e == ConsentAgreed && c.consent == ConsentGiven, Node: residency.NodeName(p.Region), Policy: policy.Name, Epoch: bundle.Epoch})
		}
	}
	for _, l := range r.locals {
		note(l.info, r.told)
	}
	for _, m := range r.remotes {
		for _, p := range m.participants {
			note(p.info, m.presence.Told)
		}
	}
	if len(rc.answers) > len(here)+maxAnswers {
		maps.DeleteFunc(rc.answers, func(sid string, _ *answer) bool { return !here[sid] })
	}
}

// Consents puts lines in their order, from several origins. What a connection has said
// already is not said again.
func Consents(lines []ConsentLine) []ConsentLine {
	lines = slices.Clone(lines)
	slices.SortStableFunc(lines, func(a, b ConsentLine) int {
		return cmp.Or(cmp.Compare(a.AtMS, b.AtMS), cmp.Compare(a.Recording, b.Recording), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.SID, b.SID))
	})
	type who struct{ recording, sid string }
	shown, last := map[who]bool{}, map[who]ConsentEvent{}
	return slices.DeleteFunc(lines, func(l ConsentLine) bool {
		w := who{l.Recording, l.SID}
		if l.Event == ConsentShown {
			again := shown[w]
			shown[w] = true
			return again
		}
		again := last[w] == l.Event
		last[w] = l.Event
		return again
	})
}
