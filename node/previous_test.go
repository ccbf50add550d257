package node

import (
	"flag"
	"testing"

	"github.com/domicile/domicile/internal/samples"
	"github.com/domicile/domicile/residency/evidence"
)

var writeMessages = flag.Bool("messages.write", false, "add what the kept samples of messages lack")

// asked are what nodes ask each other beside the messages of rooms, and what they answer.
var asked = map[string]samples.Shape{
	"resolveRequest": samples.Of[resolveRequest](nil, nil),
	"resolveReply":   samples.Of[resolveReply](nil, nil),
	"command":        samples.Of[command](nil, nil),
	"reply":          samples.Of[reply](nil, nil),
	"receipts":       samples.Of[receipts](nil, nil),
	"announcement":   samples.Of[evidence.Announcement](nil, nil),
	"headReply":      samples.Of[headReply](nil, nil),
	"sharedKey":      samples.Of[sharedKey](nil, nil),
	"replicaMessage": samples.Of[replicaMessage](nil, nil),
	"copyMessage":    samples.Of[copyMessage](nil, nil),
	"copyAnswer":     samples.Of[copyAnswer](nil, nil),
	"ordersMessage":  samples.Of[ordersMessage](nil, nil),
	"Refusal":        samples.Of[Refusal](nil, nil),
}

// TestRequestsOfTheReleaseBefore reads what an older release asks and answers, and what a
// newer one adds to it.
func TestRequestsOfTheReleaseBefore(t *testing.T) {
	words := map[string]any{
		"kindResolve": kindResolve, "kindCommand": kindCommand, "kindReceipts": kindReceipts, "kindHead": kindHead,
		"kindRoomKey": kindRoomKey, "kindRecord": kindRecord, "kindCopy": kindCopy, "kindOrders": kindOrders,

		"opAttendance": opAttendance, "opKeepChat": opKeepChat, "opConsents": opConsents, "opTake": opTake,
		"opEgresses": opEgresses, "opStopEgress": opStopEgress, "opExplain": opExplain, "opView": opView,
		"opDelete": opDelete, "opParticipants": opParticipants, "opRemove": opRemove, "opRecord": opRecord,
		"opStopRecord": opStopRecord, "opCensus": opCensus, "opRooms": opRooms, "opMute": opMute, "opUpdate": opUpdate,
		"opSubscriptions": opSubscriptions, "opData": opData, "opMetadata": opMetadata, "opRegister": opRegister,
		"opRegistrations": opRegistrations, "opRouting": opRouting, "opTell": opTell,
	}
	samples.Constants(t, "kind", words)
	samples.Constants(t, "op", words)
	kept := samples.File{Path: "testdata/messages-2026-11.json", Write: *writeMessages, Maps: []string{"have", "states"}}
	kept.Check(t, asked, words)
}
