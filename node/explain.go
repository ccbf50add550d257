package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/explain"
)

// The operations by which nodes explain a room together. Both are the room's
// signalling: the gate is asked at both ends, as for every command.
const (
	opExplain = "explain" // explain the room (its home)
	opView    = "view"    // say what goes through this node's part of it (a node of the room)
)

// viewTimeout bounds the wait for each node's part; who asks the home waits for
// askTimeout in all.
const viewTimeout = askTimeout / 2

// Explained is the answer to `domicile explain`: a placement, or a room.
type Explained struct {
	*router.Placement                      // of an address or country
	Explanation       *explain.Explanation `json:"explanation,omitempty"`
	Person            *explain.Person      `json:"person,omitempty"`
	Answers           []explain.Answer     `json:"answers,omitempty"`

	// Refusal says why this node cannot tell, and which one can.
	Refusal *Refusal `json:"refusal,omitempty"`

	// Refused is the short answer: what was asked about is not allowed.
	Refused bool   `json:"refused"`
	Text    string `json:"text"`
}

// explainQuery is what `domicile explain` asks.
type explainQuery struct {
	Room        string             `json:"room"`
	Tenant      string             `json:"tenant,omitempty"` // of a room that does not exist yet, or whose it is
	Policy      string             `json:"policy,omitempty"` // likewise
	Participant string             `json:"participant,omitempty"`
	Node        residency.NodeName `json:"node,omitempty"`
	Class       string             `json:"class,omitempty"`
}

// about reports whether the question is about nodes and classes.
func (q explainQuery) about() bool { return q.Node != "" || q.Class != "" }

// hypothetical reports whether the question makes sense of a room that does not exist.
func (q explainQuery) hypothetical() bool {
	return q.Participant == "" && (q.Tenant != "" || q.Policy != "" || q.about())
}

// explain answers `domicile explain`.
func (n *Node) explain(r *http.Request) (Explained, error) {
	q := explainQuery{Room: r.FormValue("room"), Tenant: r.FormValue("tenant"), Policy: r.FormValue("policy"),
		Participant: r.FormValue("participant"), Node: residency.NodeName(r.FormValue("node")), Class: r.FormValue("class")}
	ip, country := r.FormValue("ip"), r.FormValue("country")
	if ip == "" && country == "" {
		return n.explainRoom(r.Context(), q)
	}
	att, err := n.hypotheticalAttendee(ip, country)
	if err != nil {
		return Explained{}, err
	}
	rec, seat, err := n.asIfRoom(r.Context(), q, n.whereabouts(att))
	if err != nil {
		return Explained{}, err
	}
	p := n.place(rec, att, seat)
	return Explained{Placement: &p, Refused: p.Chosen == nil, Text: p.String()}, nil
}

// hypotheticalAttendee is somebody at an address, or somewhere in a country.
func (n *Node) hypotheticalAttendee(ip, country string) (router.Attendee, error) {
	if ip == "" {
		c, err := residency.ParseCountry(country)
		if err != nil {
			return router.Attendee{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("--country: %v", err)}
		}
		return router.Attendee{Country: c, Known: true, Source: "only the country was named"}, nil
	}
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return router.Attendee{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("--ip %q: want an IP address such as 192.0.2.10", ip)}
	}
	return n.geo.Attendee(addr), nil
}

// roomOf finds the room that is asked about. An operator need not say whose a room
// is that this node has itself.
func (n *Node) roomOf(ctx context.Context, q explainQuery, from residency.Country) (resolveReply, error) {
	spec := room.Record{Name: q.Room, Tenant: q.Tenant, Policy: q.Policy}
	if rec, ok, err := n.known(ctx, q.Room); err == nil && ok && q.Tenant == "" {
		spec.Tenant = rec.Tenant
	}
	found, err := n.lookup(ctx, resolveRequest{Spec: spec, Country: from, Identity: q.Participant})
	var r *Refusal
	if errors.As(err, &r) && r.Rule == rulePolicyMismatch { // it exists, and has its own
		spec.Policy = r.Policy
		found, err = n.lookup(ctx, resolveRequest{Spec: spec, Country: from, Identity: q.Participant})
	}
	if errors.As(err, &r) && r.Rule == ruleOtherTenant {
		return found, &Refusal{Code: CodeRefused, Rule: r.Rule, Message: r.Message, Hint: "say whose room it is with --tenant"}
	}
	return found, err
}

