package node

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
)

// Consents: who was told of a recording and what they answered (R9), kept wherever a
// policy asks for consent and does not say otherwise. The origin that records writes it
// down, in the zone of recordings; the room's host gets it from every origin that has some.

const (
	opConsents = "consents" // lines about consent (an origin that keeps some)

	consentTrack = "consents"
)

// noteConsent takes what a room that is recorded here has heard. It does not wait.
func (n *Node) noteConsent(rec room.Record, line room.ConsentLine) {
	line.AtMS = n.now().UnixMilli()
	n.writeDown(listItem{&n.lists.consents, rec, encodeLine(line)})
}

// consents is what is kept of a room's, from every origin that may tell this node.
func (n *Node) consents(ctx context.Context, rec room.Record) ([]room.ConsentLine, missing, error) {
	var lines []room.ConsentLine
	lack, err := n.gather(ctx, rec, &n.lists.consents, opConsents, func(b []byte) error {
		var l room.ConsentLine
		err := json.Unmarshal(b, &l)
		lines = append(lines, l)
		return err
	})
	return room.Consents(lines), lack, err
}

// consentsOf answers the host who has to show who agreed to be recorded.
func (n *Node) consentsOf(w http.ResponseWriter, r *http.Request) error {
	rec, permit, err := n.mayDownload(r, "consents", residency.ClassRecording)
	if err != nil {
		return err
	}
	lines, lack, err := n.consents(r.Context(), rec)
	if err != nil {
		return err
	}
	return n.exportTable(permit, w, r.FormValue("format"), rec.Name, map[string]any{"consents": lines}, consentTable(lines), lack)
}

// consentTable is the log of consents for a spreadsheet.
func consentTable(lines []room.ConsentLine) sheet.Table {
	t := sheet.Table{Name: "Consents", Header: []string{"at", "identity", "name", "event", "recording", "by", "node", "policy", "version", "connection"}}
	for _, l := range lines {
		by := "participant"
		switch {
		case l.Event == room.ConsentShown:
			by = "node"
		case l.Token:
			by = "token"
		}
		t.Rows = append(t.Rows, []any{ms(l.AtMS), l.Identity, l.Name, string(l.Event), l.Recording, by, string(l.Node), l.Policy, int64(l.Epoch), l.SID})
	}
	return t
}
