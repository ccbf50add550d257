package room

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/rtc"
	"github.com/domicile/domicile/node/sfu"
	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/residency"
	"github.com/livekit/protocol/livekit"
)

// The messages that nodes of one room exchange over their links. Every one is
// JSON, so that a node ignores fields which a newer node has added.
const (
	KindHello        relay.Kind = 0x10 + iota // a node → the room's home: I am in the room, with these numbers
	KindRoster                                // home → nodes: the room's record and its nodes
	KindParticipants                          // node → node: the records of the participants it serves
	KindSubscribe                             // node → node that has a track: send me these layers of it
	KindTrackOpen                             // its answer: the track comes under this alias
	KindTrackClosed                           // its answer: the track does not come, or no longer
	KindKeyframe                              // node → node that it gets a track from: a decoder needs a keyframe
	KindLayers                                // the other way: the layers that carry packets now
	KindData                                  // node → node: a data packet of a participant
	KindSpeaking                              // node → node: who speaks among its participants
	KindDataAsk                               // node → publisher's node: send reliable data again
	KindDataHead                              // publisher's node → node: how far reliable data was sent
	KindQuality                               // node → node: how good its participants' connections are
	KindTrackVia                              // publisher's node → node: get the track from that node
)

// maxMessage bounds a decoded message; relay refuses larger ones already, this
// is the second lock on the door.
const maxMessage = 1 << 20

// Record is what the home writes about a room.
type Record struct {
	Name             string     `json:"name"`
	SID              string     `json:"sid"`
	Tenant           string     `json:"tenant,omitempty"` // whose room it is; empty is no tenant's
	Policy           string     `json:"policy"`
	Pseudonym        string     `json:"pseudonym,omitempty"` // of the room in receipts; see residency/evidence
	Metadata         string     `json:"metadata,omitempty"`
	EmptyTimeout     uint32     `json:"empty_timeout,omitempty"`     // seconds
	DepartureTimeout uint32     `json:"departure_timeout,omitempty"` // seconds
	MaxParticipants  uint32     `json:"max_participants,omitempty"`
	CreatedMS        int64      `json:"created_ms"` // Unix milliseconds
	Recording        *Recording `json:"recording,omitempty"`
	RecordingProblem string     `json:"recording_problem,omitempty"` // why the last recording ended early
	Term             uint64     `json:"term,omitempty"`              // of the home that wrote it last; 0: by a node that knows no terms
	Versions         Versions   `json:"versions,omitzero"`           // when the fields that change were written
}

// SameTerms reports whether two records put the room under the same policy of the
// same tenant.
func (r Record) SameTerms(other Record) bool {
	return r.Policy == other.Policy && r.Tenant == other.Tenant
}

// Recording says where a room is being recorded.
type Recording struct {
	ID      string             `json:"id"`
	Node    residency.NodeName `json:"node"`
	Country residency.Country  `json:"country"`
	SinceMS int64              `json:"since_ms"`         // Unix milliseconds
	Part    int                `json:"part,omitempty"`   // of a recording that went on after its node was lost; 0 and 1: the first
	Egress  []Egress           `json:"egress,omitempty"` // who wants what of the room; none: the host, everything
}

// recordingID is the id of the recording under way, "" if there is none.
func (r *Record) recordingID() string {
	if r.Recording == nil {
		return ""
	}
	return r.Recording.ID
}

// Presence is a node's part in a room, as the node itself states it.
type Presence struct {
	Node         residency.NodeName `json:"node"`
	Participants int                `json:"participants"`
	Outside      bool               `json:"outside,omitempty"`  // serves a participant from outside the media zone (R3)
	Recorder     bool               `json:"recorder,omitempty"` // records the room
	Who          uint32             `json:"who,omitempty"`      // digest of its participants' sids; see remote.differs
	Told         string             `json:"told,omitempty"`     // id of the recording of which its participants have been told
}

// Present reports whether the node takes part at all.
func (p Presence) Present() bool { return p.Participants > 0 || p.Recorder }

// Hello tells the home about a node's presence. It carries the record, so that
// a home that has just taken over can rebuild the room from its nodes.
type Hello struct {
	Presence Presence `json:"presence"`
	Record   Record   `json:"record"`
	HandOver bool     `json:"hand_over,omitempty"` // the node has recorded the room, leaves, and the recording may go on elsewhere
}

// Roster is the home's view of a room, sent whole.
type Roster struct {
	Home   residency.NodeName `json:"home"`
	Seq    uint64             `json:"seq"` // rises with every change by this home
	Record Record             `json:"record"`
	Nodes  []Presence         `json:"nodes"`
	// Deleted tells the nodes that the room is over for everybody.
	Deleted bool `json:"deleted,omitempty"`
}

