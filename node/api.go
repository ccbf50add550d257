package node

import (
	"fmt"
	"maps"
	"net/http"
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

// maxOthers is how many other nodes a page is told of: it tries one after the other
// when its own has died.
const maxOthers = 4

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
	mux.HandleFunc("GET /api/ping", ping)
	mux.HandleFunc("POST /api/probes", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.probes(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("GET /api/rooms/{room}", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.roomState(r)
		answer(w, v, err)
	})
	mux.HandleFunc("GET /api/rooms/{room}/chat", func(w http.ResponseWriter, r *http.Request) {
		if err := n.chatOf(w, r); err != nil {
			answer(w, nil, err)
		}
	})
	for path, download := range map[string]func(http.ResponseWriter, *http.Request) error{"attendance": n.attendanceOf, "registrations": n.registrationsOf, "consents": n.consentsOf} {
		mux.HandleFunc("GET /api/rooms/{room}/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := download(w, r); err != nil {
				answer(w, nil, err)
			}
		})
	}
	mux.HandleFunc("POST /api/rooms/{room}/registrations", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.register(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("POST /api/rooms/{room}/recording", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.switchRecording(w, r)
		answer(w, v, err)
	})
	n.exportAPI(mux)
	mux.HandleFunc("POST /api/reach", func(w http.ResponseWriter, r *http.Request) {
		v, err := n.openTest(w, r)
		answer(w, v, err)
	})
	mux.HandleFunc("GET /api/reach", n.serveTestSocket)
	mux.HandleFunc("GET /api/health", n.serveHealth)
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
	ChatLog     bool   `json:"chat_log"`       // what is written in the chat is kept
	QALog       bool   `json:"qa_log"`         // questions and answers are
	Attendance  bool   `json:"attendance_log"` // who is there and when is kept
	Register    bool   `json:"registration"`   // people may register beforehand
}

type aboutJSON struct {
	placeJSON
	Version         string       `json:"version"`
	Guests          bool         `json:"guests"`
	GuestsMayRecord bool         `json:"guests_may_record"`
	ReachTest       bool         `json:"reach_test"` // whether POST /api/reach answers
	Policies        []policyJSON `json:"policies"`
}

func (n *Node) about() aboutJSON {
	a := aboutJSON{placeJSON: placeJSON{n.self().Name, n.self().Country, n.cfg.City}, Version: n.cfg.Version,
		Guests: n.cfg.Page.Guests, GuestsMayRecord: n.cfg.Page.GuestsMayRecord, ReachTest: n.reach != nil, Policies: []policyJSON{}}
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
	return policyJSON{Name: p.Name, Title: p.Title, Description: p.Description, Default: p.Name == b.Default, ChatLog: p.ChatLog, QALog: p.QALog,
		Attendance: p.AttendanceLog, Register: p.Registration}
}

type joinRequest struct {
	Room   string `json:"room"`
	Name   string `json:"name"`
	Policy string `json:"policy,omitempty"` // of a room that does not exist yet
	From   string `json:"from,omitempty"`   // a claimed address, where the node accepts that

	// Trips are round trips in ms that the page has measured (POST /api/probes).
	// Those of who claims to be elsewhere do not count.
	Trips map[residency.NodeName]float64 `json:"trips,omitempty"`
}

type joinReply struct {
	ServerURL string           `json:"server_url"`
	Others    []string         `json:"others,omitempty"` // signalling of other nodes that may serve them, the best first
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
	if q.From == "" {
		if att, err = measured(att, q.Trips); err != nil {
			return nil, err
		}
	}
	rec, seat, err := n.forGuest(r, q, att)
	if err != nil {
		return nil, err
	}
	if p, err := n.gate().Bundle().Policy(rec.Policy); err == nil && p.E2EE == residency.E2EERequired {
		return nil, &Refusal{Code: CodeForbidden, Rule: "e2ee", Policy: rec.Policy,
			Message: fmt.Sprintf("policy %q wants every attendee end-to-end encrypted, which this page cannot do", rec.Policy),
			Hint:    "join with an app of your meeting platform that encrypts"}
	}
	placement := n.place(rec, att, seat)
	if placement.Chosen == nil {
		return nil, &Refusal{Code: CodeRefused, Rule: placement.Rule, Policy: rec.Policy, Message: placement.Reason, Hint: placement.Hint}
	}
	return n.ticket(r, q, rec.Policy, placement)
}

// guestKey is the API key with which guests' tokens are signed; they act for its tenant.
func (n *Node) guestKey() string { return slices.Sorted(maps.Keys(n.cfg.Keys))[0] }

