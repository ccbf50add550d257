package room

import (
	"encoding/json"
	"time"
	"unicode/utf8"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

// What is said in writing is kept where the policy has it kept (R8, R10), and
// only then: by the node of who wrote it, which hands each message to the origin
// that keeps the room's chat. Clients send text in three ways, of which one
// arrives in pieces.

// ChatKind tells chat from questions and answers: a policy may keep one of them.
type ChatKind string

// The kinds.
const (
	Chat ChatKind = "chat"
	QA   ChatKind = "qa"
)

// Topics under which clients send text.
const (
	topicChat   = "lk.chat"       // LiveKit's clients, as a text stream
	topicLegacy = "lk-chat-topic" // older ones, as JSON in a data packet
	topicQA     = "domicile.qa"   // questions and answers, as a text stream
)

// ChatLine is one message as it is kept.
type ChatLine struct {
	AtMS     int64    `json:"at_ms"` // Unix milliseconds by the node's clock
	Kind     ChatKind `json:"kind"`
	Identity string   `json:"identity"`
	Name     string   `json:"name"`
	Text     string   `json:"text"`
}

const (
	maxChatText   = 64 << 10        // bytes of one message; what is longer is kept up to here
	maxChatOpen   = 256             // messages of a room that arrive in pieces
	chatPatience  = 5 * time.Minute // for the rest of one
	maxStreamName = 128             // bytes of a stream's id
)

// transcript joins the pieces of messages. Owned by Room.run.
type transcript struct {
	open map[streamKey]*piecemeal
}

type streamKey struct{ publisher, stream string }

type piecemeal struct {
	kind ChatKind
	text []byte
	last time.Time
}

// take reads a packet and returns the message that it completes. What is
// encrypted, or no text, is none.
func (t *transcript) take(pkt *livekit.DataPacket, now time.Time) (kind ChatKind, text string, ok bool) {
	switch v := pkt.Value.(type) {
	case *livekit.DataPacket_ChatMessage:
		if v.ChatMessage.GetDeleted() {
			return "", "", false
		}
		return Chat, clip(v.ChatMessage.GetMessage()), true
	case *livekit.DataPacket_User:
		return legacyChat(v.User)
	case *livekit.DataPacket_StreamHeader:
		t.begin(pkt.ParticipantSid, v.StreamHeader, now)
	case *livekit.DataPacket_StreamChunk:
		if p := t.open[streamKey{pkt.ParticipantSid, v.StreamChunk.GetStreamId()}]; p != nil {
			p.text, p.last = append(p.text, v.StreamChunk.Content[:min(len(v.StreamChunk.Content), maxChatText-len(p.text))]...), now
		}
	case *livekit.DataPacket_StreamTrailer:
		key := streamKey{pkt.ParticipantSid, v.StreamTrailer.GetStreamId()}
		if p := t.open[key]; p != nil {
			delete(t.open, key)
			return p.kind, clip(string(p.text)), len(p.text) > 0
		}
	}
	return "", "", false
}

// legacyChat reads the JSON of older clients. Newer ones send it beside a text
// stream, and say in it that it is not to be read.
func legacyChat(u *livekit.UserPacket) (kind ChatKind, text string, ok bool) {
	if u.GetTopic() != topicLegacy {
		return "", "", false
	}
	var m struct {
		Message      string `json:"message"`
		IgnoreLegacy bool   `json:"ignoreLegacy"`
	}
	if json.Unmarshal(u.Payload, &m) != nil || m.IgnoreLegacy || m.Message == "" {
		return "", "", false
	}
	return Chat, clip(m.Message), true
}

func (t *transcript) begin(publisher string, h *livekit.DataStream_Header, now time.Time) {
	kind := map[string]ChatKind{topicChat: Chat, topicQA: QA}[h.GetTopic()]
	if kind == "" || h.GetTextHeader() == nil || len(h.GetStreamId()) > maxStreamName || h.EncryptionType != livekit.Encryption_NONE { //nolint:staticcheck // older clients write it
		return
	}
	for key, p := range t.open {
		if now.Sub(p.last) > chatPatience {
			delete(t.open, key)
		}
	}
	if len(t.open) >= maxChatOpen {
		return
	}
	if t.open == nil {
		t.open = map[streamKey]*piecemeal{}
	}
	t.open[streamKey{publisher, h.GetStreamId()}] = &piecemeal{kind: kind, last: now}
}

// clip keeps a text within its bound, whole runes of it.
func clip(s string) string {
	if len(s) <= maxChatText {
		return s
	}
	s = s[:maxChatText]
	for len(s) > 0 && !utf8.ValidString(s[len(s)-min(len(s), utf8.UTFMax):]) {
		s = s[:len(s)-1]
	}
	return s
}

// keepChat hands on what a participant here has written, if it is kept.
func (r *Room) keepChat(p *Participant, pkt *livekit.DataPacket) {
	policy := r.policy()
	if r.deps.KeepChat == nil || policy == nil || !policy.ChatLog && !policy.QALog {
		return
	}
	now := r.deps.Now()
	kind, text, ok := r.transcript.take(pkt, now)
	if !ok || len(destinations(pkt)) > 0 || !keptChat(policy, kind, r.encrypted()) {
		return // a message to some is nobody else's
	}
	r.deps.KeepChat(r.record, ChatLine{AtMS: now.UnixMilli(), Kind: kind, Identity: p.identity, Name: p.info.Name, Text: text})
}

// keptChat reports whether a message of the kind is kept.
func keptChat(p *residency.Policy, kind ChatKind, encrypted bool) bool {
	if keepsIn(p, encrypted, "chat-export") != nil {
		return false
	}
	return kind == Chat && p.ChatLog || kind == QA && p.QALog
}
