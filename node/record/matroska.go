package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/at-wat/ebml-go"
)

// The Matroska elements (RFC 9559) that are written. An element whose size must
// not depend on its value, because it is written again at the end, says size=8.
type (
	ebmlHeader struct {
		EBMLVersion        uint64 `ebml:"EBMLVersion"`
		EBMLReadVersion    uint64 `ebml:"EBMLReadVersion"`
		EBMLMaxIDLength    uint64 `ebml:"EBMLMaxIDLength"`
		EBMLMaxSizeLength  uint64 `ebml:"EBMLMaxSizeLength"`
		DocType            string `ebml:"EBMLDocType"`
		DocTypeVersion     uint64 `ebml:"EBMLDocTypeVersion"`
		DocTypeReadVersion uint64 `ebml:"EBMLDocTypeReadVersion"`
	}
	mkvSeek struct {
		SeekID       []byte `ebml:"SeekID"`
		SeekPosition uint64 `ebml:"SeekPosition,size=8"`
	}
	mkvSeekHead struct {
		Seek []mkvSeek `ebml:"Seek"`
	}
	mkvInfo struct {
		TimecodeScale uint64    `ebml:"TimecodeScale"`
		MuxingApp     string    `ebml:"MuxingApp"`
		WritingApp    string    `ebml:"WritingApp"`
		DateUTC       time.Time `ebml:"DateUTC"`
		Duration      float64   `ebml:"Duration"`
	}
	mkvAudio struct {
		SamplingFrequency float64 `ebml:"SamplingFrequency"`
		Channels          uint64  `ebml:"Channels"`
	}
	mkvVideo struct {
		PixelWidth  uint64 `ebml:"PixelWidth"`
		PixelHeight uint64 `ebml:"PixelHeight"`
	}
	mkvTrack struct {
		TrackNumber uint64 `ebml:"TrackNumber"`
		TrackUID    uint64 `ebml:"TrackUID"`
		TrackType   uint64 `ebml:"TrackType"`
		FlagDefault uint64 `ebml:"FlagDefault"`
		FlagLacing  uint64 `ebml:"FlagLacing"`
		Name        string `ebml:"Name"`
		Language    string `ebml:"Language"`
		// DefaultDuration in ns; an upper bound of the rate, see scan.tick.
		DefaultDuration uint64    `ebml:"DefaultDuration,omitempty"`
		CodecID         string    `ebml:"CodecID"`
		CodecPrivate    []byte    `ebml:"CodecPrivate,omitempty"`
		SeekPreRoll     uint64    `ebml:"SeekPreRoll,omitempty"`
		Audio           *mkvAudio `ebml:"Audio"`
		Video           *mkvVideo `ebml:"Video"`
	}
	mkvTracks struct {
		TrackEntry []mkvTrack `ebml:"TrackEntry"`
	}
	mkvCuePosition struct {
		CueTrack           uint64 `ebml:"CueTrack"`
		CueClusterPosition uint64 `ebml:"CueClusterPosition"`
	}
	mkvCuePoint struct {
		CueTime           uint64         `ebml:"CueTime"`
		CueTrackPositions mkvCuePosition `ebml:"CueTrackPositions"`
	}
	mkvCues struct {
		CuePoint []mkvCuePoint `ebml:"CuePoint"`
	}
)

var (
	idSegment = []byte{0x18, 0x53, 0x80, 0x67}
	idInfo    = []byte{0x15, 0x49, 0xa9, 0x66}
	idTracks  = []byte{0x16, 0x54, 0xae, 0x6b}
	idCues    = []byte{0x1c, 0x53, 0xbb, 0x6b}
)

const (
	trackVideo = 1
	trackAudio = 2

	// The clusters of the exported file, far below the 32 s that a block's
	// time can reach.
	mkvClusterSpan  = 1000 // ms
	mkvClusterBytes = 4 << 20
)

