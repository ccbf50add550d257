package room

import (
	"slices"
	"testing"
)

// A node of which nothing is heard for a moment loses nobody and no track; when it is
// heard again, its pictures are asked for anew.
func TestSuspectNodeKeepsItsPlace(t *testing.T) {
	s := newScene(t)
	s.has(t, "waw", false, person("PA_anna", "anna", "TR_anna"))
	tr := s.tracks["TR_anna"]
	s.ensureUp(tr)
	tr.up.AddSink(eye{})
	s.doReconcile()
	s.says("waw", KindTrackOpen, TrackOpen{Track: "TR_anna", Alias: 7, Available: 1})
	if tr.way.at.link == nil {
		t.Fatal("the track does not come")
	}
	s.doSuspect("waw", true)
	s.doSuspect("nobody", true)
	if !s.remotes["waw"].suspect || s.count() != 2 || tr.way.at.link == nil {
		t.Fatalf("%d people, link %v", s.count(), tr.way.at.link)
	}
	s.sent = nil
	s.doReconcile()
	if slices.Contains(s.sent, KindKeyframe) {
		t.Error("a keyframe is asked of a node that says nothing")
	}
	s.doSuspect("waw", false)
	s.doReconcile()
	if !slices.Contains(s.sent, KindKeyframe) {
		t.Errorf("no keyframe is asked for, only %v", s.sent)
	}
}
