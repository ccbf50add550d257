package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// opusSilence is 20 ms of nothing.
var opusSilence = []byte{0xf8, 0xff, 0xfe}

// encode pipes the tracks through ffmpeg, so that no second clear copy touches the
// disk.
func (p *plan) encode(ctx context.Context, o ExportOptions) error {
	ffmpeg, err := findFFmpeg(string(o.Format) + " with these tracks")
	if err != nil {
		return err
	}
	if o.Format == MP4 {
		if err := p.prime(ctx, ffmpeg); err != nil {
			return err
		}
	}
	args := append([]string{"-f", "matroska", "-i", "pipe:0", "-map", "0"}, p.codecArgs(o.Format, o.To == nil)...)
	pace := []string{"-fps_mode", "vfr"}
	if o.To != nil && o.Format == MP4 {
		// Where fragments end inside of a gap players do not agree on how long it is.
		pace = []string{"-fps_mode", "cfr", "-r", "30"}
	}
	args = slices.Concat(args, pace, []string{"-map_metadata", "0", "-max_muxing_queue_size", "4096"})
	return p.ffmpeg(ctx, ffmpeg, o, args, func(ctx context.Context, in []*os.File) error { return p.write(ctx, in[0], nil, MKV) })
}

func findFFmpeg(what string) (string, error) {
	path, err := exec.LookPath("ffmpeg")
	if err != nil {
		return "", fmt.Errorf("%s needs ffmpeg, which is not installed: install the package ffmpeg, or export as mkv", what)
	}
	return path, nil
}

// ffmpeg runs a job from pipes into the file or the sink. A file gets its index in
// front, a sink a stream of fragments, which needs none.
func (p *plan) ffmpeg(ctx context.Context, path string, o ExportOptions, args []string, feed func(ctx context.Context, in []*os.File) error) error {
	j := job{path: path, nice: o.Nice, inputs: strings.Count(" "+strings.Join(args, " "), " -i pipe:"), feed: feed}
	if o.To != nil {
		flags := []string{}
		if o.Format == MP4 {
			flags = []string{"-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", "2000000"}
		}
		out := &lengthened{to: o.To, duration: p.summary.Duration}
		j.out, j.args = out, slices.Concat(args, flags, []string{"-f", string(o.Format.muxer()), "pipe:1"})
		return errors.Join(j.run(ctx), out.flush())
	}
	tmp, err := os.CreateTemp(filepath.Dir(o.Path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	j.args = slices.Concat(args, []string{"-movflags", "+faststart", "-f", string(o.Format.muxer()), tmp.Name()})
	if err := errors.Join(tmp.Close(), j.run(ctx)); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), o.Path)
}

// muxer is what ffmpeg calls the format.
func (f Format) muxer() string {
	if f == MKV {
		return "matroska"
	}
	return string(f)
}

// prime lets the tracks that start late begin with black or silence. ffmpeg
// writes nothing until every track has been decoded once and would keep the
// whole meeting in memory until the last attendee joins.
func (p *plan) prime(ctx context.Context, ffmpeg string) error {
	for i, s := range p.scans {
		if s.timeline.at(s.first) < 100_000 {
			continue
		}
		switch s.mime {
		case mimeOpus, mimeRED:
			p.primers[i] = opusSilence
		case mimeVP8, mimeVP9, mimeAV1:
			black, err := blackFrame(ctx, ffmpeg, s)
			if err != nil {
				return err
			}
			p.primers[i] = black
		}
	}
	return nil
}

// blackFrame makes a black keyframe of the track's codec and size.
func blackFrame(ctx context.Context, ffmpeg string, s *scan) ([]byte, error) {
	codec := map[string]string{mimeVP8: "libvpx", mimeVP9: "libvpx-vp9", mimeAV1: "libaom-av1"}[s.mime]
	cmd := exec.CommandContext(ctx, ffmpeg, "-nostdin", "-loglevel", "error",
		"-f", "lavfi", "-i", fmt.Sprintf("color=black:size=%dx%d", s.width, s.height),
		"-frames:v", "1", "-c:v", codec, "-f", "ivf", "pipe:1")
	var complaints tail
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, complaints.explain(err)
	}
	const fileHeader, frameHeader = 32, 12
	if len(out) < fileHeader+frameHeader {
		return nil, errors.New("ffmpeg made no black frame")
	}
	size := uint64(binary.LittleEndian.Uint32(out[fileHeader:]))
	if out = out[fileHeader+frameHeader:]; uint64(len(out)) < size {
		return nil, errors.New("ffmpeg made half a black frame")
	}
	return out[:size], nil
}

// codecArgs chooses the encoder of each track.
func (p *plan) codecArgs(f Format, copies bool) (args []string) {
	for i, s := range p.scans {
		n := strconv.Itoa(i)
		switch {
		case f == WebM && s.mime == mimeH264:
			args = append(args, "-c:"+n, "libvpx", "-deadline:"+n, "realtime", "-cpu-used:"+n, "6", "-b:"+n, "1500k", "-auto-alt-ref:"+n, "0", "-filter:"+n, fitFilter(s))
		case f == WebM:
			args = append(args, "-c:"+n, "copy")
		case !isVideo(s.mime):
			// The gaps of muted microphones become silence, since players of
			// MP4 do not agree on what a hole in AAC means.
			args = append(args, "-c:"+n, "aac", "-b:"+n, "128k", "-filter:"+n, "aresample=async=1:min_hard_comp=0.1:first_pts=0")
		case s.mime == mimeH264 && !s.resized && copies:
			args = append(args, "-c:"+n, "copy")
		default:
			args = append(args, "-c:"+n, "libx264", "-preset:"+n, "veryfast", "-crf:"+n, "23", "-pix_fmt:"+n, "yuv420p", "-filter:"+n, fitFilter(s))
		}
		title := p.scans[i].name()
		args = append(args, "-metadata:s:"+n, "title="+title, "-metadata:s:"+n, "handler_name="+title)
	}
	return args
}

// fitFilter shows pictures of changing size, as simulcast gives them, in one of
// the largest size, rounded up to what H.264 can code.
func fitFilter(s *scan) string {
	w, h := (s.width+1)&^1, (s.height+1)&^1
	return fmt.Sprintf("scale=%d:%d:force_original_aspect_ratio=decrease,pad=%d:%d:(ow-iw)/2:(oh-ih)/2,setsar=1", w, h, w, h)
}
