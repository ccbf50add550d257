package node

import (
	"testing"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/verify"
	"github.com/domicile/domicile/residency/retention"
)

// TestReceiptsOutliveAKill leaves a node as a kill would at each point of an erasure: what
// was noted only, half gone, gone without receipts, and gone with them. After the restart
// there is one receipt for each thing that went, and none for what is there.
func TestReceiptsOutliveAKill(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, keepsAll(1), signed, "fra DE origin")
	fra := m.node("fra")
	for _, c := range m.talks(fra, "town", "anna", "ben") {
		defer c.close()
	}
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	infos, err := fra.vault.List()
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	finished(t, fra, string(infos[0].ID))
	rec, _, err := fra.known(t.Context(), "town")
	if err != nil {
		t.Fatal(err)
	}
	due := map[residency.Kept][]retention.Verdict{}
	from := map[residency.Kept]source{}
	for _, s := range []source{recordings{fra.Node}, fra.chatFiles()} {
		list, err := s.objects(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list {
			due[x.Kind], from[x.Kind] = append(due[x.Kind], retention.Verdict{Object: x, Erase: true, Rule: retention.RuleErasure}), s
		}
	}
	tracks, chat, qa := due[residency.KeptRecording], due[residency.KeptChat], due[residency.KeptQA]
	if len(tracks) != 2 || len(chat) != 1 || len(qa) != 1 {
		t.Fatalf("kept are %+v", due)
	}
	erase := func(list []retention.Verdict) []gone {
		t.Helper()
		went, err := from[list[0].Kind].erase(t.Context(), list)
		if err != nil || len(went) != len(list) {
			t.Fatal(went, err)
		}
		return went
	}
	fra.owe(chat)        // and no more
	fra.owe(tracks)      // of which
	erase(tracks[:1])    // goes one
	paid := fra.owe(qa)  // goes,
	went := erase(qa)[0] // and
	paid.Things[0].Bytes = went.bytes
	if err := fra.writeErased(paid); err != nil { // has its receipt
		t.Fatal(err)
	}
	m.halt("fra")
	fra = m.start(fra.cfg)
	eventually(t, "nothing is owed", func() bool { return len(fra.retaining.owed.Notes()) == 0 })

	file, err := fra.evidenceOf(rec.SID)
	if err != nil {
		t.Fatal(err)
	}
	report := verify.File(file, m.verifier())
	receipts := map[residency.Class]uint64{}
	for _, f := range report.Flows {
		if f.Side == evidence.Erased {
			receipts[f.Class] += uint64(f.Packets)
		}
	}
	if receipts[residency.ClassRecording] != 1 || receipts[residency.ClassChat] != 1 || len(receipts) != 2 {
		t.Errorf("receipts of %v, want one track and one file of questions", receipts)
	}
	for _, f := range report.Findings {
		if f.Severity() > verify.Gap {
			t.Errorf("%+v", f)
		}
	}
	left, err := fra.chatFiles().objects(t.Context(), false)
	if err != nil || len(left) != 1 || left[0].Kind != residency.KeptChat {
		t.Errorf("of the chat is left %+v, %v", left, err)
	}
	if got := fra.owe(nil); got.Number <= paid.Number {
		t.Errorf("a number again: %v after %v", got, paid)
	}
}
