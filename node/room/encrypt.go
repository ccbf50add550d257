package room

import (
	"errors"
	"fmt"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// End-to-end encryption is the clients' doing. What a node can do is to see that
// a room is what its policy says it is (R16), and to refuse what would need the
// content or a key (R15).

// ErrEncrypted is returned for what an end-to-end encrypted room does not have.
var ErrEncrypted = errors.New("the room is end-to-end encrypted")

// policy is the policy of the room now, nil if this node knows none of its name.
// Safe to call from any goroutine.
func (r *Room) policy() *residency.Policy {
	rec := r.Snapshot().Record
	p, err := r.deps.Gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	if err != nil {
		return nil
	}
	return p
}

// encrypts says why a track may not be published as it is, "" if it may.
func (r *Room) encrypts(req *livekit.AddTrackRequest) string {
	p := r.policy()
	if p == nil {
		return "the policy of the room is not known here"
	}
	encrypted := req.Encryption != livekit.Encryption_NONE
	if ok, why := p.Encrypts(encrypted); !ok {
		return why
	}
	return ""
}

// recheckEncryption ends tracks of participants here that the policies in force do
// not let be published as they are: a room's rule may change while it meets.
func (r *Room) recheckEncryption() {
	p := r.policy()
	if p == nil {
		return // the gate ends the room itself
	}
	for id, t := range r.tracks {
		ok, why := p.Encrypts(t.info.Encryption != livekit.Encryption_NONE)
		if owner := r.locals[t.ownerIdentity]; !ok && owner != nil && t.node == r.deps.Self.Name && t.base == "" {
			r.log.Info("a track is ended", "track", id, "reason", why)
			r.doUnpublished(owner, id)
		}
	}
}

// keepsIn says whether a room of the policy has a feature, and if encryption
// takes it away, with which reason. encrypted says that the room is so now.
func keepsIn(p *residency.Policy, encrypted bool, f residency.Feature) error {
	if !encrypted && p.E2EE != residency.E2EERequired {
		return nil
	}
	if ok, why := residency.E2EEKeeps(f); !ok {
		return fmt.Errorf("%w: %s", ErrEncrypted, why)
	}
	return nil
}

// encrypted reports whether somebody publishes an end-to-end encrypted track.
func (r *Room) encrypted() bool {
	for _, t := range r.tracks {
		if t.info.Encryption != livekit.Encryption_NONE {
			return true
		}
	}
	return false
}

// admitsClient refuses clients that are known not to encrypt: those of WHIP and WHEP.
func (r *Room) admitsClient(c conn) error {
	if p := r.policy(); p != nil && p.E2EE == residency.E2EERequired && isDirect(c) {
		return fmt.Errorf("%w: WHIP and WHEP have no key of it; take a client that encrypts", ErrEncrypted)
	}
	return nil
}
