package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
	"github.com/pion/transport/v4/replaydetector"
)

const (
	// replayWindow is how far back a packet is taken, in packets. One that was lost
	// and comes again in answer to a NACK, under its old number, is a second old at
	// most: 1024 are that long at 10 Mbit/s.
	replayWindow = 1024
	// replayReports is the same for RTCP, where nothing comes again and a client sends
	// 20 in a second. Moving a longer window costs more than opening the packet.
	replayReports = 64
	// maxSSRCs bounds the streams that a client may ever send on one connection.
	// Each costs some 300 bytes, and a camera that is switched off and on again six:
	// a day of meetings, and 1.2 MB for somebody who means harm.
	maxSSRCs = 4096
	// maxSealed bounds the streams we ever send on one connection, 40 bytes each.
	maxSealed = 1 << 16

	rtpHeader  = 12 // bytes without CSRCs and extensions
	rtcpHeader = 8
)

var (
	errReused   = errors.New("SSRC was used on this connection with a higher packet index")
	errTwice    = errors.New("SSRC belongs to another stream of this connection")
	errTooMany  = errors.New("connection has had too many streams")
	errTooShort = errors.New("packet is shorter than its header")
)

// keys are what the handshake left (RFC 5764 section 4.2).
type keys struct {
	profile        srtp.ProtectionProfile
	seal, sealSalt []byte
	open, openSalt []byte
	gcm            *gcm // seals RTP; nil with another profile
}

// takeKeys makes the contexts for both directions.
func (c *Conn) takeKeys(conn *dtls.Conn, client bool) error {
	chosen, ok := conn.SelectedSRTPProtectionProfile()
	if !ok {
		return errors.New("no SRTP profile in common")
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return errors.New("no keys")
	}
	cfg := srtp.Config{Profile: srtp.ProtectionProfile(chosen)}
	if err := cfg.ExtractSessionKeysFromDTLS(&state, client); err != nil {
		return fmt.Errorf("take keys: %w", err)
	}
	k := &keys{
		profile: cfg.Profile,
		seal:    cfg.Keys.LocalMasterKey, sealSalt: cfg.Keys.LocalMasterSalt,
		open: cfg.Keys.RemoteMasterKey, openSalt: cfg.Keys.RemoteMasterSalt,
	}
	if sealsGCM(k.profile) {
		var err error
		if k.gcm, err = newGCM(k.seal, k.sealSalt); err != nil {
			return fmt.Errorf("take keys: %w", err)
		}
	}
	in, err := newOpener(k)
	if err != nil {
		return fmt.Errorf("take keys: %w", err)
	}
	out, err := k.sealer()
	if err != nil {
		return fmt.Errorf("take keys: %w", err)
	}
	c.in.Store(in)
	c.out.Store(&rtcpSealer{context: out})
	c.keys.Store(k)
	return nil
}

func (k *keys) sealer() (*srtp.Context, error) {
	return srtp.CreateContext(k.seal, k.sealSalt, k.profile)
}

// opener opens what the client sends.
type opener struct {
	mu       sync.Mutex // guards what follows: two workers may have packets at once
	context  *srtp.Context
	rtcp     rtcp.Header
	ssrcs    map[uint32]struct{} // that opened at least once, of RTP and of RTCP
	replayed bool                // by a detector, during one call
}

func newOpener(k *keys) (*opener, error) {
	o := &opener{ssrcs: make(map[uint32]struct{})}
	// The bounds are those of RFC 3711: 48 bits for RTP, 31 for RTCP.
	context, err := srtp.CreateContext(k.open, k.openSalt, k.profile,
		srtp.SRTPReplayDetectorFactory(o.detector(replayWindow, 1<<48-1)),
		srtp.SRTCPReplayDetectorFactory(o.detector(replayReports, 1<<31-1)))
	o.context = context
	return o, err
}

// detector is pion's, and says when it was the reason.
type detector struct {
	replaydetector.ReplayDetector
	check replaydetector.CheckAccepter
	by    *opener
}

func (o *opener) detector(window uint, largest uint64) func() replaydetector.ReplayDetector {
	return func() replaydetector.ReplayDetector {
		d := replaydetector.New(window, largest)
		return &detector{ReplayDetector: d, check: d.(replaydetector.CheckAccepter), by: o}
	}
}

