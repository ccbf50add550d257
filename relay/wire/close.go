package wire

import "fmt"

// Code is the application error code with which a QUIC connection is closed;
// the reason phrase beside it is for people.
type Code uint64

// The codes.
const (
	CodeDone     Code = 0 // the node stops, or no longer wants the link
	CodeVersion  Code = 1 // the other side speaks another version
	CodeProtocol Code = 2 // the other side sent what this package does not allow
	CodePeer     Code = 3 // the other side is not a node this one links with
	CodeExpired  Code = 4 // the other side's certificate ended
	CodeReplaced Code = 5 // a newer link to the same node took over
	CodeSilent   Code = 6 // nothing was heard for too long
	CodeOverload Code = 7 // the other side does not read what it is sent
	CodeRevoked  Code = 8 // the policies in force do not let the other side's certificate stand
)

// String names the code.
func (c Code) String() string {
	names := [...]string{"done", "version", "protocol", "peer", "expired", "replaced", "silent", "overload", "revoked"}
	if c < Code(len(names)) {
		return names[c]
	}
	return fmt.Sprintf("code %d", uint64(c))
}

// Stream error codes, with which one stream is reset or refused.
const (
	StreamDone     = 0 // nothing more is of interest
	StreamDeadline = 1 // the frame came too late to be of use
	StreamRevoked  = 2 // the track may no longer go to this node
	StreamUnbound  = 3 // nobody here listens to this alias
	StreamRefused  = 4 // the gate refused
)
