package vault

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Reader gives the tracks of one recording. It holds no file open.
type Reader struct {
	Info   Info
	Tracks []*TrackReader // in the order in which they were added
}

// TrackReader gives the clusters of one track.
type TrackReader struct {
	Meta TrackMeta // only TrackID if the file was cut inside its header
	Info TrackInfo

	// Locked says that this vault has no key for it: it is sealed to its tenant's.
	Locked bool

	path  string
	open  func() (io.ReadCloser, error)
	rec   ID
	keys  *KeyStore
	final []byte     // tag of the final record, where the document knows it
	key   []byte     // of a copy, where the document knows it
	meta  *TrackMeta // of one that is sealed to a tenant's keys, where the document knows it
}

// Read opens a recording, a finished one, an interrupted one or one that is
// still being written. It fails when the header of any track was changed.
func (v *Vault) Read(id ID) (*Reader, error) {
	d, err := v.load(id)
	if err != nil {
		return nil, err
	}
	info, err := v.Info(id)
	if err != nil {
		return nil, err
	}
	r := &Reader{Info: info}
	for _, ti := range info.Tracks {
		if ti.Erased {
			continue
		}
		t := &TrackReader{
			Meta: TrackMeta{TrackID: ti.ID}, Info: ti,
			path: trackPath(v.folder(id), ti.ID), open: func() (io.ReadCloser, error) { return v.openTrack(id, ti.ID) }, rec: id, keys: v.keys, final: d.Private.Finals[ti.ID], key: d.Private.Keys[ti.ID],
		}
		if m, ok := d.Private.Metas[ti.ID]; ok {
			t.meta = &m
		}
		r.Tracks = append(r.Tracks, t)
		c, err := t.Open()
		if errors.Is(err, ErrLocked) {
			t.Meta, t.Locked = *t.meta, true
			continue
		}
		if err != nil {
			return nil, err
		}
		t.Meta = c.meta
		c.Close()
	}
	return r, nil
}

// knownMetas are those of a recording that is over, for as long as its document is the same.
type knownMetas struct {
	changed string
	metas   map[TrackID]TrackMeta
}

// Metas says whose the tracks of a recording are that are not erased. It is remembered of
// recordings that are over: who looks at all of them each minute reads none twice, which
// an object store would have to send.
func (v *Vault) Metas(id ID) (map[TrackID]TrackMeta, error) {
	changed := v.Changed(id)
	v.mu.Lock()
	known := v.metas[id]
	v.mu.Unlock()
	if changed != "" && known.changed == changed {
		return known.metas, nil
	}
	r, err := v.Read(id)
	if err != nil {
		return nil, err
	}
	known = knownMetas{changed, map[TrackID]TrackMeta{}}
	for _, t := range r.Tracks {
		known.metas[t.Info.ID] = t.Meta
	}
	if r.Info.State == StateRecording {
		return known.metas, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.metas) >= maxMetas {
		clear(v.metas)
	}
	v.metas[id] = known
	return known.metas, nil
}

// maxMetas bounds the recordings of which that is remembered: some kB each.
const maxMetas = 10_000

// End tells how a track ends. It is known after the last cluster.
type End struct {
	Finished bool  // the final record was there
	Clusters int   // whole clusters
	Offset   int64 // bytes of the file that are valid; a cut file has been cut behind them
}

// Clusters is one pass over a track. It belongs to one goroutine.
type Clusters struct {
	t     *TrackReader
	f     io.ReadCloser
	r     *bufio.Reader
	chain *chain
	meta  TrackMeta
	buf   []byte
	end   End
	err   error // of the pass's end, io.EOF included
}

// Open starts a pass over the track's clusters. Close it.
func (t *TrackReader) Open() (*Clusters, error) {
	f, err := t.open()
	if err != nil {
		return nil, t.fail(err)
	}
	c := &Clusters{t: t, f: f, r: bufio.NewReaderSize(f, 64<<10), meta: TrackMeta{TrackID: t.Info.ID}}
	if err := c.begin(); err != nil && err != io.EOF {
		f.Close()
		return nil, t.fail(err)
	}
	return c, nil
}

func (t *TrackReader) fail(err error) error {
	return fmt.Errorf("track %q of recording %q: %w", t.Info.ID, t.rec, err)
}

// Close ends the pass.
func (c *Clusters) Close() error { return c.f.Close() }

// End tells how the track ends, once Next has returned io.EOF.
func (c *Clusters) End() End { return c.end }

