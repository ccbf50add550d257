package record

import (
	"bufio"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/domicile/domicile/residency/vault"
)

// Format is the kind of file that Export writes.
type Format string

// The formats of export.
const (
	MKV  Format = "mkv"  // every track as it was sent, nothing encoded again
	WebM Format = "webm" // likewise, but for H.264, which ffmpeg encodes again
	MP4  Format = "mp4"  // H.264 and AAC, by ffmpeg
)

// Sink takes an exported file that is not to lie in clear on this disk. What has been
// written may be written over: a few bytes of the file's head, at its end.
type Sink interface {
	io.Writer
	io.WriterAt
}

// ExportOptions say what to export and where to.
type ExportOptions struct {
	// Path of the file. It appears when it is complete, with mode 0600.
	Path string
	// To takes the file instead, where Path is empty. After an error it holds a part
	// of a file, which nobody should be given.
	To Sink
	// Format, by default MKV; of a composed view MP4, the only one.
	Format Format
	// View puts the tracks into one picture and one sound. Default: all as they are.
	View View
	// Participant limits the export to the tracks of one identity, Track to one track.
	// Default: all.
	Participant string
	Track       vault.TrackID
	// Nice has ffmpeg give way to whatever else the machine does.
	Nice bool
	// Progress is told how many bytes of how many are done. May be nil.
	Progress func(done, total int64)
}

// Summary tells what an exported file holds.
type Summary struct {
	Tracks   int
	Duration time.Duration
	Notes    []string // for people: tracks that were cut, are empty or have gaps
	Gaps     []TrackGaps
}

// TrackGaps is what is missing in a track, and why.
type TrackGaps struct {
	Track vault.TrackMeta
	Gaps  []Gap
}

// Export writes a recording into one file that players open: all tracks on the
// recording's timeline, audio and video in sync. A track that was cut by a crash
// is exported up to the cut, with a note. Frames are streamed; only
// the index and the clock evidence are kept in memory, some 200 kB an hour and track.
//
// The file is in clear: whether it may be written where Path lies is decided by
// the caller.
func Export(ctx context.Context, r *vault.Reader, opts ExportOptions) (Summary, error) {
	sum, err := export(ctx, r, opts)
	if err != nil {
		return Summary{}, fmt.Errorf("export recording %q: %w", r.Info.ID, err)
	}
	return sum, nil
}

func export(ctx context.Context, r *vault.Reader, opts ExportOptions) (Summary, error) {
	if err := opts.check(); err != nil {
		return Summary{}, err
	}
	plan, err := newPlan(ctx, r, opts)
	if err != nil {
		return Summary{}, err
	}
	switch {
	case opts.View != AsSent:
		err = plan.compose(ctx, opts)
	case opts.Format == MP4, opts.Format == WebM && plan.has(mimeH264):
		err = plan.encode(ctx, opts)
	case opts.To != nil:
		err = plan.write(ctx, opts.To, opts.To, opts.Format)
	default:
		err = replace(opts.Path, func(f *os.File) error { return plan.write(ctx, f, f, opts.Format) })
	}
	if err == nil {
		plan.done()
	}
	return plan.summary, err
}

// check fills in what is left open and refuses what there is not.
func (o *ExportOptions) check() error {
	if o.Format == "" {
		o.Format = MKV
		if o.View != AsSent {
			o.Format = MP4
		}
	}
	switch {
	case o.Format != MKV && o.Format != MP4 && o.Format != WebM:
		return fmt.Errorf("format %q is unknown: want %q, %q or %q", o.Format, MKV, WebM, MP4)
	case o.View != AsSent && o.View != Grid && o.View != Speaker:
		return fmt.Errorf("view %q is unknown: want %q or %q", o.View, Grid, Speaker)
	case o.View != AsSent && o.Format != MP4:
		return fmt.Errorf("format %q: a composed view is %s", o.Format, MP4)
	case o.Path == "" && o.To == nil:
		return errors.New("no path to write to")
	}
	return nil
}

// wants reports whether a track belongs into the file.
func (o *ExportOptions) wants(t *vault.TrackReader) bool {
	return (o.Participant == "" || t.Meta.Participant == o.Participant) && (o.Track == "" || t.Info.ID == o.Track)
}

// plan is an export whose tracks have been looked at.
type plan struct {
	started time.Time
	scans   []*scan  // with media, in the order of the file's tracks
	primers [][]byte // by track: a frame to begin with at 0, nil for none
	summary Summary
	read    func(n int)
	done    func()
}

