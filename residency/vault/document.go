package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/domicile/domicile/residency"
)

// ID names a recording ("RE_…"). It is also the name of its folder.
type ID string

// TrackID names a track inside a recording. It is also the name of its file.
type TrackID string

var (
	idPattern    = regexp.MustCompile(`^RE_[0-9A-Za-z]{8,64}$`)
	trackPattern = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,63}$`)
)

// ParseID checks an id that comes from outside. What it accepts is safe as the
// name of a folder.
func ParseID(s string) (ID, error) {
	if !idPattern.MatchString(s) {
		return "", fmt.Errorf("recording id %q: want \"RE_\" and 8 to 64 letters or digits", s)
	}
	return ID(s), nil
}

func newID() ID { return ID("RE_" + rand.Text()[:20]) }

func checkTrackID(t TrackID) error {
	if !trackPattern.MatchString(string(t)) {
		return fmt.Errorf("track id %q: want 1 to 64 letters, digits, \"_\" or \"-\"", t)
	}
	return nil
}

// State says how far a recording is.
type State string

// The states of a recording.
const (
	StateRecording   State = "recording"
	StateFinished    State = "finished"    // every track has its final record
	StateInterrupted State = "interrupted" // ended by a crash or a full disk; readable up to there
)

// Meta is what is known of a recording when it starts.
type Meta struct {
	Room    string // sealed: never in clear on the disk
	Tenant  string // whose the room is, as the permit says; sealed likewise
	Policy  string
	Node    residency.NodeName
	Country residency.Country
	After   *After // nil: it goes on from none
}

// After says which recording another one goes on from, because that one's node was
// lost or is leaving.
type After struct {
	ID   ID                 `json:"id"`
	Node residency.NodeName `json:"node"`
	Part int                `json:"part"`   // the number of the one that goes on; the first is 1
	Gap  time.Duration      `json:"gap_ns"` // up to its start: at most so much is in neither
}

// Info describes a recording.
type Info struct {
	ID ID
	Meta
	Started time.Time
	Ended   time.Time // zero while recording
	State   State
	Tracks  []TrackInfo
	Written time.Time // when a track was last added to, by the file system

	Copy     bool                 // Node recorded it, and this vault is another's
	Replicas []residency.NodeName // who has a whole copy, as far as is known here

	// Problem is not nil when the document cannot be opened or was changed;
	// then only ID is certain.
	Problem error
}

// Size is the number of bytes of all tracks on disk.
func (i Info) Size() (n int64) {
	for _, t := range i.Tracks {
		n += t.Size
	}
	return n
}

// TrackInfo describes a track's file.
type TrackInfo struct {
	ID       TrackID `json:"id"`
	Size     int64   `json:"size"` // bytes on disk
	Clusters int     `json:"clusters"`
	Finished bool    `json:"finished"`
	Erased   bool    `json:"erased,omitempty"` // nothing of it is left
}

// TrackMeta is what is known of a track when it starts. All of it is sealed.
type TrackMeta struct {
	TrackID     TrackID       `json:"track"`
	Participant string        `json:"participant"` // identity
	Name        string        `json:"name"`        // the participant's name
	Source      string        `json:"source"`      // "camera", "microphone", "screen_share", …
	Kind        string        `json:"kind"`        // "audio" or "video"
	MimeType    string        `json:"mime"`
	ClockRate   uint32        `json:"clock_rate"`
	Channels    uint16        `json:"channels,omitempty"`
	FmtpLine    string        `json:"fmtp,omitempty"`
	Start       time.Duration `json:"start_ns"` // from the start of the recording, by the node's clock
	// Part is set where a track was gone and came back, or came back in another codec:
	// its first file has the track's id, the second that and "-2", and so on.
	Part int `json:"part,omitempty"`
}

// document is recording.json. In clear it holds ids, times and sizes; Sealed is
// an age file with the same document and its private part, so that the clear
// copy cannot be changed unnoticed.
type document struct {
	Version int                `json:"version"`
	ID      ID                 `json:"id"`
	Policy  string             `json:"policy"`
	Node    residency.NodeName `json:"node"`
	Country residency.Country  `json:"country"`
	Started time.Time          `json:"started"`
	Ended   time.Time          `json:"ended,omitzero"`
	State   State              `json:"state"`
	After   *After             `json:"after,omitempty"`
	Tracks  []TrackInfo        `json:"tracks"`

	Copy     bool                 `json:"copy,omitempty"`     // of a recording of Node's
	Replicas []residency.NodeName `json:"replicas,omitempty"` // who has a whole copy

	Private *private `json:"private,omitempty"`
	Sealed  []byte   `json:"sealed,omitempty"`
}

type private struct {
	Room   string             `json:"room"`
	Tenant string             `json:"tenant,omitempty"`
	Finals map[TrackID][]byte `json:"finals"` // last tag of each finished track

	// Keys opens the tracks of a copy, whose headers are wrapped to the keys of the
	// node that recorded.
	Keys map[TrackID][]byte `json:"keys,omitempty"`

	// Metas says of tracks that this node cannot read whose they are.
	Metas map[TrackID]TrackMeta `json:"metas,omitempty"`
}

const documentFile = "recording.json"

func (d *document) info() Info {
	return Info{
		ID:      d.ID,
		Meta:    Meta{Room: d.Private.Room, Tenant: d.Private.Tenant, Policy: d.Policy, Node: d.Node, Country: d.Country, After: d.After},
		Started: d.Started, Ended: d.Ended, State: d.State,
		Tracks: append([]TrackInfo(nil), d.Tracks...),
		Copy:   d.Copy, Replicas: append([]residency.NodeName(nil), d.Replicas...),
	}
}

func (d *document) track(id TrackID) *TrackInfo {
	for i := range d.Tracks {
		if d.Tracks[i].ID == id {
			return &d.Tracks[i]
		}
	}
	return nil
}

// save seals the document and replaces the one on disk, which survives a crash
// at any moment.
func (d *document) save(dir string, keys *KeyStore) error {
	if !d.Copy {
		return d.saveOn(osLayer{}, dir, keys)
	}
	// That of a copy has the keys of its tracks: the one before must not keep, in blocks
	// that nobody owns any more, the key of one that is erased.
	return blankAfter(filepath.Join(dir, documentFile), func() error { return d.saveOn(osLayer{}, dir, keys) })
}

func (d *document) saveOn(l layer, dir string, keys *KeyStore) error {
	full, err := json.Marshal(d)
	if err != nil {
		return err
	}
	clear := *d
	clear.Private = nil
	if clear.Sealed, err = keys.wrapDocument(d.Private.Tenant, full); err != nil {
		return err
	}
	b, err := json.MarshalIndent(clear, "", "  ")
	if err != nil {
		return err
	}
	return replaceFile(l, dir, documentFile, append(b, '\n'))
}

func loadDocument(dir string, id ID, keys *KeyStore) (*document, error) {
	d, err := readDocument(dir, id, keys)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d, err = readDocument(dir, id, keys) // it may have been replaced while it was read, and overwritten
	}
	return d, err
}

func readDocument(dir string, id ID, keys *KeyStore) (*document, error) {
	b, err := os.ReadFile(filepath.Join(dir, documentFile))
	if err != nil {
		return nil, err
	}
	var clear, full document
	if err := unmarshalStrict(b, &clear); err != nil {
		return nil, err
	}
	if clear.Version != version {
		return nil, fmt.Errorf("document of version %d, want %d", clear.Version, version)
	}
	plain, err := keys.unwrap(clear.Sealed)
	if err != nil {
		return nil, fmt.Errorf("open sealed part: %w", err)
	}
	if err := unmarshalStrict(plain, &full); err != nil {
		return nil, fmt.Errorf("sealed part: %w", err)
	}
	if full.Private == nil || full.ID != id || !sameClear(clear, full) {
		return nil, fmt.Errorf("%w: the clear and the sealed part of %s differ", ErrTampered, documentFile)
	}
	for _, t := range full.Tracks {
		if err := checkTrackID(t.ID); err != nil {
			return nil, err
		}
	}
	return &full, nil
}

func sameClear(a, b document) bool {
	a.Sealed, a.Private, b.Sealed, b.Private = nil, nil, nil, nil
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func unmarshalStrict(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if dec.More() {
		return errors.New("more than one JSON value")
	}
	return nil
}