// Next returns the next cluster, valid until the following call. It returns
// io.EOF behind the last one, whether the track was finished or cut: End says
// which. ErrTampered means that the file is not what was written.
func (c *Clusters) Next() ([]byte, error) {
	if c.err != nil {
		return nil, c.err
	}
	body, err := c.next()
	if err != nil {
		if err != io.EOF {
			err = c.t.fail(err)
		}
		c.err = err
		return nil, err
	}
	return body, nil
}

func (c *Clusters) next() ([]byte, error) {
	kind, body, err := c.record()
	switch {
	case err != nil:
		return nil, err
	case kind == kindCluster:
		c.end.Clusters++
		return body, nil
	case kind == kindFinal:
		return nil, c.finish(body)
	}
	return nil, fmt.Errorf("%w: record of kind %d where a cluster belongs", ErrTampered, kind)
}

func (c *Clusters) finish(body []byte) error {
	if len(body) != 8 || binary.BigEndian.Uint64(body) != uint64(c.end.Clusters) {
		return fmt.Errorf("%w: the final record does not count %d clusters", ErrTampered, c.end.Clusters)
	}
	if c.t.final != nil && !bytes.Equal(c.t.final, c.chain.link) {
		return fmt.Errorf("%w: the final record is another than the document says", ErrTampered)
	}
	if _, err := c.r.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: bytes behind the final record", ErrTampered)
	}
	c.end.Finished = true
	return io.EOF
}

// begin reads the header and the meta record. A file that ends inside them is
// a track cut before its first cluster.
func (c *Clusters) begin() error {
	err := c.header()
	if err == io.EOF {
		c.err = err
	}
	return err
}

func (c *Clusters) header() error {
	fixed := make([]byte, headerFixed)
	if err := c.fill(fixed); err != nil {
		return err
	}
	n, err := parseFixed(fixed)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	wrapped := make([]byte, n)
	if err := c.fill(wrapped); err != nil {
		return err
	}
	key := c.t.key
	if key == nil {
		key, err = c.t.keys.unwrap(wrapped)
	}
	var stranger *age.NoIdentityMatchError
	if c.t.meta != nil && errors.As(err, &stranger) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("%w, or sealed for somebody else: unwrap the file key: %w", ErrTampered, err)
	}
	if len(key) != keySize {
		return fmt.Errorf("%w: file key of %d bytes, want %d", ErrTampered, len(key), keySize)
	}
	if c.chain, err = newChain(key, append(fixed, wrapped...), c.t.rec, c.t.Info.ID); err != nil {
		return err
	}
	c.end.Offset = int64(headerFixed + n)
	return c.readMeta()
}

func (c *Clusters) readMeta() error {
	kind, body, err := c.record()
	if err != nil {
		return err
	}
	if kind != kindMeta {
		return fmt.Errorf("%w: first record is of kind %d", ErrTampered, kind)
	}
	if err := unmarshalStrict(body, &c.meta); err != nil {
		return fmt.Errorf("meta record: %w", err)
	}
	if c.meta.TrackID != c.t.Info.ID {
		return fmt.Errorf("%w: file of track %q", ErrTampered, c.meta.TrackID)
	}
	return nil
}

// record reads and opens one record; io.EOF means that the file ends before or
// inside it.
func (c *Clusters) record() (kind byte, body []byte, err error) {
	head := make([]byte, headSealed)
	if err := c.fill(head); err != nil {
		return 0, nil, err
	}
	kind, n, err := c.chain.openHead(head)
	if err != nil {
		return 0, nil, c.tampered(err)
	}
	if cap(c.buf) < n+tagSize {
		c.buf = make([]byte, n+tagSize)
	}
	sealed := c.buf[:n+tagSize]
	if err := c.fill(sealed); err != nil {
		return 0, nil, err
	}
	if body, err = c.chain.open(sealed); err != nil {
		return 0, nil, c.tampered(err)
	}
	c.end.Offset += int64(headSealed + len(sealed))
	return kind, body, nil
}

func (c *Clusters) tampered(err error) error {
	return fmt.Errorf("%w: behind byte %d: %w", ErrTampered, c.end.Offset, err)
}

// fill reads exactly len(b) bytes. A file that ends too early was cut, which is
// an ordinary end unless the document says that the track was finished.
func (c *Clusters) fill(b []byte) error {
	_, err := io.ReadFull(c.r, b)
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if c.t.final != nil {
		return fmt.Errorf("%w: cut behind byte %d, but the track was finished", ErrTampered, c.end.Offset)
	}
	return io.EOF
}