// matroska writes one file. Where w can seek the file ends up with its duration
// and an index; a pipe gets a stream without them.
type matroska struct {
	w      io.Writer
	at     io.WriterAt // nil for a pipe
	pos    int64
	start  int64 // of the segment's content
	head   int64 // position of the seek head
	info   mkvInfo
	infoAt int64
	tracks int64
	cueOn  uint64 // number of the track whose keyframes are indexed

	cluster []mkvBlock // in order of time
	since   int64      // ms: of the first
	bytes   int
	heads   []byte
	cues    mkvCues
}

func newMatroska(w io.Writer, at io.WriterAt, f Format, started time.Time, tracks []mkvTrack) (*matroska, error) {
	m := &matroska{w: w, at: at}
	m.info = mkvInfo{TimecodeScale: 1e6, MuxingApp: "domicile", WritingApp: "domicile", DateUTC: started}
	m.cueOn = cueTrack(tracks)
	header := struct {
		EBML ebmlHeader `ebml:"EBML"`
	}{ebmlHeader{1, 1, 4, 8, docType(f), 4, 2}}
	if err := m.marshal(&header); err != nil {
		return nil, err
	}
	// Unknown size until finish knows better.
	if err := m.write(append(idSegment, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)); err != nil {
		return nil, err
	}
	m.start, m.head = m.pos, m.pos
	if at != nil {
		if err := m.marshal(m.seekHead(0)); err != nil {
			return nil, err
		}
	}
	m.infoAt = m.pos
	if err := m.marshal(m.infoElement()); err != nil {
		return nil, err
	}
	m.tracks = m.pos
	return m, m.marshal(&struct {
		Tracks mkvTracks `ebml:"Tracks"`
	}{mkvTracks{tracks}})
}

// docType is what a reader is told that it may expect: WebM is the part of Matroska
// that browsers know.
func docType(f Format) string {
	if f == WebM {
		return "webm"
	}
	return "matroska"
}

// cueTrack picks the first video track, else the first track.
func cueTrack(tracks []mkvTrack) uint64 {
	for _, t := range tracks {
		if t.TrackType == trackVideo {
			return t.TrackNumber
		}
	}
	return tracks[0].TrackNumber
}

func (m *matroska) infoElement() any {
	return &struct {
		Info mkvInfo `ebml:"Info"`
	}{m.info}
}

func (m *matroska) seekHead(cues int64) any {
	rel := func(pos int64) uint64 { return uint64(max(pos-m.start, 0)) }
	return &struct {
		SeekHead mkvSeekHead `ebml:"SeekHead"`
	}{mkvSeekHead{[]mkvSeek{{idInfo, rel(m.infoAt)}, {idTracks, rel(m.tracks)}, {idCues, rel(cues)}}}}
}

