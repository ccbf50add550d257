package transport

import (
	"fmt"
	"slices"

	"github.com/pion/datachannel"
	"github.com/pion/sctp"
)

// Resumed is a data channel that a client has had open with another node. The
// client's SCTP begins anew when we do (RFC 9260 section 5.2.4.1), its channels stay
// open and are not announced again.
type Resumed struct {
	Label string
	ID    uint16
}

// Resume says which channels the client has open. It has to come before SetRemote.
func (c *Conn) Resume(list []Resumed) error {
	if len(list) > maxChannels {
		return fmt.Errorf("resume %d data channels: at most %d", len(list), maxChannels)
	}
	c.channels.mu.Lock()
	defer c.channels.mu.Unlock()
	for _, ch := range list {
		if slices.Contains(labels, ch.Label) && !c.channels.has(ch.ID) {
			c.channels.resumed = append(c.channels.resumed, ch)
		}
	}
	return nil
}

// Profile is how SRTP is sealed, 0 until the handshake is done.
func (c *Conn) Profile() Profile {
	if k := c.keys.Load(); k != nil {
		return Profile(k.profile)
	}
	return 0
}

// resumes reports whether a stream is that of a channel which was open before.
func (cs *channels) resumes(id uint16) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.has(id)
}

// has is resumes. mu is held.
func (cs *channels) has(id uint16) bool {
	return slices.ContainsFunc(cs.resumed, func(ch Resumed) bool { return ch.ID == id })
}

// openResumed goes on with the client's channels as if they had been announced. On
// some a message may have come already.
func (c *Conn) openResumed(a *sctp.Association) {
	c.channels.mu.Lock()
	list := slices.Clone(c.channels.resumed)
	c.channels.mu.Unlock()
	for _, ch := range list {
		lossy := ch.Label != "_reliable"
		config := Channel{Label: ch.Label, Ordered: !lossy}
		if lossy {
			config.MaxRetransmits = new(uint16)
		}
		negotiated := config.config()
		negotiated.Negotiated = true
		if dc, err := datachannel.Dial(a, ch.ID, negotiated); err == nil {
			c.begin(&channel{label: ch.Label, lossy: lossy, dc: dc})
		}
	}
}