// asIfRoom is the room as it lives, or what it would be like.
func (n *Node) asIfRoom(ctx context.Context, q explainQuery, from residency.Country) (room.Record, seat, error) {
	found, err := n.roomOf(ctx, q, from)
	if err == nil {
		return found.Record, found.seat(), nil
	}
	spec := room.Record{Name: q.Room, Tenant: q.Tenant}
	switch ref := asRefusal(err); {
	case ref.byPlace() && ref.Policy != "":
		spec.Policy = ref.Policy
	case ref.Code != CodeNotFound:
		return spec, seat{}, err
	default:
		spec.Policy = q.Policy
		if err := n.mayHave(spec); err != nil {
			return spec, seat{}, err
		}
	}
	return spec, seat{}, nil
}

// explainRoom has the room's home explain it. Where the home may not tell this
// node, that is the answer.
func (n *Node) explainRoom(ctx context.Context, q explainQuery) (Explained, error) {
	found, err := n.roomOf(ctx, q, "")
	rec := found.Record
	switch ref := asRefusalOrNil(err); {
	case ref == nil:
		return n.explainExisting(ctx, rec, q)
	case ref.byPlace():
		return n.explainRefusal(q, ref), nil
	case ref.Code != CodeNotFound:
		return Explained{}, err
	case !q.hypothetical():
		if out, known := n.explainStranger(q); known {
			return out, nil
		}
		if away := asRefusalOrNil(n.allAsked(q.Tenant)); away != nil {
			return Explained{}, &Refusal{Code: CodeUnavailable, Rule: away.Rule, Hint: away.Hint,
				Message: fmt.Sprintf("room %q is not known here, and an origin that may have it is away", q.Room)}
		}
		return Explained{}, &Refusal{Code: CodeNotFound, Message: ref.Message,
			Hint: "a room that does not exist yet is explained with --ip, --country, --may, --class, --policy or --tenant"}
	}
	spec := room.Record{Name: q.Room, Tenant: q.Tenant, Policy: q.Policy}
	if err := n.mayHave(spec); err != nil {
		return Explained{}, err
	}
	spec.Policy = n.policyName(spec)
	return n.explainHere(ctx, spec, q)
}

// asRefusalOrNil is asRefusal for what may be no error.
func asRefusalOrNil(err error) *Refusal {
	if err == nil {
		return nil
	}
	return asRefusal(err)
}

// explainExisting asks the home, or is it. A node of the room whose home cannot be
// asked tells what it knows itself.
func (n *Node) explainExisting(ctx context.Context, rec room.Record, q explainQuery) (Explained, error) {
	home := n.homeOf(rec)
	if home == n.self().Name {
		return n.explainHere(ctx, rec, q)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return Explained{}, fmt.Errorf("explain: %w", err)
	}
	out, err := n.command(ctx, home, rec, command{Op: opExplain, Room: rec.Name, Request: body})
	switch ref := asRefusalOrNil(err); {
	case ref == nil && out.Explained != nil:
		return *out.Explained, nil
	case ref == nil:
		return Explained{}, &Refusal{Code: CodeUnavailable, Message: fmt.Sprintf("node %s explains nothing: it has an older version", home)}
	case n.rooms.get(rec.Name) != nil && (ref.byPlace() || ref.Code == CodeUnavailable):
		return n.explainHere(ctx, rec, q, explain.Missing{Node: home, Why: ref.Message})
	case ref.byPlace():
		return n.explainRefusal(q, n.toAsk(rec, ref)), nil
	}
	return Explained{}, err
}

// homeOf is the home that the room says it has, or that it would get.
func (n *Node) homeOf(rec room.Record) residency.NodeName {
	if r := n.rooms.get(rec.Name); r != nil {
		if home := r.Snapshot().Home; home != "" {
			return home
		}
	}
	return n.home(rec)
}

