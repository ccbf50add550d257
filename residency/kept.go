package residency

import "time"

// Kept is a kind of what origins keep of rooms, with a retention of its own.
type Kept string

// The kinds, as policies name them.
const (
	KeptRecording  Kept = "recording"  // audio and video; from the end of the recording
	KeptConsent    Kept = "consent"    // who was asked about a recording and what they answered; from the last line of a file
	KeptChat       Kept = "chat"       // from the last message of a file
	KeptQA         Kept = "qa"         // questions and answers; likewise
	KeptAttendance Kept = "attendance" // who came and went, who registered; from the last line of a file
	KeptExport     Kept = "export"     // files prepared for download; from when they were ready
	KeptMetadata   Kept = "metadata"   // a room's record; from when it was made, and not while anybody is in it
	KeptEvidence   Kept = "evidence"   // the name behind a pseudonym of the receipts, and its key; from when the room was made
)

// KeptKinds lists them.
func KeptKinds() []Kept {
	return []Kept{KeptRecording, KeptConsent, KeptChat, KeptQA, KeptAttendance, KeptExport, KeptMetadata, KeptEvidence}
}

// Hours is how long something is kept; 0 is until somebody erases it.
type Hours uint32

const (
	// MaxRetention bounds what can be written: a hundred years.
	MaxRetention Hours = 100 * 365 * 24
	// ExportRetention is the least time for which exports can be had, and the time
	// if a policy says nothing (R26).
	ExportRetention Hours = 30 * 24
	// consentLonger is how much longer than recordings their consents are kept if a
	// policy has no word for these: a file of them may be complete before its recording
	// is, and who agreed has to be known as long as that is there.
	consentLonger Hours = 24
)

// LeastRetention is the shortest time that a policy may give a kind: an hour, so that
// a slip of the unit does not erase what was written while it is being written.
func LeastRetention(k Kept) Hours {
	if k == KeptExport {
		return ExportRetention
	}
	return 1
}

// Retains says for how long the policy keeps a kind, and whether it ends at all.
func (p *Policy) Retains(k Kept) (d time.Duration, ends bool) {
	h, said := p.Retention[k]
	switch {
	case said:
	case k == KeptExport:
		h = ExportRetention
	case k == KeptConsent && p.Retention[KeptRecording] > 0:
		h = p.Retention[KeptRecording] + consentLonger
	}
	return time.Duration(h) * time.Hour, h > 0
}
