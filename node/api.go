package node

import (
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo"
)

// guestTTL is how long a guest's token lets them connect and reconnect.
const guestTTL = 6 * time.Hour

// api is what the attendee's page calls.
func (n *Node) api() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/node", func(w http.ResponseWriter, r *http.Request) { answer(w, n.about(), nil) })
	mux.HandleFunc("POST /api/join", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.guestJoin(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("GET /api/rooms/{room}", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.roomState(r)
		answer(w, v, err)
	})
	mux.HandleFunc("POST /api/rooms/{room}/recording", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.switchRecording(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, &Refusal{Code: CodeNotFound, Message: "no such API: " + r.Method + " " + r.URL.Path})
	})
	return mux
}

type placeJSON struct {
	Name    residency.NodeName `json:"name"`
	Country residency.Country  `json:"country"`
	City    string             `json:"city,omitempty"`
}

type policyJSON struct {
	Name        string `json:"name"`
	Title       string `json:"title"`
	Description string `json:"description"`
	Default     bool   `json:"default"`
}

type aboutJSON struct {
	placeJSON
	Version         string       `json:"version"`
	Guests          bool         `json:"guests"`
	GuestsMayRecord bool         `json:"guests_may_record"`
	Policies        []policyJSON `json:"policies"`
}

func (n *Node) about() aboutJSON {
	a := aboutJSON{placeJSON: placeJSON{n.cfg.Self.Name, n.cfg.Self.Country, n.cfg.City}, Version: n.cfg.Version,
		Guests: n.cfg.Page.Guests, GuestsMayRecord: n.cfg.Page.GuestsMayRecord, Policies: []policyJSON{}}
	for _, name := range n.gate().Bundle().Names() {
		a.Policies = append(a.Policies, n.policyInfo(name))
	}
	return a
}

func (n *Node) policyInfo(name string) policyJSON {
	b := n.gate().Bundle()
	p, err := b.Policy(name)
	if err != nil {
		return policyJSON{Name: name}
	}
	return policyJSON{Name: p.Name, Title: p.Title, Description: p.Description, Default: p.Name == b.Default}
}

type joinRequest struct {
	Room   string `json:"room"`
	Name   string `json:"name"`
	Policy string `json:"policy,omitempty"` // of a room that does not exist yet
	From   string `json:"from,omitempty"`   // a claimed address, where the node accepts that
}

type joinReply struct {
	ServerURL string           `json:"server_url"`
	Token     string           `json:"participant_token"`
	Identity  string           `json:"identity"`
	Node      placeJSON        `json:"node"`
	Room      joinRoom         `json:"room"`
	Placement router.Placement `json:"placement"`
}

type joinRoom struct {
	Name   string     `json:"name"`
	Policy policyJSON `json:"policy"`
}

// guestJoin places a visitor of the page on the nearest permitted node and
// gives them a token for it.
func (n *Node) guestJoin(w http.ResponseWriter, r *http.Request) (*joinReply, error) {
	var q joinRequest
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	if !n.cfg.Page.Guests || len(n.cfg.Keys) == 0 {
		return nil, &Refusal{Code: CodeForbidden, Message: "this node lets nobody in without an invitation",
			Hint: "use the link that your meeting platform gave you, or set page.guests in node.yaml"}
	}
	if q.Name = strings.TrimSpace(q.Name); q.Name == "" || len(q.Name) > control.MaxNameBytes {
		return nil, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("name: want 1 to %d bytes", control.MaxNameBytes)}
	}
	att, err := n.attendee(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), q.From)
	if err != nil {
		return nil, err
	}
	policy, err := n.policyFor(r, q, att)
	if err != nil {
		return nil, err
	}
	placement := n.place(q.Room, policy, att)
	if placement.Chosen == nil {
		return nil, &Refusal{Code: CodeRefused, Rule: placement.Rule, Policy: policy, Message: placement.Reason, Hint: placement.Hint}
	}
	return n.ticket(r, q, policy, placement)
}

