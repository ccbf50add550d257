package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/domicile/domicile/control/membership"
	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
)

// NodeState is what an operator sees of a node.
type NodeState struct {
	Name    residency.NodeName   `json:"name"`
	Epoch   residency.Epoch      `json:"epoch"`
	Policy  PolicyState          `json:"policy"`
	Members []MemberState        `json:"members"`
	Refused []membership.Refusal `json:"refused"`
	Links   []relay.Stats        `json:"links"`
	// Doubted are the nodes whose places something contradicts; AccusedBy are those
	// that doubt this one's. GeoIP is what is wrong with the database.
	Doubted   []DoubtState         `json:"doubted"`
	AccusedBy []residency.NodeName `json:"accused_by,omitempty"`
	GeoIP     string               `json:"geoip,omitempty"`
	// Routing is the file of routing rules; absent where there is none.
	Routing *RoutingState `json:"routing,omitempty"`
	Rooms   []RoomState   `json:"rooms"`
	// Drain is how far the node is emptied; absent while it is not.
	Drain *DrainState `json:"drain,omitempty"`
	// TurnedAway is what other nodes have sent and the gate has not let in.
	TurnedAway []TurnedAway `json:"turned_away"`
	// Overstays is what is kept here and may not be kept here any more.
	Overstays []Overstay    `json:"overstays"`
	Evidence  EvidenceState `json:"evidence"`
	// Store is how an origin keeps the records of rooms.
	Store *StoreState `json:"store,omitempty"`

	// Identity is the node's own certificate, by which other nodes know it; absent
	// without a mesh.
	Identity *IdentityState `json:"identity,omitempty"`

	// Certificate is the one that attendees see; absent where the node serves
	// plain HTTP alone.
	Certificate *certs.State `json:"certificate,omitempty"`
}

// MemberState is a node of the mesh as this one sees it.
type MemberState struct {
	Name    residency.NodeName `json:"name"`
	Country residency.Country  `json:"country"`
	Roles   []residency.Role   `json:"roles"`
	Epoch   residency.Epoch    `json:"epoch"`
	Load    float64            `json:"load"`
	URL     string             `json:"url"`
	Linked  bool               `json:"linked"`
}

// RoomState is a room on this node, by its sid: names stay inside the room's zone.
type RoomState struct {
	SID          string             `json:"sid"`
	Policy       string             `json:"policy"`
	Home         residency.NodeName `json:"home"`
	Nodes        []room.Presence    `json:"nodes"`
	Participants int                `json:"participants"`
	Recording    bool               `json:"recording"`
}

func (n *Node) state() NodeState {
	s := NodeState{Name: n.self().Name, Epoch: n.gate().Epoch(), Policy: n.policyState(), Members: []MemberState{},
		Refused: []membership.Refusal{}, Links: []relay.Stats{}, Rooms: []RoomState{}, Evidence: n.evidenceState(), TurnedAway: n.turned.list(), Overstays: n.overstays.found(), Routing: n.routingState(), Store: n.storeState()}
	if n.cfg.Certificates != nil {
		c := n.cfg.Certificates.State()
		s.Certificate = &c
	}
	seen := n.places.current.Load()
	s.Doubted, s.AccusedBy, s.GeoIP = n.doubted(), seen.accused, n.geo.Warning(n.now())
	if d := n.drainState(); d.Draining {
		s.Drain = &d
	}
	for _, c := range n.candidates() {
		s.Members = append(s.Members, MemberState{Name: c.Node.Name, Country: c.Node.Country, Roles: c.Node.Roles,
			Epoch: c.Epoch, Load: c.Load, URL: c.URL, Linked: c.Local || n.link(c.Node.Name) != nil})
	}
	if n.mesh != nil {
		own := n.identityState()
		s.Identity = &own
		s.Refused = append(s.Refused, n.mesh.Snapshot().Refused...)
		for _, l := range n.fabric.Links() {
			s.Links = append(s.Links, l.Stats())
		}
	}
	for _, r := range n.rooms.all() {
		snap := r.Snapshot()
		s.Rooms = append(s.Rooms, RoomState{SID: snap.Record.SID, Policy: snap.Record.Policy, Home: snap.Home,
			Nodes: snap.Nodes, Participants: len(snap.Participants), Recording: snap.Record.Recording != nil})
	}
	return s
}

// runAdmin serves the operator's commands on a socket in the data directory.
func (n *Node) runAdmin(ctx context.Context) error {
	if n.cfg.DataDir == "" {
		return nil
	}
	ln, err := listenAdmin(n.cfg.DataDir)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /evidence/export", n.exportEvidence)
	mux.HandleFunc("GET /backup", n.serveBackup)
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) { answer(w, n.state(), nil) })
	mux.HandleFunc("GET /register", func(w http.ResponseWriter, r *http.Request) { answer(w, n.processors(), nil) })
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		mux.HandleFunc(method+" /drain", n.serveDrain)
	}
	mux.HandleFunc("POST /policy/plan", func(w http.ResponseWriter, r *http.Request) {
		p, err := n.planPolicy(r)
		answer(w, p, err)
	})
	mux.HandleFunc("POST /policy/apply", func(w http.ResponseWriter, r *http.Request) {
		s, err := n.applyPolicy(r)
		answer(w, s, err)
	})
	mux.HandleFunc("POST /routing/plan", func(w http.ResponseWriter, r *http.Request) {
		p, err := n.planRouting(w, r)
		answer(w, p, err)
	})
	n.exportAdmin(mux)
	mux.HandleFunc("GET /explain", func(w http.ResponseWriter, r *http.Request) {
		x, err := n.explain(r)
		answer(w, x, err)
	})
	n.serveOrders(mux)
	return serveUntil(ctx, ln, mux, n.log)
}

// runMetrics serves Prometheus on an address of its own, if one is configured.
func (n *Node) runMetrics(ctx context.Context) error {
	if !n.cfg.Listen.Metrics.IsValid() {
		return nil
	}
	ln, err := net.Listen("tcp", n.cfg.Listen.Metrics.String())
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(collector{n})
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	return serveUntil(ctx, ln, mux, n.log)
}

func serveUntil(ctx context.Context, ln net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelError)}
	stopped := make(chan struct{})
	defer context.AfterFunc(ctx, func() {
		defer close(stopped)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})()
	err := srv.Serve(ln)
	if errors.Is(err, http.ErrServerClosed) {
		<-stopped
		return nil
	}
	return err
}