// frame adds a frame; its data is kept until the cluster is written. Times, in
// ms, never go back.
func (m *matroska) frame(track uint64, ms int64, keyframe bool, data []byte) error {
	index := keyframe && track == m.cueOn
	if len(m.cluster) > 0 {
		age := ms - m.since
		// With a cluster at each indexed keyframe a seek begins to read there.
		if age >= mkvClusterSpan || m.bytes >= mkvClusterBytes || index && age >= mkvClusterSpan/4 {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	if len(m.cluster) == 0 {
		m.since, m.bytes = ms, 0
		if index && m.at != nil {
			m.cues.CuePoint = append(m.cues.CuePoint, mkvCuePoint{uint64(ms), mkvCuePosition{track, uint64(m.pos - m.start)}})
		}
	}
	m.bytes += len(data)
	m.cluster = append(m.cluster, mkvBlock{track, int16(ms - m.since), keyframe, data})
	return nil
}

// mkvBlock is a frame that waits for its cluster to be written.
type mkvBlock struct {
	track    uint64
	ms       int16 // since the cluster's time
	keyframe bool
	data     []byte
}

// flush writes a cluster (RFC 9559, sections 5.1.3 and 10.2), by hand: these are all
// the bytes of the file but a few, and a library would copy and reflect on each frame.
//
//	1f 43 b6 75 | size | e7 88 time | a3 | size | track | ms 2 | flags 1 | frame | a3 …
//
// A size is 8 bytes long, its first byte 0x01; so is the track's number.
func (m *matroska) flush() error {
	if len(m.cluster) == 0 {
		return nil
	}
	const timecode, perBlock = 1 + 1 + 8, 1 + 8 + 8 + 2 + 1
	content := timecode + len(m.cluster)*perBlock + m.bytes
	head := appendSize(append(m.heads[:0], 0x1f, 0x43, 0xb6, 0x75), uint64(content))
	head = binary.BigEndian.AppendUint64(append(head, 0xe7, 0x88), uint64(m.since))
	err := m.write(head)
	for _, b := range m.cluster {
		head = appendSize(append(head[:0], 0xa3), uint64(8+2+1+len(b.data)))
		head = binary.BigEndian.AppendUint16(appendSize(head, b.track), uint16(b.ms))
		flags := byte(0)
		if b.keyframe {
			flags = 0x80
		}
		err = errors.Join(err, m.write(append(head, flags)), m.write(b.data))
	}
	m.heads = head
	clear(m.cluster)
	m.cluster = m.cluster[:0]
	return err
}

// appendSize appends a number below 2^56 as one of variable size, in 8 bytes.
func appendSize(b []byte, n uint64) []byte { return binary.BigEndian.AppendUint64(b, n|1<<56) }

// finish writes what is left and, where w can seek, the index, the duration and
// the sizes.
func (m *matroska) finish(duration time.Duration) error {
	if err := m.flush(); err != nil || m.at == nil {
		return err
	}
	cues := m.pos
	if err := m.marshal(&struct {
		Cues mkvCues `ebml:"Cues"`
	}{m.cues}); err != nil {
		return err
	}
	m.info.Duration = float64(duration) / float64(time.Millisecond)
	size := appendSize(nil, uint64(m.pos-m.start))
	_, err := m.at.WriteAt(size, m.start-8)
	return errors.Join(err, m.rewrite(m.head, m.infoAt-m.head, m.seekHead(cues)), m.rewrite(m.infoAt, m.tracks-m.infoAt, m.infoElement()))
}

// rewrite replaces an element by one of the same size.
func (m *matroska) rewrite(pos, size int64, v any) error {
	var b bytes.Buffer
	if err := ebml.Marshal(v, &b); err != nil {
		return err
	}
	if int64(b.Len()) != size {
		return fmt.Errorf("element at %d has %d bytes, had %d", pos, b.Len(), size)
	}
	_, err := m.at.WriteAt(b.Bytes(), pos)
	return err
}

func (m *matroska) marshal(v any) error {
	var b bytes.Buffer
	if err := ebml.Marshal(v, &b); err != nil {
		return err
	}
	return m.write(b.Bytes())
}

func (m *matroska) write(b []byte) error {
	n, err := m.w.Write(b)
	m.pos += int64(n)
	return err
}

// mkvEntry describes a track to a player.
func mkvEntry(number int, s *scan) mkvTrack {
	t := mkvTrack{
		TrackNumber: uint64(number), TrackUID: uint64(number),
		Name: s.name(), Language: "und", CodecPrivate: s.config,
	}
	if isVideo(s.mime) {
		t.TrackType, t.DefaultDuration = trackVideo, uint64(s.tick())*1e6
		t.CodecID = map[string]string{mimeVP8: "V_VP8", mimeVP9: "V_VP9", mimeAV1: "V_AV1", mimeH264: "V_MPEG4/ISO/AVC"}[s.mime]
		t.Video = &mkvVideo{uint64(s.width), uint64(s.height)}
		return t
	}
	// WebRTC says "2 channels" of every Opus stream; decoders follow the packets.
	channels := byte(max(s.track.Meta.Channels, 1))
	t.TrackType, t.CodecID = trackAudio, "A_OPUS"
	t.Audio = &mkvAudio{48000, uint64(channels)}
	t.CodecPrivate = opusHead(channels)
	t.SeekPreRoll = 80e6 // ns, RFC 9559 section 5.1.4.1.28 with RFC 7845 section 4.6
	return t
}

// opusHead is the identification header of RFC 7845 section 5.1. Nothing is
// skipped at the start: the first packet of a late recording is no encoder's first.
func opusHead(channels byte) []byte {
	b := append([]byte("OpusHead"), 1, channels, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, 48000)
	return append(b, 0, 0, 0)
}
