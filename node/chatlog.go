package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
	"github.com/domicile/domicile/router"
)

// Chat is kept where a policy has it kept, on an origin of its zone, sealed like
// a recording: one file for each room and stretch of talk, one sealed record for
// each message, on the disk before it counts as kept.

const (
	opKeepChat = "keep-chat" // keep a message (an origin in the zone of chat)

	chatQueue = 1024 // messages that wait for their origin; what comes then is not kept, and said to be so
	chatTries = 5    // for one message, a second apart: an origin may just be starting anew
	chatTrack = vault.TrackID("chat")
	qaTrack   = vault.TrackID("qa")
)

// chatItem is a message on its way to where it is kept.
type chatItem struct {
	rec  room.Record
	line room.ChatLine
}

// chatLog is the part of a node that keeps chat.
type chatLog struct {
	queue chan chatItem
	lineLog
}

func (n *Node) openChats(keys *vault.KeyStore) error {
	n.chats.class = residency.ClassChat
	return n.chats.open(n, "chats", keys)
}

// keepChat takes a message from a room, which does not wait.
func (n *Node) keepChat(rec room.Record, line room.ChatLine) {
	select {
	case n.chats.queue <- chatItem{rec, line}:
	default:
		n.log.Error("a chat message is not kept: too many wait", "room", rec.SID)
	}
}

// runChats hands messages to where they are kept, in order, until ctx ends and
// none waits.
func (n *Node) runChats(ctx context.Context) error {
	defer n.chats.rest(time.Time{}, n)
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case item := <-n.chats.queue:
			n.deliverChat(ctx, item)
		case <-tick.C:
			n.chats.rest(n.now().Add(-lineRest), n)
		case <-ctx.Done():
			n.deliverLast(ctx)
			return nil
		}
	}
}

// deliverLast tries once to hand over what still waits when the node stops.
func (n *Node) deliverLast(ctx context.Context) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	for {
		select {
		case item := <-n.chats.queue:
			n.deliverChat(last, item)
		default:
			return
		}
	}
}

