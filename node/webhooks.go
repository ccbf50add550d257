package node

import (
	"context"
	"sync"
	"time"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/webhook"
	"github.com/domicile/domicile/residency"
)

// Webhooks: the room's home tells the programs of the room's tenant what happens. What it
// tells names people, so that the gate answers for each receiver as for metadata: by the
// country and operator that node.yaml declares of it, and by nothing else.

const (
	opTell = "tell" // tell the webhooks of a room something (home)

	// lastHooks is how long a node that stops tries to tell what still waits.
	lastHooks = 2 * time.Second
)

// Webhook is a receiver of what happens in the rooms of a tenant, the one of its key.
type Webhook struct {
	URL       string
	APIKey    string
	Recipient residency.Recipient // who and where it is, as the operator declares it
}

// hook is a webhook at work.
type hook struct {
	Webhook
	sender *webhook.Sender

	mu     sync.Mutex
	warned map[string]bool // rule and policy: said once
}

func (n *Node) openWebhooks() {
	for _, w := range n.cfg.Webhooks {
		h := &hook{Webhook: w, warned: map[string]bool{}}
		h.sender = webhook.New(webhook.Target{URL: w.URL, Key: w.APIKey, Secret: n.cfg.Keys[w.APIKey]}, hookQueue{n, h}, n.now)
		n.hooks = append(n.hooks, h)
	}
}

func (n *Node) runWebhooks(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, h := range n.hooks {
		wg.Go(func() { h.sender.Run(ctx, lastHooks) })
	}
	wg.Wait()
	return nil
}

// hookEvent tells what happened in a room whose home this node is.
func (n *Node) hookEvent(rec room.Record, e room.Event) {
	if len(n.hooks) == 0 {
		return
	}
	ev := &livekit.WebhookEvent{Event: string(e.Kind), Room: rec.Info(e.People), Participant: e.Participant, Track: e.Track}
	if r := e.Recording; r != nil {
		ev.EgressInfo = recordingInfo(rec, e, n.now())
	}
	n.tellHooks(rec, ev)
}

// recordingInfo is a recording in the words of LiveKit's egress, which has no others.
func recordingInfo(rec room.Record, e room.Event, now time.Time) *livekit.EgressInfo {
	r := e.Recording
	file := &livekit.FileInfo{Location: "recordings/" + r.ID, StartedAt: r.SinceMS * int64(time.Millisecond)}
	info := &livekit.EgressInfo{EgressId: r.ID, RoomId: rec.SID, RoomName: rec.Name, Status: livekit.EgressStatus_EGRESS_ACTIVE,
		SourceType: livekit.EgressSourceType_EGRESS_SOURCE_TYPE_SDK, StartedAt: file.StartedAt, UpdatedAt: now.UnixNano(), FileResults: []*livekit.FileInfo{file}}
	if e.Kind == room.RecordingEnded {
		info.Status, info.EndedAt, info.Error = livekit.EgressStatus_EGRESS_COMPLETE, now.UnixNano(), e.Problem
		file.EndedAt, file.Duration = info.EndedAt, info.EndedAt-info.StartedAt
		if e.Problem != "" {
			info.Status = livekit.EgressStatus_EGRESS_FAILED
		}
	}
	return info
}

// tellHooks gives the room's receivers something to be told. It returns at once.
func (n *Node) tellHooks(rec room.Record, ev *livekit.WebhookEvent) {
	now := n.now()
	ev.Id, ev.CreatedAt = room.NewID("EV_"), now.Unix()
	p := pending{rec, ev, n.told.seq(now), now}
	for _, h := range n.hooks {
		if n.tenantOf(h.APIKey) == rec.Tenant {
			h.sender.Put(n.hookItem(h, p, room.NewID("EV_")))
		}
	}
}

// hookBody is an event as a webhook is told it.
func (n *Node) hookBody(ev *livekit.WebhookEvent, dropped int) []byte {
	out := proto.CloneOf(ev)
	out.NumDropped = int32(dropped) //nolint:gosec // the queue is shorter
	b, err := protojson.Marshal(out)
	if err != nil {
		n.log.Error("a webhook cannot be written", "kind", ev.Event, "error", err)
	}
	return b
}

// mayTell asks the gate whether a receiver may be told of a room's people.
func (n *Node) mayTell(h *hook, rec room.Record) bool {
	q := keeping(rec, residency.ClassMetadata)
	q.NoEvidence, q.Now = n.noEvidenceOf(rec.Name), n.now()
	v := n.gate().Hand(q, h.Recipient)
	if v.Allow {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := v.Rule + " " + v.Policy; !h.warned[key] {
		h.warned[key] = true
		n.log.Warn("a webhook is not told of rooms of a policy", "policy", v.Policy, "rule", v.Rule, "reason", v.Reason)
	}
	return false
}

// tellEgress has the home of a room tell of an egress on this node. It returns at once.
func (n *Node) tellEgress(rec room.Record, kind string, info *livekit.EgressInfo) {
	ev := &livekit.WebhookEvent{Event: kind, EgressInfo: info, Room: rec.Info(0)}
	home := n.home(rec)
	if home == n.self().Name {
		n.tellHooks(rec, ev)
		return
	}
	if !n.sessions.begin() {
		return
	}
	go func() {
		defer n.sessions.end()
		if _, err := n.command(n.ctx, home, rec, command{Op: opTell, Room: rec.Name, Request: encodeRequest(ev)}); err != nil {
			n.log.Warn("a room's home does not tell of an egress", "room", rec.SID, "code", asRefusal(err).Code)
		}
	}()
}

// tellFor tells what another node of the room has seen: of egresses alone.
func (n *Node) tellFor(rec room.Record, c command) error {
	var ev livekit.WebhookEvent
	if err := decodeRequest(c, &ev); err != nil {
		return err
	}
	if ev.EgressInfo.GetRoomId() != rec.SID || ev.Participant != nil || ev.Track != nil || n.home(rec) != n.self().Name {
		return &Refusal{Code: CodeInvalid, Message: "tell: no egress of the room, or not to its home"}
	}
	n.tellHooks(rec, &ev)
	return nil
}
