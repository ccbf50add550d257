// Package relay measures one hop between two nodes: two processes with a link, on
// one machine or with a bad path between them, and beside it the floor, which is
// sealing packets and handing them to UDP with segmentation offload and nothing
// else. The load is the same for all; each packet bears the time at which it was
// offered. It decides nothing and is part of no node.
package relay

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Load is what is played over a hop.
type Load struct {
	Cameras  int           `json:"cameras"`
	Layers   int           `json:"layers"`      // of each, the next with twice the packets
	PerFrame int           `json:"per_frame"`   // packets of the lowest layer, 30 times a second
	Size     int           `json:"size"`        // bytes of a packet of video
	Voices   int           `json:"voices"`      // 50 packets of 120 bytes a second each
	Warm     time.Duration `json:"warm_ns"`     // of a turn
	Measured time.Duration `json:"measured_ns"` // likewise
}

// phaseSeed makes the moments at which cameras and voices begin. They are chance, as
// those of people are, and the same for all that is measured.
const phaseSeed = 20261122

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

// phases are when tracks begin, within their first frame.
func (l Load) phases() []time.Duration {
	rng, list := rand.New(rand.NewPCG(phaseSeed, 0)), make([]time.Duration, l.Tracks())
	for i := range list {
		list[i] = time.Duration(rng.Int64N(int64(l.every(i))))
	}
	return list
}

// every is the time between two frames of a track.
func (l Load) every(track int) time.Duration {
	if track < l.Cameras {
		return frameEvery
	}
	return voiceEvery
}

// Play offers packets from begin on, until all of a turn is played, and returns how
// late the frames were that count. A frame is offered at once; a packet's delay is
// counted from when it was offered.
func (l Load) Play(begin time.Time, offer func(track int, layer uint8, last bool, rtp []byte), tick func()) (late []time.Duration) {
	rtp := make([]byte, max(l.Size, voiceSize))
	rtp[0] = 0x80
	frames := make([]uint32, l.Tracks())
	phases := l.phases()
	due := func(track int) time.Time {
		return begin.Add(time.Duration(frames[track])*l.every(track) + phases[track])
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
			for at := due(track); !at.After(now); at = due(track) {
				if now.Sub(begin) >= l.Warm {
					late = append(late, now.Sub(at))
				}
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
	return late
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
	Turns           []Turn  `json:"turns"`
}

// Turn is what one turn came to.
type Turn struct {
	PacketsP50 float64 `json:"packet_ms_p50"`
	PacketsP99 float64 `json:"packet_ms_p99"`
}

// Listener takes what arrives.
type Listener struct {
	load  Load
	turns []time.Time // when they begin

	mu     sync.Mutex
	frames map[frameKey]*frame
	delays [][]time.Duration // of each turn
	voices []time.Duration
	bytes  int
}

type frameKey struct {
	turn  int
	track int
	layer uint8
	n     uint32
}

type frame struct {
	got         int
	first, last int64
}

// NewListener returns one for a load that is played in turns, which begin at these times.
func NewListener(l Load, turns ...time.Time) *Listener {
	x := &Listener{load: l, turns: turns, frames: map[frameKey]*frame{}}
	for range turns {
		x.delays = append(x.delays, make([]time.Duration, 0, int(l.Packets()*l.Measured.Seconds()*1.1)))
	}
	return x
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
		turn := x.turn(time.Unix(0, at))
		if turn < 0 {
			continue
		}
		delay := time.Duration(now.UnixNano() - at)
		x.delays[turn] = append(x.delays[turn], delay)
		if track >= x.load.Cameras {
			x.voices = append(x.voices, delay)
			continue
		}
		x.bytes += len(rtp)
		k := frameKey{turn, track, layer, binary.BigEndian.Uint32(rtp[4:])}
		f := x.frames[k]
		if f == nil {
			f = &frame{first: at}
			x.frames[k] = f
		}
		f.got++
		f.first, f.last = min(f.first, at), now.UnixNano()
	}
}

// turn is that in which what was offered at a moment counts, -1 if it does not.
func (x *Listener) turn(at time.Time) int {
	return slices.IndexFunc(x.turns, func(begin time.Time) bool {
		since := at.Sub(begin)
		return since >= x.load.Warm && since < x.load.Warm+x.load.Measured
	})
}

// Result is what became of all that was offered in the time that is measured.
func (x *Listener) Result(cpu time.Duration) Heard {
	x.mu.Lock()
	defer x.mu.Unlock()
	seconds := x.load.Measured.Seconds() * float64(len(x.turns))
	delays := slices.Concat(x.delays...)
	h := Heard{Packets: len(delays), VoicesHeard: len(x.voices), Voices: offered(x.load.Voices, seconds, voiceEvery),
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
	h.PacketsP50, h.PacketsP99, _ = percentiles(delays)
	for _, d := range x.delays {
		var t Turn
		t.PacketsP50, t.PacketsP99, _ = percentiles(d)
		h.Turns = append(h.Turns, t)
	}
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

// machine is what all cores did, since they began.
type machine struct{ busy, stolen time.Duration }

// look reads /proc/stat, in hundredths of a second: user, nice, system, idle, iowait,
// irq, softirq, steal.
func look() (m machine) {
	b, _ := os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(b), "\n")
	for i, word := range strings.Fields(line) {
		n, _ := strconv.Atoi(word)
		d := time.Duration(n) * 10 * time.Millisecond
		switch i {
		case 1, 2, 3, 6, 7:
			m.busy += d
		case 8:
			m.stolen = d
		}
	}
	return m
}

// Used is the processor time of this process, and how often a thread of it waited.
func Used() (cpu time.Duration, switches int64) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), u.Nvcsw
}