func newPlan(ctx context.Context, r *vault.Reader, opts ExportOptions) (*plan, error) {
	p := &plan{started: r.Info.Started}
	// All tracks of a publisher tell of its clock, also where one alone is wanted.
	whose := map[string]bool{}
	for _, t := range r.Tracks {
		if opts.wants(t) {
			whose[t.Meta.Participant] = true
		}
	}
	tracks := slices.DeleteFunc(slices.Clone(r.Tracks), func(t *vault.TrackReader) bool { return !whose[t.Meta.Participant] })
	p.read, p.done = progress(opts.Progress, tracks)
	var err error
	if p.scans, err = scanAll(ctx, tracks, p.read); err != nil {
		return nil, err
	}
	align(p.scans)
	p.scans = slices.DeleteFunc(p.scans, func(s *scan) bool { return !opts.wants(s.track) })
	for _, s := range p.scans {
		p.note(s)
		p.noteGaps(s, r.Info.After)
	}
	p.scans = slices.DeleteFunc(p.scans, func(s *scan) bool { return s.frames == 0 })
	if len(p.scans) == 0 {
		if opts.Track != "" {
			return nil, fmt.Errorf("no media of track %q", opts.Track)
		}
		if opts.Participant != "" {
			return nil, fmt.Errorf("no media of participant %q", opts.Participant)
		}
		return nil, errors.New("the recording holds no media")
	}
	slices.SortStableFunc(p.scans, func(a, b *scan) int {
		if isVideo(a.mime) != isVideo(b.mime) {
			if isVideo(a.mime) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.timeline.at(a.first), b.timeline.at(b.first))
	})
	p.summary.Tracks = len(p.scans)
	p.primers = make([][]byte, len(p.scans))
	return p, nil
}

// has reports whether a track is of a codec.
func (p *plan) has(mime string) bool {
	return slices.ContainsFunc(p.scans, func(s *scan) bool { return s.mime == mime })
}

func (p *plan) note(s *scan) {
	p.summary.Duration = max(p.summary.Duration, s.duration())
	switch {
	case s.frames == 0 && s.end.Finished:
		p.summary.Notes = append(p.summary.Notes, fmt.Sprintf("track %s holds no media and is left out", s.track.Info.ID))
	case s.frames == 0:
		p.summary.Notes = append(p.summary.Notes, fmt.Sprintf("track %s was cut before its first media and is left out", s.track.Info.ID))
	case !s.end.Finished:
		p.summary.Notes = append(p.summary.Notes, fmt.Sprintf("track %s was cut: it ends at %s", s.track.Info.ID, s.duration().Round(100*time.Millisecond)))
	}
}

// noteGaps lists what is missing in a track, and counts it for people.
func (p *plan) noteGaps(s *scan, after *vault.After) {
	gaps := append(moved(after, s.track.Meta), gapsOf(s.gaps)...)
	if len(gaps) == 0 {
		return
	}
	p.summary.Gaps = append(p.summary.Gaps, TrackGaps{s.track.Meta, gaps})
	var counts [causes]int
	for _, g := range gaps {
		if g.Cause < causes {
			counts[g.Cause]++
		}
	}
	var words []string
	for c, n := range counts {
		if n > 0 {
			words = append(words, fmt.Sprintf("%s %d", Cause(c), n))
		}
	}
	p.summary.Notes = append(p.summary.Notes, fmt.Sprintf("track %s has gaps: %s", s.track.Info.ID, strings.Join(words, ", ")))
}

// progress counts bytes read; every track is read twice.
func progress(tell func(done, total int64), tracks []*vault.TrackReader) (read func(int), end func()) {
	if tell == nil {
		return func(int) {}, func() {}
	}
	var mu sync.Mutex // two tracks are read at once
	var done, total int64
	for _, t := range tracks {
		total += 2 * t.Info.Size
	}
	return func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		tell(min(done, total), total) // a voice is read once more where it is asked who speaks
	}, func() { tell(total, total) }
}

