// Package jsep negotiates WebRTC descriptions (RFC 9429, RFC 3264) for a node: it
// says which media sections a connection has, what a client sends on them, and
// under which numbers the node sends on them. A node is no browser: it sends each
// track in a section of its own, takes what a client publishes with all its
// layers, bundles everything on one transport, and speaks ICE lite.
//
// It performs no I/O, reads no clock and rolls no dice; ICE credentials,
// fingerprints and candidates are given to it for each description. It carries no
// media, knows no rooms and picks no layers.
package jsep

import (
	"errors"
	"fmt"
	"slices"
)

// Kind is what a media section carries.
type Kind uint8

// The kinds of media. Data channels have a section too, which is of neither kind.
const (
	Audio Kind = iota
	Video
	data
	other // a section that is kept in its place and rejected
)

func (k Kind) String() string {
	switch k {
	case Audio:
		return "audio"
	case Video:
		return "video"
	case data:
		return "application"
	}
	return "other"
}

// Config is what a connection negotiates.
type Config struct {
	// SessionID stands in the o= line of every description. It should be random,
	// below 1<<62 (RFC 9429 section 5.2.1).
	SessionID uint64
	// FirstSSRC should be random. The SSRCs of the connection follow from it; none
	// is ever given to two tracks, whose packets could meet under one SRTP nonce.
	FirstSSRC uint32
	// Data says that the node's offers begin with a section for data channels. In
	// a client's offer such a section is always taken.
	Data bool
	// MaxMessage is the largest data message the node takes, in bytes. 0: 64 KiB.
	MaxMessage uint32
	// RED takes and offers redundant audio (RFC 2198) beside Opus. A browser sends
	// it where Prefer asks for "audio/red".
	RED bool
	// FreshSections keeps media sections from being used a second time, for
	// clients made with pion, as LiveKit's Go SDK is: they hear nothing on a
	// section that was unused in two offers in a row. Such a session can be sent
	// 511 tracks in all. Leave it false for browsers and phones.
	FreshSections bool
}

// defaultMaxMessage is what every SCTP stack can take, in bytes.
const defaultMaxMessage = 64 << 10

// Key names a sender within its Peer; the caller chooses it.
type Key string

// Sender is the wish to send a track to the client.
type Sender struct {
	Key  Key
	Kind Kind
	// StreamID is "owner|stream"; in a media section that had another track
	// before, and for a stream that an SDP cannot name, the track's own id takes
	// the place of the stream.
	StreamID string
	TrackID  string
	// Codec is what the track's packets are in.
	Codec Codec
	// Stereo says of Opus that its two channels differ.
	Stereo bool
}

// Local is our side of the transport, as it stands when a description is written.
type Local struct {
	Ufrag, Pwd  string
	Fingerprint string   // "sha-256 AB:CD:…"
	Candidates  []string // values of a=candidate; they are all there are
}

// Remote is the client's side of the transport. Its candidates do not matter: the
// node learns addresses from connectivity checks (ICE lite).
type Remote struct {
	Ufrag, Pwd   string
	Fingerprints []Fingerprint
	Setup        string // "active", "passive" or "actpass"
	SCTPPort     uint16 // 0: no data channels
	MaxMessage   uint32 // bytes the client takes in a data message
}

// Fingerprint is a hash of the client's certificate (RFC 8122).
type Fingerprint struct {
	Hash  string // "sha-256"
	Value string // "AB:CD:…"
}

// Change is what a description of the client says.
type Change struct {
	Remote       Remote
	ICERestarted bool
	// Incoming is everything the client sends now, by section.
	Incoming []Incoming
	// Gone is what it sent before and does not any more.
	Gone []Incoming
	// Bound has the senders whose numbers are new or others than before. Where the
	// SSRC is the one it had, the stream goes on: its packets are counted on.
	Bound []Binding
	// Unbound has the senders that lost their section and wait for another one, or
	// that the client does not want: nothing more is to be sent for them.
	Unbound []Key
}

