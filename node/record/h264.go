package record

import (
	"encoding/binary"
	"errors"

	"github.com/pion/rtp/codecs"
)

// The NAL unit types that matter here (RFC 6184 section 5.2).
const (
	nalSlice = 1 // … to nalIDR: of a picture
	nalIDR   = 5
	nalSPS   = 7
	nalPPS   = 8
	nalAUD   = 9
	nalSTAPA = 24
	nalFUA   = 28
)

// h264 follows RFC 6184, packetization modes 0 and 1. Frames are stored as NAL
// units with four-byte lengths, as Matroska and MP4 want them.
type h264 struct {
	packet   codecs.H264Packet
	sps, pps []byte // the newest seen: keyframes without them get them
}

func (h *h264) begin() { h.packet = codecs.H264Packet{IsAVC: true} }

// starts trusts a packet behind a hole only if it carries what comes first in a
// keyframe: nothing else in H.264 marks the first packet of a frame.
func (h *h264) starts(payload []byte, contiguous bool) bool {
	if len(payload) < 2 {
		return false
	}
	switch t := payload[0] & 0x1f; {
	case t == nalFUA:
		return contiguous && payload[1]&0x80 != 0
	case t == nalSPS || t == nalAUD:
		return true
	case t == nalSTAPA && len(payload) > 3:
		first := payload[3] & 0x1f
		return contiguous || first == nalSPS || first == nalAUD
	}
	return contiguous
}

func (h *h264) add(f, payload []byte) ([]byte, error) {
	b, err := h.packet.Unmarshal(payload)
	if err != nil {
		return f, err
	}
	return append(f, b...), nil
}

// finish stores nothing for a frame without a picture: where one layer of simulcast takes
// over from another, its keyframe may end with the parameter sets.
func (h *h264) finish(f []byte) ([]byte, bool) {
	picture, idr, sps, pps := false, false, []byte(nil), []byte(nil)
	for nal := range nalUnits(f) {
		t := nal[0] & 0x1f
		picture = picture || t >= nalSlice && t <= nalIDR
		switch t {
		case nalIDR:
			idr = true
		case nalSPS:
			sps = nal
		case nalPPS:
			pps = nal
		}
	}
	if sps != nil {
		h.sps = append(h.sps[:0], sps...)
	}
	if pps != nil {
		h.pps = append(h.pps[:0], pps...)
	}
	if !picture {
		return nil, false
	}
	if !idr || len(h.sps) == 0 || len(h.pps) == 0 {
		return f, false
	}
	if sps == nil || pps == nil {
		f = append(appendNAL(appendNAL(nil, h.sps), h.pps), f...)
	}
	return f, true
}

func appendNAL(b, nal []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(nal))), nal...)
}

// nalUnits walks a frame with four-byte lengths, up to the first that is wrong.
func nalUnits(f []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(f) > 4 {
			n := binary.BigEndian.Uint32(f)
			if n == 0 || uint64(n) > uint64(len(f)-4) || !yield(f[4:4+n]) {
				return
			}
			f = f[4+n:]
		}
	}
}

// avcConfig makes the AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section
// 5.3.3.1) of a keyframe, and reads the picture's size from its SPS.
func avcConfig(keyframe []byte) (config []byte, width, height int, err error) {
	var sps, pps []byte
	for nal := range nalUnits(keyframe) {
		switch t := nal[0] & 0x1f; {
		case t == nalSPS && sps == nil:
			sps = nal
		case t == nalPPS && pps == nil:
			pps = nal
		}
	}
	if len(sps) < 4 || pps == nil || len(sps) > 0xffff || len(pps) > 0xffff {
		return nil, 0, 0, errors.New("keyframe without usable parameter sets")
	}
	if width, height, err = spsSize(sps); err != nil {
		return nil, 0, 0, err
	}
	config = []byte{1, sps[1], sps[2], sps[3], 0xff, 0xe1} // lengths of 4 bytes, one SPS
	config = append(binary.BigEndian.AppendUint16(config, uint16(len(sps))), sps...)
	config = append(config, 1)
	config = append(binary.BigEndian.AppendUint16(config, uint16(len(pps))), pps...)
	return config, width, height, nil
}

