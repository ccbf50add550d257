// Package sfu is the media plane of one node: published tracks (UpTrack), their
// packet caches, and the copies that leave for each receiver (DownTrack).
//
// It knows nothing of sockets, peers, rooms or policies: packets come in through
// Ingest with the time they arrived, and leave through sinks. It starts no
// goroutine and reads no clock.
package sfu

import (
	"math/bits"
	"time"
)

// TrackID names a published track in the whole mesh ("TR_…").
type TrackID string

// Kind is audio or video.
type Kind uint8

// The kinds of track.
const (
	Audio Kind = iota
	Video
)

// String returns the SDP media name (RFC 8866 section 5.14).
func (k Kind) String() string {
	if k == Audio {
		return "audio"
	}
	return "video"
}

// Layer is a size of the picture, 0 the smallest: a simulcast layer, or a
// spatial layer of SVC. Audio and single-layer video use layer 0.
type Layer uint8

// MaxLayers bounds the layers of a track (LiveKit clients send up to three).
const MaxLayers = 3

// MaxTemporal bounds the temporal layers of a layer: what lies above counts as
// the highest.
const MaxTemporal = 4

// LayerSet is a set of layers, bit i for Layer(i).
type LayerSet uint8

// Has reports whether the set has the layer.
func (s LayerSet) Has(l Layer) bool { return s&(1<<l) != 0 }

// With returns the set with the layer added.
func (s LayerSet) With(l Layer) LayerSet { return s | 1<<l }

// highest returns the highest layer of the set, 0 for the empty set.
func (s LayerSet) highest() Layer { return Layer(max(bits.Len8(uint8(s)), 1) - 1) }

// Codec describes what an UpTrack carries; it is the same on every node.
type Codec struct {
	MimeType    string `json:"mime"`       // "audio/opus", "video/VP8", "video/H264"
	ClockRate   uint32 `json:"clock_rate"` // Hz
	Channels    uint16 `json:"channels,omitempty"`
	SDPFmtpLine string `json:"fmtp,omitempty"`
}

// Packet is one RTP packet on its way through the node. Raw and everything
// that points into it are valid only during the call that passes the packet;
// who keeps it copies it.
type Packet struct {
	Layer    Layer  // the stream: the simulcast layer, 0 for SVC
	Spatial  Layer  // the size: Layer for simulcast, the spatial layer for SVC
	Temporal uint8  // the temporal layer, 0 the slowest
	Raw      []byte // the whole RTP packet as it arrived from the publisher (no SRTP, padding kept)
	Payload  []byte // inside Raw, without header, extensions and padding
	Type     uint8  // payload type
	Seq      uint16
	TS       uint32 // RTP timestamp, in units of the codec's clock rate
	Marker   bool
	Keyframe bool // this packet starts a keyframe of its stream
	Arrival  time.Time

	desc     descriptor
	elements elements
	start    uint16 // the payload's place in Raw
	epoch    uint32 // changes when the stream's numbering starts anew: other SSRC, jump, end of a mute
	ext      int64  // Seq without the wrap, counted by the UpTrack
	serial   uint64 // counts what came into the stream's cache
}

// Level is the audio level that the publisher's packet states (RFC 6464): 0 for
// the loudest to 127 for silence, in -dBov. voice is the voice activity flag.
func (p *Packet) Level() (level uint8, voice, ok bool) {
	if p.elements.has&(1<<extLevel) == 0 {
		return 127, false, false
	}
	b := p.elements.at[extLevel].of(p.Raw)
	return b[0] & 0x7f, b[0]&0x80 != 0, true
}

// SenderReport is the part of an RTCP sender report (RFC 3550 section 6.4.1)
// that ties a layer's RTP clock to the publisher's wall clock.
type SenderReport struct {
	NTP     uint64 // 64-bit NTP timestamp of the publisher
	RTP     uint32 // the same instant on the layer's RTP clock
	Packets uint32
	Octets  uint32
	Arrival time.Time // when this node received it
}

// Inbound is one RTP packet as it came from the publisher or another node. Raw
// is valid, and left unchanged, during the call that passes it.
type Inbound struct {
	Raw     []byte
	Arrival time.Time
}

// Out is where packets leave from: a batch of messages that Flush sends. It
// belongs to one goroutine.
type Out interface {
	// Reserve returns room for n bytes, valid until Flush.
	Reserve(n int) []byte
	Flush()
}

// Writer sends the packets of one DownTrack on, towards its receiver. It is
// called under the DownTrack's lock, so that packets leave in order; it must not
// block and not call back.
type Writer interface {
	// Write takes a packet that lies in room from out.Reserve. stampAt is the
	// offset of the two bytes that are to hold the transport-wide sequence
	// number (draft-holmer-rmcat-transport-wide-cc-extensions-01); 0: there are none.
	Write(out Out, rtp []byte, stampAt int) error
}

// Scratch is an Out for writers that are done with a packet when Write returns:
// every Reserve gives the same room.
type Scratch struct{ buf []byte }

// Reserve implements Out.
func (s *Scratch) Reserve(n int) []byte {
	if n > cap(s.buf) {
		s.buf = make([]byte, max(n, maxRTP))
	}
	return s.buf[:n]
}

// Flush implements Out.
func (s *Scratch) Flush() {}

// Sink receives the packets of an UpTrack: a DownTrack, a link to another
// node, a recorder. Calls come from the goroutine that reads the publisher's
// packets, one burst of a layer at a time but different layers from different
// goroutines; a sink never blocks.
type Sink interface {
	// Wants is the set of layers the sink needs now; others are not offered.
	// Call UpTrack.WantsChanged after the answer changes. It is asked under the
	// UpTrack's lock and must not call back.
	Wants() LayerSet
	// Offer hands over packets of one layer in the order of their arrival; they
	// are valid only during the call. It must not call SetMuted of the UpTrack,
	// which waits for the packets under way.
	Offer(burst []Packet, out Out)
	// Report hands over a sender report of a layer, wanted or not, from the
	// goroutine that reads RTCP.
	Report(l Layer, sr SenderReport)
}
