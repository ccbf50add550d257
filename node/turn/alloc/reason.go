package alloc

// Reason names what became of a message.
type Reason uint8

// The reasons. A client that gets something wrong by accident is answered; one
// that may be somebody else than it says is answered little and seldom.
const (
	Granted   Reason = iota
	Mapped           // a Binding request: the client's own address
	Challenge        // 401 to a request without credentials: how every client begins

	// Not answered.
	Malformed   // no STUN, wrong lengths, wrong fingerprint
	NoRequest   // a response, or an indication that is not Send
	NoMethod    // RFC 6062 and methods that nobody knows
	Flooding    // requests beyond what one source may send
	TooFrequent // an answer beyond what one source gets before it has credentials
	Amplifying  // the answer would be longer than the question allows

	// Answered, before the credentials were found good.
	BadRequest    // 400
	BadNonce      // 438: too old, or another flow's
	BadUser       // 401: no user name of ours
	BadIntegrity  // 401: another password
	Expired       // 401: credentials that open nothing any more
	Revoked       // 401: credentials of somebody who was removed
	UnknownDemand // 420

	// Answered, with good credentials.
	NoAllocation  // 437
	Occupied      // 437: the flow has an allocation
	OthersFlow    // 441: another session's
	NotUDP        // 442
	WrongFamily   // 440, 443
	EvenPort      // 508: EVEN-PORT or a reservation
	NoPeer        // 403: nothing but our own endpoints is reachable
	BadChannel    // 400: a number that is taken or cannot be
	SessionFull   // 486
	SourceFull    // 486
	NodeFull      // 508
	NotAllowed    // data to a peer without permission; not answered
	NotToEndpoint // data to what is no endpoint; not answered

	NumReasons
)

func (r Reason) String() string {
	return [NumReasons]string{
		"granted", "mapped", "challenge",
		"malformed", "no_request", "no_method", "flooding", "too_frequent", "amplifying",
		"bad_request", "bad_nonce", "bad_user", "bad_integrity", "expired", "revoked", "unknown_demand",
		"no_allocation", "occupied", "others_flow", "not_udp", "wrong_family", "even_port", "no_peer", "bad_channel",
		"session_full", "source_full", "node_full", "not_allowed", "not_to_endpoint",
	}[r]
}

// code is what the client is told (RFC 8656 section 19); 0 is success or silence.
func (r Reason) code() int {
	switch r {
	case BadRequest, BadChannel:
		return 400
	case Challenge, BadUser, BadIntegrity, Expired, Revoked:
		return 401
	case NoPeer:
		return 403
	case UnknownDemand:
		return 420
	case NoAllocation, Occupied:
		return 437
	case BadNonce:
		return 438
	case OthersFlow:
		return 441
	case NotUDP:
		return 442
	case SessionFull, SourceFull:
		return 486
	case EvenPort, NodeFull:
		return 508
	}
	return 0
}
