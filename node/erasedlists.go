package node

import (
	"encoding/json"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// listFiles are files of attendance, registrations or consents, as the sweep sees them:
// people are meant by their identity, and who registered by their address, too.
func (n *Node) listFiles(l *lineLog) lineFiles {
	kind := residency.KeptAttendance
	if l == &n.lists.consents {
		kind = residency.KeptConsent
	}
	return lineFiles{n, l.vault, func(vault.TrackID) residency.Kept { return kind }, listed,
		func(id vault.ID) error { return l.complete(id, n.now()) }}
}

// listed are the names under which a line may be asked for.
func listed(line []byte) (who []string) {
	var l struct {
		Identity string `json:"identity"`
		Email    string `json:"email"`
	}
	if json.Unmarshal(line, &l) != nil {
		return nil
	}
	for _, name := range []string{l.Identity, l.Email} {
		if name != "" {
			who = append(who, name)
		}
	}
	return who
}