func (n *Node) deliverChat(ctx context.Context, item chatItem) {
	body, err := json.Marshal(item.line)
	if err != nil {
		panic(fmt.Sprintf("node: encoding a chat line: %v", err)) // strings and numbers alone
	}
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	for try := 1; ; try++ {
		to, err := n.chatKeeper(item.rec, item.line.Kind)
		if err == nil {
			_, err = n.command(ctx, to, item.rec, command{Op: opKeepChat, Room: item.rec.Name, Tenant: item.rec.Tenant, Policy: item.rec.Policy, Request: body})
		}
		if err == nil {
			return
		}
		if ref := asRefusal(err); try == chatTries || ref.Code == CodeRefused {
			n.log.Error("a chat message is not kept", "room", item.rec.SID, "rule", ref.Rule, "code", ref.Code)
			return
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
	}
}

// chatKeeper names the origin that keeps a room's chat.
func (n *Node) chatKeeper(rec room.Record, kind room.ChatKind) (residency.NodeName, error) {
	p := router.Keeper(n.gate(), residency.Request{Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Class: residency.ClassChat, QA: kind == room.QA}, n.homes(), n.now())
	if p.Chosen == nil {
		return "", &Refusal{Code: CodeRefused, Rule: p.Rule, Policy: rec.Policy, Message: p.Reason, Hint: p.Hint}
	}
	return p.Chosen.Node, nil
}

// storeChat writes a message on this origin, if the gate lets it be kept here.
func (n *Node) storeChat(rec room.Record, body []byte) error {
	var line room.ChatLine
	if err := json.Unmarshal(body, &line); err != nil || line.Kind != room.Chat && line.Kind != room.QA {
		return &Refusal{Code: CodeInvalid, Message: "chat: no message"}
	}
	if n.deleted.has(rec.SID, rec.Term) {
		return &Refusal{Code: CodeRefused, Rule: "erased", Message: "the room is over"}
	}
	self := n.self()
	q := keeping(rec, residency.ClassChat)
	q.QA, q.NoEvidence = line.Kind == room.QA, n.noEvidenceOf(rec.Name)
	permit, v := n.keep(q)
	if !v.Allow {
		return refused(v)
	}
	if n.chats.vault == nil {
		return &Refusal{Code: CodeRefused, Rule: residency.RuleStoreRole, Message: fmt.Sprintf("node %s has no vault", self.Name)}
	}
	meta := vault.Meta{Room: rec.Name, Policy: rec.Policy, Node: self.Name, Country: self.Country}
	if err := n.chats.append(permit, lineKey{rec.SID, trackOf(line.Kind)}, meta, [][]byte{body}, n.now()); err != nil {
		return fmt.Errorf("keep chat: %w", err)
	}
	n.noteStored(rec, residency.ClassChat, line.Kind == room.QA, len(body))
	return nil
}

// trackOf is the track of a kind.
func trackOf(k room.ChatKind) vault.TrackID {
	if k == room.QA {
		return qaTrack
	}
	return chatTrack
}

// read returns what is kept of a room, oldest first.
func (c *chatLog) read(rec room.Record) ([]room.ChatLine, error) {
	kept, err := c.lines(rec)
	if err != nil {
		return nil, err
	}
	lines := make([]room.ChatLine, len(kept))
	for i, b := range kept {
		if err := json.Unmarshal(b, &lines[i]); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(lines, func(a, b room.ChatLine) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return lines, nil
}

// chatOf answers the host who wants what was said in writing (R8): whoever holds
// a token of the room with roomAdmin, on the origin that keeps it.
func (n *Node) chatOf(w http.ResponseWriter, r *http.Request) error {
	g, name, err := n.bearer(r)
	if err != nil {
		return err
	}
	if !g.Video.RoomAdmin {
		return &Refusal{Code: CodeForbidden, Message: "the chat is for the room's host: the token does not grant roomAdmin"}
	}
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: name, Tenant: n.tenantOf(g.APIKey)}})
	if err != nil {
		return err
	}
	kind := room.Chat
	if p, err := n.gate().Bundle().Policy(rec.Policy); err == nil && !p.ChatLog {
		kind = room.QA
	}
	at, err := n.chatKeeper(rec, kind)
	if err != nil {
		return err
	}
	if at != n.self().Name {
		m, _ := n.mesh.Snapshot().Member(at)
		return &Refusal{Code: CodeRefused, Rule: "zone", Policy: rec.Policy, Message: fmt.Sprintf("the chat of this room is kept on node %s and leaves it for its host alone", at),
			Hint: "ask that node", Use: &Use{Node: at, URL: m.URL}}
	}
	lines, err := n.chats.read(rec)
	if err != nil {
		return fmt.Errorf("read chat: %w", err)
	}
	q := keeping(rec, residency.ClassExport)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	permit, v := n.tell(q)
	if !v.Allow {
		return refused(v)
	}
	return n.exportChat(permit, w, r.FormValue("format"), rec.Name, lines)
}

// exportChat writes the chat of a room to its host, by a permit to export it here.
func (n *Node) exportChat(p residency.Permit, w http.ResponseWriter, format, name string, lines []room.ChatLine) error {
	if p.Class() != residency.ClassExport || p.Room() != name || !p.Allows(n.self().Name, n.gate().Epoch(), n.now()) {
		return fmt.Errorf("export chat: %w", errNoExport)
	}
	return writeChat(w, format, lines)
}

// errNoExport says that something would leave without a permit.
var errNoExport = errors.New("the gate has given no permit to export it")

// writeChat writes chat as JSON, as text, or as CSV in which no cell is a formula.
func writeChat(w http.ResponseWriter, format string, lines []room.ChatLine) error {
	switch format {
	case "", "json":
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(map[string]any{"lines": lines})
	case "text":
		w.Header().Set("Content-Type", exportTypes["txt"])
		return writeChatText(w, lines)
	case "csv":
		w.Header().Set("Content-Type", exportTypes["csv"])
		return sheet.CSV(w, chatTable(lines))
	}
	return &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("format %q: want \"json\", \"text\" or \"csv\"", format)}
}
