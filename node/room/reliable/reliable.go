// Package reliable keeps reliable data in order and once: from a client to its
// node (Source), from there to the other nodes of the room (Feed, Order), and to
// clients that were cut off and come back (Log).
//
// Clients number their reliable messages, each publisher its own from 1 on, and
// throw away what is not above the last number they have had of a publisher. A
// message that is overtaken is lost to them, so nothing may be overtaken. A
// receiver sees gaps in the numbers as a matter of course, since messages can be
// for some people only; between nodes each message therefore names the one that
// went before it to that node.
//
//	client ──► Source ──► Log ──► clients here
//	             │
//	            Feed ══ link ══► Order ──► Log ──► clients there
//
// What cannot be had again is not waited for without end, and is told.
//
// It sends nothing, knows no protocol buffers, starts no goroutine and reads no
// clock. Its types belong to one goroutine each.
package reliable

import "slices"

// Message is one reliable message. Packet is never changed.
type Message struct {
	Publisher string   // sid of the participant who sent it
	Seq       uint32   // its number among the publisher's messages; 0 from clients that do not number
	From      string   // identity of the publisher
	To        []string // identities; empty means everybody but From
	Packet    []byte
}

// For reports whether a message is meant for an identity.
func (m *Message) For(identity string) bool {
	if len(m.To) == 0 {
		return identity != m.From
	}
	return slices.Contains(m.To, identity)
}

// overhead is what a kept message costs beside its bytes: the structs, and what the
// allocator rounds up. Without it a flood of empty messages would cost nothing.
const overhead = 256

func (m *Message) size() int {
	n := overhead + len(m.Packet)
	for _, to := range m.To {
		n += len(to) + 16
	}
	return n
}

// Gap names messages of a publisher: numbers above After, up to Upto. Some of them
// may have been for others.
type Gap struct{ After, Upto uint32 }

// Source checks the numbers of a publisher at the node that serves it.
type Source struct{ last uint32 }

// NewSource continues after a number; 0 for a publisher who has just joined.
func NewSource(last uint32) Source { return Source{last} }

// Take reports whether a message is new, and how many before it never came:
// not none means that the client's channel lost them.
func (s *Source) Take(seq uint32) (fresh bool, missing uint32) {
	switch {
	case seq == 0:
		return true, 0
	case seq <= s.last:
		return false, 0 // sent again after a resume
	}
	missing = seq - s.last - 1
	s.last = seq
	return true, missing
}

// Last is the number that the client is told when it resumes
// (ReconnectResponse.last_message_seq): it sends again what follows. Clients
// take 0 for "not told" and send nothing again.
func (s *Source) Last() uint32 { return s.last }

// Feed knows what each other node was sent last of each publisher here.
type Feed struct{ sent map[string]map[string]uint32 }

// Next returns the number of the message that went before this one to the node,
// 0 if none did. Messages without a number are not asked about.
func (f *Feed) Next(node, publisher string, seq uint32) (prev uint32) {
	if f.sent == nil {
		f.sent = map[string]map[string]uint32{}
	}
	if f.sent[node] == nil {
		f.sent[node] = map[string]uint32{}
	}
	prev = f.sent[node][publisher]
	f.sent[node][publisher] = max(prev, seq)
	return prev
}

// Heads is the last number of each publisher that the node was sent. It is told
// when a link comes up again: the last message before it went down may be lost,
// and no other may follow for long.
func (f *Feed) Heads(node string) map[string]uint32 { return f.sent[node] }

// ForgetNode begins anew with a node that has left the room.
func (f *Feed) ForgetNode(node string) { delete(f.sent, node) }

// ForgetPublisher drops a publisher who has left.
func (f *Feed) ForgetPublisher(publisher string) {
	for _, sent := range f.sent {
		delete(sent, publisher)
	}
}
