package signal

import (
	"sync"

	"github.com/livekit/protocol/livekit"
)

// Prepared is a message for many clients. Each of the two forms is encoded for the
// first client that wants it, and the same bytes go to all others: what everybody
// in a room of n is told would otherwise be encoded n times. The message must not
// change any more. Safe for concurrent use.
type Prepared struct {
	msg          *livekit.SignalResponse
	binary, text once
}

// once is one form of a message.
type once struct {
	sync.Once
	frame frame
	err   error
}

// Prepare makes a message ready for many clients; nothing is encoded yet.
func Prepare(m *livekit.SignalResponse) *Prepared { return &Prepared{msg: m} }

// Message is what was prepared, for connections that encode nothing.
func (p *Prepared) Message() *livekit.SignalResponse { return p.msg }

func (p *Prepared) frame(json bool) (frame, error) {
	form := &p.binary
	if json {
		form = &p.text
	}
	form.Do(func() { form.frame, form.err = encodeResponse(json, p.msg) })
	return form.frame, form.err
}