// toAsk adds the node on which the question can be answered.
func (n *Node) toAsk(rec room.Record, r *Refusal) *Refusal {
	return r.instead(router.Home(n.gate(), routed(rec), n.homes(), n.now()), n.self().Name)
}

// explainRefusal says why nothing of the room can be told here, and where it can.
func (n *Node) explainRefusal(q explainQuery, r *Refusal) Explained {
	if out, known := n.explainStranger(q); known {
		return out
	}
	r = n.toAsk(room.Record{Name: q.Room, Tenant: q.Tenant, Policy: r.Policy}, r)
	text := fmt.Sprintf("Node %s may not be told of room %s.\n  %s (%s)\n", n.self().Name, q.Room, r.Message, r.Rule)
	if r.Use != nil {
		text += fmt.Sprintf("  Ask on node %s, which may.\n", r.Use.Node)
	}
	if r.Hint != "" {
		text += fmt.Sprintf("  what would do: %s\n", r.Hint)
	}
	return Explained{Refusal: r, Refused: true, Text: text}
}

// explainStranger tells what somebody was told here about a room of which this
// node knows nothing else.
func (n *Node) explainStranger(q explainQuery) (Explained, bool) {
	list := n.refusals.of(q.Room, q.Participant, n.now())
	if q.Participant == "" || len(list) == 0 {
		return Explained{}, false
	}
	last := list[len(list)-1]
	p := explain.Person{Identity: q.Participant, Refused: &last}
	return Explained{Person: &p, Refused: true, Text: p.String()}, true
}

// obeyExplain explains a room for another node.
func (n *Node) obeyExplain(ctx context.Context, rec room.Record, c command) (reply, error) {
	var q explainQuery
	if err := json.Unmarshal(c.Request, &q); err != nil {
		return reply{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("explain: %v", err)}
	}
	out, err := n.explainHere(ctx, rec, q)
	return reply{Explained: &out}, err
}

