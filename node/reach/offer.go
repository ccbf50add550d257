package reach

import (
	"strings"

	"github.com/pion/sdp/v3"
)

// maxOffer bounds an offer, in bytes: browsers send about 1 KiB for a data
// channel, and some 100 bytes for each candidate.
const maxOffer = 12 << 10

// maxSections bounds the sections of an offer before the parser sees it. One is
// wanted.
const maxSections = 2

// checkOffer refuses what is not an offer of one data channel, before it costs
// anything: there is no media in a test.
func checkOffer(offer string) error {
	switch {
	case strings.TrimSpace(offer) == "":
		return deny(Unusable, "no offer: want the SDP of one data channel")
	case len(offer) > maxOffer:
		return deny(Unusable, "the offer has %d bytes, at most %d are taken", len(offer), maxOffer)
	case strings.Count(offer, "\nm=") > maxSections:
		return deny(Unusable, "the offer has %d sections: want one, a data channel", strings.Count(offer, "\nm="))
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(offer); err != nil {
		return deny(Unusable, "the offer is no SDP: a line of it cannot be parsed")
	}
	if len(d.MediaDescriptions) != 1 {
		return deny(Unusable, "the offer has %d sections: want one, a data channel", len(d.MediaDescriptions))
	}
	m := d.MediaDescriptions[0]
	if m.MediaName.Media != "application" || m.MediaName.Port.Value == 0 {
		return deny(Unusable, "the offer has a section %.32q: want a data channel; there is no media in a test", m.MediaName.Media)
	}
	return nil
}