// replace writes a file beside path and renames it when it is complete.
func replace(path string, write func(f *os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	err = errors.Join(write(f), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// write muxes the tracks into w, which can seek if at is not nil.
func (p *plan) write(ctx context.Context, w io.Writer, at io.WriterAt, f Format) error {
	buffered := bufio.NewWriterSize(w, 256<<10)
	var entries []mkvTrack
	first := map[uint64]bool{}
	for i, s := range p.scans {
		e := mkvEntry(i+1, s)
		if !first[e.TrackType] {
			first[e.TrackType], e.FlagDefault = true, 1
		}
		entries = append(entries, e)
	}
	m, err := newMatroska(buffered, at, f, p.started, entries)
	if err != nil {
		return err
	}
	if err := p.mux(ctx, m); err != nil {
		return err
	}
	// What finish goes back to must not be overtaken by the buffer.
	if err := errors.Join(m.flush(), buffered.Flush()); err != nil {
		return err
	}
	return errors.Join(m.finish(p.summary.Duration), buffered.Flush())
}

// mux merges the tracks by time.
func (p *plan) mux(ctx context.Context, m *matroska) error {
	for i, f := range p.primers {
		if f != nil {
			if err := m.frame(uint64(i+1), 0, true, f); err != nil {
				return err
			}
		}
	}
	var q cursors
	defer func() {
		for _, c := range q {
			c.clusters.Close()
		}
	}()
	for i, s := range p.scans {
		clusters, err := s.track.Open()
		if err != nil {
			return err
		}
		c := &cursor{scan: s, number: uint64(i + 1), clusters: clusters, read: p.read}
		q = append(q, c)
		if err := c.advance(); err != nil {
			return err // a scanned track has a first frame
		}
	}
	heap.Init(&q)
	for len(q) > 0 && ctx.Err() == nil {
		c := q[0]
		if err := m.frame(c.number, c.ms, c.keyframe, c.data); err != nil {
			return err
		}
		err := c.advance()
		switch {
		case errors.Is(err, io.EOF):
			c.clusters.Close()
			heap.Pop(&q)
		case err != nil:
			return err
		default:
			heap.Fix(&q, 0)
		}
	}
	return ctx.Err()
}

// cursor walks the frames of one track.
type cursor struct {
	scan     *scan
	number   uint64
	clusters *vault.Clusters
	read     func(n int)
	frames   []frame // read and not yet passed
	ended    bool    // nothing is left to read

	ms       int64
	keyframe bool
	data     []byte
}

// pictureGap is the least time in ms between two pictures; a camera that has
// stalled may hand over several at once.
const pictureGap = 5

// advance goes to the next frame; io.EOF behind the last. It passes over pictures
// that a keyframe replaces at the same moment, as where a better layer of
// simulcast takes over: players call two pictures at one time an error.
func (c *cursor) advance() error {
	for {
		if err := c.fill(2); err != nil {
			return err
		}
		if len(c.frames) == 0 {
			return io.EOF
		}
		f := c.frames[0]
		c.frames = c.frames[1:]
		if len(c.frames) > 0 && isVideo(c.scan.mime) && c.frames[0].keyframe && c.at(c.frames[0]) <= c.at(f) {
			continue
		}
		if next := c.at(f); c.data != nil && isVideo(c.scan.mime) {
			c.ms = max(c.ms+pictureGap, next)
		} else {
			c.ms = max(c.ms, next)
		}
		c.keyframe, c.data = f.keyframe, f.data
		return nil
	}
}

// at is when a frame is shown, in milliseconds.
func (c *cursor) at(f frame) int64 { return (c.scan.timeline.at(f.pts) + 500) / 1000 }

// fill reads until n frames wait, or none are left to read.
func (c *cursor) fill(n int) error {
	for len(c.frames) < n && !c.ended {
		b, err := c.clusters.Next()
		if errors.Is(err, io.EOF) {
			c.ended = true
			return nil
		}
		if err != nil {
			return err
		}
		c.read(len(b))
		// The reader reuses its buffer while the muxer still holds the frames.
		for e, err := range entries(slices.Clone(b)) {
			if err != nil {
				return err
			}
			if e.frame != nil {
				c.frames = append(c.frames, *e.frame)
			}
		}
	}
	return nil
}

// cursors is a heap by time.
type cursors []*cursor

func (q cursors) Len() int { return len(q) }
func (q cursors) Less(i, j int) bool {
	if q[i].ms != q[j].ms {
		return q[i].ms < q[j].ms
	}
	return q[i].number < q[j].number
}
func (q cursors) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *cursors) Push(x any)   { *q = append(*q, x.(*cursor)) }
func (q *cursors) Pop() any {
	old := *q
	c := old[len(old)-1]
	*q = old[:len(old)-1]
	return c
}
