package transport

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/pion/datachannel"
	"github.com/pion/dtls/v3"
	"github.com/pion/sctp"
)

// Channel is a data channel.
type Channel struct {
	Label   string
	Ordered bool
	// MaxRetransmits makes the channel lossy; nil: every message arrives.
	MaxRetransmits *uint16
}

// labels are those of LiveKit's data channels. Others are closed: nobody would read
// them, and what nobody reads fills memory.
var labels = []string{"_reliable", "_lossy", "_data_track"}

const (
	// defaultMaxMessage is what every SCTP stack can take; LiveKit's clients split
	// above 15 KiB.
	defaultMaxMessage = 64 << 10
	// How much may wait for a client, in bytes. Lossy data is stale after a few
	// round trips: 64 KiB are 50 ms at 10 Mbit/s. Reliable data gets the room that a
	// file or a chat history needs; and a little before the channel opens.
	maxLossyBuffer    = 64 << 10
	maxReliableBuffer = 4 << 20
	maxEarly          = 256 << 10
	// maxChannels bounds the channels that a client has open, ours among them.
	maxChannels = 16
	// maxInFlight is what a client may have sent that nobody has read yet, in bytes:
	// 8 MB/s at a round trip of 60 ms.
	maxInFlight = 512 << 10
	// firstRead is the buffer of a channel until a longer message comes.
	firstRead = 2 << 10
)

var (
	errNoChannel = errors.New("no such data channel is open")
	errBehind    = errors.New("client is too far behind")
	errTooBig    = errors.New("message is too long")
)

// channels are the data channels of a connection.
type channels struct {
	mu      sync.Mutex // guards what follows
	wanted  bool       // the description has an application section
	wake    func()     // says so to who reads DTLS meanwhile
	started bool       // our own channels were opened
	resumed []Resumed  // the client has them open already
	open    []*channel // ours first
	pending int        // streams that have not said yet what they are
	early   []early
	waiting int // bytes of early
}

// channel is one that is open.
type channel struct {
	label string
	lossy bool
	dc    *datachannel.DataChannel
}

// early is a reliable message from before its channel was open.
type early struct {
	label   string
	binary  bool
	payload []byte
}

// want says that the client's description has data channels.
func (cs *channels) want() {
	cs.mu.Lock()
	cs.wanted = true
	wake := cs.wake
	cs.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// carry serves what DTLS carries until the client ends it or Close.
func (c *Conn) carry(conn *dtls.Conn) {
	stop := make(chan struct{})
	c.running.Go(func() {
		select {
		case <-c.ctx.Done():
		case <-stop:
		}
		_ = conn.Close() // says goodbye
	})
	defer close(stop)
	if c.idle(conn) {
		c.serve(conn)
	}
}

// idle reads DTLS, so that a goodbye is heard, until data channels are wanted or
// the connection ends.
func (c *Conn) idle(conn *dtls.Conn) (wanted bool) {
	c.channels.mu.Lock()
	wanted = c.channels.wanted
	c.channels.wake = func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) }
	c.channels.mu.Unlock()
	buffer := make([]byte, maxDatagram)
	for !wanted {
		_, err := conn.Read(buffer)
		if ended(err) {
			return false
		}
		c.channels.mu.Lock()
		wanted = c.channels.wanted
		c.channels.mu.Unlock()
	}
	c.channels.mu.Lock()
	c.channels.wake = nil
	c.channels.mu.Unlock()
	_ = conn.SetReadDeadline(time.Time{})
	return true
}

// ended tells errors that end a DTLS connection from those of one record.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, dtls.ErrConnClosed) || errors.Is(err, io.ErrClosedPipe)
}

// serve runs SCTP. Both sides begin at once, as RFC 8831 section 6.1 lets them.
func (c *Conn) serve(conn *dtls.Conn) {
	a, err := sctp.ClientWithOptions(
		sctp.WithNetConn(conn), sctp.WithLoggerFactory(quiet{}), sctp.WithMTU(sctpMTU),
		sctp.WithMaxMessageSize(uint32(c.cfg.MaxMessage)), sctp.WithMaxReceiveBufferSize(maxInFlight),
		sctp.WithEnableZeroChecksum(true)) // DTLS has authenticated every packet (RFC 9653)
	if err != nil {
		return
	}
	defer a.Close()
	if err := c.openOurs(a); err != nil {
		return
	}
	for {
		stream, err := a.AcceptStream()
		if err != nil {
			return
		}
		if !c.channels.admit() {
			_ = stream.Close()
			continue
		}
		stream.SetDefaultPayloadType(sctp.PayloadTypeWebRTCBinary)
		if c.channels.resumes(stream.StreamIdentifier()) {
			c.channels.decide() // openResumed reads it
			continue
		}
		c.running.Go(func() { c.accept(stream) })
	}
}

// sctpMTU leaves room for DTLS in a packet of 1280 bytes, which every IPv6 path has.
const sctpMTU = 1191

// openOurs opens the configured channels, and sends what waited for them. Streams
// of the DTLS server have odd numbers (RFC 8832 section 6).
func (c *Conn) openOurs(a *sctp.Association) error {
	id := uint16(1)
	if c.client() {
		id = 0
	}
	for _, ours := range c.cfg.Channels {
		dc, err := datachannel.Dial(a, id, ours.config())
		if err != nil {
			return fmt.Errorf("open channel %q: %w", ours.Label, err)
		}
		id += 2
		c.begin(&channel{label: ours.Label, lossy: ours.MaxRetransmits != nil, dc: dc})
	}
	c.openResumed(a)
	c.channels.start()
	return nil
}

func (c *Conn) client() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remote.Setup == "passive"
}

