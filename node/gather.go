package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
)

// What is kept of a room in lines lies on several origins, and whoever asks for it gets
// what can be had within a bounded time. Of an origin that is away, says nothing or
// answers nonsense the answer says so: nobody takes a part for the whole.

// gatherWithin bounds how long all origins, asked at the same time, may take for all of
// their pages.
const gatherWithin = 15 * time.Second

// MissingOrigin is an origin of which something may be missing in an answer, and why.
type MissingOrigin struct {
	Node residency.NodeName `json:"node"`
	Why  string             `json:"why"`
}

type missing []MissingOrigin

// notes says it in words.
func (m missing) notes() (list []string) {
	for _, o := range m {
		list = append(list, fmt.Sprintf("incomplete: what node %s keeps may be missing (%s)", o.Node, o.Why))
	}
	return list
}

// mark says it in a table, in rows of its own before all others.
func (m missing) mark(t sheet.Table) sheet.Table {
	if len(m) == 0 {
		return t
	}
	rows := make([][]any, 0, len(m)+len(t.Rows))
	for _, note := range m.notes() {
		row := make([]any, len(t.Header))
		for i := range row {
			row[i] = ""
		}
		row[0] = note
		rows = append(rows, row)
	}
	t.Rows = append(rows, t.Rows...)
	return t
}

// names lists the origins, for a header.
func (m missing) names() string {
	var list []string
	for _, o := range m {
		list = append(list, string(o.Node))
	}
	return strings.Join(list, ", ")
}

// originLines are the lines of one origin, up to where it failed.
type originLines struct {
	lines [][]byte
	err   error
}

// pageOf asks an origin for its lines from one on.
type pageOf func(ctx context.Context, origin residency.NodeName, from int) (reply, error)

// gatherAll asks all origins at the same time, and takes what has come when the time is over.
func gatherAll(ctx context.Context, origins []residency.NodeName, ask pageOf) []originLines {
	ctx, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	out := make([]originLines, len(origins))
	var asking sync.WaitGroup
	for i, name := range origins {
		asking.Go(func() { out[i] = gatherOne(ctx, name, ask) })
	}
	asking.Wait()
	return out
}

func gatherOne(ctx context.Context, origin residency.NodeName, ask pageOf) (out originLines) {
	for size := 0; ; {
		page, err := ask(ctx, origin, len(out.lines))
		if err != nil {
			out.err = err
			return out
		}
		for _, line := range page.Lines {
			size += len(line)
		}
		if size > maxLineFile { // whatever another origin sends
			out.err = fmt.Errorf("more than %d bytes of lines: too much for one answer", maxLineFile)
			return out
		}
		out.lines = append(out.lines, page.Lines...)
		if !page.More || len(page.Lines) == 0 {
			return out
		}
	}
}

// gather reads the lines of a room here and on the other origins of the zone, as far as
// they can be had.
func (n *Node) gather(ctx context.Context, rec room.Record, own *lineLog, op string, take func([]byte) error) (missing, error) {
	size := 0
	err := own.each(rec, func(b []byte) error {
		if size += len(b); size > maxLineFile {
			return fmt.Errorf("more than %d bytes of lines: too much for one answer", maxLineFile)
		}
		return take(b)
	})
	if err != nil {
		return nil, err
	}
	origins, lack := n.linesElsewhere(rec, own.class)
	found := gatherAll(ctx, origins, func(ctx context.Context, origin residency.NodeName, from int) (reply, error) {
		return n.command(ctx, origin, rec, command{Op: op, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, From: from})
	})
	if ctx.Err() != nil {
		return nil, ctx.Err() // nobody waits any more
	}
	for i, f := range found {
		for _, line := range f.lines {
			size += len(line)
			if size > maxLineFile {
				return nil, fmt.Errorf("more than %d bytes of lines: too much for one answer", maxLineFile)
			}
			if err := take(line); err != nil {
				f.err = fmt.Errorf("a line of it: %w", err)
				break
			}
		}
		if f.err != nil {
			lack = append(lack, MissingOrigin{origins[i], f.err.Error()})
		}
	}
	return lack, nil
}

// linesElsewhere are the other origins that may keep a class of a room: those to ask, and
// those that are away.
func (n *Node) linesElsewhere(rec room.Record, class residency.Class) (ask []residency.NodeName, away missing) {
	for _, c := range n.candidates() {
		if c.Local || !c.Node.Has(residency.RoleOrigin) {
			continue
		}
		if _, v := n.permit(rec, class, c.Node.Name, false); v.Allow { // else it cannot have anything that it may not have
			ask = append(ask, c.Node.Name)
		}
	}
	gate := n.gate()
	for _, name := range n.origins.away(n.isMember, func(o residency.Node) bool {
		return o.ValidAt(n.now()) && !gate.Bundle().Revokes(o.Serial) && gate.Decide(residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy,
			Class: class, Peer: o, PeerEpoch: gate.Epoch(), Contradiction: n.contradiction(o.Name), Now: n.now()}).Allow
	}) {
		if !slices.Contains(ask, name) {
			away = append(away, MissingOrigin{name, "it is away"})
		}
	}
	return ask, away
}

func (n *Node) isMember(o residency.Node) bool { _, _, ok := n.peer(o.Name); return ok }
