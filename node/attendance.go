package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// Attendance: who was in a room and when, where the policy has it kept. The room's home
// writes it down as it happens; homes may have changed, so that all origins are asked
// when the host wants it.

const (
	opAttendance = "attendance" // lines of a room's attendance (an origin that keeps some)

	attendanceTrack = "attendance"

	listQueue = 4096 // lines that wait for the disk; what comes then is not kept, and said to be so
	listBatch = 256  // lines that go to the disk at once

	// maxLinePage is how much of the lines goes in one answer between nodes: half of what
	// a link takes, for JSON makes text of it.
	maxLinePage = 256 << 10
)

// lists are what is kept of rooms in lines: who was there, who has registered, and what
// people answered when they were asked about a recording.
type lists struct {
	attendance    lineLog
	consents      lineLog
	waiting       chan listItem
	registrations lineLog
	registering   *rate.Limiter
}

func (l *lists) init() {
	// Of a node that keeps none, too: it may be the one that is asked for what others keep.
	l.attendance.class, l.registrations.class, l.consents.class = residency.ClassMetadata, residency.ClassMetadata, residency.ClassRecording
	l.waiting, l.registering = make(chan listItem, listQueue), rate.NewLimiter(registrationRate, registrationBurst)
}

func (n *Node) openLists(keys *vault.KeyStore) error {
	return errors.Join(n.lists.attendance.open(n, attendanceTrack, keys),
		n.lists.registrations.open(n, registrationTrack, keys),
		n.lists.consents.open(n, consentTrack, keys))
}

// all are the logs, whose vaults are nil unless the node is an origin.
func (l *lists) all() []*lineLog { return []*lineLog{&l.attendance, &l.registrations, &l.consents} }

// listItem is a line on its way to the disk.
type listItem struct {
	log  *lineLog
	rec  room.Record
	line []byte
}

// noteEvent takes what happens in a room whose home this node is. It does not wait.
func (n *Node) noteEvent(rec room.Record, e room.Event) {
	n.hookEvent(rec, e)
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	if err != nil || !p.AttendanceLog || e.Kind != room.Joined && e.Kind != room.Left {
		return
	}
	peer, _, _ := n.peer(e.Node)
	line := room.AttendanceLine{AtMS: n.now().UnixMilli(), Event: e.Kind, SID: e.Participant.Sid, Identity: e.Participant.Identity,
		Name: e.Participant.Name, Node: e.Node, Country: peer.Country}
	n.writeDown(listItem{&n.lists.attendance, rec, encodeLine(line)})
}

// writeDown has a line kept. It does not wait.
func (n *Node) writeDown(i listItem) {
	select {
	case n.lists.waiting <- i:
	default:
		n.log.Error("a line is not kept: too many wait", "class", i.log.class, "room", i.rec.SID)
	}
}

// runLists writes down what waits until ctx ends and nothing does.
func (n *Node) runLists(ctx context.Context) error {
	rest := func(since time.Time) {
		for _, l := range n.lists.all() {
			l.rest(since, n)
		}
	}
	defer rest(time.Time{})
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case i := <-n.lists.waiting:
			n.keepListed(i)
		case <-tick.C:
			rest(n.now().Add(-lineRest))
		case <-ctx.Done():
			for len(n.lists.waiting) > 0 {
				n.keepListed(<-n.lists.waiting)
			}
			return nil
		}
	}
}

// keepListed writes a line, with what else waits for the same file.
func (n *Node) keepListed(first listItem) {
	batch, of := [][]byte{first.line}, first
	flush := func() {
		if err := n.keepLines(of.log, of.rec, batch...); err != nil {
			ref := asRefusal(err)
			n.log.Error("lines are not kept", "class", of.log.class, "room", of.rec.SID, "rule", ref.Rule, "code", ref.Code)
		}
		batch = nil
	}
	for len(n.lists.waiting) > 0 && len(batch) < listBatch {
		next := <-n.lists.waiting // nobody else takes from it
		if next.rec.SID != of.rec.SID || next.log != of.log {
			flush()
			of = next
		}
		batch = append(batch, next.line)
	}
	flush()
}

func encodeLine(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("node: encoding %T: %v", v, err)) // strings and numbers alone
	}
	return b
}

// stays is the attendance of a room, from every origin that may tell this node.
func (n *Node) stays(ctx context.Context, rec room.Record) ([]room.Stay, missing, error) {
	var lines []room.AttendanceLine
	lack, err := n.gather(ctx, rec, &n.lists.attendance, opAttendance, func(b []byte) error {
		var l room.AttendanceLine
		err := json.Unmarshal(b, &l)
		lines = append(lines, l)
		return err
	})
	return room.Stays(lines), lack, err
}

// tellLines answers another origin that gathers.
func (n *Node) tellLines(l *lineLog, rec room.Record, from int) (out reply, err error) {
	size, i := 0, 0
	err = l.each(rec, func(b []byte) error {
		switch i++; {
		case i <= from:
		case size+len(b) > maxLinePage:
			out.More, size = true, maxLinePage // nothing after it either
		default:
			size += len(b)
			out.Lines = append(out.Lines, append([]byte(nil), b...))
		}
		return nil
	})
	return out, err
}

// attendanceOf answers the host who wants to know who was there.
func (n *Node) attendanceOf(w http.ResponseWriter, r *http.Request) error {
	rec, permit, err := n.mayDownload(r, "attendance", residency.ClassMetadata)
	if err != nil {
		return err
	}
	stays, lack, err := n.stays(r.Context(), rec)
	if err != nil {
		return err
	}
	return n.exportTable(permit, w, r.FormValue("format"), rec.Name, map[string]any{"stays": stays}, attendanceTable(stays), lack)
}

// attendanceTable is attendance for a spreadsheet. Who has not left, or of whom nobody
// could tell, has no end.
func attendanceTable(stays []room.Stay) sheet.Table {
	t := sheet.Table{Name: "Attendance", Header: []string{"identity", "name", "joined", "left", "seconds", "node", "country"}}
	for _, s := range stays {
		row := []any{s.Identity, s.Name, ms(s.JoinedMS), time.Time{}, "", string(s.Node), string(s.Country)}
		if s.LeftMS > 0 {
			row[3], row[4] = ms(s.LeftMS), (s.LeftMS-s.JoinedMS)/1000
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
