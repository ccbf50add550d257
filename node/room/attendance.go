package room

import (
	"cmp"
	"slices"

	"github.com/domicile/domicile/residency"
)

// AttendanceLine says that somebody came or went, as it is kept.
type AttendanceLine struct {
	AtMS     int64              `json:"at_ms"` // Unix milliseconds by the home's clock
	Event    EventKind          `json:"event"` // Joined or Left
	SID      string             `json:"sid"`   // of the connection
	Identity string             `json:"identity"`
	Name     string             `json:"name"`
	Node     residency.NodeName `json:"node"`
	Country  residency.Country  `json:"country"` // of the node
}

// Stay is somebody's time in a room on one connection.
type Stay struct {
	SID      string             `json:"sid"`
	Identity string             `json:"identity"`
	Name     string             `json:"name"`
	Node     residency.NodeName `json:"node"`
	Country  residency.Country  `json:"country"`
	JoinedMS int64              `json:"joined_ms"`
	LeftMS   int64              `json:"left_ms,omitempty"` // 0: not yet, or nobody could tell
}

// Stays puts lines together, from several origins and in any order: homes that take over
// repeat what they find. The earliest coming counts, and the latest going.
func Stays(lines []AttendanceLine) []Stay {
	bySID := map[string]*Stay{}
	for _, l := range lines {
		s := bySID[l.SID]
		if s == nil {
			s = &Stay{SID: l.SID, JoinedMS: l.AtMS}
			bySID[l.SID] = s
		}
		if l.AtMS >= s.JoinedMS || s.Identity == "" { // who moves to another node is where they came last
			s.Identity, s.Name, s.Node, s.Country = l.Identity, l.Name, l.Node, l.Country
		}
		s.JoinedMS = min(s.JoinedMS, l.AtMS)
		if l.Event == Left {
			s.LeftMS = max(s.LeftMS, l.AtMS)
		}
	}
	list := make([]Stay, 0, len(bySID))
	for _, s := range bySID {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Stay) int {
		return cmp.Or(cmp.Compare(a.JoinedMS, b.JoinedMS), cmp.Compare(a.Identity, b.Identity), cmp.Compare(a.SID, b.SID))
	})
	return list
}
