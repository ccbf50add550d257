package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/domicile/domicile/bench/load/floor"
	"github.com/domicile/domicile/bench/load/media"
)

// scenario is who joins whom, and how long is measured.
type scenario struct {
	Name        string        `json:"name"`
	Publishers  int           `json:"publishers"`
	Subscribers int           `json:"subscribers"` // beside the publishers
	Meet        bool          `json:"meet"`        // publishers subscribe too
	Video       bool          `json:"video"`
	Audio       bool          `json:"audio"`
	Mesh        bool          `json:"mesh"`  // over the demo's three nodes instead of one
	Alone       int           `json:"alone"` // so many join one after the other, and leave, before the others come
	Arrivals    time.Duration `json:"-"`     // attendees join spread over it
	Warmup      time.Duration `json:"-"`
	Duration    time.Duration `json:"-"`
}

// What a scenario's times are where neither it nor a flag says otherwise.
const (
	defaultDuration = 15 * time.Second
	defaultWarmup   = 5 * time.Second
	defaultArrivals = 5 * time.Second
	// atOnce is an arrival time that says so: 0 is the default's.
	atOnce = time.Nanosecond
)

// scenarios are what `make bench` runs.
var scenarios = []scenario{
	{Name: "1x10", Publishers: 1, Subscribers: 10, Video: true},
	{Name: "1x100", Publishers: 1, Subscribers: 100, Video: true},
	{Name: "1x300", Publishers: 1, Subscribers: 300, Video: true, Arrivals: 8 * time.Second},
	{Name: "audio-10x50", Publishers: 10, Subscribers: 50, Audio: true},
	{Name: "join-50", Publishers: 1, Subscribers: 50, Video: true, Alone: 7, Arrivals: atOnce, Warmup: 3 * time.Second, Duration: 5 * time.Second},
	{Name: "meeting-10", Publishers: 10, Meet: true, Video: true, Audio: true},
	{Name: "mesh-1x20", Publishers: 1, Subscribers: 20, Video: true, Mesh: true},
}

// largeScenarios look for the number of subscribers at which loss begins. They
// arrive at most 50 a second, so that the joins are not what is measured.
var largeScenarios = []scenario{
	{Name: "1x600", Publishers: 1, Subscribers: 600, Video: true, Arrivals: 12 * time.Second},
	{Name: "1x800", Publishers: 1, Subscribers: 800, Video: true, Arrivals: 16 * time.Second},
	{Name: "1x1200", Publishers: 1, Subscribers: 1200, Video: true, Arrivals: 24 * time.Second},
}

// findScenarios finds one by its name, or a group of them.
func findScenarios(name string) ([]scenario, error) {
	switch name {
	case "all":
		return slices.Clone(scenarios), nil
	case "all-large":
		return slices.Clone(largeScenarios), nil
	}
	var names []string
	for _, s := range slices.Concat(scenarios, largeScenarios) {
		if s.Name == name {
			return []scenario{s}, nil
		}
		names = append(names, s.Name)
	}
	return nil, fmt.Errorf("scenario %q: want all, all-large or one of %s", name, strings.Join(names, ", "))
}

// timed fills in the times that the scenario leaves open; those that a flag
// gives (not 0) come before all.
func (s scenario) timed(flags scenario) scenario {
	s.Duration = cmp.Or(flags.Duration, s.Duration, defaultDuration)
	s.Warmup = cmp.Or(flags.Warmup, s.Warmup, defaultWarmup)
	s.Arrivals = cmp.Or(flags.Arrivals, s.Arrivals, defaultArrivals)
	return s
}

func (s scenario) check() error {
	switch {
	case s.Publishers < 1 || s.Publishers+s.Subscribers > 5000:
		return fmt.Errorf("%d publishers and %d subscribers: want at least 1 and at most 5000 together", s.Publishers, s.Subscribers)
	case !s.Video && !s.Audio:
		return errors.New("neither video nor audio is published")
	case s.receivers() == 0:
		return errors.New("nobody receives anything: want subscribers, or publishers that meet")
	case s.Alone < 0 || s.Alone > 100:
		return fmt.Errorf("%d join alone: want 0 to 100", s.Alone)
	case s.Duration < time.Second || s.Warmup < 0 || s.Arrivals < 0:
		return fmt.Errorf("duration %s, warmup %s, arrivals %s: want at least 1s, 0s, 0s", s.Duration, s.Warmup, s.Arrivals)
	}
	return nil
}

// receivers counts the streams' receivers: how many sockets a frame goes to, one
// publisher taken with another.
func (s scenario) receivers() int {
	n := s.Subscribers
	if s.Meet {
		n += s.Publishers - 1
	}
	return n
}

// streams are the kinds of media that leave for all receivers.
func (s scenario) streams() (list []floor.Load) {
	times := float64(s.Publishers * s.receivers())
	if s.Video {
		list = append(list, floor.Load{Sockets: s.receivers(), Rate: times * media.FrameRate * media.FramePackets,
			Size: media.VideoPayload + rtpHeader, Burst: media.FramePackets})
	}
	if s.Audio {
		list = append(list, floor.Load{Sockets: s.receivers(), Rate: times * media.AudioRate, Size: media.AudioPayload + rtpHeader, Burst: 1})
	}
	return list
}

const rtpHeader = 12

// maxSample is the coarsest sample.
const maxSample = 1024

// sample is how many packets there are to one that is timed: 16 or, with many
// subscribers, so many that the generator decrypts 2000 a second. It shares no
// factor with the packets of a frame, or only some places in the frame would be
// timed.
func (s scenario) sample() uint16 {
	var rate float64
	for _, l := range s.streams() {
		rate += l.Rate
	}
	n := uint16(min(max(rate/2000, 16), maxSample-media.FramePackets))
	for n%2 == 0 || n%3 == 0 {
		n++
	}
	return n
}
