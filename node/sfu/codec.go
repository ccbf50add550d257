package sfu

import "strings"

// format is what the media plane must know of a payload: how a keyframe begins,
// which layer a packet is of, and where pictures carry numbers that a switch
// would break.
type format uint8

const (
	formatOpaque format = iota // audio, and codecs we do not read: every packet may begin a stream
	formatRED
	formatVP8
	formatVP9
	formatH264
	formatAV1
)

func formatOf(c Codec) format {
	switch strings.ToLower(c.MimeType) {
	case "audio/red":
		return formatRED
	case "video/vp8":
		return formatVP8
	case "video/vp9":
		return formatVP9
	case "video/h264":
		return formatH264
	case "video/av1":
		return formatAV1
	}
	return formatOpaque
}

// descriptor is what was read of a packet beyond its RTP header. The zero value
// is that of a packet of which nothing is known: of the lowest layer, and
// nothing can begin with it.
type descriptor struct {
	spatial  uint8
	temporal uint8

	keyframe bool // starts a keyframe, of the lowest spatial layer
	begins   bool // starts a frame
	ends     bool // ends a frame
	sync     bool // depends on no frame of its own temporal layer or above
	intra    bool // depends on no earlier picture
	adrift   bool // refers to a structure that is not known any more
	// up[s] has bit t if, from this frame on, spatial layer s and temporal layer t
	// can be decoded by who decodes this frame (AV1 alone says it).
	up [MaxLayers]uint8

	pid     uint16
	frame   uint16 // of a dependency descriptor
	pidMask uint16
	tl0     uint8
	keyIdx  uint8
	// Offsets in the payload, 0 if the field is not there.
	pidAt, tl0At, keyAt uint8
}

// describe reads a packet. dependency is its dependency descriptor or nil, dd
// what those of its stream said so far.
func (f format) describe(payload, dependency []byte, dd *dependencies, svc bool) (d descriptor) {
	switch f {
	case formatVP8:
		d = orNothing(parseVP8(payload))
	case formatVP9:
		d = orNothing(parseVP9(payload, svc))
	case formatH264:
		d.keyframe = keyframeH264(payload)
		d.begins = true
	case formatAV1:
		d.keyframe = keyframeAV1(payload)
		d.begins = len(payload) > 0 && payload[0]&0x80 == 0
	default:
		d.keyframe, d.begins = len(payload) > 0, true
	}
	if dependency != nil {
		d.depend(f, dependency, dd, svc)
	}
	return d
}

// orNothing forgets what was read before the descriptor turned out to be cut.
func orNothing(d descriptor, ok bool) descriptor {
	if !ok {
		return descriptor{}
	}
	return d
}

// depend adds what the dependency descriptor says. Where the payload says it
// too, for VP8 and VP9, the payload is believed: encoders fill it in with care,
// and only the frame number is needed from here.
func (d *descriptor) depend(f format, b []byte, dd *dependencies, svc bool) {
	fr, ok := dd.parse(b)
	d.frame = fr.number
	if f == formatVP8 || f == formatVP9 {
		return
	}
	d.begins, d.ends = fr.begins, fr.ends
	if f == formatAV1 {
		d.keyframe = fr.structure && fr.begins && ok
	}
	if !ok {
		d.adrift = dd.now.known
		return // forwarded to everyone: too much harms less than a hole
	}
	d.temporal = min(fr.temporal, MaxTemporal-1)
	if svc {
		d.spatial = fr.spatial
		d.up = fr.up
	} else {
		d.up[0] = fr.up[0]
	}
}

// patch writes new numbers into b, which starts with the payload that d was read
// from. The width of the picture id stays.
func (d *descriptor) patch(b []byte, n *numbers) {
	if d.pidAt != 0 {
		pid := n.pid & d.pidMask
		if d.pidMask == 0x7f {
			b[d.pidAt] = byte(pid)
		} else {
			b[d.pidAt] = 0x80 | byte(pid>>8)
			b[d.pidAt+1] = byte(pid)
		}
	}
	if d.tl0At != 0 {
		b[d.tl0At] = n.tl0
	}
	if d.keyAt != 0 {
		b[d.keyAt] = b[d.keyAt]&0xe0 | n.keyIdx&0x1f
	}
}