// forGuest is the room that a guest asks for as it lives, with the policy of the
// existing one, else the one the guest chose.
func (n *Node) forGuest(r *http.Request, q joinRequest, att router.Attendee) (room.Record, seat, error) {
	rec := room.Record{Name: q.Room, Tenant: n.tenantOf(n.guestKey())}
	found, err := n.lookup(r.Context(), resolveRequest{Spec: rec, Country: n.whereabouts(att)})
	if err == nil {
		return found.Record, found.seat(), nil
	}
	switch ref := asRefusal(err); {
	case ref.byPlace() && ref.Policy != "":
		rec.Policy = ref.Policy // this node may not have the room, but another may
		return rec, seat{}, nil
	case ref.Code == CodeNotFound:
		rec.Policy = q.Policy
		if err := n.mayHave(rec); err != nil {
			return rec, seat{}, err
		}
		rec.Policy = n.policyName(rec)
		return rec, seat{}, nil
	}
	return rec, seat{}, err
}

// ticket is the answer to a guest who may join.
func (n *Node) ticket(r *http.Request, q joinRequest, policy string, p router.Placement) (*joinReply, error) {
	key := n.guestKey()
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
	for _, c := range p.Ranked {
		if c.Allowed && c.Node != p.Chosen.Node && c.URL != "" && len(out.Others) < maxOthers {
			out.Others = append(out.Others, n.socketURL(r, c.URL))
		}
	}
	if p.Chosen.Node == n.self().Name {
		out.Node.City = n.cfg.City
	}
	return out, nil
}

// socketURL turns a node's public URL into the one for signalling. Who came
// without TLS, which is possible on the node's own machine alone, stays without
// TLS on this node, and on others of the same machine: the nodes of a demo mesh
// have the same ports on addresses of their own.
func (n *Node) socketURL(r *http.Request, base string) string {
	return n.socketURLFor(r.TLS == nil, r.Host, base)
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
	if live := n.rooms.get(name); live != nil {
		if err := n.ownedBy(live.Snapshot().Record, g.APIKey); err != nil {
			return nil, "", err
		}
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
	Consent bool               `json:"consent"` // nobody is recorded who has not agreed to it
	ID      string             `json:"id,omitempty"`
	Node    residency.NodeName `json:"node,omitempty"`
	Country residency.Country  `json:"country,omitempty"`
	Since   string             `json:"since,omitempty"`   // RFC 3339
	Problem string             `json:"problem,omitempty"` // why the last one ended early, or what is wrong with this one
}

type roomJSON struct {
	Name      string        `json:"name"`
	Policy    policyJSON    `json:"policy"`
	Nodes     []roomNode    `json:"nodes"`
	Recording recordingJSON `json:"recording"`
	// Encryption is "all" when every track is end-to-end encrypted, "some", or "none".
	Encryption string `json:"encryption"`
	// Lost is what encryption switches off, with the reasons (R15): of a room
	// that is encrypted, or has to be.
	Lost []residency.Lost `json:"lost,omitempty"`
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
		Recording: n.recordingState(snap.Record), Encryption: encryption(snap.Participants)}
	if p, err := n.gate().Bundle().Policy(snap.Record.Policy); out.Encryption != "none" || err == nil && p.E2EE == residency.E2EERequired {
		out.Lost = residency.LostToE2EE()
	}
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
		out.Nodes = append(out.Nodes, roomNode{placeJSON: place, Participants: p.Participants, You: p.Node == n.self().Name})
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

func (n *Node) recordingState(rec room.Record) recordingJSON {
	if rec.Recording == nil {
		return recordingJSON{Problem: rec.RecordingProblem}
	}
	policy, err := n.gate().Bundle().Policy(rec.Policy)
	return recordingJSON{Active: true, Problem: rec.RecordingProblem, Consent: err == nil && policy.Recording.Consent, ID: rec.Recording.ID, Node: rec.Recording.Node, Country: rec.Recording.Country,
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
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: name, Tenant: n.tenantOf(g.APIKey)}})
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
		if err := n.mayStop(rec); err != nil {
			return nil, err
		}
		_, err := n.command(r.Context(), rec.Recording.Node, rec, command{Op: opStopRecord, Room: name})
		return &recordingJSON{}, err
	}
	return nil, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("action %q: want \"start\" or \"stop\"", q.Action)}
}

func (n *Node) startRecording(r *http.Request, rec room.Record) (*recordingJSON, error) {
	if rec.Recording != nil && rec.Recording.Whole() {
		out := n.recordingState(rec)
		return &out, nil
	}
	reply, err := n.recordWhole(r.Context(), rec)
	if err != nil {
		return nil, err
	}
	rec.Recording = reply.Recording
	out := n.recordingState(rec)
	return &out, nil
}