// ParticipantRecord is one participant as the node that serves it states it.
type ParticipantRecord struct {
	Version uint64                      `json:"version"` // rises with every change
	Info    []byte                      `json:"info"`    // livekit.ParticipantInfo, protobuf
	Media   map[sfu.TrackID]TrackRecord `json:"media,omitempty"`
	Allow   *Permissions                `json:"allow,omitempty"`  // who may receive the tracks; nil: everybody
	Number  uint64                      `json:"number,omitempty"` // of the connection; see joined
	AgeMS   int64                       `json:"age_ms,omitempty"` // how long ago they joined
	// Moves is how often the participant has been taken over by another node: of two
	// nodes that state it, the one that did so last is right. See takeover.go.
	Moves   uint32 `json:"moves,omitempty"`
	Arrived bool   `json:"arrived,omitempty"` // its media comes to this node: the one before may let go
}

// TrackRecord is what another node has to know of a track to receive it.
type TrackRecord struct {
	Codec      sfu.Codec      `json:"codec"`
	Available  sfu.LayerSet   `json:"available"`
	Extensions sfu.Extensions `json:"ext"`               // as the publisher negotiated them: packets travel as they came
	SVC        bool           `json:"svc,omitempty"`     // one stream carries all the spatial layers
	RED        uint8          `json:"red,omitempty"`     // payload type of redundant audio
	Streams    []rtc.Stream   `json:"streams,omitempty"` // the publisher's, for a node that takes it over
}

// Participants carries changes of participant records. With Whole set, Here
// names every participant of the node, and whoever is not in it has left: so a
// lost change heals, and a node with many participants can tell of them in
// several messages.
type Participants struct {
	Presence Presence            `json:"presence"`
	Changed  []ParticipantRecord `json:"changed,omitempty"`
	Left     []string            `json:"left,omitempty"` // participant sids
	Whole    bool                `json:"whole,omitempty"`
	Here     []string            `json:"here,omitempty"` // participant sids, with Whole
	Tell     bool                `json:"tell,omitempty"` // the sender knows nothing of the receiver's participants
	// Kept says, with Tell, that the sender has forgotten nothing that it was asked for:
	// it only doubts what it knows of the participants.
	Kept bool `json:"kept,omitempty"`
}

// Subscribe asks for layers of a track; no layers ends the subscription. The
// publisher's node is told by it, too, what is wanted of a track that comes from
// another node.
type Subscribe struct {
	Track  sfu.TrackID        `json:"track"`
	Layers sfu.LayerSet       `json:"layers"`         // that the sender, and all who get it from there, want
	Own    sfu.LayerSet       `json:"own,omitempty"`  // of these, what is watched at the sender
	Able   bool               `json:"able,omitempty"` // the sender can get it from another node than the publisher's
	From   residency.NodeName `json:"from,omitempty"` // the other node from which it comes there now
	Lost   residency.NodeName `json:"lost,omitempty"` // the other node from which it was to come, and does not
}

// TrackOpen answers Subscribe: the track's packets come under Alias.
type TrackOpen struct {
	Track     sfu.TrackID  `json:"track"`
	Alias     uint32       `json:"alias"`
	Available sfu.LayerSet `json:"available"`
	Rates     sfu.Rates    `json:"rates"`
	// Path are the nodes by which it comes, from the publisher's to the sender. The
	// publisher's node leaves it out; another that does not get the track itself has none.
	Path []residency.NodeName `json:"path,omitempty"`
}

// TrackVia names the node from which the receiver is to get a track.
type TrackVia struct {
	Track sfu.TrackID        `json:"track"`
	Plan  uint64             `json:"plan"` // rises with every plan of the track
	Node  residency.NodeName `json:"node"`
}

// TrackClosed says that a track does not come, and why.
type TrackClosed struct {
	Track  sfu.TrackID `json:"track"`
	Reason string      `json:"reason"`
	Again  bool        `json:"again,omitempty"` // it will, when it is asked for again
}

// Keyframe asks the publisher's node for a keyframe.
type Keyframe struct {
	Track sfu.TrackID `json:"track"`
	Layer sfu.Layer   `json:"layer"`
}

// Layers says which layers of a track carry packets now.
type Layers struct {
	Track     sfu.TrackID  `json:"track"`
	Available sfu.LayerSet `json:"available"`
	Rates     sfu.Rates    `json:"rates"` // bit/s, also of layers that are not sent to this node
}

// Data carries one livekit.DataPacket whose sender fields the sending node has set.
type Data struct {
	Reliable bool   `json:"reliable,omitempty"`
	Server   bool   `json:"server,omitempty"` // from the API, in the name of no participant
	Packet   []byte `json:"packet"`
	// Prev is the number of the publisher's reliable message that went to this
	// node before this one, 0 if none did.
	Prev uint32 `json:"prev,omitempty"`
}

// Class says which data class a message belongs to, and so which zone guards it.
func Class(k relay.Kind) residency.Class {
	if k == KindData || k == KindDataAsk || k == KindDataHead {
		return residency.ClassChat
	}
	return residency.ClassSignalling
}

