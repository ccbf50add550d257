package record

import (
	"errors"
	"slices"

	"github.com/bluenviron/mediacommon/v2/pkg/bits"
	"github.com/pion/rtp/codecs"
)

// vp9Pictures follows RFC 9628. A picture is stored with all of its spatial layers, as a
// superframe (VP9 bitstream specification, annex B) whose last frame is the one that is
// shown: the largest that came. Encoders mark the frames of all layers as shown, since
// receivers over RTP show the last one anyway; players of files would show each.
type vp9Pictures struct {
	ends  []int // of this picture's frames, but the last
	heads vp9Heads
}

// maxLayers is how many frames a superframe can have.
const maxLayers = 8

func (v *vp9Pictures) begin() { v.ends = v.ends[:0] }

// starts accepts pictures without their lowest layers: an encoder that is short of bits
// leaves frames out in each layer by itself. Behind a hole, where nobody knows whether it
// did, only a keyframe is taken, and that has its lowest layer.
func (v *vp9Pictures) starts(payload []byte, _ bool) bool {
	var p codecs.VP9Packet
	_, err := p.Unmarshal(payload)
	return err == nil && p.B
}

func (v *vp9Pictures) add(f, payload []byte) ([]byte, error) {
	var p codecs.VP9Packet
	b, err := p.Unmarshal(payload)
	if err != nil {
		return f, err
	}
	if p.B && len(f) > 0 {
		if len(v.ends) == maxLayers-1 {
			return f, errVP9 // perhaps a picture without end
		}
		v.ends = append(v.ends, len(f))
	}
	return append(f, b...), nil
}

// finish makes the superframe. A frame whose header it cannot read it leaves as it is.
func (v *vp9Pictures) finish(f []byte) ([]byte, bool) {
	var (
		key   bool
		last  vp9Head
		out   []byte
		sizes []int
	)
	from := 0
	for i, end := range append(v.ends, len(f)) {
		layer := f[from:end]
		from = end
		h, err := v.heads.read(layer)
		if i == 0 {
			key = err == nil && h.key
		}
		// The frame before this one would have been shown. It may only be hidden from
		// one of another size: motion vectors of a frame that is shown are used again
		// by the next if that has its size.
		if i > 0 && (h.width != last.width || h.height != last.height) {
			hidden := last.hide(out[len(out)-sizes[i-1]:])
			out, sizes[i-1] = append(out[:len(out)-sizes[i-1]], hidden...), len(hidden)
		}
		last = h
		out, sizes = append(out, layer...), append(sizes, len(layer))
	}
	if len(sizes) == 1 {
		return f, key
	}
	return appendVP9Index(out, sizes), key
}

// appendVP9Index ends a superframe with the sizes of its frames.
func appendVP9Index(f []byte, sizes []int) []byte {
	width := 1
	for most := slices.Max(sizes); most>>(8*width) > 0; {
		width++
	}
	marker := byte(0xc0 | (width-1)<<3 | (len(sizes) - 1))
	f = append(f, marker)
	for _, n := range sizes {
		for range width {
			f, n = append(f, byte(n)), n>>8
		}
	}
	return append(f, marker)
}

// vp9Frames walks the frames of a superframe, or the one that there is.
func vp9Frames(f []byte) [][]byte {
	if len(f) == 0 || f[len(f)-1]&0xe0 != 0xc0 {
		return [][]byte{f}
	}
	marker := f[len(f)-1]
	frames, width := int(marker&7)+1, int(marker>>3&3)+1
	index := len(f) - 2 - frames*width
	if index < 0 || f[index] != marker {
		return [][]byte{f}
	}
	var all [][]byte
	from := 0
	for i := range frames {
		n := 0
		for b := range width {
			n |= int(f[index+1+i*width+b]) << (8 * b)
		}
		if n > index-from {
			return [][]byte{f}
		}
		all, from = append(all, f[from:from+n]), from+n
	}
	return all
}

// vp9Size reads the size of a keyframe: of its largest spatial layer, which is the last.
func vp9Size(f []byte) (width, height int, keyframe bool) {
	var heads vp9Heads
	for i, layer := range vp9Frames(f) {
		h, err := heads.read(layer)
		if err != nil || i == 0 && !h.key {
			break
		}
		width, height, keyframe = h.width, h.height, true
	}
	return width, height, keyframe
}

// vp9Heads reads uncompressed headers (VP9 bitstream specification, 6.2) of frames that
// follow each other, and keeps of each frame that is referred to how large it is.
type vp9Heads struct {
	refs [8]struct{ width, height int }
}

// vp9Head is what is needed of a header.
type vp9Head struct {
	key, shown    bool
	showBit       int // where show_frame stands, in bits
	bits          int // length of the header
	width, height int // 0 if not known
}

var errVP9 = errors.New("not a VP9 frame")

// vp9Bits reads bits, and zeroes behind the end.
type vp9Bits struct {
	data []byte
	at   int
	err  error
}

func (b *vp9Bits) u(n int) int {
	if n == 0 {
		return 0
	}
	v, err := bits.ReadBits(b.data, &b.at, n)
	if err != nil {
		b.err = errVP9
		return 0
	}
	return int(v)
}

func (b *vp9Bits) flag() bool { return b.u(1) == 1 }

// skipIf skips n bits behind a flag that is set.
func (b *vp9Bits) skipIf(n int) {
	if b.flag() {
		b.u(n)
	}
}

