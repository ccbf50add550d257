package node

import (
	"fmt"
	"maps"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo"
)

// The page measures round trips to the nodes that would serve it best, and says
// them when it joins. They are the word of a client: they order the nodes that
// are permitted anyway for this client alone, are kept nowhere, and never say where
// it is.
const (
	// maxProbed is how many nodes a page measures: the first of the ranking by
	// distance, so that the nearest of the network is among them.
	maxProbed = 4
	// maxTrips bounds what a client may say, maxTrip what is believed, in ms.
	maxTrips = 16
	maxTrip  = 2000
)

type probesReply struct {
	Nodes []probed `json:"nodes"`
}

// probed is a node to be measured, by GET URL/api/ping.
type probed struct {
	Name residency.NodeName `json:"name"`
	URL  string             `json:"url"`
}

// probes is POST /api/probes: which nodes a visitor of the page should measure
// before joining. All of them may serve this visitor in the room.
func (n *Node) probes(w http.ResponseWriter, r *http.Request) (*probesReply, error) {
	var q joinRequest
	if err := reading(w, r, &q); err != nil {
		return nil, err
	}
	out := &probesReply{Nodes: []probed{}}
	addr := geo.ClientAddr(r, n.cfg.Geo.TrustedProxies)
	if !n.cfg.Page.Guests || len(n.cfg.Keys) == 0 || q.From != "" || addr.IsLoopback() {
		return out, nil // who claims to be elsewhere, or is on this very machine, measures nothing of use
	}
	att, err := n.attendee(addr, "")
	if err != nil {
		return nil, err
	}
	rec, seat, err := n.forGuest(r, q, att)
	if err != nil {
		return nil, err
	}
	for _, c := range n.place(rec, att, seat).Ranked {
		if c.Allowed && len(out.Nodes) < maxProbed {
			out.Nodes = append(out.Nodes, probed{c.Node, n.webURL(r, c.URL)})
		}
	}
	return out, nil
}

// webURL is socketURL for HTTP.
func (n *Node) webURL(r *http.Request, base string) string {
	return strings.Replace(n.socketURL(r, base), "ws", "http", 1)
}

// ping is GET /api/ping: nothing, as fast as it goes.
func ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Timing-Allow-Origin", "*")
	w.WriteHeader(http.StatusNoContent)
}

// measured puts what a client says of round trips into what is known of it. What
// makes no sense is left out.
func measured(att router.Attendee, trips map[residency.NodeName]float64) (router.Attendee, error) {
	if len(trips) > maxTrips {
		return att, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("trips: %d round trips, at most %d", len(trips), maxTrips)}
	}
	att.Trips = maps.Clone(att.Trips)
	if att.Trips == nil {
		att.Trips = map[residency.NodeName]router.Trip{}
	}
	for name, ms := range trips {
		if ms > 0 && ms <= maxTrip {
			att.Trips[name] = router.Trip{MS: router.Millis(ms), How: router.Measured}
		}
	}
	return att, nil
}

// regions is GET /settings/regions, which LiveKit's clients ask of a server that
// has several: the nodes that may serve the token's holder, the best first.
func (n *Node) regions(w http.ResponseWriter, r *http.Request) {
	list, err := n.rankedRegions(r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	b, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(&livekit.RegionSettings{Regions: list})
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b) //nolint:errcheck // the client is gone then
}

func (n *Node) rankedRegions(r *http.Request) ([]*livekit.RegionInfo, error) {
	token, err := control.BearerToken(r)
	if err != nil {
		return nil, &Refusal{Code: CodeForbidden, Message: err.Error()}
	}
	g, err := control.VerifyToken(token, n.cfg.Keys, n.now())
	if err != nil {
		return nil, &Refusal{Code: CodeForbidden, Message: err.Error()}
	}
	att, err := n.attendee(geo.ClientAddr(r, n.cfg.Geo.TrustedProxies), "")
	if err != nil {
		return nil, err
	}
	rec, seat, err := n.asOf(r, g, att)
	if err != nil {
		return nil, err
	}
	p := n.place(rec, att, seat)
	if p.Chosen == nil {
		return nil, &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: rec.Policy, Message: p.Reason, Hint: p.Hint}
	}
	var list []*livekit.RegionInfo
	for _, c := range p.Ranked {
		if c.Allowed {
			list = append(list, &livekit.RegionInfo{Region: string(c.Node), Url: n.socketURL(r, c.URL), Distance: int64(max(c.DistanceKm, 0) * 1000)})
		}
	}
	return list, nil
}

// asOf is the room that a token is for, as it lives or as it would be.
func (n *Node) asOf(r *http.Request, g *control.Grants, att router.Attendee) (room.Record, seat, error) {
	spec := room.Record{Name: g.Video.Room, Tenant: n.tenantOf(g.APIKey), Policy: g.RoomPreset}
	found, err := n.lookup(r.Context(), resolveRequest{Spec: spec, Country: n.whereabouts(att), Identity: g.Identity})
	if err == nil {
		return found.Record, found.seat(), nil
	}
	switch ref := asRefusal(err); {
	case ref.byPlace() && ref.Policy != "":
		spec.Policy = ref.Policy
		return spec, seat{}, nil
	case ref.Code == CodeNotFound:
		if err := n.mayHave(spec); err != nil {
			return spec, seat{}, err
		}
		return spec, seat{}, nil
	}
	return spec, seat{}, err
}