func (ch Channel) config() *datachannel.Config {
	cfg := &datachannel.Config{Label: ch.Label, LoggerFactory: quiet{}, Priority: datachannel.ChannelPriorityNormal}
	switch {
	case ch.MaxRetransmits == nil && ch.Ordered:
		cfg.ChannelType = datachannel.ChannelTypeReliable
	case ch.MaxRetransmits == nil:
		cfg.ChannelType = datachannel.ChannelTypeReliableUnordered
	case ch.Ordered:
		cfg.ChannelType = datachannel.ChannelTypePartialReliableRexmit
	default:
		cfg.ChannelType = datachannel.ChannelTypePartialReliableRexmitUnordered
	}
	if ch.MaxRetransmits != nil {
		cfg.ReliabilityParameter = uint32(*ch.MaxRetransmits)
	}
	return cfg
}

// begin reads an open channel from now on.
func (c *Conn) begin(ch *channel) {
	c.channels.add(ch)
	c.running.Go(func() {
		c.pass(func() { c.handler.Opened(ch.label) })
		c.read(ch)
		c.channels.remove(ch)
		_ = ch.dc.Close()
	})
}

// accept waits for a client's stream to say what it is (RFC 8832 section 5.1).
func (c *Conn) accept(stream *sctp.Stream) {
	dc, err := datachannel.Server(stream, &datachannel.Config{LoggerFactory: quiet{}})
	c.channels.decide()
	if err != nil || !slices.Contains(labels, dc.Label) {
		_ = stream.Close()
		return
	}
	lossy := dc.ChannelType != datachannel.ChannelTypeReliable && dc.ChannelType != datachannel.ChannelTypeReliableUnordered
	c.begin(&channel{label: dc.Label, lossy: lossy, dc: dc})
}

// read passes messages on until the channel ends or one is too long.
func (c *Conn) read(ch *channel) {
	buffer := make([]byte, firstRead)
	for {
		n, text, err := ch.dc.ReadDataChannel(buffer)
		if errors.Is(err, io.ErrShortBuffer) && len(buffer) < c.cfg.MaxMessage {
			buffer = make([]byte, min(4*len(buffer), c.cfg.MaxMessage)) // the message waits
			continue
		}
		if err != nil {
			return
		}
		payload := slices.Clone(buffer[:n])
		c.pass(func() { c.handler.Message(ch.label, !text, payload) })
	}
}

// Send sends a message on an open channel of the label. What a lossy channel does
// not take fast enough is dropped and counted; a reliable one gives an error, since
// the client is then too far behind to be waited for. Reliable messages for our own
// channels may come a little before these are open.
func (c *Conn) Send(label string, binary bool, payload []byte) error {
	if len(payload) > c.cfg.MaxMessage {
		return fmt.Errorf("send on channel %q: %d bytes: %w", label, len(payload), errTooBig)
	}
	cs := &c.channels
	cs.mu.Lock()
	defer cs.mu.Unlock()
	ch := cs.find(label)
	var err error
	switch {
	case ch == nil:
		err = cs.keep(c.cfg.Channels, early{label, binary, payload})
	case ch.lossy && ch.dc.BufferedAmount()+uint64(len(payload)) > maxLossyBuffer:
		c.drops.add(DropLossy)
	case !ch.lossy && ch.dc.BufferedAmount()+uint64(len(payload)) > maxReliableBuffer:
		err = fmt.Errorf("%d bytes wait: %w", ch.dc.BufferedAmount(), errBehind)
	default:
		_, err = ch.dc.WriteDataChannel(payload, !binary)
	}
	if err != nil {
		return fmt.Errorf("send on channel %q: %w", label, err)
	}
	return nil
}

// Buffered is how many bytes wait for the client on a channel.
func (c *Conn) Buffered(label string) uint64 {
	c.channels.mu.Lock()
	defer c.channels.mu.Unlock()
	if ch := c.channels.find(label); ch != nil {
		return ch.dc.BufferedAmount()
	}
	return 0
}

// Open tells whether a channel of the label is open, whoever opened it.
func (c *Conn) Open(label string) bool {
	c.channels.mu.Lock()
	defer c.channels.mu.Unlock()
	return c.channels.find(label) != nil
}

// find returns the first channel of a label. mu is held.
func (cs *channels) find(label string) *channel {
	for _, ch := range cs.open {
		if ch.label == label {
			return ch
		}
	}
	return nil
}

// keep holds a message until our channels are open. mu is held.
func (cs *channels) keep(ours []Channel, m early) error {
	i := slices.IndexFunc(ours, func(ch Channel) bool { return ch.Label == m.label })
	switch {
	case cs.started || i < 0:
		return errNoChannel
	case ours[i].MaxRetransmits != nil:
		return nil // it would be stale
	case cs.waiting+len(m.payload) > maxEarly:
		return errBehind
	}
	m.payload = slices.Clone(m.payload)
	cs.early = append(cs.early, m)
	cs.waiting += len(m.payload)
	return nil
}

// start sends what waited.
func (cs *channels) start() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.started = true
	for _, m := range cs.early {
		if ch := cs.find(m.label); ch != nil {
			_, _ = ch.dc.WriteDataChannel(m.payload, !m.binary) // fails if it ended again, and all with it
		}
	}
	cs.early, cs.waiting = nil, 0
}

func (cs *channels) add(ch *channel) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open = append(cs.open, ch)
}

func (cs *channels) remove(ch *channel) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open = slices.DeleteFunc(cs.open, func(o *channel) bool { return o == ch })
}

// admit counts a stream that may become a channel.
func (cs *channels) admit() bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.open)+cs.pending >= maxChannels {
		return false
	}
	cs.pending++
	return true
}

func (cs *channels) decide() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.pending--
}