// policyFor is the policy of the room that a guest asks for: that of the
// existing room, else the one the guest chose.
func (n *Node) policyFor(r *http.Request, q joinRequest, att router.Attendee) (string, error) {
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: q.Room}, Country: n.whereabouts(att)})
	if err == nil {
		return rec.Policy, nil
	}
	switch ref := asRefusal(err); {
	case ref.Code == CodeRefused && ref.Policy != "":
		return ref.Policy, nil // this node may not have the room, but another may
	case ref.Code == CodeNotFound:
		p, err := n.gate().Bundle().Policy(q.Policy)
		if err != nil {
			return "", &Refusal{Code: CodeInvalid, Message: err.Error()}
		}
		return p.Name, nil
	}
	return "", err
}

// ticket is the answer to a guest who may join.
func (n *Node) ticket(r *http.Request, q joinRequest, policy string, p router.Placement) (*joinReply, error) {
	key := slices.Sorted(maps.Keys(n.cfg.Keys))[0]
	id := room.NewID("guest-")
	yes := true
	grants := control.Grants{Identity: id, Name: q.Name, RoomPreset: policy, Video: &auth.VideoGrant{
		RoomJoin: true, Room: q.Room, RoomRecord: n.cfg.Page.GuestsMayRecord,
		CanPublish: &yes, CanSubscribe: &yes, CanPublishData: &yes, CanUpdateOwnMetadata: &yes}}
	token, err := control.MintToken(key, n.cfg.Keys[key], grants, guestTTL, n.now())
	if err != nil {
		return nil, fmt.Errorf("join: %w", err)
	}
	out := &joinReply{ServerURL: n.socketURL(r, p.Chosen.URL), Token: token, Identity: id, Placement: p,
		Node: placeJSON{Name: p.Chosen.Node, Country: p.Chosen.Country},
		Room: joinRoom{Name: q.Room, Policy: n.policyInfo(policy)}}
	if p.Chosen.Node == n.cfg.Self.Name {
		out.Node.City = n.cfg.City
	}
	return out, nil
}

