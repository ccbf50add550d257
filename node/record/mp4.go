package record

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// opusSilence is 20 ms of nothing.
var opusSilence = []byte{0xf8, 0xff, 0xfe}

// writeMP4 pipes the tracks through ffmpeg, so that no second clear copy touches
// the disk.
func (p *plan) writeMP4(ctx context.Context, path string) error {
	ffmpeg, err := exec.LookPath("ffmpeg")
	if err != nil {
		return errors.New("MP4 needs ffmpeg, which is not installed: install the package ffmpeg, or export as mkv")
	}
	if err := p.prime(ctx, ffmpeg); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".export-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(tmp.Close(), p.transcode(ctx, ffmpeg, tmp.Name())); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
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
		case mimeVP8, mimeVP9:
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
	codec := map[string]string{mimeVP8: "libvpx", mimeVP9: "libvpx-vp9"}[s.mime]
	cmd := exec.CommandContext(ctx, ffmpeg, "-nostdin", "-loglevel", "error",
		"-f", "lavfi", "-i", fmt.Sprintf("color=black:size=%dx%d", s.width, s.height),
		"-frames:v", "1", "-c:v", codec, "-f", "ivf", "pipe:1")
	out, err := run(cmd, nil)
	if err != nil {
		return nil, err
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

// transcode runs ffmpeg over the muxed stream.
func (p *plan) transcode(ctx context.Context, ffmpeg, path string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	args := []string{"-nostdin", "-loglevel", "error", "-y", "-f", "matroska", "-i", "pipe:0", "-map", "0"}
	args = append(args, p.codecArgs()...)
	args = append(args, "-fps_mode", "vfr", "-map_metadata", "0", "-movflags", "+faststart",
		"-max_muxing_queue_size", "4096", "-f", "mp4", path)
	cmd := exec.CommandContext(ctx, ffmpeg, args...)
	_, err := run(cmd, func(stdin *os.File) error { return p.write(ctx, stdin, nil) })
	return err
}

// codecArgs chooses the encoder of each track.
func (p *plan) codecArgs() (args []string) {
	for i, s := range p.scans {
		n := strconv.Itoa(i)
		switch {
		case !isVideo(s.mime):
			// The gaps of muted microphones become silence, since players of
			// MP4 do not agree on what a hole in AAC means.
			args = append(args, "-c:"+n, "aac", "-b:"+n, "128k", "-filter:"+n, "aresample=async=1:min_hard_comp=0.1:first_pts=0")
		case s.mime == mimeH264 && !s.resized:
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

// run starts cmd, feeds it and waits; its error carries what cmd said last.
func run(cmd *exec.Cmd, feed func(stdin *os.File) error) (stdout []byte, err error) {
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if feed == nil {
		err = cmd.Run()
	} else {
		err = runFed(cmd, feed)
	}
	if err != nil {
		said := strings.TrimSpace(complaints.String())
		return nil, fmt.Errorf("ffmpeg: %w: %s", err, said[max(0, len(said)-500):])
	}
	return out.Bytes(), nil
}

func runFed(cmd *exec.Cmd, feed func(stdin *os.File) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdin = r
	err = cmd.Start()
	r.Close()
	if err != nil {
		w.Close()
		return err
	}
	fed := errors.Join(feed(w), w.Close())
	if fed != nil {
		cmd.Process.Kill() // half a meeting must not look like a whole one
	}
	return errors.Join(fed, cmd.Wait())
}