// Binding says how a sender's track is to be sent.
type Binding struct {
	Key Key
	MID string
	// Unsupported says that the client cannot decode the sender's codec: nothing
	// is to be sent, and Codec says what it was. The room may know another codec.
	Unsupported bool
	// Codec and PayloadType are the client's format for the sender's codec: the one
	// with the same parameters if there is one. A track in RED comes out as Opus
	// with PlainOpus where the client does not take RED.
	Codec       Codec
	PayloadType uint8
	PlainOpus   bool
	// OpusPayloadType is that of Opus beside RED: a track in RED may have packets
	// without redundancy.
	OpusPayloadType uint8
	SSRC            uint32
	// RTXSSRC and RTXPayloadType are 0 where the client takes no retransmission
	// format (RFC 4588).
	RTXSSRC        uint32
	RTXPayloadType uint8
	Feedback       Feedback
	Extensions     Extensions
	CNAME          string // for SDES in RTCP (RFC 3550 section 6.5.1)
}

// placement is a sender in a section. It is not changed once it is in a state.
type placement struct {
	sender   Sender
	streamID string
	ssrc     uint32
	rtx      uint32  // 0: audio
	bound    Binding // as it was told, zero before
	refused  bool    // the client does not want it: nothing is sent
}

// section is one m= section. Its place never changes (RFC 3264 section 8).
type section struct {
	mid      string
	kind     Kind
	rejected bool
	used     bool       // a track was sent in it
	snd      *placement // the track that is sent in it now
	taken    *media     // what the client said of it last, nil before
	in       *Incoming  // what the client sends in it
}

// state is a negotiated description. States are copied, not changed: what fails
// half way leaves the one before.
type state struct {
	sections []section
	remote   *Remote
	active   bool // we begin the DTLS handshake
	bundled  bool
}

func (s *state) clone() *state {
	c := *s
	c.sections = slices.Clone(s.sections)
	return &c
}

// Peer is one connection. It is not safe for concurrent use.
type Peer struct {
	cfg     Config
	wishes  []Sender
	prefers map[string]string // MIME type by track id
	seats   map[string]Seat   // by the MID of the section; see seats.go
	leads   bool              // we begin the DTLS handshake if the client's offer leaves it to us
	stable  *state            // both sides agree on it
	offered *state            // our offer, which waits for its answer
	taken   *state            // the client's offer, to be answered
	role    role
	version uint64 // of the o= line
	ssrc    uint32 // the last one given
}

// role is who offers on a connection; it does not change.
type role uint8

const (
	undecided role = iota
	offers
	answers
)

// New returns a connection without sections.
func New(cfg Config) *Peer {
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = defaultMaxMessage
	}
	return &Peer{cfg: cfg, stable: &state{bundled: true}, ssrc: cfg.FirstSSRC, prefers: make(map[string]string)}
}

// AddSender puts a track into the next description. It fails for a key that is
// in use, and when there is no media section left for the track.
func (p *Peer) AddSender(s Sender) error {
	switch {
	case s.Key == "":
		return errors.New("add sender: it has no key")
	case s.Kind != Audio && s.Kind != Video:
		return fmt.Errorf("add sender %q: kind %d", s.Key, s.Kind)
	case !token(cname(s.StreamID)) || !token(s.TrackID):
		return fmt.Errorf("add sender %q: stream %q, track %q: want words of 1 to %d characters", s.Key, s.StreamID, s.TrackID, maxToken)
	case p.wished(s.Key):
		return fmt.Errorf("add sender %q: there is one already", s.Key)
	case !p.room():
		return fmt.Errorf("add sender %q: all %d media sections are used", s.Key, maxSections)
	}
	p.wishes = append(p.wishes, s)
	return nil
}

// RemoveSender takes a track out of the next description. It reports whether
// there was one; nothing may be sent for it from now on.
func (p *Peer) RemoveSender(k Key) bool {
	n := len(p.wishes)
	p.wishes = slices.DeleteFunc(p.wishes, func(s Sender) bool { return s.Key == k })
	return len(p.wishes) < n
}

// Prefer asks the client to send a track (by the track id of its msid) in a
// codec, as far as it offers that one: it comes first in the answers from now on.
// An empty MIME type leaves the choice to the client again, as does the track's
// end.
func (p *Peer) Prefer(trackID, mime string) error {
	if mime == "" {
		delete(p.prefers, trackID)
		return nil
	}
	if _, known := p.prefers[trackID]; !known && len(p.prefers) >= maxSections {
		return fmt.Errorf("prefer %q for track %q: %d tracks have a preference already", mime, trackID, len(p.prefers))
	}
	p.prefers[trackID] = mime
	return nil
}