func (d *detector) CheckSeq(seq uint64) replaydetector.Token {
	t := d.check.CheckSeq(seq)
	d.by.replayed = !t.Passed()
	return t
}

func (d *detector) Accept(t replaydetector.Token) bool { return d.check.Accept(t) }

// open runs a call that opens a packet of ssrc, and names the reason if it fails.
func (o *opener) open(ssrc uint32, call func() ([]byte, error)) ([]byte, Drop) {
	_, known := o.ssrcs[ssrc]
	if !known && len(o.ssrcs) >= maxSSRCs {
		return nil, DropTooManySSRCs
	}
	o.replayed = false
	plain, err := call()
	if err != nil {
		if o.replayed {
			return nil, DropReplayed
		}
		return nil, DropUnsealed
	}
	if !known {
		o.ssrcs[ssrc] = struct{}{}
	}
	return plain, numDrops
}

// openRTP opens a packet in place; nil if it is none of this client.
func (c *Conn) openRTP(header *rtp.Header, b []byte) []byte {
	if len(b) < rtpHeader {
		c.drops.add(DropUnsealed)
		return nil
	}
	o := c.in.Load()
	if o == nil {
		c.drops.add(DropEarly)
		return nil
	}
	o.mu.Lock()
	plain, why := o.open(binary.BigEndian.Uint32(b[8:]), func() ([]byte, error) { return o.context.DecryptRTP(b, b, header) })
	o.mu.Unlock()
	return c.opened(plain, len(b), why)
}

// openRTCP opens a compound packet in place; nil if it is none of this client.
func (c *Conn) openRTCP(b []byte) []byte {
	if len(b) < rtcpHeader {
		c.drops.add(DropUnsealed)
		return nil
	}
	o := c.in.Load()
	if o == nil {
		c.drops.add(DropEarly)
		return nil
	}
	o.mu.Lock()
	plain, why := o.open(binary.BigEndian.Uint32(b[4:]), func() ([]byte, error) { return o.context.DecryptRTCP(b, b, &o.rtcp) })
	o.mu.Unlock()
	return c.opened(plain, len(b), why)
}

func (c *Conn) opened(plain []byte, size int, why Drop) []byte {
	if why != numDrops {
		c.drops.add(why)
		return nil
	}
	c.traffic.packetsIn.Add(1)
	c.traffic.bytesIn.Add(uint64(size))
	return plain[:len(plain):len(plain)]
}

// rtcpSealer seals RTCP. There is one for a connection: its index counts the
// packets of all who send.
type rtcpSealer struct {
	mu      sync.Mutex // guards what follows
	context *srtp.Context
	header  rtcp.Header
}

// WriteRTCP seals a compound packet into a batch. Before the handshake, and to a
// client without a path, it is dropped and counted.
func (c *Conn) WriteRTCP(b *Batch, packet []byte) error {
	if len(packet) < rtcpHeader {
		return fmt.Errorf("write RTCP: %w", errTooShort)
	}
	out, to := c.out.Load(), c.way()
	if out == nil || to == nil {
		c.drops.add(DropUnsent)
		return nil
	}
	if to.full() {
		c.drops.add(DropStreamFull)
		return nil
	}
	packet, err := b.place(packet)
	if err != nil {
		return fmt.Errorf("write RTCP: %w", err)
	}
	out.mu.Lock()
	closed, err := out.context.EncryptRTCP(packet, packet, &out.header)
	out.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write RTCP: %w", err)
	}
	c.commit(b, to, len(closed))
	return nil
}

func (c *Conn) commit(b *Batch, to *path, n int) {
	b.commit(to, n)
	c.traffic.packetsOut.Add(1)
	c.traffic.bytesOut.Add(uint64(n))
}

// sealed is what is known of an SSRC that we sent: GCM loses all its secrets when
// two packets are sealed under one index (RFC 7714 section 5.3), so nobody gets to
// seal below what an ended stream has reached.
type sealed struct {
	ssrc    uint32
	started bool
	floor   int64   // no index up to here; -1: none
	highest int64   // 2^16 * ROC + sequence number
	owner   *Stream // nil: ended. Guarded by Conn.mu
}

