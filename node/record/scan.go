package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/domicile/domicile/residency/vault"
)

// TrackCheck is what a pass over a whole track found.
type TrackCheck struct {
	ID       vault.TrackID
	Frames   int
	Clusters int
	Bytes    int64 // valid bytes of the file
	Finished bool  // false: cut behind Bytes
	Gaps     []Gap `json:",omitempty"` // what is missing in it, and why
}

// Verify opens every cluster of every track and decodes it. An error says that
// the recording was changed or cannot be opened; a track that was cut by a crash
// is no error.
func Verify(ctx context.Context, r *vault.Reader) ([]TrackCheck, error) {
	var checks []TrackCheck
	for _, t := range r.Tracks {
		s, err := scanTrack(ctx, t, func(int) {})
		if err != nil {
			return checks, fmt.Errorf("verify recording %q: %w", r.Info.ID, err)
		}
		checks = append(checks, TrackCheck{
			ID: t.Info.ID, Frames: s.frames,
			Clusters: s.end.Clusters, Bytes: s.end.Offset, Finished: s.end.Finished,
			Gaps: append(moved(r.Info.After, t.Meta), gapsOf(s.gaps)...),
		})
	}
	return checks, nil
}

// scan is what export must know of a track before it writes the first frame.
type scan struct {
	track    *vault.TrackReader
	mime     string // in lower case
	frames   int
	first    int64 // media time of the first frame
	last     int64 // … and of the last
	interval int64 // between the last two frames
	least    int64 // between any two frames at different times; 0 if there are none

	config        []byte // codec's private data
	width, height int    // the largest picture
	resized       bool   // the pictures differ in size

	arrivals []anchor
	reports  []anchor
	gaps     []gap // as they were written
	end      vault.End
	timeline timeline
}

// scanAll looks at tracks, two at once: a scan is mostly opening what is sealed.
func scanAll(ctx context.Context, tracks []*vault.TrackReader, read func(n int)) ([]*scan, error) {
	scans, errs := make([]*scan, len(tracks)), make([]error, len(tracks))
	var wg sync.WaitGroup
	next := make(chan int)
	for range 2 {
		wg.Go(func() {
			for i := range next {
				scans[i], errs[i] = scanTrack(ctx, tracks[i], read)
			}
		})
	}
	for i := range tracks {
		next <- i
	}
	close(next)
	wg.Wait()
	return scans, errors.Join(errs...)
}

func scanTrack(ctx context.Context, t *vault.TrackReader, read func(n int)) (*scan, error) {
	s := &scan{track: t, mime: strings.ToLower(t.Meta.MimeType)}
	c, err := t.Open()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for ctx.Err() == nil {
		cluster, err := c.Next()
		if errors.Is(err, io.EOF) {
			s.end = c.End()
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		read(len(cluster))
		for e, err := range entries(cluster) {
			if err != nil {
				return nil, fmt.Errorf("track %q: %w", t.Info.ID, err)
			}
			s.see(e)
		}
	}
	return nil, ctx.Err()
}

func (s *scan) see(e entry) {
	switch {
	case e.arrival != nil:
		s.arrivals = append(s.arrivals, *e.arrival)
	case e.report != nil:
		s.reports = append(s.reports, *e.report)
	case e.gap != nil:
		s.gaps = append(s.gaps, *e.gap)
	case e.frame != nil:
		s.seeFrame(e.frame)
	}
}

func (s *scan) seeFrame(f *frame) {
	if s.frames == 0 {
		s.first, s.last = f.pts, f.pts
	}
	s.interval = f.pts - s.last
	if s.interval > 0 && (s.least == 0 || s.interval < s.least) {
		s.least = s.interval
	}
	s.last = f.pts
	s.frames++
	if !f.keyframe || !isVideo(s.mime) {
		return
	}
	w, h := s.size(f.data)
	if w == 0 || h == 0 {
		return
	}
	s.resized = s.resized || s.width != 0 && (w != s.width || h != s.height)
	s.width, s.height = max(w, s.width), max(h, s.height)
}

func (s *scan) size(keyframe []byte) (w, h int) {
	switch s.mime {
	case mimeVP8:
		w, h, _ = vp8Size(keyframe)
	case mimeVP9:
		w, h, _ = vp9Size(keyframe)
	case mimeH264, mimeAV1:
		read := avcConfig
		if s.mime == mimeAV1 {
			read = av1Config
		}
		config, cw, ch, err := read(keyframe)
		if err == nil && s.config == nil {
			s.config = config
		}
		w, h = cw, ch
	}
	return w, h
}

// duration is how far the track reaches on the recording's timeline.
func (s *scan) duration() time.Duration {
	if s.frames == 0 {
		return 0
	}
	// The last frame stays for as long as the one before, an audio packet 20 ms.
	hold := min(max(s.interval, 20_000), 200_000)
	return time.Duration(s.timeline.at(s.last)+hold) * time.Microsecond
}

// tick is a time, in ms, that no two pictures of the file are closer than. Camera
// pictures come irregularly; a tool that counts in pictures per second (ffmpeg)
// must not guess a rate at which two of them fall on one count.
func (s *scan) tick() int64 {
	return max(s.least/1000-1, pictureGap) // 1 less: times in the file are rounded
}

// name is what a player shows for the track.
func (s *scan) name() string {
	m := s.track.Meta
	who := m.Name
	if who == "" {
		who = m.Participant
	}
	return strings.TrimSpace(who + " " + m.Source)
}
