package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/pion/rtp/codecs"

	"github.com/domicile/domicile/node/sfu"
)

// depacketizer turns the payloads of one codec into frames. It sees payloads in
// sequence.
type depacketizer interface {
	// starts reports whether the payload begins a frame. contiguous says that
	// the packet before it was there and ended a frame.
	starts(payload []byte, contiguous bool) bool
	// begin forgets the frame that was being assembled.
	begin()
	// add appends what the payload carries of the frame.
	add(frame, payload []byte) ([]byte, error)
	// finish looks at a whole frame and returns it as it shall be stored, empty
	// if there is nothing to store.
	finish(frame []byte) (data []byte, keyframe bool)
}

// newDepacketizer returns the depacketizer of a codec.
func newDepacketizer(c sfu.Codec) (depacketizer, error) {
	switch strings.ToLower(c.MimeType) {
	case mimeOpus:
		return opus{}, nil
	case mimeRED:
		return red{}, nil
	case mimeVP8:
		return vp8{}, nil
	case mimeVP9:
		return &vp9Pictures{}, nil
	case mimeH264:
		return &h264{}, nil
	case mimeAV1:
		return &av1Units{}, nil
	}
	return nil, fmt.Errorf("codec %q cannot be recorded: want opus, VP8, VP9, AV1 or H264", c.MimeType)
}

// The MIME types that can be recorded, in lower case.
const (
	mimeOpus = "audio/opus"
	mimeRED  = "audio/red"
	mimeVP8  = "video/vp8"
	mimeVP9  = "video/vp9"
	mimeH264 = "video/h264"
	mimeAV1  = "video/av1"
)

func isVideo(mime string) bool { return strings.HasPrefix(strings.ToLower(mime), "video/") }

// opus: a packet is a frame (RFC 7587).
type opus struct{}

func (opus) starts([]byte, bool) bool                { return true }
func (opus) begin()                                  {}
func (opus) add(f, payload []byte) ([]byte, error)   { return append(f, payload...), nil }
func (opus) finish(f []byte) (data []byte, key bool) { return f, true }

// red: Opus with copies of earlier packets in front (RFC 2198). The jitter
// buffer has waited for retransmissions already, so only the newest is used.
type red struct{ opus }

func (red) add(f, payload []byte) ([]byte, error) {
	skip, rest := 0, payload
	for {
		if len(rest) == 0 {
			return f, errors.New("RED header ends early")
		}
		if rest[0]&0x80 == 0 { // the last block's header is one byte
			rest = rest[1:]
			break
		}
		if len(rest) < 4 {
			return f, errors.New("RED header ends early")
		}
		skip += int(binary.BigEndian.Uint16(rest[2:]) & 0x3ff)
		rest = rest[4:]
	}
	if skip > len(rest) {
		return f, errors.New("RED blocks end early")
	}
	return append(f, rest[skip:]...), nil
}

// vp8 follows RFC 7741.
type vp8 struct{}

func (vp8) begin() {}

func (vp8) starts(payload []byte, _ bool) bool {
	var p codecs.VP8Packet
	_, err := p.Unmarshal(payload)
	return err == nil && p.S == 1 && p.PID == 0
}

func (vp8) add(f, payload []byte) ([]byte, error) {
	var p codecs.VP8Packet
	b, err := p.Unmarshal(payload)
	return append(f, b...), err
}

func (vp8) finish(f []byte) ([]byte, bool) {
	_, _, key := vp8Size(f)
	return f, key
}

// vp8Size reads the header of a keyframe (RFC 6386 section 9.1).
func vp8Size(f []byte) (width, height int, keyframe bool) {
	if len(f) < 10 || f[0]&1 != 0 || f[3] != 0x9d || f[4] != 0x01 || f[5] != 0x2a {
		return 0, 0, false
	}
	return int(binary.LittleEndian.Uint16(f[6:]) & 0x3fff), int(binary.LittleEndian.Uint16(f[8:]) & 0x3fff), true
}
