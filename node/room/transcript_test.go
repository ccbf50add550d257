package room

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
)

func header(id, topic string) *livekit.DataPacket {
	return &livekit.DataPacket{ParticipantSid: "PA_1", Value: &livekit.DataPacket_StreamHeader{StreamHeader: &livekit.DataStream_Header{
		StreamId: id, Topic: topic, ContentHeader: &livekit.DataStream_Header_TextHeader{TextHeader: &livekit.DataStream_TextHeader{}}}}}
}

func chunk(id, text string) *livekit.DataPacket {
	return &livekit.DataPacket{ParticipantSid: "PA_1", Value: &livekit.DataPacket_StreamChunk{StreamChunk: &livekit.DataStream_Chunk{StreamId: id, Content: []byte(text)}}}
}

func trailer(id string) *livekit.DataPacket {
	return &livekit.DataPacket{ParticipantSid: "PA_1", Value: &livekit.DataPacket_StreamTrailer{StreamTrailer: &livekit.DataStream_Trailer{StreamId: id}}}
}

func user(topic, payload string) *livekit.DataPacket {
	return &livekit.DataPacket{Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Topic: &topic, Payload: []byte(payload)}}}
}

// TestTranscript reads text in the three ways in which clients send it, and
// nothing else as text.
func TestTranscript(t *testing.T) {
	stranger := chunk("s", "not mine")
	stranger.ParticipantSid = "PA_2"
	bytesStream := header("s", topicChat)
	bytesStream.GetStreamHeader().ContentHeader = &livekit.DataStream_Header_ByteHeader{ByteHeader: &livekit.DataStream_ByteHeader{}}
	for _, c := range []struct {
		what    string
		packets []*livekit.DataPacket
		want    string
	}{
		{"a stream", []*livekit.DataPacket{header("s", topicChat), chunk("s", "good "), chunk("s", "day"), trailer("s")}, "chat: good day"},
		{"a question", []*livekit.DataPacket{header("s", topicQA), chunk("s", "why?"), trailer("s")}, "qa: why?"},
		{"two at once", []*livekit.DataPacket{header("a", topicChat), header("b", topicQA), chunk("b", "B"), chunk("a", "A"), trailer("a"), trailer("b")}, "chat: A|qa: B"},
		{"somebody else's piece", []*livekit.DataPacket{header("s", topicChat), chunk("s", "mine"), stranger, trailer("s")}, "chat: mine"},
		{"another topic", []*livekit.DataPacket{header("s", "lk.file"), chunk("s", "x"), trailer("s")}, ""},
		{"bytes", []*livekit.DataPacket{bytesStream, chunk("s", "x"), trailer("s")}, ""},
		{"nothing in it", []*livekit.DataPacket{header("s", topicChat), trailer("s")}, ""},
		{"an end without a beginning, twice", []*livekit.DataPacket{trailer("s"), chunk("s", "x"), trailer("s")}, ""},
		{"a message", []*livekit.DataPacket{{Value: &livekit.DataPacket_ChatMessage{ChatMessage: &livekit.ChatMessage{Message: "hello"}}}}, "chat: hello"},
		{"an older client", []*livekit.DataPacket{user(topicLegacy, `{"message":"hello"}`)}, "chat: hello"},
		{"the copy for older clients", []*livekit.DataPacket{user(topicLegacy, `{"message":"hello","ignoreLegacy":true}`)}, ""},
		{"no JSON", []*livekit.DataPacket{user(topicLegacy, `{`), user("other", `{"message":"x"}`)}, ""},
	} {
		var tr transcript
		var got []string
		for _, p := range c.packets {
			if kind, text, ok := tr.take(p, time.Unix(0, 0)); ok {
				got = append(got, string(kind)+": "+text)
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s: %q, want %q", c.what, s, c.want)
		}
	}
}

// TestTranscriptIsBounded opens streams and never ends them, and sends more than
// a message may have.
func TestTranscriptIsBounded(t *testing.T) {
	var tr transcript
	rng := rand.New(rand.NewPCG(1, 2))
	now := time.Unix(0, 0)
	for i := range 5000 {
		id := fmt.Sprint(rng.IntN(1000))
		tr.take(header(id, topicChat), now)
		tr.take(chunk(id, strings.Repeat("ä", rng.IntN(maxChatText))), now)
		if len(tr.open) > maxChatOpen {
			t.Fatalf("after %d: %d are open", i, len(tr.open))
		}
	}
	for key, p := range tr.open {
		if len(p.text) > maxChatText {
			t.Fatalf("%d bytes of one message wait", len(p.text))
		}
		if _, text, ok := tr.take(trailer(key.stream), now); ok && !utf8.ValidString(text) {
			t.Fatal("half a character is kept")
		}
	}
	tr.take(header("old", topicChat), now)
	tr.take(header("new", topicChat), now.Add(chatPatience+time.Second))
	if len(tr.open) != 1 {
		t.Errorf("%d are open: one that nobody ends is kept for good", len(tr.open))
	}
}

// TestKeptChat asks for each kind under each pair of switches, encrypted or not.
func TestKeptChat(t *testing.T) {
	for _, chat := range []bool{false, true} {
		for _, qa := range []bool{false, true} {
			p := &residency.Policy{ChatLog: chat, QALog: qa}
			if keptChat(p, Chat, false) != chat || keptChat(p, QA, false) != qa {
				t.Errorf("chat %v, questions %v: kept are %v, %v", chat, qa, keptChat(p, Chat, false), keptChat(p, QA, false))
			}
			sealed := &residency.Policy{ChatLog: chat, QALog: qa, E2EE: residency.E2EERequired}
			if keptChat(p, Chat, true) || keptChat(sealed, Chat, false) {
				t.Error("chat of an encrypted room is kept")
			}
		}
	}
}
