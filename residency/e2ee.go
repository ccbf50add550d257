package residency

import (
	"fmt"
	"slices"
)

// E2EERule says what a policy makes of end-to-end encryption.
type E2EERule string

// The rules; the empty one is E2EEAllowed.
const (
	E2EEAllowed  E2EERule = "allowed"  // a room may be encrypted
	E2EERequired E2EERule = "required" // a room is, and who cannot do it is refused (R16)
	E2EEOff      E2EERule = "off"      // no room is: its features need its content
)

// E2EERules lists the rules.
func E2EERules() []E2EERule { return []E2EERule{E2EEAllowed, E2EERequired, E2EEOff} }

// EvidenceRule says whether rooms may be served when no evidence of it can be written.
type EvidenceRule string

// The rules; the empty one is EvidenceRequired.
const (
	EvidenceRequired EvidenceRule = "required" // what cannot be proved is refused
	EvidenceOff      EvidenceRule = "off"      // nothing is written and nothing asked
)

// EvidenceRules lists the rules.
func EvidenceRules() []EvidenceRule { return []EvidenceRule{EvidenceRequired, EvidenceOff} }

// Feature is something a room can have beside audio, video and screens.
type Feature string

// FeatureQA stays in an end-to-end encrypted room (R15).
const FeatureQA Feature = "qa"

// Lost is a feature that end-to-end encryption switches off, and why.
type Lost struct {
	Feature Feature `json:"feature"`
	Reason  string  `json:"reason"` // a sentence's end: "… because …"
}

// The grounds on which features are lost.
const (
	needsContent = "it needs media or messages that only the attendees' devices can read"
	needsKey     = "whoever comes by it has no key of the room"
	needsServer  = "its content would come from, or be kept by, a server in clear"
)

// lost is the list of R15, in its order.
var lost = []Lost{
	{"recording", needsContent},
	{"livestream", needsContent},
	{"recording-publication", needsContent},
	{"breakout-rooms", "people are moved between rooms whose keys they do not have"},
	{"waiting-room", "who waits is told and shown things by the server, outside of the encryption"},
	{"video-playback", needsServer},
	{"sms-invitations", needsKey},
	{"email-invitations", needsKey},
	{"social-sharing", needsKey},
	{"qr-code", needsKey},
	{"telephone", "a telephone cannot decrypt"},
	{"call-to-action", needsServer},
	{"polls", needsServer},
	{"tests", needsServer},
	{"transcription", needsContent},
	{"presentation", needsServer},
	{"whiteboard", needsServer},
	{"chat-moderation", needsContent},
	{"chat-export", needsContent},
}

// LostToE2EE lists what end-to-end encryption switches off in a room (R15).
func LostToE2EE() []Lost { return slices.Clone(lost) }

// E2EEKeeps says whether a feature stays in an end-to-end encrypted room, and
// why not. A feature that is not known does not stay.
func E2EEKeeps(f Feature) (ok bool, why string) {
	if f == FeatureQA {
		return true, ""
	}
	i := slices.IndexFunc(lost, func(l Lost) bool { return l.Feature == f })
	if i < 0 {
		return false, fmt.Sprintf("feature %q is unknown", f)
	}
	return false, fmt.Sprintf("the room is end-to-end encrypted, which switches %s off: %s", f, lost[i].Reason)
}

// Encrypts says whether a room of the policy may be encrypted (or not, with
// encrypted false), and why not.
func (p *Policy) Encrypts(encrypted bool) (ok bool, why string) {
	switch {
	case encrypted && p.E2EE == E2EEOff:
		return false, fmt.Sprintf("policy %q has no end-to-end encrypted rooms", p.Name)
	case !encrypted && p.E2EE == E2EERequired:
		return false, fmt.Sprintf("policy %q wants every room end-to-end encrypted", p.Name)
	}
	return true, ""
}