// socketURL turns a node's public URL into the one for signalling. Who came
// without TLS, which is possible on the node's own machine alone, stays without
// TLS on this node, and on others of the same machine: the nodes of a demo mesh
// have the same ports on addresses of their own.
func (n *Node) socketURL(r *http.Request, base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	if plain := n.cfg.Listen.HTTP; r.TLS == nil && plain.IsValid() {
		if base == n.cfg.PublicURL {
			return "ws://" + r.Host
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() {
			return "ws://" + netip.AddrPortFrom(ip, plain.Port()).String()
		}
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	return u.String()
}

// bearer verifies the caller's token and that it is for the room in the path.
func (n *Node) bearer(r *http.Request) (*control.Grants, string, error) {
	name := r.PathValue("room")
	token, err := control.BearerToken(r)
	if err != nil {
		return nil, "", &Refusal{Code: CodeForbidden, Message: err.Error()}
	}
	g, err := control.VerifyToken(token, n.cfg.Keys, n.now())
	if err != nil {
		return nil, "", &Refusal{Code: CodeForbidden, Message: err.Error()}
	}
	if g.Video.Room != name {
		return nil, "", &Refusal{Code: CodeForbidden, Message: "the token is for another room"}
	}
	return g, name, nil
}

type roomNode struct {
	placeJSON
	Participants int  `json:"participants"`
	You          bool `json:"you"`
}

type recordingJSON struct {
	Active  bool               `json:"active"`
	ID      string             `json:"id,omitempty"`
	Node    residency.NodeName `json:"node,omitempty"`
	Country residency.Country  `json:"country,omitempty"`
	Since   string             `json:"since,omitempty"`   // RFC 3339
	Problem string             `json:"problem,omitempty"` // why the last one ended early
}

type roomJSON struct {
	Name      string        `json:"name"`
	Policy    policyJSON    `json:"policy"`
	Nodes     []roomNode    `json:"nodes"`
	Recording recordingJSON `json:"recording"`
	// Encryption is "all" when every track is end-to-end encrypted, "some", or "none".
	Encryption string `json:"encryption"`
}

// roomState tells a participant where the room's media may go and goes.
func (n *Node) roomState(r *http.Request) (*roomJSON, error) {
	_, name, err := n.bearer(r)
	if err != nil {
		return nil, err
	}
	live := n.rooms.get(name)
	if live == nil {
		return nil, notFound(name)
	}
	snap := live.Snapshot()
	out := &roomJSON{Name: name, Policy: n.policyInfo(snap.Record.Policy), Nodes: []roomNode{},
		Recording: recordingState(snap.Record), Encryption: encryption(snap.Participants)}
	for _, p := range snap.Nodes {
		peer, _, ok := n.peer(p.Node)
		if !ok {
			continue
		}
		place := placeJSON{Name: p.Node, Country: peer.Country}
		for _, i := range snap.Participants {
			if i.Region == string(p.Node) {
				place.City = i.Attributes["domicile.city"]
			}
		}
		out.Nodes = append(out.Nodes, roomNode{placeJSON: place, Participants: p.Participants, You: p.Node == n.cfg.Self.Name})
	}
	return out, nil
}

// encryption says whether the media of a room is end-to-end encrypted, as its
// publishers state it.
func encryption(people []*livekit.ParticipantInfo) string {
	var tracks, encrypted int
	for _, p := range people {
		for _, t := range p.Tracks {
			tracks++
			if t.Encryption != livekit.Encryption_NONE {
				encrypted++
			}
		}
	}
	switch encrypted {
	case 0:
		return "none"
	case tracks:
		return "all"
	}
	return "some"
}

func recordingState(rec room.Record) recordingJSON {
	if rec.Recording == nil {
		return recordingJSON{Problem: rec.RecordingProblem}
	}
	return recordingJSON{Active: true, ID: rec.Recording.ID, Node: rec.Recording.Node, Country: rec.Recording.Country,
		Since: time.UnixMilli(rec.Recording.SinceMS).UTC().Format(time.RFC3339)}
}

// switchRecording starts or stops the recording of a room: on the origin that
// may store it, wherever the request came in.
func (n *Node) switchRecording(w http.ResponseWriter, r *http.Request) (*recordingJSON, error) {
	g, name, err := n.bearer(r)
	if err != nil {
		return nil, err
	}
	if !g.Video.RoomRecord && !g.Video.RoomAdmin {
		return nil, &Refusal{Code: CodeForbidden, Message: "the token grants neither roomRecord nor roomAdmin"}
	}
	var q struct {
		Action string `json:"action"`
	}
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: name}})
	if err != nil {
		return nil, err
	}
	switch q.Action {
	case "start":
		return n.startRecording(r, rec)
	case "stop":
		if rec.Recording == nil {
			return &recordingJSON{}, nil
		}
		_, err := n.command(r.Context(), rec.Recording.Node, rec, command{Op: opStopRecord, Room: name})
		return &recordingJSON{}, err
	}
	return nil, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("action %q: want \"start\" or \"stop\"", q.Action)}
}

func (n *Node) startRecording(r *http.Request, rec room.Record) (*recordingJSON, error) {
	if rec.Recording != nil {
		out := recordingState(rec)
		return &out, nil
	}
	at, err := n.recordingNode(rec)
	if err != nil {
		return nil, err
	}
	reply, err := n.command(r.Context(), at, rec, command{Op: opRecord, Room: rec.Name, Policy: rec.Policy})
	if err != nil {
		return nil, err
	}
	rec.Recording = reply.Recording
	out := recordingState(rec)
	return &out, nil
}

// explain answers `domicile explain`: who would serve an attendee, and why.
func (n *Node) explain(r *http.Request) (router.Placement, error) {
	name, policy, ip := r.FormValue("room"), r.FormValue("policy"), r.FormValue("ip")
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return router.Placement{}, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("--ip %q: want an IP address such as 192.0.2.10", ip)}
	}
	att := n.geo.Attendee(addr)
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: name}, Country: n.whereabouts(att)})
	if err == nil {
		return n.place(name, rec.Policy, att), nil
	}
	switch ref := asRefusal(err); {
	case ref.Code == CodeRefused && ref.Policy != "":
		policy = ref.Policy
	case ref.Code != CodeNotFound:
		return router.Placement{}, err
	}
	return n.place(name, policy, att), nil
}
