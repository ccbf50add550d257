// Package relay measures one hop between two nodes: two processes with a link, on
// one machine or with a bad path between them, and beside it the floor, which is
// sealing packets and handing them to UDP with segmentation offload and nothing
// else. The load is the same for all; each packet bears the time at which it was
// offered. It decides nothing and is part of no node.
package relay

import (
	"encoding/binary"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Load is what is played over a hop.
type Load struct {
	Cameras  int           `json:"cameras"`
	Layers   int           `json:"layers"`    // of each, the next with twice the packets
	PerFrame int           `json:"per_frame"` // packets of the lowest layer, 30 times a second
	Size     int           `json:"size"`      // bytes of a packet of video
	Voices   int           `json:"voices"`    // 50 packets of 120 bytes a second each
	Warm     time.Duration `json:"warm_ns"`
	Measured time.Duration `json:"measured_ns"`
}

const (
	frameEvery, voiceEvery = time.Second / 30, 20 * time.Millisecond
	voiceSize              = 120
	head                   = 12 + 8 // RTP's, and when it was offered
)

// Packets is how many are offered in a second.
func (l Load) Packets() float64 {
	n := 0
	for layer := range l.Layers {
		n += l.PerFrame << layer
	}
	return float64(l.Cameras*n)*30 + float64(l.Voices)*50
}

// Bits is how many bits of video are offered in a second.
func (l Load) Bits() float64 {
	n := 0
	for layer := range l.Layers {
		n += l.PerFrame << layer
	}
	return float64(l.Cameras*n*l.Size*8) * 30
}

// Tracks is how many there are: cameras, then voices.
func (l Load) Tracks() int { return l.Cameras + l.Voices }

// Play offers packets from begin on, until all is played. Tracks are not in step.
func (l Load) Play(begin time.Time, offer func(track int, layer uint8, last bool, rtp []byte), tick func()) {
	rtp := make([]byte, max(l.Size, voiceSize))
	rtp[0] = 0x80
	frames := make([]uint32, l.Tracks())
	due := func(track int) time.Time {
		every, n := frameEvery, l.Cameras
		at := track
		if track >= l.Cameras {
			every, n, at = voiceEvery, l.Voices, track-l.Cameras
		}
		return begin.Add(time.Duration(frames[track])*every + every*time.Duration(at)/time.Duration(n))
	}
	put := func(track int, layer uint8, p int, last bool, size int) {
		binary.BigEndian.PutUint16(rtp[2:], uint16(p))
		binary.BigEndian.PutUint32(rtp[4:], frames[track])
		binary.BigEndian.PutUint64(rtp[12:], uint64(time.Now().UnixNano()))
		offer(track, layer, last, rtp[:size])
	}
	end := begin.Add(l.Warm + l.Measured)
	for now := time.Now(); now.Before(end); now = time.Now() {
		for track := range frames {
			for !due(track).After(now) {
				if track >= l.Cameras {
					put(track, 0, 0, true, voiceSize)
				} else {
					for layer := range l.Layers {
						for p, n := 0, l.PerFrame<<layer; p < n; p++ {
							put(track, uint8(layer), p, p == n-1, l.Size)
						}
					}
				}
				frames[track]++
			}
		}
		tick()
		time.Sleep(500 * time.Microsecond)
	}
}

// Heard is what became of a load.
type Heard struct {
	Packets         int     `json:"packets"`
	PacketsP50      float64 `json:"packet_ms_p50"`
	PacketsP99      float64 `json:"packet_ms_p99"`
	Frames          int     `json:"frames"` // offered
	Whole           int     `json:"frames_whole"`
	FramesP50       float64 `json:"frame_ms_p50"` // from the first packet's offer until all were there
	FramesP99       float64 `json:"frame_ms_p99"`
	Lowest          int     `json:"frames_lowest"` // of the lowest layer
	LowestWhole     int     `json:"frames_lowest_whole"`
	Voices          int     `json:"voice_packets"`
	VoicesHeard     int     `json:"voice_packets_heard"`
	VoicesP50       float64 `json:"voice_ms_p50"`
	VoicesP99       float64 `json:"voice_ms_p99"`
	VoicesMost      float64 `json:"voice_ms_most"`
	CPU             float64 `json:"cpu_us_per_packet"` // of the process
	MegabitsASecond float64 `json:"video_mbps"`
}

// Listener takes what arrives.
type Listener struct {
	load  Load
	begin time.Time

	mu     sync.Mutex
	frames map[frameKey]*frame
	delays []time.Duration
	voices []time.Duration
	bytes  int
}

type frameKey struct {
	track int
	layer uint8
	n     uint32
}

type frame struct {
	got         int
	first, last int64
}

// NewListener returns one for a load that begins at begin.
func NewListener(l Load, begin time.Time) *Listener {
	return &Listener{load: l, begin: begin, frames: map[frameKey]*frame{}, delays: make([]time.Duration, 0, 1<<20)}
}

// Take takes packets of a track.
func (x *Listener) Take(track int, layer uint8, packets [][]byte) {
	now := time.Now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, rtp := range packets {
		if len(rtp) < head {
			continue
		}
		at := int64(binary.BigEndian.Uint64(rtp[12:]))
		if !x.counts(time.Unix(0, at)) {
			continue
		}
		delay := time.Duration(now.UnixNano() - at)
		x.delays = append(x.delays, delay)
		if track >= x.load.Cameras {
			x.voices = append(x.voices, delay)
			continue
		}
		x.bytes += len(rtp)
		k := frameKey{track, layer, binary.BigEndian.Uint32(rtp[4:])}
		f := x.frames[k]
		if f == nil {
			f = &frame{first: at}
			x.frames[k] = f
		}
		f.got++
		f.first, f.last = min(f.first, at), now.UnixNano()
	}
}

func (x *Listener) counts(at time.Time) bool {
	return !at.Before(x.begin.Add(x.load.Warm)) && at.Before(x.begin.Add(x.load.Warm+x.load.Measured))
}

// Result is what became of all that was offered in the time that is measured.
func (x *Listener) Result(cpu time.Duration) Heard {
	x.mu.Lock()
	defer x.mu.Unlock()
	seconds := x.load.Measured.Seconds()
	h := Heard{Packets: len(x.delays), VoicesHeard: len(x.voices), Voices: offered(x.load.Voices, seconds, voiceEvery),
		Lowest: offered(x.load.Cameras, seconds, frameEvery), MegabitsASecond: float64(x.bytes*8) / seconds / 1e6}
	h.Frames = h.Lowest * x.load.Layers
	var whole []time.Duration
	for k, f := range x.frames {
		if f.got >= x.load.PerFrame<<k.layer {
			h.Whole++
			whole = append(whole, time.Duration(f.last-f.first))
			if k.layer == 0 {
				h.LowestWhole++
			}
		}
	}
	h.PacketsP50, h.PacketsP99, _ = percentiles(x.delays)
	h.FramesP50, h.FramesP99, _ = percentiles(whole)
	h.VoicesP50, h.VoicesP99, h.VoicesMost = percentiles(x.voices)
	if h.Packets > 0 {
		h.CPU = float64(cpu.Microseconds()) / float64(h.Packets)
	}
	return h
}

func offered(tracks int, seconds float64, every time.Duration) int {
	return int(math.Round(float64(tracks) * seconds / every.Seconds()))
}

func percentiles(d []time.Duration) (p50, p99, most float64) {
	if len(d) == 0 {
		return 0, 0, 0
	}
	slices.Sort(d)
	at := func(share float64) float64 {
		return float64(d[min(int(share*float64(len(d))), len(d)-1)].Microseconds()) / 1000
	}
	return at(0.5), at(0.99), at(1)
}

// Used is the processor time of this process.
func Used() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
