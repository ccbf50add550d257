// Package control is the door for those who run rooms: it verifies the tokens
// that let people and programs in, and serves the RoomService and Egress APIs over Twirp.
//
// It decides who may ask for what; what is done about it is its Backend's work.
// It reads no clock of its own, opens no socket and keeps no state.
package control

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Limits of what a token or a request may carry. Metadata and attributes go to
// everybody in the room with every update, so their size is multiplied there.
const (
	MaxTokenBytes     = 64 << 10
	MaxRoomNameBytes  = 128
	MaxIdentityBytes  = 256
	MaxNameBytes      = 256 // a participant's display name
	MaxMetadataBytes  = 64 << 10
	MaxAttributeBytes = 64 << 10 // keys and values together
)

// Errors with which a Backend says what went wrong; wrap them with %w. The API
// turns each into its Twirp code, anything else into "internal".
var (
	ErrNotFound    = errors.New("not found")   // the room or participant does not exist: not_found
	ErrInvalid     = errors.New("invalid")     // the request cannot be carried out as it stands: invalid_argument
	ErrUnavailable = errors.New("unavailable") // the node that could do it does not answer now: unavailable
	// ErrPrecondition: the configuration does not let it be done (failed_precondition).
	ErrPrecondition = errors.New("failed precondition")
	// ErrUnimplemented: this server does not have it, and the error says why (unimplemented).
	ErrUnimplemented = errors.New("not implemented by this server")
)

// ErrRefused is a refusal by policy, such as the residency gate's. It becomes
// permission_denied: repeating the request changes nothing.
type ErrRefused struct {
	Rule   string // stable name of the rule that refused, such as "zone"; may be empty
	Reason string // one sentence for people
}

// Error returns the reason.
func (e ErrRefused) Error() string { return e.Reason }

// ValidRoomName says what is wrong with a room's name, if anything. Names appear
// in logs, URLs and exports, so nothing in them may look like a path, break a
// line or change the direction of the text around it.
func ValidRoomName(name string) error {
	if err := validText("room name", name, MaxRoomNameBytes); err != nil {
		return err
	}
	if name == "." || name == ".." {
		return fmt.Errorf("%w: room name %q means a folder", ErrInvalid, name)
	}
	for _, r := range name {
		if r == '/' || r == '\\' {
			return fmt.Errorf("%w: room name %q contains %q", ErrInvalid, name, r)
		}
	}
	return nil
}

// ValidIdentity says what is wrong with a participant's identity, if anything.
func ValidIdentity(identity string) error {
	return validText("participant identity", identity, MaxIdentityBytes)
}

// validText wants 1 to limit bytes of printable UTF-8. Format characters
// (U+202E and its like) count as not printable. A value that is too long or not
// UTF-8 is not repeated in the error.
func validText(what, s string, limit int) error {
	switch {
	case s == "":
		return fmt.Errorf("%w: %s is empty", ErrInvalid, what)
	case len(s) > limit:
		return fmt.Errorf("%w: %s has %d bytes, at most %d are allowed", ErrInvalid, what, len(s), limit)
	case !utf8.ValidString(s):
		return fmt.Errorf("%w: %s is not UTF-8", ErrInvalid, what)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%w: %s contains the character %U", ErrInvalid, what, r)
		}
	}
	return nil
}

// ValidMetadata says what is wrong with the metadata of a room or participant.
func ValidMetadata(metadata string) error {
	if len(metadata) > MaxMetadataBytes {
		return fmt.Errorf("%w: metadata has %d bytes, at most %d are allowed", ErrInvalid, len(metadata), MaxMetadataBytes)
	}
	return nil
}

// ValidAttributes says what is wrong with a participant's attributes.
func ValidAttributes(attributes map[string]string) error {
	size := 0
	for k, v := range attributes {
		size += len(k) + len(v)
	}
	if size > MaxAttributeBytes {
		return fmt.Errorf("%w: attributes have %d bytes, at most %d are allowed", ErrInvalid, size, MaxAttributeBytes)
	}
	return nil
}
