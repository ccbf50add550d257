package signal

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"net/http"
	"strings"

	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"

	"github.com/domicile/domicile/control"
)

// Signalling v1 puts everything that v0 spreads over the query into one
// parameter, and with it the client's first offer:
//
//	join_request = base64url( WrappedJoinRequest{ compression, join_request } )
//	                                                             │
//	                          JoinRequest, protobuf, plain or gzip
const (
	// maxJoinRequest bounds the JoinRequest after decompression, in bytes: what
	// one signalling frame may have. A gzip of the query's size could stand for
	// a thousand times as much.
	maxJoinRequest = 1 << 20
	// maxAnnounced bounds the tracks that one join may announce.
	maxAnnounced = 64
)

// First is what a v1 client sends with its join instead of after it.
type First struct {
	Offer  *livekit.SessionDescription // nil if it follows over the WebSocket
	Tracks []*livekit.AddTrackRequest
	Sync   *livekit.SyncState // of a resume; nil if it follows
}

// parseJoinRequest reads the join_request parameter into j.
func (j *Join) parseJoinRequest(encoded string) error {
	req, err := decodeJoinRequest(encoded)
	if err != nil {
		return err
	}
	j.Single = true
	if err := j.clientInfo(req.GetClientInfo()); err != nil {
		return err
	}
	settings := req.GetConnectionSettings()
	j.AutoSubscribe, j.AdaptiveStream = settings.GetAutoSubscribe(), settings.GetAdaptiveStream()
	j.NoPause = settings != nil && settings.SubscriberAllowPause != nil && !settings.GetSubscriberAllowPause()
	j.Reconnect, j.ReconnectReason = req.GetReconnect(), req.GetReconnectReason()
	p := params{}
	if j.SID = p.bounded("participant_sid", req.GetParticipantSid()); p.err != nil {
		return p.err
	}
	if n := len(req.GetAddTrackRequests()); n > maxAnnounced {
		return Refuse(http.StatusBadRequest, "join_request announces %d tracks, at most %d are allowed", n, maxAnnounced)
	}
	j.First = First{Offer: req.GetPublisherOffer(), Tracks: req.GetAddTrackRequests(), Sync: req.GetSyncState()}
	if err := j.overrideMetadata(req.GetMetadata()); err != nil {
		return err
	}
	return j.addAttributes(req.GetParticipantAttributes())
}

// decodeJoinRequest unpacks the parameter. What is wrong with it is said
// without quoting it: it holds personal data.
func decodeJoinRequest(encoded string) (*livekit.JoinRequest, error) {
	if encoded == "" {
		return nil, Refuse(http.StatusBadRequest, "the join_request parameter is missing: signalling v1 needs it, v0 is served at /rtc")
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil {
		return nil, Refuse(http.StatusBadRequest, "join_request is not base64url")
	}
	wrapped := new(livekit.WrappedJoinRequest)
	if err := proto.Unmarshal(raw, wrapped); err != nil {
		return nil, Refuse(http.StatusBadRequest, "join_request is not a WrappedJoinRequest")
	}
	plain := wrapped.GetJoinRequest()
	switch c := wrapped.GetCompression(); c {
	case livekit.WrappedJoinRequest_NONE:
	case livekit.WrappedJoinRequest_GZIP:
		if plain, err = gunzip(plain, maxJoinRequest); err != nil {
			return nil, err
		}
	default:
		return nil, Refuse(http.StatusBadRequest, "join_request has compression %d, which this server does not know", c)
	}
	req := new(livekit.JoinRequest)
	if err := proto.Unmarshal(plain, req); err != nil {
		return nil, Refuse(http.StatusBadRequest, "join_request does not hold a JoinRequest")
	}
	return req, nil
}

// gunzip decompresses at most limit bytes.
func gunzip(b []byte, limit int64) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, Refuse(http.StatusBadRequest, "join_request is not gzip as it says")
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	switch {
	case err != nil:
		return nil, Refuse(http.StatusBadRequest, "join_request is cut or damaged gzip")
	case int64(len(plain)) > limit:
		return nil, Refuse(http.StatusBadRequest, "join_request has more than %d bytes once decompressed", limit)
	}
	return plain, nil
}

// clientInfo takes over what v0 clients send as single parameters.
func (j *Join) clientInfo(c *livekit.ClientInfo) error {
	p := params{}
	j.SDK = sdkName(c.GetSdk())
	j.SDKVersion = p.bounded("version", c.GetVersion())
	j.OS, j.OSVersion = p.bounded("os", c.GetOs()), p.bounded("os_version", c.GetOsVersion())
	j.Browser = p.bounded("browser", c.GetBrowser())
	j.BrowserVersion = p.bounded("browser_version", c.GetBrowserVersion())
	j.DeviceModel, j.Network = p.bounded("device_model", c.GetDeviceModel()), p.bounded("network", c.GetNetwork())
	j.Protocol, j.ClientProtocol = p.small("protocol", c.GetProtocol()), p.small("client_protocol", c.GetClientProtocol())
	return p.err
}

// sdkName is the name that the SDK has in a v0 query: "js", "reactnative".
func sdkName(s livekit.ClientInfo_SDK) string {
	if s == livekit.ClientInfo_UNKNOWN {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(s.String(), "_", ""))
}

// overrideMetadata lets a client bring its own metadata where its token grants that.
func (j *Join) overrideMetadata(metadata string) error {
	if metadata == "" {
		return nil
	}
	if !j.Token.Video.GetCanUpdateOwnMetadata() {
		return Refuse(http.StatusForbidden, "the token does not allow setting metadata (canUpdateOwnMetadata)")
	}
	if err := control.ValidMetadata(metadata); err != nil {
		return Refuse(http.StatusBadRequest, "%v", err)
	}
	j.Token.Metadata = metadata
	return nil
}
