package node

import (
	"testing"

	"github.com/livekit/protocol/livekit"
)

// TestPermissionsAcrossNodes stops a track where nobody may have it: at its
// publisher's node, for the whole node.
func TestPermissionsAcrossNodes(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	anna, carl := enter(t, waw, "town", "anna", nil), enter(t, waw, "town", "carl", nil)
	bob := enter(t, fra, "town", "bob", nil)
	anna.sees("bob", "carl")
	cam := anna.publish("cam", livekit.TrackType_VIDEO)
	bob.hears(cam)
	carl.hears(cam)
	allow := func(identities ...string) {
		perm := &livekit.SubscriptionPermission{}
		for _, id := range identities {
			perm.TrackPermissions = append(perm.TrackPermissions, &livekit.TrackPermission{ParticipantIdentity: id, AllTracks: true})
		}
		anna.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_SubscriptionPermission{SubscriptionPermission: perm}})
	}
	allow("carl")
	eventually(t, "waw serves nothing to fra", func() bool { return !serves(waw, fra) })
	still := waw.media("fra")
	carl.hears(cam)
	carl.hears(cam)
	if got := waw.media("fra"); got != still {
		t.Errorf("%d packets went to fra", got-still)
	}
	allow("bob")
	bob.hears(cam)
	eventually(t, "carl gets none", func() bool {
		n := carl.packets(cam)
		bob.hears(cam)
		return carl.packets(cam) == n
	})
}
