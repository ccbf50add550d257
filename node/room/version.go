package room

import (
	"cmp"

	"github.com/domicile/domicile/residency"
)

// A room's record is written by its home, and a mesh that is torn apart has two for a
// while. So each home has a term: a number above that of every home it has heard of.
// And each field that changes says in whose term it was written, so that what was
// written on both sides is put together field by field, the same on every node,
// whatever order it comes in and whatever the clocks say.

// Version says when a field of a record was written.
type Version struct {
	Term  uint64             `json:"term,omitempty"`  // of the home that wrote it
	Write uint64             `json:"write,omitempty"` // counts the writes to the record
	Home  residency.NodeName `json:"home,omitempty"`
}

// compare orders versions: the newer home's before the older one's, since that one was
// cut off; then the later write.
func (v Version) compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Term, w.Term), cmp.Compare(v.Write, w.Write), cmp.Compare(v.Home, w.Home))
}

// Versions are those of the fields that change.
type Versions struct {
	Metadata  Version `json:"metadata,omitzero"`
	Recording Version `json:"recording,omitzero"` // of the recording and of its problem
}

// maxTerm bounds a term, and maxLeap by how much another node's word raises it: one
// that lies does not bring the count to its end.
const (
	maxTerm = 1 << 62
	maxLeap = 1 << 32
)

// stamp is the version of a write by a home in the record's term.
func (r *Record) stamp(home residency.NodeName) Version {
	write := max(r.Versions.Metadata.Write, r.Versions.Recording.Write) + 1
	return Version{Term: r.Term, Write: write, Home: home}
}

// Merge puts together two records of one room. It gives the same for all orders and
// groupings, and a record merged with itself is itself. Of two rooms of one name, which
// two sides of a torn mesh have made, it gives one whole.
func (r Record) Merge(o Record) Record {
	if r.SID != o.SID {
		if c := cmp.Or(cmp.Compare(r.Term, o.Term), cmp.Compare(o.SID, r.SID)); c < 0 {
			return o
		}
		return r
	}
	if r.Versions.Metadata.compare(o.Versions.Metadata) < 0 {
		r.Metadata, r.Versions.Metadata = o.Metadata, o.Versions.Metadata
	}
	if r.Versions.Recording.compare(o.Versions.Recording) < 0 {
		r.Recording, r.RecordingProblem, r.Versions.Recording = o.Recording, o.RecordingProblem, o.Versions.Recording
	}
	if r.Pseudonym == "" {
		r.Pseudonym = o.Pseudonym
	}
	r.Term = max(r.Term, o.Term)
	return r
}

// Lacks reports whether the other record has something that this one has not.
func (r Record) Lacks(o Record) bool { return r.Merge(o) != r }

// wrote stamps what differs from an older record of the room.
func (r *Record) wrote(old Record, home residency.NodeName) {
	v := r.stamp(home)
	if r.Metadata != old.Metadata {
		r.Versions.Metadata = v
	}
	if r.recordingID() != old.recordingID() || r.RecordingProblem != old.RecordingProblem {
		r.Versions.Recording = v
	}
}

// succeed begins the term of a new home. What is known of the recording is its word:
// the nodes that are left have told it, and no other home's is newer.
func (r *Record) succeed(home residency.NodeName) {
	r.Term = min(r.Term+1, maxTerm)
	r.Versions.Recording = r.stamp(home)
}

// follows makes the record's term greater than one that was heard of.
func (r *Record) follows(term uint64) bool {
	if term <= r.Term || term-r.Term > maxLeap || term >= maxTerm {
		return false
	}
	r.Term = term + 1
	return true
}

// Rewritten is the record of a room that lives nowhere with other metadata, as its home
// writes it: in a term of its own, for there is no roster to tell one from another.
func (r Record) Rewritten(metadata string, home residency.NodeName) Record {
	old := r
	r.succeed(home)
	r.Metadata = metadata
	r.wrote(old, home)
	return r
}
