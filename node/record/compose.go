package record

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Composed views. Every track is an input of its own for ffmpeg, which reads of each
// as much as the picture of the moment needs: a camera that is off for half an hour
// would otherwise have it keep half an hour of everybody else in memory.

// View is how the tracks are put into one picture.
type View string

// The views.
const (
	AsSent  View = ""        // not at all: every track by itself
	Grid    View = "grid"    // everybody at a place of their own, from the start to the end
	Speaker View = "speaker" // who speaks, or what they show
)

const (
	viewWidth, viewHeight = 1280, 720
	// viewRate in pictures/s: what players and encoders expect of a film. Cameras of
	// 30 lose every sixth picture.
	viewRate = 25
	// maxCells bounds what is decoded and scaled at once, to what a grid can show in
	// pictures of 256×144 each.
	maxCells = 25
	// maxInputs bounds ffmpeg's inputs: each is two pipes' worth of descriptors and a decoder.
	maxInputs = 400
)

// compose makes the film of a view.
func (p *plan) compose(ctx context.Context, o ExportOptions) error {
	ffmpeg, err := findFFmpeg("a composed view")
	if err != nil {
		return err
	}
	if len(p.scans) > maxInputs {
		return fmt.Errorf("%d tracks: a view is composed of at most %d; export the tracks, or those of one participant", len(p.scans), maxInputs)
	}
	var turns []turn
	if o.View == Speaker {
		if turns, err = p.turns(ctx, ffmpeg, o); err != nil {
			return err
		}
	}
	var args []string
	for i := range p.scans {
		args = append(args, "-f", "matroska", "-i", inputName(i))
	}
	// Times are those of the recording, not of each input's beginning.
	args = append([]string{"-copyts"}, args...)
	args = append(args, "-filter_complex", p.graph(o.View, turns), "-map", "[v]")
	if p.hasKind(false) {
		args = append(args, "-map", "[a]", "-c:a", "aac", "-b:a", "128k")
	}
	args = append(args, "-c:v", "libx264", "-preset", "veryfast", "-crf", "24", "-pix_fmt", "yuv420p", "-r", strconv.Itoa(viewRate), "-g", strconv.Itoa(2*viewRate),
		"-t", seconds(p.summary.Duration))
	return p.ffmpeg(ctx, ffmpeg, o, args, p.feedEach)
}

// feedEach writes every track into its pipe.
func (p *plan) feedEach(ctx context.Context, in []*os.File) error {
	errs := make([]error, len(p.scans))
	var wg sync.WaitGroup
	for i := range p.scans {
		wg.Go(func() {
			errs[i] = p.only(i).write(ctx, in[i], nil, MKV)
			in[i].Close() // the film must not wait for more of this one
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// only is the plan of one track.
func (p *plan) only(i int) *plan {
	return &plan{started: p.started, scans: p.scans[i : i+1], primers: p.primers[i : i+1], summary: p.summary, read: p.read}
}

func (p *plan) hasKind(video bool) bool {
	return slices.ContainsFunc(p.scans, func(s *scan) bool { return isVideo(s.mime) == video })
}

// cell is a place in the picture: a camera or a screen of somebody, however often it
// was switched on.
type cell struct {
	who, source string
	inputs      []int
}

// cells are in order of their first picture; screens come first, since they are to be read.
func (p *plan) cells() (cells []*cell) {
	for i, s := range p.scans {
		if !isVideo(s.mime) {
			continue
		}
		m := s.track.Meta
		at := slices.IndexFunc(cells, func(c *cell) bool { return c.who == m.Participant && c.source == m.Source })
		if at < 0 {
			at = len(cells)
			cells = append(cells, &cell{who: m.Participant, source: m.Source})
		}
		cells[at].inputs = append(cells[at].inputs, i)
	}
	slices.SortStableFunc(cells, func(a, b *cell) int { return cmp.Compare(b.screen(), a.screen()) })
	return cells
}

// screen is 1 for what is to be read.
func (c *cell) screen() int {
	if strings.HasPrefix(c.source, "screen") {
		return 1
	}
	return 0
}

// graph is ffmpeg's description of the view.
func (p *plan) graph(v View, turns []turn) string {
	var g strings.Builder
	fmt.Fprintf(&g, "color=black:s=%dx%d:r=%d:d=%s[c0]", viewWidth, viewHeight, viewRate, seconds(p.summary.Duration))
	n := 0
	lay := func(input, x, y, w, h int, enable string) {
		// The last picture of a camera that is switched off goes away with it.
		fmt.Fprintf(&g, ";[%d:v]scale=%d:%d:force_original_aspect_ratio=decrease,pad=%d:%d:(ow-iw)/2:(oh-ih)/2,setsar=1[v%d];[c%d][v%d]overlay=%d:%d:eof_action=pass%s[c%d]",
			input, w, h, w, h, n, n, n, x, y, enable, n+1)
		n++
	}
	cells := p.cells()
	if len(cells) > maxCells {
		p.summary.Notes = append(p.summary.Notes, fmt.Sprintf("%d of %d pictures are not in the view: it shows %d", len(cells)-maxCells, len(cells), maxCells))
		cells = cells[:maxCells]
	}
	switch v {
	case Speaker:
		// Screens lie above the speaker, for as long as there is one.
		slices.Reverse(cells)
		for _, c := range cells {
			for _, i := range c.inputs {
				lay(i, 0, 0, viewWidth, viewHeight, c.enable(turns))
			}
		}
	default:
		columns := int(math.Ceil(math.Sqrt(float64(len(cells)))))
		for k, c := range cells {
			rows := (len(cells) + columns - 1) / columns
			w, h := viewWidth/columns&^1, viewHeight/rows&^1
			for _, i := range c.inputs {
				lay(i, k%columns*w, k/columns*h, w, h, "")
			}
		}
	}
	fmt.Fprintf(&g, ";[c%d]null[v]", n)
	p.mix(&g)
	return g.String()
}

// enable says in ffmpeg's words when a cell is seen in the speaker view.
func (c *cell) enable(turns []turn) string {
	if c.screen() == 1 {
		return ""
	}
	var when []string
	for _, t := range turns {
		if t.who == c.who {
			when = append(when, fmt.Sprintf("gte(t,%s)*lt(t,%s)", seconds(t.from), seconds(t.to)))
		}
	}
	if len(when) == 0 {
		return ":enable=0"
	}
	return ":enable='" + strings.Join(when, "+") + "'"
}

// mix puts all voices into one, each at its time: gaps become silence.
func (p *plan) mix(g *strings.Builder) {
	var voices []string
	for i, s := range p.scans {
		if !isVideo(s.mime) {
			fmt.Fprintf(g, ";[%d:a]aresample=48000:async=1:min_hard_comp=0.1:first_pts=0[a%d]", i, i)
			voices = append(voices, fmt.Sprintf("[a%d]", i))
		}
	}
	switch len(voices) {
	case 0:
	case 1:
		fmt.Fprintf(g, ";%sanull[a]", voices[0])
	default:
		fmt.Fprintf(g, ";%samix=inputs=%d:duration=longest:normalize=0,alimiter=limit=0.95[a]", strings.Join(voices, ""), len(voices))
	}
}

func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 3, 64) }
