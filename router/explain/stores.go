package explain

import (
	"fmt"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// stores says where what is kept of the room lies, or would: the same choices that
// are made when something is to be kept.
func (w World) stores(g *residency.Gate) []Store {
	room := router.Room{Name: w.Room.Name, Tenant: w.Room.Tenant, Policy: w.Room.Policy}
	policy, err := g.Bundle().PolicyFor(room.Tenant, room.Policy)
	home := router.Home(g, room, w.Nodes, w.Now)
	list := []Store{w.record(g, home), w.recording(g, room)}
	for _, q := range []struct {
		what string
		qa   bool
	}{{"chat", false}, {"questions", true}} {
		p := router.Keeper(g, residency.Request{Room: room.Name, Tenant: room.Tenant, Policy: room.Policy, Class: residency.ClassChat, QA: q.qa}, w.Nodes, w.Now)
		s := store(q.what, residency.ClassChat, p)
		s.Now = w.Room.Live && s.Node != "" && (w.Room.Encryption == "" || w.Room.Encryption == "none")
		list = append(list, s)
	}
	evidence := Store{What: "evidence", Class: residency.ClassMetadata, Node: list[0].Node, Now: w.Room.Live && list[0].Now, Rule: list[0].Rule, Reason: list[0].Reason, Hint: list[0].Hint}
	switch {
	case err == nil && policy.Evidence == residency.EvidenceOff:
		evidence.Node, evidence.Now, evidence.Rule, evidence.Hint = "", false, residency.RuleNotStored, ""
		evidence.Reason = fmt.Sprintf("policy %q wants no receipts", policy.Name)
	case evidence.Node != "":
		evidence.Reason = fmt.Sprintf("receipts of the room go to its home, node %s", evidence.Node)
	}
	return append(list, evidence)
}

// record is where the room's own record lies: at the home that it has, which the
// gate is asked about again, else at the one that it would get.
func (w World) record(g *residency.Gate, would router.Placement) Store {
	s := store("record", residency.ClassMetadata, would)
	if w.Room.SID == "" || w.Room.Home == "" {
		return s
	}
	c, ok := w.candidate(w.Room.Home)
	if !ok {
		return s
	}
	v := w.ask(g, c, residency.ClassMetadata, true)
	return Store{What: s.What, Class: s.Class, Node: w.Room.Home, Now: v.Allow, Rule: v.Rule, Reason: v.Reason, Hint: v.Hint}
}

// recording is where the room is recorded, or would be.
func (w World) recording(g *residency.Gate, room router.Room) Store {
	s := store("recording", residency.ClassRecording, router.RecordingNode(g, room, w.Nodes, w.Now))
	c, ok := w.candidate(w.Room.Recorder)
	if !ok {
		return s
	}
	v := w.ask(g, c, residency.ClassRecording, true)
	return Store{What: s.What, Class: s.Class, Node: w.Room.Recorder, Now: v.Allow, Rule: v.Rule, Reason: v.Reason, Hint: v.Hint}
}

// store turns a choice into a Store. Where the policy has nobody keep this, that
// is the reason, and not how many nodes there are.
func store(what string, class residency.Class, p router.Placement) Store {
	s := Store{What: what, Class: class, Node: p.Node(), Rule: p.Rule, Reason: p.Reason, Hint: p.Hint}
	for _, r := range p.Ranked {
		if p.Chosen == nil && r.Rule == residency.RuleNotStored {
			s.Rule, s.Reason, s.Hint = r.Rule, r.Reason, "use a policy that has this kept"
		}
	}
	return s
}

// off lists what the room does not have: by its policy, because it is end-to-end
// encrypted, or as long as somebody has not agreed.
func (w World) off(g *residency.Gate) (list []Off) {
	p, err := g.Bundle().PolicyFor(w.Room.Tenant, w.Room.Policy)
	if err != nil {
		return []Off{{"everything", "policy", err.Error()}}
	}
	if !p.Recording.Allowed {
		list = append(list, Off{"recording", "policy", fmt.Sprintf("policy %q allows no recording", p.Name)})
	}
	if !p.ChatLog {
		list = append(list, Off{"chat log", "policy", fmt.Sprintf("policy %q keeps no chat", p.Name)})
	}
	if !p.QALog {
		list = append(list, Off{"questions log", "policy", fmt.Sprintf("policy %q keeps no questions and answers", p.Name)})
	}
	if !p.EdgeOutside {
		list = append(list, Off{"edges outside", "policy", fmt.Sprintf("policy %q has no node outside its zones help", p.Name)})
	}
	list = append(list, w.consent(p)...)
	encrypted := w.Room.Encryption == "all" || w.Room.Encryption == "some"
	if !encrypted && p.E2EE != residency.E2EERequired {
		return list
	}
	for _, l := range residency.LostToE2EE() {
		list = append(list, Off{string(l.Feature), "e2ee", l.Reason})
	}
	return list
}

// consent says of whom nothing is recorded.
func (w World) consent(p *residency.Policy) []Off {
	if !p.Recording.Allowed || !p.Recording.Consent && !p.Recording.Notice {
		return nil
	}
	reason := "nobody is recorded before they were shown the notice"
	if p.Recording.Consent {
		reason = "nobody is recorded who has not agreed to it"
	}
	for _, v := range w.Views {
		if v.Withheld > 0 {
			reason += fmt.Sprintf("; %d tracks wait for that now", v.Withheld)
		}
	}
	return []Off{{"recording unasked", "consent", reason}}
}