// index is RFC 3711 section 3.3.1: the index nearest to the highest one.
func (s *sealed) index(seq uint16) (int64, error) {
	if !s.started && s.floor < 0 {
		return int64(seq), nil
	}
	diff := int64(int16(seq - uint16(s.highest)))
	i := s.highest + diff
	if i <= s.floor || diff == -1<<15 {
		return 0, errReused
	}
	return i, nil
}

// Stream seals the SSRCs of one DownTrack, whose lock guards it.
type Stream struct {
	conn  *Conn
	gcm   *gcm
	nonce [12]byte
	other *otherSealer // instead of gcm, for other profiles
	ssrcs []*sealed    // a media stream and its RTX
}

// otherSealer seals with what is not GCM.
type otherSealer struct {
	context *srtp.Context
	header  rtp.Header
}

// NewStream begins to send a track; it fails before Connected. End it with Close.
func (c *Conn) NewStream() (*Stream, error) {
	k := c.keys.Load()
	if k == nil {
		return nil, fmt.Errorf("make stream: %w", errEarly)
	}
	if k.gcm != nil {
		return &Stream{conn: c, gcm: k.gcm}, nil
	}
	context, err := k.sealer()
	if err != nil {
		return nil, fmt.Errorf("make stream: %w", err)
	}
	return &Stream{conn: c, other: &otherSealer{context: context}}, nil
}

// Write seals an RTP packet in place and puts it into the batch, in one message
// with the packet before if that went to the same client and had the same size.
// rtp should lie in the room from b.Reserve; elsewhere it is copied. A packet sent
// again under its number must have the same bytes. To a client without a path it
// is dropped and counted.
func (s *Stream) Write(b *Batch, rtp []byte) error {
	if len(rtp) < rtpHeader {
		return fmt.Errorf("write RTP: %w", errTooShort)
	}
	to := s.conn.way()
	if to == nil {
		s.conn.drops.add(DropUnsent)
		return nil
	}
	if to.full() {
		s.conn.drops.add(DropStreamFull)
		return nil
	}
	ssrc, seq := binary.BigEndian.Uint32(rtp[8:]), binary.BigEndian.Uint16(rtp[2:])
	index, err := s.advance(ssrc, seq)
	if err != nil {
		return fmt.Errorf("write RTP: %w", err)
	}
	rtp, err = b.place(rtp)
	if err != nil {
		return fmt.Errorf("write RTP: %w", err)
	}
	closed, err := s.seal(rtp, index)
	if err != nil {
		return fmt.Errorf("write RTP: %w", err)
	}
	s.conn.commit(b, to, len(closed))
	return nil
}

func (s *Stream) seal(rtp []byte, index int64) ([]byte, error) {
	if s.gcm == nil {
		return s.other.context.EncryptRTP(rtp, rtp, &s.other.header)
	}
	header, err := headerSize(rtp)
	if err != nil {
		return nil, err
	}
	return s.gcm.seal(rtp, header, index, &s.nonce), nil
}

// advance keeps the index of a stream, and refuses what was sealed by another.
func (s *Stream) advance(ssrc uint32, seq uint16) (int64, error) {
	for _, known := range s.ssrcs {
		if known.ssrc == ssrc {
			i, err := known.index(seq)
			known.highest = max(known.highest, i)
			return i, err
		}
	}
	known, err := s.conn.own(s, ssrc)
	if err != nil {
		return 0, err
	}
	i, err := known.index(seq)
	if err != nil {
		s.conn.disown(known)
		return 0, err
	}
	known.started, known.highest = true, i
	s.ssrcs = append(s.ssrcs, known)
	if s.other != nil {
		s.other.context.SetROC(ssrc, uint32(i>>16))
	}
	return i, nil
}

// own gives an SSRC to a stream.
func (c *Conn) own(s *Stream, ssrc uint32) (*sealed, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.ssrcs[ssrc]
	switch {
	case known == nil && len(c.ssrcs) >= maxSealed:
		return nil, errTooMany
	case known == nil:
		known = &sealed{ssrc: ssrc, floor: -1}
		c.ssrcs[ssrc] = known
	case known.owner != nil:
		return nil, errTwice
	}
	known.owner = s
	return known, nil
}

func (c *Conn) disown(known *sealed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known.owner = nil
}

// Close ends the stream: its SSRCs may go to another, which continues where this
// one ended.
func (s *Stream) Close() {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	for _, known := range s.ssrcs {
		known.owner, known.floor = nil, known.highest
	}
	s.ssrcs = nil
}
