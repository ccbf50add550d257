package node

import (
	"bytes"
	"maps"
	"net/http"
	"testing"

	"github.com/domicile/domicile/node/prepared"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
)

// TestArchiveAsksForEachRoom prepares all of a tenant's rooms, one of which has a policy of
// its own. When that does not let it be exported here any more, nobody gets the archive,
// although the tenant's policy would let them.
func TestArchiveAsksForEachRoom(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	fra := m.node("fra")
	enter(t, fra, "town", "anna", preset("eea-only"))
	enter(t, fra, "plain", "ben", nil)
	eventually(t, "both rooms are kept", func() bool {
		rows, err := fra.files.Rooms(t.Context())
		return err == nil && len(rows) == 2
	})
	spec := room.Record{}
	spec.Policy = fra.policyName(spec)
	begun, err := fra.beginExport(t.Context(), spec, ExportRequest{Kind: exportTenant})
	if err != nil {
		t.Fatal(err)
	}
	var s prepared.Status
	eventually(t, "the archive is made", func() bool {
		s, err = fra.exports.Find(begun.(ExportState).ID)
		return err == nil && s.State == prepared.Done
	})
	if len(s.Rooms) != 2 {
		t.Errorf("it is of %+v", s.Rooms)
	}
	url := fra.stateOf(s).URL
	if resp, body := fetchPart(t, fra, url, ""); resp.StatusCode != http.StatusOK || !bytes.HasPrefix(body, []byte("PK")) {
		t.Fatalf("%s, %d bytes", resp.Status, len(body))
	}
	b := testBundle(2)
	narrow := *b.Policies["eea-only"]
	narrow.Zones = maps.Clone(narrow.Zones)
	narrow.Zones[residency.ClassExport] = residency.Zone{Name: "fr", Countries: []residency.Country{"FR"}}
	b.Policies["eea-only"] = &narrow
	m.adopt(b)
	if resp, body := fetchPart(t, fra, url, ""); resp.StatusCode != http.StatusForbidden || !bytes.Contains(body, []byte("eea-only")) {
		t.Errorf("with a room that may not be exported here: %s %.200s", resp.Status, body)
	}
}