// explainHere explains a room from what this node knows and its nodes tell.
func (n *Node) explainHere(ctx context.Context, rec room.Record, q explainQuery, missing ...explain.Missing) (Explained, error) {
	w := explain.World{Asked: n.self().Name, Nodes: n.homes(), NoEvidence: n.noEvidenceOf(rec.Name), Now: n.now(), Room: n.roomFacts(rec), Missing: missing}
	if w.Room.SID != "" {
		n.askViews(ctx, rec, q.Participant, &w)
	}
	g := n.gate()
	x := explain.Of(g, w)
	out := Explained{Explanation: &x, Text: x.String()}
	switch {
	case q.Participant != "":
		p, known := explain.About(g, w, q.Participant, n.seatOf(rec, q.Participant))
		if !known {
			return out, noSuchParticipant(q)
		}
		out.Person, out.Refused, out.Text = &p, p.Node == "", x.PersonText(p)
	case q.about():
		list, err := explain.Answers(g, w, explain.Question{Node: q.Node, Class: q.Class})
		if err != nil {
			return out, &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
		out.Answers, out.Refused, out.Text = list, explain.No(list), x.AnswersText(list)
	}
	return out, nil
}

func noSuchParticipant(q explainQuery) *Refusal {
	return &Refusal{Code: CodeNotFound, Message: fmt.Sprintf("nobody called %q is in room %q, nor was refused in the last %.0f minutes by a node of it", q.Participant, q.Room, refusalMemory.Minutes()),
		Hint: "a node that may not have the room tells only itself whom it refused: ask there"}
}

// seatOf names the node that serves a participant, "" if none does.
func (n *Node) seatOf(rec room.Record, identity string) residency.NodeName {
	r := n.rooms.get(rec.Name)
	if r == nil {
		return ""
	}
	at, _ := r.Snapshot().Where(identity)
	return at
}

// roomFacts is what this node knows of a room.
func (n *Node) roomFacts(rec room.Record) explain.Room {
	out := explain.Room{Name: rec.Name, SID: rec.SID, Tenant: rec.Tenant, Policy: rec.Policy, Home: n.homeOf(rec), Encryption: "none"}
	r := n.rooms.get(rec.Name)
	if r == nil {
		return out
	}
	snap := r.Snapshot()
	out.Live, out.Encryption, out.Problem = len(snap.Nodes) > 0, encryption(snap.Participants), snap.Record.RecordingProblem
	if snap.Record.Recording != nil {
		out.Recorder = snap.Record.Recording.Node
	}
	for _, p := range snap.Nodes {
		out.Nodes = append(out.Nodes, explain.Presence{Node: p.Node, Participants: p.Participants, Outside: p.Outside, Recorder: p.Recorder})
	}
	return out
}

// askViews asks the nodes of the room, all at once, for their parts.
func (n *Node) askViews(ctx context.Context, rec room.Record, identity string, w *explain.World) {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	w.Views = []explain.View{n.view(ctx, rec, identity)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range w.Room.Nodes {
		if p.Node == n.self().Name || slices.ContainsFunc(w.Missing, func(m explain.Missing) bool { return m.Node == p.Node }) {
			continue
		}
		wg.Go(func() {
			out, err := n.command(ctx, p.Node, rec, command{Op: opView, Room: rec.Name, Identity: identity})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				w.Missing = append(w.Missing, explain.Missing{Node: p.Node, Why: asRefusal(err).Message})
			case out.View != nil:
				out.View.Node = p.Node // whatever it says it is
				w.Views = append(w.Views, *out.View)
			}
		})
	}
	wg.Wait()
	slices.SortFunc(w.Views, func(a, b explain.View) int { return cmp.Compare(a.Node, b.Node) })
	slices.SortFunc(w.Missing, func(a, b explain.Missing) int { return cmp.Compare(a.Node, b.Node) })
}

// view is what goes through this node's part of a room.
func (n *Node) view(ctx context.Context, rec room.Record, identity string) explain.View {
	v := explain.View{Node: n.self().Name, Flows: n.flows(rec.Name), Refusals: n.refusals.of(rec.Name, identity, n.now())}
	r := n.rooms.get(rec.Name)
	if r == nil {
		return v
	}
	p, err := r.Part(ctx, identity)
	if err != nil {
		return v // it has just ended
	}
	v.Withheld = p.Withheld
	for _, f := range p.Flows {
		v.Tracks = append(v.Tracks, explain.Track{ID: f.Track, Kind: f.Kind, Source: f.Source, Owner: f.Owner, From: f.From, To: f.To, Receivers: f.Receivers})
	}
	if p.SID != "" {
		// The address they came from is not kept, so this is for somebody from
		// their country.
		v.Seat = &explain.Seat{SID: p.SID, Country: p.Country,
			Placement: n.place(rec, router.Attendee{Country: p.Country, Known: p.Country != "", Source: "of who is in a room only the country is kept"}, n.seatHere(rec.Name, ""))}
	}
	return v
}

// flows is what went between this node and others of a room under the policies in
// force: the figures of which the receipts are made.
func (n *Node) flows(name string) (list []explain.Flow) {
	if n.fabric == nil {
		return nil
	}
	for _, a := range n.fabric.Accounts() {
		if a.Room != name || a.Final || a.Epoch != n.gate().Epoch() {
			continue
		}
		f := explain.Flow{Peer: a.ID.Peer, Inbound: a.ID.Inbound, Class: a.Class, Rule: a.Rule, Policy: a.Policy, Serial: a.Serial, Packets: a.Packets, Bytes: a.Bytes}
		i := slices.IndexFunc(list, func(o explain.Flow) bool {
			return o.Peer == f.Peer && o.Inbound == f.Inbound && o.Class == f.Class && o.Rule == f.Rule && o.Policy == f.Policy
		})
		if i < 0 {
			list = append(list, f)
			continue
		}
		list[i].Packets, list[i].Bytes = list[i].Packets+f.Packets, list[i].Bytes+f.Bytes
	}
	return list
}
