package record

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"strconv"
	"time"
)

// Who speaks when, for the speaker view: each voice is decoded to its loudness, and
// the loudest one has the picture until somebody else has been louder for a while.

const (
	// levelRate in Hz is enough for speech, whose vowels lie below 4 kHz.
	levelRate = 8000
	// levelSpan is the stretch whose loudness is one figure: about a syllable and its pause.
	levelSpan = 500 * time.Millisecond
	// quietest in full scale (-46 dB) is the least that counts as speaking: rooms hum below.
	quietest = 0.005
	// takeTurn is how many stretches somebody else must be the loudest for the picture to
	// go to them: a cough or a "yes" does not take it.
	takeTurn = 3
	// mostTurns bounds a film's turns (see turns): ffmpeg reads them as one formula.
	mostTurns = 1000
)

// turn is a stretch in which somebody has the picture.
type turn struct {
	who      string
	from, to time.Duration
}

// voice is somebody's loudness, stretch by stretch from the start of the recording.
type voice struct {
	who    string
	levels []float64
}

// turns decodes the voices and says who has the picture when.
func (p *plan) turns(ctx context.Context, ffmpeg string, o ExportOptions) ([]turn, error) {
	var voices []voice
	for i, s := range p.scans {
		if isVideo(s.mime) {
			continue
		}
		l := &loudness{}
		j := job{path: ffmpeg, nice: o.Nice, inputs: 1, out: l,
			args: []string{"-copyts", "-f", "matroska", "-i", "pipe:0", "-af", "aresample=async=1:min_hard_comp=0.1:first_pts=0", "-ac", "1", "-ar", strconv.Itoa(levelRate), "-f", "s16le", "pipe:1"},
			feed: func(ctx context.Context, in []*os.File) error { return p.only(i).write(ctx, in[0], nil, MKV) }}
		if err := j.run(ctx); err != nil {
			return nil, err
		}
		voices = append(voices, voice{s.track.Meta.Participant, l.levels})
	}
	var cameras []string
	for _, c := range p.cells() {
		if c.screen() == 0 {
			cameras = append(cameras, c.who)
		}
	}
	return takeTurns(voices, cameras, p.summary.Duration), nil
}

// takeTurns gives the picture to the loudest, of those with a camera, from the start
// to the end. Where nobody speaks whoever had it keeps it; at first it is the first
// camera's.
func takeTurns(voices []voice, cameras []string, length time.Duration) (turns []turn) {
	if len(cameras) == 0 {
		return nil
	}
	seen := map[string]bool{}
	for _, c := range cameras {
		seen[c] = true
	}
	hold := max(takeTurn, int(length/levelSpan)/mostTurns)
	now, rival, louder := turn{who: cameras[0]}, "", 0
	for i := range int(length / levelSpan) {
		loudest := loudestAt(voices, seen, i)
		if loudest == "" || loudest == now.who {
			rival, louder = "", 0
			continue
		}
		if loudest != rival {
			rival, louder = loudest, 0
		}
		if louder++; louder < hold {
			continue
		}
		// The turn began when they began to speak.
		now.to = time.Duration(i+1-hold) * levelSpan
		turns = append(turns, now)
		now, rival, louder = turn{who: loudest, from: now.to}, "", 0
	}
	now.to = length + time.Second
	return append(turns, now)
}

func loudestAt(voices []voice, seen map[string]bool, i int) (who string) {
	level := quietest
	for _, v := range voices {
		if seen[v.who] && i < len(v.levels) && v.levels[i] > level {
			who, level = v.who, v.levels[i]
		}
	}
	return who
}

// loudness measures samples of 16 bits, one channel, as they come.
type loudness struct {
	levels []float64
	odd    []byte // the first half of a sample
	sum    float64
	n      int
}

// Write takes all.
func (l *loudness) Write(b []byte) (int, error) {
	all := b
	if len(l.odd) > 0 && len(b) > 0 {
		l.take(int16(binary.LittleEndian.Uint16([]byte{l.odd[0], b[0]})))
		l.odd, b = l.odd[:0], b[1:]
	}
	for ; len(b) >= 2; b = b[2:] {
		l.take(int16(binary.LittleEndian.Uint16(b)))
	}
	l.odd = append(l.odd, b...)
	return len(all), nil
}

func (l *loudness) take(v int16) {
	f := float64(v) / (1 << 15)
	l.sum += f * f
	if l.n++; l.n == levelRate*int(levelSpan/time.Millisecond)/1000 {
		l.levels = append(l.levels, math.Sqrt(l.sum/float64(l.n)))
		l.sum, l.n = 0, 0
	}
}
