package node

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// TestErasureOfWhatCannotBeRead damages the documents of a recording and of a file of
// chat: an erasure that may be about them stays pending and says what to do. They go by
// their ids, but not while there is a hold, and then the erasure is done.
func TestErasureOfWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, keepsAll(1), signed, "fra DE origin")
	fra := m.node("fra")
	for _, c := range m.talks(fra, "town", "anna", "ben") {
		c.close()
	}
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	eventually(t, "the recording is over", func() bool {
		infos, err := fra.vault.List()
		return err == nil && len(infos) == 1 && infos[0].State == vault.StateFinished
	})
	fra.chats.rest(time.Time{}, fra.Node)
	var ids []vault.ID
	for folder, v := range map[string]*vault.Vault{"recordings": fra.vault, "chats": fra.chats.vault} {
		infos, err := v.List()
		if err != nil || len(infos) == 0 {
			t.Fatalf("%s: %v", folder, err)
		}
		if err := os.WriteFile(filepath.Join(fra.cfg.DataDir, folder, string(infos[0].ID), "recording.json"), []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, infos[0].ID)
	}

	person, refusal := order(t, fra, retention.Erasure, OrderRequest{Participant: "anna"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	eventually(t, "the order is pending", func() bool { return fra.retaining.state(person.ID).Swept })
	s := fra.retaining.state(person.ID)
	for _, id := range ids {
		if want := "domicile recordings erase " + string(id); s.Left == 0 || !strings.Contains(s.Why, want) {
			t.Errorf("the order is %+v, want it to say %q", s, want)
		}
	}

	hold, refusal := order(t, fra, retention.Hold, OrderRequest{Room: "elsewhere"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	var gone []string
	for _, id := range ids {
		o, refusal := order(t, fra, retention.Erasure, OrderRequest{Recording: string(id)})
		if refusal != nil {
			t.Fatalf("%s cannot be given up: %v", id, refusal)
		}
		settles(t, fra, o.ID, map[residency.NodeName]string{"fra": OrderHeld})
		gone = append(gone, o.ID)
	}
	if _, err := fra.liftHold(httptest.NewRequestWithContext(t.Context(), "DELETE", "/holds?id="+hold.ID, nil)); err != nil {
		t.Fatal(err)
	}
	for _, id := range gone {
		settles(t, fra, id, map[residency.NodeName]string{"fra": OrderDone})
		if s := fra.retaining.state(id); s.Objects != 1 || s.Unreadable != 1 || s.Bytes == 0 {
			t.Errorf("what was given up is told as %+v", s)
		}
	}
	settles(t, fra, person.ID, map[residency.NodeName]string{"fra": OrderDone})
	for _, id := range ids {
		if left, err := filepath.Glob(filepath.Join(fra.cfg.DataDir, "*", string(id))); err != nil || len(left) != 0 {
			t.Errorf("there is still %q, %v", left, err)
		}
	}
	if _, refusal := order(t, fra, retention.Erasure, OrderRequest{Recording: "RE_12345678"}); refusal == nil || refusal.Code != CodeNotFound {
		t.Errorf("one that was never there: %v", refusal)
	}
}
