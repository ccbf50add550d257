package sfu

// Extensions are the ids under which one side negotiated RTP header extensions
// (RFC 8285), 0 for those that it did not.
type Extensions struct {
	AudioLevel           uint8 `json:"audio_level,omitempty"` // RFC 6464
	VideoOrientation     uint8 `json:"orientation,omitempty"` // 3GPP TS 26.114
	PlayoutDelay         uint8 `json:"playout,omitempty"`
	AbsCaptureTime       uint8 `json:"capture,omitempty"`
	DependencyDescriptor uint8 `json:"dependency,omitempty"` // of AV1's RTP payload format
	TransportCC          uint8 `json:"-"`                    // between two neighbours only, like the next
	MID                  uint8 `json:"-"`                    // RFC 9143
}
