package node

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/node/drainage"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

const (
	// drainPoll is how often a node that drains looks whether everybody has gone.
	drainPoll = 500 * time.Millisecond
	// drainTick is how often it looks whom it may send away.
	drainTick = 50 * time.Millisecond
	// drainAfter is how long after it has said that it takes nobody any more the first
	// are sent away: gossip has told every node by then, or they would be sent back here.
	drainAfter = time.Second
	// maxDrain bounds a deadline.
	maxDrain = 24 * time.Hour
	// drainingLoad is the load that a node claims which takes nobody: for nodes of
	// earlier versions it is full. One that is only full claims less.
	drainingLoad = 1
	fullLoad     = 1 - 1.0/65535 // the next that a claim can state
)

// drain is the emptying of this node, if there is one. It goes on when its deadline
// has passed: the operator decides what becomes of those who are left.
type drain struct {
	mu       sync.Mutex // guards what follows
	state    *drainage.Drainage
	began    time.Time
	deadline time.Time
	cancel   context.CancelFunc
	ended    chan struct{} // closed when nobody is sent away any more
}

// DrainState is how far a drain has come.
type DrainState struct {
	Draining bool      `json:"draining"`
	Began    time.Time `json:"began,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	drainage.Progress
	WHIP int `json:"whip"` // sessions of WHIP and WHEP
	// Empty says that nobody is left, Late that the deadline has passed before that.
	Empty bool `json:"empty"`
	Late  bool `json:"late,omitempty"`
}

// Drain returns when no attendee and no session of WHIP is left on this node, or
// with ctx. Meanwhile the node counts as full, so that others are placed elsewhere;
// who comes here all the same is served.
func (n *Node) Drain(ctx context.Context) {
	n.leaving.Store(true)
	defer n.leaving.Store(false)
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for n.attendees.Load() > 0 || n.whip.Sessions() > 0 {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return
		}
	}
}

// serveDrain is /drain on the admin socket: POST begins, or moves the deadline of a
// drain under way; GET says how far it is; DELETE cancels it.
func (n *Node) serveDrain(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		within, err := time.ParseDuration(r.URL.Query().Get("deadline"))
		if err != nil || within <= 0 || within > maxDrain {
			answer(w, nil, &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("deadline: want a time of up to %s, such as 10m", maxDrain)})
			return
		}
		if n.mesh == nil {
			answer(w, nil, &Refusal{Code: CodePrecondition, Message: "this node has no mesh: there is nowhere to go from it"})
			return
		}
		n.startDrain(within)
	case http.MethodDelete:
		n.cancelDrain()
	}
	answer(w, n.drainState(), nil)
}

// startDrain has the node take nobody any more and send everybody away.
func (n *Node) startDrain(within time.Duration) {
	d := &n.drainage
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deadline = time.Now().Add(within)
	if d.state != nil {
		return
	}
	ctx, cancel := context.WithCancel(n.ctx)
	d.began, d.cancel, d.ended = time.Now(), cancel, make(chan struct{})
	d.state = drainage.New(d.began.Add(drainAfter))
	n.draining.Store(true)
	n.mesh.Announce()
	n.log.Info("node drains: it takes nobody any more and sends away who is here", "at_most", within)
	go n.runDrain(ctx, d.ended)
}

// cancelDrain has the node take attendees again. Who has gone stays away.
func (n *Node) cancelDrain() {
	d := &n.drainage
	d.mu.Lock()
	cancel, ended := d.cancel, d.ended
	d.state, d.cancel = nil, nil
	d.mu.Unlock()
	if ended == nil {
		return // none has begun
	}
	if cancel != nil { // else another call has, and this one waits with it
		cancel()
	}
	<-ended
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != nil {
		return // another has begun meanwhile
	}
	if n.draining.Swap(false) {
		n.mesh.Announce()
		n.log.Info("draining is cancelled: the node takes attendees again")
	}
}

func (n *Node) drainState() DrainState {
	d := &n.drainage
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil {
		return DrainState{}
	}
	s := DrainState{Draining: true, Began: d.began, Deadline: d.deadline, Progress: d.state.Progress(time.Now()), WHIP: n.whip.Sessions()}
	s.Empty = n.attendees.Load() == 0 && s.WHIP == 0
	s.Late = !s.Empty && time.Now().After(d.deadline)
	return s
}

// runDrain sends people away until ctx ends.
func (n *Node) runDrain(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	var under sync.WaitGroup
	defer under.Wait()
	tick := time.NewTicker(drainTick)
	defer tick.Stop()
	wait := time.NewTimer(drainAfter)
	defer wait.Stop()
	n.due(slices.Collect(maps.Keys(n.served(ctx)))) // nobody yet; but who is asked counts them
	select {
	case <-wait.C:
	case <-ctx.Done():
		return
	}
	for {
		here := n.served(ctx)
		for _, k := range n.due(slices.Collect(maps.Keys(here))) {
			under.Go(func() { n.sendAway(ctx, k, here[k]) })
		}
		if len(here) == 0 {
			n.whip.Part() // encoders come back by themselves, and find another node
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// due asks the drain who is next.
func (n *Node) due(here []drainage.Key) []drainage.Key {
	d := &n.drainage
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state == nil {
		return nil
	}
	return d.state.Next(time.Now(), here)
}

// seated is somebody whom this node serves.
type seated struct {
	room.Served
	rm *room.Room
}

// served lists whom this node serves and can send away.
func (n *Node) served(ctx context.Context) map[drainage.Key]seated {
	here := map[drainage.Key]seated{}
	for _, rm := range n.rooms.all() {
		list, err := rm.Served(ctx)
		if err != nil {
			continue // it has ended, or we do
		}
		for _, s := range list {
			if !s.Direct {
				here[drainage.Key{Room: rm.Snapshot().Record.SID, SID: s.SID}] = seated{s, rm}
			}
		}
	}
	return here
}

// sendAway finds the best other node for somebody, prepares it, and tells the client.
func (n *Node) sendAway(ctx context.Context, k drainage.Key, s seated) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	rec := s.rm.Snapshot().Record
	to, rule := n.onward(rec, s.Served)
	if len(to) == 0 {
		n.refusedToMove(k, rule)
		return
	}
	if err := n.prepare(ctx, rec, residency.NodeName(to[0].Region), s); err != nil {
		n.log.Debug("a node is not prepared for an attendee who is sent there", "participant", s.SID, "node", to[0].Region, "error", err)
	}
	s.rm.SendAway(ctx, s.SID, to) //nolint:errcheck // they have gone by themselves
}

// onward lists the other nodes that may serve somebody who is here, the best first,
// and the rule by which that is so.
func (n *Node) onward(rec room.Record, s room.Served) (to []*livekit.RegionInfo, rule string) {
	who := n.arrivals.of(s.SID)
	if !who.Known {
		who.Country, who.Known = s.Country, s.Country != ""
	}
	p := n.place(rec, who, n.seatHere(rec.Name, ""))
	for _, c := range p.Ranked {
		if c.Allowed && c.Node != n.self().Name {
			to = append(to, &livekit.RegionInfo{Region: string(c.Node), Url: n.socketURLFor(s.Plain, "", c.URL), Distance: int64(max(c.DistanceKm, 0) * 1000)})
		}
	}
	return to, p.Rule
}

func (n *Node) refusedToMove(k drainage.Key, rule string) {
	d := &n.drainage
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.state != nil {
		d.state.Refused(k, rule)
	}
}

// opTake has a node get ready for a participant: room.Handover (the node that is to
// take them).
const opTake = "take"

// prepare tells another node who comes, if it may have the room without them: an edge
// outside the zone hears of the room when they are connected there, not before (R3).
func (n *Node) prepare(ctx context.Context, rec room.Record, to residency.NodeName, s seated) error {
	h, err := s.rm.Handover(ctx, s.SID)
	if err != nil {
		return err
	}
	_, err = n.command(ctx, to, rec, command{Op: opTake, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Identity: s.Identity, Request: h})
	return err
}

// getReady makes the room ready for a participant of another node.
func (n *Node) getReady(rec room.Record, c command) error {
	h, err := room.ReadHandover(c.Request)
	if err != nil {
		return &Refusal{Code: CodeInvalid, Message: err.Error()}
	}
	if n.draining.Load() {
		return &Refusal{Code: CodeUnavailable, Rule: router.RuleDown, Message: fmt.Sprintf("node %s is draining", n.self().Name)}
	}
	rm, err := n.rooms.ensure(rec)
	if err != nil {
		return &Refusal{Code: CodeUnavailable, Message: err.Error()}
	}
	rm.Prepare(h)
	return nil
}

// socketURLFor is the signalling address of a node with this public URL, for somebody
// who came without TLS or with it, by way of this host.
func (n *Node) socketURLFor(plain bool, host, base string) string {
	u, err := url.Parse(base)
	if err != nil {
		return base
	}
	if http := n.cfg.Listen.HTTP; plain && http.IsValid() {
		if base == n.cfg.PublicURL && host != "" {
			return "ws://" + host
		}
		if ip, err := netip.ParseAddr(u.Hostname()); err == nil && ip.IsLoopback() {
			return "ws://" + netip.AddrPortFrom(ip, http.Port()).String()
		}
	}
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	return u.String()
}

// serveHealth is GET /api/health, for balancers: 503 while the node takes nobody.
func (n *Node) serveHealth(w http.ResponseWriter, _ *http.Request) {
	if n.draining.Load() || n.leaving.Load() {
		answer(w, nil, &Refusal{Code: CodeUnavailable, Rule: router.RuleDown, Message: "this node is draining"})
		return
	}
	answer(w, map[string]string{"status": "ok"}, nil)
}
