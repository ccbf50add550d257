package record

import (
	"errors"
	"fmt"
	"slices"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/av1"
	"github.com/pion/rtp/codecs"
	"github.com/pion/rtp/codecs/av1/obu"
)

// av1Units follows the RTP payload format for AV1 (AOMedia, version 1.0). A temporal
// unit is stored whole, with all of its spatial layers, as OBUs that state their sizes:
// a decoder shows the largest layer that is there.
type av1Units struct {
	packet codecs.AV1Depacketizer
	size   int // bytes of payload of this unit, for a fragment without end
}

func (a *av1Units) begin() { *a = av1Units{} }

// starts trusts a packet behind a hole only if it says that a new coded sequence begins
// (N): otherwise nothing marks the first packet of a temporal unit.
func (*av1Units) starts(payload []byte, contiguous bool) bool {
	const continues, sequence = 0x80, 0x08 // Z and N of the aggregation header
	return payload[0]&continues == 0 && (contiguous || payload[0]&sequence != 0)
}

func (a *av1Units) add(f, payload []byte) ([]byte, error) {
	if a.size += len(payload); a.size > maxFrame {
		return f, errors.New("temporal unit without end")
	}
	b, err := a.packet.Unmarshal(slices.Clone(payload)) // it keeps what goes on in the next packet
	return append(f, b...), err
}

// finish puts a temporal delimiter before a unit with spatial layers: a decoder that
// waits for the largest has to know that it did not come. Others need none, and the
// Matroska mapping would rather have none.
func (a *av1Units) finish(f []byte) ([]byte, bool) {
	if a.packet.Y {
		return nil, false // its last OBU is not whole
	}
	layered, key, seen := false, false, false
	for u := range obus(f) {
		layered = layered || u.header.ExtensionHeader != nil
		if (u.header.Type == obu.OBUFrame || u.header.Type == obu.OBUFrameHeader) && !seen && len(u.payload) > 0 {
			seen = true
			key = u.payload[0]>>5 == 0 // shown anew: no; type: key frame (AV1 section 5.9.2)
		}
	}
	if key {
		_, _, _, err := av1Config(f)
		key = err == nil
	}
	if layered {
		f = append([]byte{byte(obu.OBUTemporalDelimiter)<<3 | 2, 0}, f...)
	}
	return f, key
}

// unit is an OBU of a temporal unit.
type unit struct {
	header  *obu.Header
	payload []byte
}

// obus walks OBUs that state their sizes, up to the first that is wrong.
func obus(f []byte) func(yield func(unit) bool) {
	return func(yield func(unit) bool) {
		for len(f) > 0 {
			h, err := obu.ParseOBUHeader(f)
			if err != nil || !h.HasSizeField {
				return
			}
			f = f[h.Size():]
			size, n, err := obu.ReadLeb128(f)
			if err != nil || uint64(size) > uint64(len(f))-uint64(n) {
				return
			}
			if !yield(unit{h, f[n : n+size]}) {
				return
			}
			f = f[n+size:]
		}
	}
}

// av1Config makes the AV1CodecConfigurationRecord (AV1 in ISO-BMFF, section 2.3) of a
// keyframe, and reads the picture's size, of the largest layer, from its sequence header.
func av1Config(keyframe []byte) (config []byte, width, height int, err error) {
	var s av1.SequenceHeader
	for u := range obus(keyframe) {
		if u.header.Type != obu.OBUSequenceHeader {
			continue
		}
		plain := append([]byte{byte(obu.OBUSequenceHeader) << 3}, u.payload...) // as the parser wants it
		if err := s.Unmarshal(plain); err != nil {
			return nil, 0, 0, fmt.Errorf("sequence header: %w", err)
		}
		bit := func(set bool, at int) byte {
			if set {
				return 1 << at
			}
			return 0
		}
		const version = 0x81 // marker and 1
		c := s.ColorConfig
		config = []byte{version, s.SeqProfile<<5 | s.SeqLevelIdx[0], bit(s.SeqTier[0], 7) | bit(c.HighBitDepth, 6) | bit(c.TwelveBit, 5) |
			bit(c.MonoChrome, 4) | bit(c.SubsamplingX, 3) | bit(c.SubsamplingY, 2) | byte(c.ChromaSamplePosition), 0}
		config = append(config, byte(obu.OBUSequenceHeader)<<3|2)
		config = append(config, obu.WriteToLeb128(uint(len(u.payload)))...)
		return append(config, u.payload...), s.Width(), s.Height(), nil
	}
	return nil, 0, 0, errors.New("keyframe without a sequence header")
}