// read reads the header of the next frame.
func (r *vp9Heads) read(f []byte) (h vp9Head, err error) {
	b := vp9Bits{data: f}
	if b.u(2) != 2 {
		return h, errVP9
	}
	profile := b.u(1) | b.u(1)<<1
	if profile == 3 {
		b.u(1)
	}
	if b.flag() { // an earlier frame is shown
		ref := r.refs[b.u(3)]
		h.width, h.height, h.shown = ref.width, ref.height, true
		return h, b.err
	}
	h.key = !b.flag()
	h.showBit = b.at
	h.shown = b.flag()
	resilient := b.flag()
	refresh := 0xff
	if h.key {
		b.intra(profile, true)
		r.size(&b, &h)
		b.skipIf(32) // render_size
	} else {
		refresh = r.inter(&b, &h, profile, resilient)
	}
	if !resilient {
		b.u(2) // refresh_frame_context, frame_parallel_decoding_mode
	}
	b.u(2) // frame_context_idx
	b.loopFilter()
	b.u(8) // base_q_idx
	for range 3 {
		b.skipIf(5)
	}
	b.segmentation()
	b.tiles(h.width)
	b.u(16) // header_size_in_bytes
	h.bits = b.at
	if b.err != nil {
		return vp9Head{}, b.err
	}
	for i := range r.refs {
		if refresh>>i&1 == 1 {
			r.refs[i].width, r.refs[i].height = h.width, h.height
		}
	}
	return h, nil
}

// inter reads what a frame that is no keyframe says before its loop filter, and
// returns which references it replaces.
func (r *vp9Heads) inter(b *vp9Bits, h *vp9Head, profile int, resilient bool) (refresh int) {
	intra := !h.shown && b.flag()
	if !resilient {
		b.u(2) // reset_frame_context
	}
	if intra {
		b.intra(profile, profile > 0)
		refresh = b.u(8)
		r.size(b, h)
		b.skipIf(32)
		return refresh
	}
	refresh = b.u(8)
	var refs [3]int
	for i := range refs {
		refs[i] = b.u(3)
		b.u(1) // sign bias
	}
	found := false
	for _, ref := range refs {
		if found = b.flag(); found {
			h.width, h.height = r.refs[ref].width, r.refs[ref].height
			break
		}
	}
	if !found {
		r.size(b, h)
	}
	b.skipIf(32)
	b.u(1) // allow_high_precision_mv
	if !b.flag() {
		b.u(2) // raw_interpolation_filter
	}
	if h.width == 0 {
		b.err = errVP9 // refers to what is not known: the tiles cannot be read
	}
	return refresh
}

func (r *vp9Heads) size(b *vp9Bits, h *vp9Head) { h.width, h.height = b.u(16)+1, b.u(16)+1 }

// intra reads the sync code, and the colours if they are stated.
func (b *vp9Bits) intra(profile int, colours bool) {
	if b.u(24) != 0x498342 {
		b.err = errVP9
	}
	if !colours {
		return
	}
	if profile >= 2 {
		b.u(1) // ten_or_twelve_bit
	}
	const rgb = 7
	odd := profile&1 == 1
	switch space := b.u(3); {
	case space != rgb && odd:
		b.u(4) // range, subsampling, reserved
	case space != rgb || odd:
		b.u(1) // range, or reserved
	}
}

func (b *vp9Bits) loopFilter() {
	b.u(9)        // level, sharpness
	if b.flag() { // loop_filter_delta_enabled
		if b.flag() { // … update
			for range 4 + 2 {
				b.skipIf(7)
			}
		}
	}
}

func (b *vp9Bits) segmentation() {
	if !b.flag() {
		return
	}
	if b.flag() { // update_map
		for range 7 {
			b.skipIf(8)
		}
		if b.flag() { // temporal_update
			for range 3 {
				b.skipIf(8)
			}
		}
	}
	if b.flag() { // update_data
		b.u(1) // abs_delta_update
		for range 8 {
			for _, n := range []int{8 + 1, 6 + 1, 2, 0} { // of the first two, a sign
				b.skipIf(n)
			}
		}
	}
}

func (b *vp9Bits) tiles(width int) {
	columns := (width + 63) / 64
	least, most := 0, 1
	for 64<<least < columns {
		least++
	}
	for columns>>most >= 4 {
		most++
	}
	for n := least; n < most-1 && b.flag(); n++ {
	}
	b.skipIf(1) // rows
}

// hide returns the frame as one that is not shown. A keyframe differs in one bit; in any
// other the flag intra_only follows, 0, and moves the rest of the header.
func (h vp9Head) hide(f []byte) []byte {
	if !h.shown || h.bits == 0 {
		return f
	}
	f = slices.Clone(f)
	f[h.showBit/8] &^= 0x80 >> (h.showBit % 8)
	if h.key {
		return f
	}
	at := h.showBit + 2 // behind error_resilient_mode
	out := make([]byte, (h.bits+1+7)/8, len(f)+1)
	var read, written int
	for read < h.bits {
		if written == at {
			written++
			continue
		}
		bit := bits.ReadBitsUnsafe(f, &read, 1)
		bits.WriteBitsUnsafe(out, &written, bit, 1)
	}
	return append(out, f[(h.bits+7)/8:]...)
}
