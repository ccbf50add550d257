package room

import (
	"flag"
	"testing"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/internal/samples"
)

var writeMessages = flag.Bool("messages.write", false, "add what the kept samples of messages lack")

// kinds are what nodes tell each other of a room in JSON.
var kinds = map[string]samples.Shape{
	"KindHello":        samples.Of(nil, decode[Hello]),
	"KindRoster":       samples.Of(nil, decode[Roster]),
	"KindParticipants": samples.Of(func(p *Participants) { p.Changed[0].Info = sampleInfo() }, decode[Participants]),
	"KindSubscribe":    samples.Of(nil, decode[Subscribe]),
	"KindTrackOpen":    samples.Of(nil, decode[TrackOpen]),
	"KindTrackClosed":  samples.Of(nil, decode[TrackClosed]),
	"KindKeyframe":     samples.Of(nil, decode[Keyframe]),
	"KindLayers":       samples.Of(nil, decode[Layers]),
	"KindData":         samples.Of(nil, decode[Data]),
	"KindSpeaking":     samples.Of(nil, decode[Speaking]),
	"KindDataAsk":      samples.Of(nil, decode[DataAsk]),
	"KindDataHead":     samples.Of(nil, decode[DataHead]),
	"KindQuality":      samples.Of(nil, decode[Qualities]),
	"KindTrackVia":     samples.Of(nil, decode[TrackVia]),
	"handover":         samples.Of(nil, ReadHandover),
}

// numbers are what says which kind a message is of.
var numbers = map[string]any{
	"KindHello": KindHello, "KindRoster": KindRoster, "KindParticipants": KindParticipants, "KindSubscribe": KindSubscribe,
	"KindTrackOpen": KindTrackOpen, "KindTrackClosed": KindTrackClosed, "KindKeyframe": KindKeyframe, "KindLayers": KindLayers,
	"KindData": KindData, "KindSpeaking": KindSpeaking, "KindDataAsk": KindDataAsk, "KindDataHead": KindDataHead,
	"KindQuality": KindQuality, "KindTrackVia": KindTrackVia,
}

func sampleInfo() []byte {
	b, err := proto.Marshal(&livekit.ParticipantInfo{Sid: "PA_sample", Identity: "sample"})
	if err != nil {
		panic(err)
	}
	return b
}

// TestMessagesOfTheReleaseBefore reads what an older release sends, and what a newer one
// adds to it.
func TestMessagesOfTheReleaseBefore(t *testing.T) {
	samples.Constants(t, "Kind", numbers)
	for name := range numbers {
		if _, ok := kinds[name]; !ok {
			t.Errorf("%s has no shape", name)
		}
	}
	kept := samples.File{Path: "testdata/messages-2026-11.json", Write: *writeMessages, Maps: []string{"media"}}
	kept.Check(t, kinds, numbers)
}
