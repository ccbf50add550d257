package record

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// niceness is how far ffmpeg gives way where it is asked to: behind everything that
// carries live media, before what only fills idle time.
const niceness = 15

// job is one run of ffmpeg, fed through pipes. It is killed when its context ends,
// and when it cannot be fed: half a meeting must not look like a whole one.
type job struct {
	path   string
	args   []string
	nice   bool
	inputs int       // "-i pipe:…" of args: 0 is its stdin, the others begin at 3
	out    io.Writer // takes what it writes to pipe:1; may be nil
	feed   func(ctx context.Context, in []*os.File) error
}

// inputName is what args call the n-th input.
func inputName(n int) string {
	if n == 0 {
		return "pipe:0"
	}
	return "pipe:" + strconv.Itoa(2+n)
}

func (j *job) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var complaints tail
	cmd := exec.CommandContext(ctx, j.path, append([]string{"-nostdin", "-loglevel", "error", "-y"}, j.args...)...)
	cmd.Stderr, cmd.Stdout = &complaints, j.out
	cmd.WaitDelay = 5 * time.Second // for what it leaves open; it is dead by then
	in, err := j.connect(cmd)
	if err != nil {
		return err
	}
	defer closeAll(in)
	err = cmd.Start()
	closeInputs(cmd)
	if err != nil {
		return fmt.Errorf("ffmpeg: %w", err)
	}
	if j.nice {
		// Who may not even give way goes on: the job is only less polite.
		syscall.Setpriority(syscall.PRIO_PROCESS, cmd.Process.Pid, niceness) //nolint:errcheck
	}
	fed := j.feed(ctx, in)
	closeAll(in)
	if fed != nil {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case fed != nil && !errors.Is(fed, syscall.EPIPE):
		return fed
	case err != nil:
		return complaints.explain(err)
	}
	return fed // ffmpeg left early and calls it a success
}

// connect makes the pipes and returns our ends of them.
func (j *job) connect(cmd *exec.Cmd) (in []*os.File, err error) {
	for n := range j.inputs {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(in)
			closeInputs(cmd)
			return nil, err
		}
		in = append(in, w)
		if n == 0 {
			cmd.Stdin = r
		} else {
			cmd.ExtraFiles = append(cmd.ExtraFiles, r)
		}
	}
	return in, nil
}

func closeInputs(cmd *exec.Cmd) {
	if f, ok := cmd.Stdin.(*os.File); ok {
		f.Close()
	}
	closeAll(cmd.ExtraFiles)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close() // a second time does no harm
	}
}

// tail keeps the last of what a program says.
type tail struct{ b []byte }

// maxTail is about six lines of ffmpeg's.
const maxTail = 500

// Write takes all.
func (t *tail) Write(b []byte) (int, error) {
	t.b = append(t.b, b...)
	t.b = t.b[max(0, len(t.b)-maxTail):]
	return len(b), nil
}

func (t *tail) explain(err error) error {
	return fmt.Errorf("ffmpeg: %w: %s", err, strings.TrimSpace(string(t.b)))
}

// lengthened writes how long the film is into the head of a stream of MP4 fragments,
// which ffmpeg cannot know when it writes it. Whatever else comes passes unchanged.
//
//	| size 4 | "moov" | size 4 | "mvhd" | 0, flags 4 | created 4 | changed 4 | scale 4 | duration 4 | …   (ISO 14496-12, 8.2.2)
type lengthened struct {
	to       io.Writer
	duration time.Duration
	head     []byte
	passed   bool
}

// mvhdEnd is where the duration ends, from the first byte of moov.
const mvhdEnd = 8 + 8 + 4*5

// maxHead bounds what waits for the mvhd; ffmpeg writes it behind 40 bytes.
const maxHead = 4 << 10

// Write holds the head back until the duration is in it.
func (l *lengthened) Write(b []byte) (int, error) {
	if l.passed {
		return l.to.Write(b)
	}
	l.head = append(l.head, b...)
	at := strings.Index(string(l.head), "moov") - 4
	if at < 0 && len(l.head) < maxHead || at >= 0 && len(l.head) < at+mvhdEnd {
		return len(b), nil
	}
	if at >= 0 && string(l.head[at+12:at+16]) == "mvhd" && l.head[at+16] == 0 {
		v := l.head[at+8:]
		scale := binary.BigEndian.Uint32(v[20:])
		binary.BigEndian.PutUint32(v[24:], uint32(l.duration.Seconds()*float64(scale)))
	}
	return len(b), l.flush()
}

// flush passes on what is held back.
func (l *lengthened) flush() error {
	if l.passed {
		return nil
	}
	l.passed = true
	_, err := l.to.Write(l.head)
	l.head = nil
	return err
}
