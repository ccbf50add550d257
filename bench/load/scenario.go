package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

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
	Mesh        bool          `json:"mesh"` // over the demo's three nodes instead of one
	Arrivals    time.Duration `json:"-"`    // attendees join spread over it
	Warmup      time.Duration `json:"-"`
	Duration    time.Duration `json:"-"`
}

// scenarios are what `make bench` runs.
var scenarios = []scenario{
	{Name: "1x10", Publishers: 1, Subscribers: 10, Video: true},
	{Name: "1x100", Publishers: 1, Subscribers: 100, Video: true},
	{Name: "meeting-10", Publishers: 10, Meet: true, Video: true, Audio: true},
	{Name: "mesh-1x20", Publishers: 1, Subscribers: 20, Video: true, Mesh: true},
}

func findScenario(name string) (scenario, error) {
	i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.Name == name })
	if i < 0 {
		var names []string
		for _, s := range scenarios {
			names = append(names, s.Name)
		}
		return scenario{}, fmt.Errorf("scenario %q: want all or one of %s", name, strings.Join(names, ", "))
	}
	return scenarios[i], nil
}

func (s scenario) check() error {
	switch {
	case s.Publishers < 1 || s.Publishers+s.Subscribers > 5000:
		return fmt.Errorf("%d publishers and %d subscribers: want at least 1 and at most 5000 together", s.Publishers, s.Subscribers)
	case !s.Video && !s.Audio:
		return errors.New("neither video nor audio is published")
	case s.receivers() == 0:
		return errors.New("nobody receives anything: want subscribers, or publishers that meet")
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

// sockets counts the attendees that receive.
func (s scenario) sockets() int {
	if s.Meet {
		return s.Subscribers + s.Publishers
	}
	return s.Subscribers
}

// rate is the packets per second that leave for all receivers, if none is lost.
func (s scenario) rate() float64 {
	perPublisher := 0
	if s.Video {
		perPublisher += media.FrameRate * media.FramePackets
	}
	if s.Audio {
		perPublisher += media.AudioRate
	}
	return float64(perPublisher * s.Publishers * s.receivers())
}
