package node

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	films "github.com/domicile/domicile/node/record"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency/vault"
)

// Tables of what is kept of a room. None holds what the node needs for itself alone:
// connections, keys, versions.

// exportTables are those that are in an archive.
var exportTables = []string{exportChat, exportAttendance, exportRegistrations, exportConsents, exportStatistics}

// table is one of a room, with rows that say so where an origin is missing, as the notes do.
func (n *Node) table(ctx context.Context, rec room.Record, kind string) (t sheet.Table, notes []string, err error) {
	t, lack, err := n.tableOf(ctx, rec, kind)
	return lack.mark(t), lack.notes(), err
}

func (n *Node) tableOf(ctx context.Context, rec room.Record, kind string) (sheet.Table, missing, error) {
	switch kind {
	case exportChat:
		lines, err := n.chats.read(rec)
		return chatTable(lines), nil, err
	case exportAttendance:
		stays, lack, err := n.stays(ctx, rec)
		return attendanceTable(stays), lack, err
	case exportRegistrations:
		list, lack, err := n.registered(ctx, rec)
		return registrationTable(list), lack, err
	case exportConsents:
		lines, lack, err := n.consents(ctx, rec)
		return consentTable(lines), lack, err
	case exportStatistics:
		return n.statistics(ctx, rec)
	}
	return sheet.Table{}, nil, &Refusal{Code: CodePrecondition, Message: fmt.Sprintf("this node keeps no %s", kind)}
}

func ms(at int64) time.Time {
	if at == 0 {
		return time.Time{}
	}
	return time.UnixMilli(at).UTC()
}

func chatTable(lines []room.ChatLine) sheet.Table {
	t := sheet.Table{Name: "Chat", Header: []string{"at", "kind", "identity", "name", "text"}}
	for _, l := range lines {
		t.Rows = append(t.Rows, []any{ms(l.AtMS), string(l.Kind), l.Identity, l.Name, l.Text})
	}
	return t
}

// gapRows are what is missing in the tracks of a recording, in seconds from its start. A
// gap without an end lasts to the end of its track.
func gapRows(id vault.ID, list []films.TrackGaps) (rows [][]any) {
	for _, t := range list {
		for _, g := range t.Gaps {
			var to any
			if g.ToMS != films.OpenGap {
				to = float64(g.ToMS) / 1000
			}
			rows = append(rows, []any{string(id), string(t.Track.TrackID), t.Track.Participant, t.Track.Name, t.Track.Source,
				g.Cause.String(), float64(g.FromMS) / 1000, to, int64(g.Packets)})
		}
	}
	return rows
}

func gapTable(rows [][]any) sheet.Table {
	return sheet.Table{Name: "Gaps", Header: []string{"recording", "track", "identity", "name", "source", "cause", "from_s", "to_s", "packets"}, Rows: rows}
}

// writeChatText writes one line for each message, and what goes on below it indented.
func writeChatText(w io.Writer, lines []room.ChatLine) error {
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%s  %s (%s): %s\n", ms(l.AtMS).Format(time.RFC3339), l.Name, l.Kind, strings.ReplaceAll(l.Text, "\n", "\n    ")); err != nil {
			return err
		}
	}
	return nil
}

// statistics counts; it names nobody.
func (n *Node) statistics(ctx context.Context, rec room.Record) (sheet.Table, missing, error) {
	t := sheet.Table{Name: "Statistics", Header: []string{"what", "value", "unit"}}
	add := func(what string, v any, unit string) { t.Rows = append(t.Rows, []any{what, v, unit}) }
	lines, err := n.chats.read(rec)
	if err != nil {
		return t, nil, err
	}
	counts := map[room.ChatKind]int64{}
	for _, l := range lines {
		counts[l.Kind]++
	}
	infos, err := n.recordingsOf(rec)
	if err != nil {
		return t, nil, err
	}
	var length time.Duration
	var bytes, tracks int64
	for _, i := range infos {
		if !i.Ended.IsZero() {
			length += i.Ended.Sub(i.Started)
		}
		bytes, tracks = bytes+i.Size(), tracks+int64(len(i.Tracks))
	}
	add("chat messages", counts[room.Chat], "")
	add("questions and answers", counts[room.QA], "")
	add("recordings", int64(len(infos)), "")
	add("recorded time", length.Seconds(), "s")
	add("recorded tracks", tracks, "")
	add("recorded bytes", bytes, "B")
	stays, lack, err := n.stays(ctx, rec)
	people, present, most := presence(stays)
	add("people", people, "")
	add("time of all of them together", present.Seconds(), "s")
	add("people at the same time, at most", most, "")
	return t, lack, err
}

// presence counts people, how long they were there together, and how many at once. A
// stay of which nobody knows the end counts as a person, and for no time.
func presence(stays []room.Stay) (people int64, present time.Duration, most int64) {
	type edge struct {
		at int64
		by int64
	}
	var edges []edge
	seen := map[string]bool{}
	for _, s := range stays {
		seen[s.Identity] = true
		if s.LeftMS > s.JoinedMS {
			present += time.Duration(s.LeftMS-s.JoinedMS) * time.Millisecond
			edges = append(edges, edge{s.JoinedMS, 1}, edge{s.LeftMS, -1})
		}
	}
	// Who leaves at the moment at which another comes is gone by then.
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.by, b.by)) })
	now := int64(0)
	for _, e := range edges {
		now += e.by
		most = max(most, now)
	}
	return int64(len(seen)), present, most
}