// encode never fails for the message types of this package.
func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("room: encoding %T: %v", v, err))
	}
	return b
}

// decode parses a message and lets it check itself.
func decode[T any](b []byte) (T, error) {
	var v T
	if len(b) > maxMessage {
		return v, fmt.Errorf("message of %d bytes: at most %d", len(b), maxMessage)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return v, fmt.Errorf("message %T: %w", v, err)
	}
	if c, ok := any(&v).(interface{ check() error }); ok {
		if err := c.check(); err != nil {
			return v, fmt.Errorf("message %T: %w", v, err)
		}
	}
	return v, nil
}

// Check reports a record that cannot be one, for a node that is shown it.
func (r *Record) Check() error { return r.check() }

func (r *Record) check() error {
	switch {
	case control.ValidRoomName(r.Name) != nil:
		return errors.New("room record: its name is missing or malformed")
	case !validSID(r.SID):
		return errors.New("room record: its sid is missing or malformed")
	case r.Policy == "":
		return errors.New("room record names no policy")
	case !validTenant(r.Tenant):
		return errors.New("room record: its tenant is malformed")
	case r.Term > maxTerm:
		return fmt.Errorf("room record: term %d", r.Term)
	}
	return control.ValidMetadata(r.Metadata)
}

// validTenant holds for tenants what holds for nodes: see package configs.
func validTenant(s string) bool {
	_, err := residency.ParseNodeName(s)
	return s == "" || err == nil
}

func (h *Hello) check() error { return h.Record.check() }

func (r *Roster) check() error {
	if len(r.Nodes) > 10_000 {
		return fmt.Errorf("roster of %d nodes", len(r.Nodes))
	}
	return r.Record.check()
}

func (p *Participants) check() error {
	for i := range p.Changed {
		if _, err := p.Changed[i].info(); err != nil {
			return err
		}
	}
	return nil
}

// info parses the participant's record and checks that the mesh can hold it.
// Errors quote none of it: it is a person's.
func (p *ParticipantRecord) info() (*livekit.ParticipantInfo, error) {
	info := &livekit.ParticipantInfo{}
	if err := proto.Unmarshal(p.Info, info); err != nil {
		return nil, errors.New("participant record is no ParticipantInfo")
	}
	switch {
	case !validSID(info.Sid):
		return nil, errors.New("participant record: its sid is missing or malformed")
	case control.ValidIdentity(info.Identity) != nil:
		return nil, errors.New("participant record: its identity is missing or malformed")
	case len(info.Tracks) > maxTracks:
		return nil, fmt.Errorf("participant record with %d tracks: at most %d", len(info.Tracks), maxTracks)
	}
	for _, t := range info.Tracks {
		if t == nil || !validSID(t.Sid) || !validStream(t.Stream) {
			return nil, errors.New("participant record: the sid or stream of a track is missing or malformed")
		}
	}
	for _, m := range p.Media {
		if err := m.check(); err != nil {
			return nil, err
		}
	}
	if err := p.Allow.check(); err != nil {
		return nil, err
	}
	return info, nil
}

// maxStreams is what a track can have: a stream and one of repairs for each layer.
const maxStreams = 2 * sfu.MaxLayers

func (t *TrackRecord) check() error {
	if len(t.Streams) > maxStreams {
		return fmt.Errorf("track record with %d streams: at most %d", len(t.Streams), maxStreams)
	}
	for _, s := range []string{t.Codec.MimeType, t.Codec.SDPFmtpLine} {
		if len(s) > maxCodecText || strings.ContainsFunc(s, unicode.IsControl) {
			return errors.New("track record: its codec is malformed")
		}
	}
	return nil
}

const (
	maxSID       = 64  // bytes of a participant's or track's id
	maxCodecText = 512 // bytes of a MIME type or fmtp line
)

// validSID accepts what NewID makes, and nothing that could break out of the
// SDP line, file name or log line in which an id ends up.
func validSID(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != "" && len(s) <= maxSID
}

func (d *Data) check() error {
	if len(d.Packet) == 0 || len(d.Packet) > maxDataPacket {
		return fmt.Errorf("data packet of %d bytes: want 1 to %d", len(d.Packet), maxDataPacket)
	}
	return nil
}

// ReadHello reads a Hello for a node on which the room does not live yet: the
// record it carries and the sender's presence. A recording that it mentions is
// left out; the node that records says so itself.
func ReadHello(body []byte) (Record, Presence, error) {
	h, err := decode[Hello](body)
	h.Record.Recording = nil
	return h.Record, h.Presence, err
}

// Over is the roster of a room that has been deleted, for a node that did not
// hear of it.
func Over(home residency.NodeName, rec Record) []byte {
	return encode(Roster{Home: home, Seq: math.MaxUint64, Record: rec, Deleted: true})
}