// Pending reports whether a new description would say something new about what
// is sent: an offer is due, or the client should be asked for one.
func (p *Peer) Pending() bool {
	placed := 0
	for _, s := range p.latest().sections {
		if s.snd == nil {
			continue
		}
		if !p.wished(s.snd.sender.Key) {
			return true
		}
		placed++
	}
	return placed < len(p.wishes)
}

// Missing says how many more sections the client has to offer so that every
// sender has one; none where the node offers.
func (p *Peer) Missing() (audio, video int) {
	if p.role == offers {
		return 0, 0
	}
	var need [2]int
	st := p.latest()
	placed := st.placed()
	for _, s := range p.wishes {
		if !placed[s.Key] {
			need[s.Kind]++
		}
	}
	for i := range st.sections {
		if s := &st.sections[i]; p.open(s) && s.taken.dir.receives() && need[s.kind] > 0 {
			need[s.kind]--
		}
	}
	room := maxSections - len(st.sections)
	need[Audio] = min(need[Audio], room)
	return need[Audio], min(need[Video], room-need[Audio])
}

// MIDs names the track in each section in which one is sent, as the description
// that was written or taken last has it.
func (p *Peer) MIDs() map[string]string {
	mids := make(map[string]string)
	for _, s := range p.latest().sections {
		if s.sends() {
			mids[s.mid] = s.snd.sender.TrackID
		}
	}
	return mids
}

// Sections counts the media sections, used or not.
func (p *Peer) Sections() int { return len(p.latest().sections) }

// latest is the state of the description that was written or taken last.
func (p *Peer) latest() *state {
	switch {
	case p.offered != nil:
		return p.offered
	case p.taken != nil:
		return p.taken
	}
	return p.stable
}

func (p *Peer) wished(k Key) bool {
	return slices.ContainsFunc(p.wishes, func(s Sender) bool { return s.Key == k })
}

// room reports whether one more sender finds a section.
func (p *Peer) room() bool {
	st := p.latest()
	placed := st.placed()
	waiting, free := 1, maxSections-len(st.sections)
	for _, s := range p.wishes {
		if !placed[s.Key] {
			waiting++
		}
	}
	for i := range st.sections {
		if p.open(&st.sections[i]) {
			free++
		}
	}
	if len(st.sections) == 0 && p.cfg.Data {
		free--
	}
	return waiting <= free
}

// newSSRC walks through all numbers in a scattered order: an odd step comes back
// to where it began after 2³² steps. The step is 2³² divided by the golden ratio.
func (p *Peer) newSSRC() uint32 {
	for {
		if p.ssrc += 0x9e3779b1; p.ssrc != 0 {
			return p.ssrc
		}
	}
}

func (s *state) placed() map[Key]bool {
	placed := make(map[Key]bool)
	for _, sec := range s.sections {
		if sec.snd != nil {
			placed[sec.snd.sender.Key] = true
		}
	}
	return placed
}

// sends reports whether a track is sent in the section, or will be.
func (s *section) sends() bool {
	return s.snd != nil && !s.rejected && !s.snd.refused && !s.snd.bound.Unsupported
}

// open reports whether a track may be placed in a section in the next
// description. The client must have seen it empty in the last one, or it would
// not notice that another track begins.
func (p *Peer) open(s *section) bool {
	return s.kind <= Video && !s.rejected && s.snd == nil && !(p.cfg.FreshSections && s.used)
}

// clear takes senders that are not wished for any more out of their sections. It
// says which sections are open.
func (p *Peer) clear(st *state) (open []bool) {
	open = make([]bool, len(st.sections))
	for i := range st.sections {
		s := &st.sections[i]
		open[i] = p.open(s)
		if s.snd != nil && !p.wished(s.snd.sender.Key) {
			s.snd = nil
		}
	}
	return open
}

// place puts a sender into a section of a state, under numbers of its own.
func (p *Peer) place(s *section, want Sender) {
	at := &placement{sender: want, streamID: want.StreamID, ssrc: p.newSSRC()}
	if want.Kind == Video {
		at.rtx = p.newSSRC()
	}
	if s.used || !token(want.StreamID) {
		at.streamID = ownStream(want.StreamID, want.TrackID)
	}
	if seat := p.seats[s.mid]; !s.used && seat.TrackID == want.TrackID {
		at.streamID = seat.StreamID
	}
	s.snd, s.used = at, true
}

var errOutstanding = errors.New("an offer of ours waits for its answer")