// spsSize reads the size from a sequence parameter set (ITU-T H.264 section 7.3.2.1.1).
func spsSize(sps []byte) (width, height int, err error) {
	r := &bitReader{b: unescape(sps[1:])}
	profile := r.bits(8)
	r.bits(16) // constraint flags and level
	r.ue()     // id
	chroma, separate := uint32(1), uint32(0)
	switch profile {
	case 100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135:
		if chroma = r.ue(); chroma == 3 {
			separate = r.bits(1)
		}
		r.ue()    // bit depth, luma
		r.ue()    // bit depth, chroma
		r.bits(1) // lossless flag
		if r.bits(1) == 1 {
			r.scalingLists(chroma)
		}
	}
	r.ue() // frame number bits
	switch r.ue() {
	case 0:
		r.ue()
	case 1:
		r.bits(1)
		r.ue()
		r.ue()
		for n := r.ue(); n > 0 && !r.over; n-- {
			r.ue()
		}
	}
	r.ue()    // reference frames
	r.bits(1) // gaps allowed
	mbWidth, mapHeight := r.ue()+1, r.ue()+1
	framesOnly := r.bits(1)
	if framesOnly == 0 {
		r.bits(1)
	}
	r.bits(1) // direct 8×8 inference
	var crop [4]uint32
	if r.bits(1) == 1 {
		for i := range crop {
			crop[i] = r.ue()
		}
	}
	if r.over || mbWidth > 1024 || mapHeight > 1024 {
		return 0, 0, errors.New("sequence parameter set is damaged")
	}
	unitX, unitY := cropUnits(chroma, separate, framesOnly)
	width = int(mbWidth)*16 - int(crop[0]+crop[1])*unitX
	height = int(2-framesOnly)*int(mapHeight)*16 - int(crop[2]+crop[3])*unitY
	if width <= 0 || height <= 0 {
		return 0, 0, errors.New("sequence parameter set crops the whole picture")
	}
	return width, height, nil
}

func cropUnits(chroma, separate, framesOnly uint32) (x, y int) {
	x, y = 1, 1
	if separate == 0 && (chroma == 1 || chroma == 2) {
		x = 2
	}
	if separate == 0 && chroma == 1 {
		y = 2
	}
	return x, y * int(2-framesOnly)
}

// unescape removes the emulation prevention bytes.
func unescape(b []byte) []byte {
	out := make([]byte, 0, len(b))
	for i, c := range b {
		if c == 3 && i >= 2 && b[i-1] == 0 && b[i-2] == 0 {
			continue
		}
		out = append(out, c)
	}
	return out
}

// bitReader reads bits, and zeros past the end.
type bitReader struct {
	b    []byte
	pos  int
	over bool // read past the end, or a number was out of range
}

func (r *bitReader) bits(n int) (v uint32) {
	for range n {
		v <<= 1
		if i := r.pos >> 3; i < len(r.b) {
			v |= uint32(r.b[i]>>(7-r.pos&7)) & 1
		} else {
			r.over = true
		}
		r.pos++
	}
	return v
}

// ue reads an unsigned Exp-Golomb number.
func (r *bitReader) ue() uint32 {
	zeros := 0
	for r.bits(1) == 0 {
		if zeros++; zeros > 20 || r.over {
			r.over = true
			return 0
		}
	}
	return 1<<zeros - 1 + r.bits(zeros)
}

func (r *bitReader) se() int {
	v := int(r.ue())
	if v&1 == 1 {
		return (v + 1) / 2
	}
	return -v / 2
}

func (r *bitReader) scalingLists(chroma uint32) {
	lists := 8
	if chroma == 3 {
		lists = 12
	}
	for i := range lists {
		if r.bits(1) == 0 {
			continue
		}
		size := 16
		if i >= 6 {
			size = 64
		}
		last, next := 8, 8
		for range size {
			if next != 0 {
				next = (last + r.se() + 256) & 0xff
			}
			if next != 0 {
				last = next
			}
		}
	}
}
