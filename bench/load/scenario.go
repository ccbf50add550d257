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
	"github.com/domicile/domicile/bench/load/ways"
)

// scenario is who joins whom, and how long is measured.
type scenario struct {
	Name        string        `json:"name"`
	Publishers  int           `json:"publishers"`
	Subscribers int           `json:"subscribers"` // beside the publishers
	Meet        bool          `json:"meet"`        // publishers subscribe too
	Video       bool          `json:"video"`
	Audio       bool          `json:"audio"`
	Mesh        bool          `json:"mesh"`               // over the demo's three nodes instead of one
	Scale       bool          `json:"scale,omitempty"`    // over one node of the mesh, then two, then all: so many subscribers on each
	Way         ways.Kind     `json:"way,omitempty"`      // of the subscribers' media, compared with a socket of their own
	Idle        int           `json:"idle,omitempty"`     // no media: so many allocations over TLS that do nothing
	Rooms       int           `json:"rooms,omitempty"`    // over which attendees are spread evenly; 0: one
	Recorded    bool          `json:"recorded,omitempty"` // compared with the same without a recording
	Alone       int           `json:"alone"`              // so many join one after the other, and leave, before the others come
	Arrivals    time.Duration `json:"-"`                  // attendees join spread over it
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
	{Name: "scale-out", Publishers: 1, Subscribers: 100, Video: true, Mesh: true, Scale: true,
		Arrivals: 2 * time.Second, Warmup: 3 * time.Second, Duration: 8 * time.Second},
	wayScenario(ways.TURNUDP),
	wayScenario(ways.TURNTCP),
	wayScenario(ways.TURNTLS),
	wayScenario(ways.ICETCP),
	{Name: "turn-allocations", Publishers: 1, Subscribers: 1, Video: true, Idle: 1000, Arrivals: 2 * time.Second, Duration: 5 * time.Second},
	{Name: "recording", Publishers: 100, Subscribers: 10, Rooms: 10, Video: true, Recorded: true, Arrivals: 10 * time.Second, Duration: 10 * time.Second},
}

// wayScenario has its subscribers join five times: see compare.
func wayScenario(k ways.Kind) scenario {
	return scenario{Name: string(k), Publishers: 1, Subscribers: 50, Video: true, Way: k,
		Arrivals: 2 * time.Second, Warmup: 3 * time.Second, Duration: 8 * time.Second}
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
	case !s.Way.Valid():
		return fmt.Errorf("way %q: want turn-udp, turn-tcp, turn-tls, ice-tcp or none", s.Way)
	case s.Way != ways.Direct && (s.Mesh || s.Meet || s.Alone > 0):
		return fmt.Errorf("way %s: subscribers of one node alone take it", s.Way)
	case s.Scale && !s.Mesh:
		return errors.New("one node alone cannot scale: want a mesh")
	case s.Rooms < 0 || s.Rooms > 1 && (s.Publishers%s.Rooms > 0 || s.Subscribers%s.Rooms > 0 || s.Meet):
		return fmt.Errorf("%d rooms: want publishers and subscribers that divide evenly, and none that meet", s.Rooms)
	case s.Recorded && (!s.Video || s.Audio || s.Mesh || s.Idle > 0 || s.Way != ways.Direct):
		return errors.New("cameras on one node are recorded: want neither audio nor a mesh nor a way")
	case s.Idle < 0 || s.Idle > 8000:
		return fmt.Errorf("%d idle allocations: want 0 to 8000", s.Idle)
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
	n := s.Subscribers / max(s.Rooms, 1)
	if s.Meet {
		n += s.Publishers - 1
	}
	return n
}

// streams are the kinds of media that leave for all receivers.
func (s scenario) streams() (list []floor.Load) {
	times := float64(s.Publishers * s.receivers())
	if s.Video {
		packets, payload := s.frame()
		list = append(list, floor.Load{Sockets: s.receivers(), Rate: times * media.FrameRate * float64(packets),
			Size: payload + rtpHeader, Burst: packets})
	}
	if s.Audio {
		list = append(list, floor.Load{Sockets: s.receivers(), Rate: times * media.AudioRate, Size: media.AudioPayload + rtpHeader, Burst: 1})
	}
	return list
}

const rtpHeader = 12

// frame is how many packets a camera's frame has, and of what payload. What is recorded
// is of 2 Mbit/s.
func (s scenario) frame() (packets, payload int) {
	if s.Recorded {
		return media.SharpPackets, media.SharpPayload
	}
	return media.FramePackets, media.VideoPayload
}

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
	n := uint16(min(max(rate/2000, 16), maxSample-media.SharpPackets))
	for n%2 == 0 || n%3 == 0 || n%media.SharpPackets == 0 {
		n++
	}
	return n
}
