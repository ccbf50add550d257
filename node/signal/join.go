// Package signal carries LiveKit's client protocol (v0 and v1) between a client
// and the node: it parses what a client asks for when it connects, answers its
// check whether it may, and moves signalling messages over a WebSocket.
//
// It decides whether a request is well formed and its token good. It knows
// nothing of rooms, policies or media, sends no message on its own, and logs
// nothing.
package signal

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control"
)

// Limits of the query of /rtc. The token has the lion's share.
const (
	maxQueryBytes = control.MaxTokenBytes + 3*control.MaxAttributeBytes
	maxParamBytes = 128 // of every parameter that is neither token nor attributes
)

// Join is what a client asks for when it connects: GET /rtc (v0) or /rtc/v1. It
// holds personal data and belongs in no log.
type Join struct {
	// Single says that the client speaks v1: one peer connection, which it alone
	// offers. First is what it sent along.
	Single bool
	First  First

	Token    *control.Grants
	Room     string
	Identity string // the token's; for a publish-only connection with "#" and its name added

	// Attributes are the token's with the query's on top, which only a token
	// with canUpdateOwnMetadata may bring.
	Attributes map[string]string

	AutoSubscribe  bool // true unless the client said otherwise
	AdaptiveStream bool
	NoPause        bool   // the client cannot handle a stream that pauses for lack of bandwidth
	Publish        string // not empty: a second, publish-only connection under this name

	Reconnect       bool   // the client wants its session back
	SID             string // of the session it wants back, if it knows
	ReconnectReason livekit.ReconnectReason

	SDK, SDKVersion         string // as sent, "js" and "2.23.0"
	OS, OSVersion           string
	Browser, BrowserVersion string
	DeviceModel, Network    string
	Protocol                int // version of the signalling protocol, 17 for livekit-client 2.23
	ClientProtocol          int

	// RemoteAddr is the address that the HTTP server saw, the zero value if it
	// saw none. Headers such as X-Forwarded-For are not believed: an address
	// chooses the node, and so where media goes.
	RemoteAddr netip.AddrPort
}

// ParseJoin reads a request to /rtc or /rtc/v1, or to validate below them. Every
// error is a Refusal, ready to be shown to the user.
func ParseJoin(r *http.Request, keys control.Keys, now time.Time) (Join, error) {
	if len(r.URL.RawQuery) > maxQueryBytes {
		return Join{}, Refuse(http.StatusBadRequest, "the request's query has %d bytes, at most %d are allowed", len(r.URL.RawQuery), maxQueryBytes)
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		// The cause would repeat a piece of the query, and that can be the token.
		return Join{}, Refuse(http.StatusBadRequest, "the request's query is malformed")
	}
	grants, err := authenticate(r, q, keys, now)
	if err != nil {
		return Join{}, err
	}
	j := Join{
		Token: grants, Identity: grants.Identity, Room: grants.Video.Room,
		Attributes: maps.Clone(grants.Attributes), RemoteAddr: remoteAddr(r),
	}
	if err := j.permit(); err != nil {
		return Join{}, err
	}
	parse := j.parseQuery
	if q.Has("join_request") || strings.HasPrefix(r.URL.Path, "/rtc/v1") {
		parse = func(q url.Values) error { return j.parseJoinRequest(q.Get("join_request")) }
	}
	if err := parse(q); err != nil {
		return Join{}, err
	}
	return j, nil
}

// authenticate verifies the token of the header or, where a browser cannot set
// one, of the query.
func authenticate(r *http.Request, q url.Values, keys control.Keys, now time.Time) (*control.Grants, error) {
	token, err := control.BearerToken(r)
	if err != nil {
		return nil, Refuse(http.StatusUnauthorized, "%v", err)
	}
	if token == "" {
		token = q.Get("access_token")
	}
	if token == "" {
		return nil, Refuse(http.StatusUnauthorized, "no access token was sent")
	}
	grants, err := control.VerifyToken(token, keys, now)
	if err != nil {
		return nil, Refuse(http.StatusUnauthorized, "%v", err)
	}
	return grants, nil
}

// permit checks that the token lets its bearer into a room at all.
func (j *Join) permit() error {
	if !j.Token.Video.RoomJoin {
		return Refuse(http.StatusForbidden, "the token does not allow joining a room (roomJoin)")
	}
	if err := control.ValidRoomName(j.Room); err != nil {
		return Refuse(http.StatusBadRequest, "token: %v", err)
	}
	if err := control.ValidIdentity(j.Identity); err != nil {
		return Refuse(http.StatusBadRequest, "token: %v", err)
	}
	return nil
}

// parseQuery reads the parameters beside the token.
func (j *Join) parseQuery(q url.Values) error {
	p := params{values: q}
	j.AutoSubscribe = p.flag("auto_subscribe", true)
	j.AdaptiveStream = p.flag("adaptive_stream", false)
	j.Reconnect = p.flag("reconnect", false)
	j.SID = p.text("sid")
	j.ReconnectReason = livekit.ReconnectReason(p.number("reconnect_reason"))
	j.SDK, j.SDKVersion = p.text("sdk"), p.text("version")
	j.OS, j.OSVersion = p.text("os"), p.text("os_version")
	j.Browser, j.BrowserVersion = p.text("browser"), p.text("browser_version")
	j.DeviceModel, j.Network = p.text("device_model"), p.text("network")
	j.Protocol, j.ClientProtocol = p.number("protocol"), p.number("client_protocol")
	j.Publish = p.text("publish")
	if p.err != nil {
		return p.err
	}
	if err := j.parseAttributes(q.Get("attributes")); err != nil {
		return err
	}
	return j.publishOnly()
}

// publishOnly turns the join into a second connection of a participant that
// only publishes, as LiveKit's server does it: own identity, no subscriptions.
func (j *Join) publishOnly() error {
	if j.Publish == "" {
		return nil
	}
	if !j.Token.Video.GetCanPublish() {
		return Refuse(http.StatusForbidden, "the token does not allow publishing (canPublish)")
	}
	j.Identity += "#" + j.Publish
	if err := control.ValidIdentity(j.Identity); err != nil {
		return Refuse(http.StatusBadRequest, "publish: %v", err)
	}
	j.Token.Video.SetCanSubscribe(false)
	return nil
}

// parseAttributes lays the query's attributes (base64url of a JSON object, with
// or without padding) over the token's. An empty value does not delete one.
func (j *Join) parseAttributes(encoded string) error {
	if encoded == "" {
		return nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil {
		return Refuse(http.StatusBadRequest, "attributes are not base64url")
	}
	var attributes map[string]string
	if err := json.Unmarshal(raw, &attributes); err != nil {
		return Refuse(http.StatusBadRequest, "attributes are not a JSON object of strings")
	}
	return j.addAttributes(attributes)
}

// addAttributes lays the client's attributes over the token's.
func (j *Join) addAttributes(attributes map[string]string) error {
	if len(attributes) == 0 {
		return nil
	}
	if !j.Token.Video.GetCanUpdateOwnMetadata() {
		return Refuse(http.StatusForbidden, "the token does not allow setting attributes (canUpdateOwnMetadata)")
	}
	if j.Attributes == nil {
		j.Attributes = make(map[string]string, len(attributes))
	}
	for k, v := range attributes {
		if v != "" {
			j.Attributes[k] = v
		}
	}
	if err := control.ValidAttributes(j.Attributes); err != nil {
		return Refuse(http.StatusBadRequest, "%v", err)
	}
	return nil
}

// params reads query parameters and keeps the first fault.
type params struct {
	values url.Values
	err    error
}

// text returns a parameter of bounded length without control characters.
func (p *params) text(name string) string { return p.bounded(name, p.values.Get(name)) }

// bounded returns s if it is short and without control characters.
func (p *params) bounded(name, s string) string {
	if len(s) > maxParamBytes {
		p.fail("parameter %q has %d bytes, at most %d are allowed", name, len(s), maxParamBytes)
		return ""
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
		p.fail("parameter %q contains control characters or is not UTF-8", name)
		return ""
	}
	return s
}

// flag reads "1" and "true" as true, anything else as false, as LiveKit does.
func (p *params) flag(name string, unset bool) bool {
	switch s := p.values.Get(name); s {
	case "":
		return unset
	default:
		return s == "1" || s == "true"
	}
}

// number reads a number; 0 stands for absent.
func (p *params) number(name string) int {
	s := p.text(name)
	if s == "" {
		return 0
	}
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		p.fail("parameter %q is %q, want a number from 0 to 65535", name, s)
	}
	return int(n)
}

// small returns n if it is a number that v0 would take.
func (p *params) small(name string, n int32) int {
	if n < 0 || n > 65535 {
		p.fail("parameter %q is %d, want a number from 0 to 65535", name, n)
		return 0
	}
	return int(n)
}

func (p *params) fail(format string, a ...any) {
	if p.err == nil {
		p.err = Refuse(http.StatusBadRequest, format, a...)
	}
}

// remoteAddr reads the address of the HTTP server's connection.
func remoteAddr(r *http.Request) netip.AddrPort {
	a, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// Refusal is why a client may not join, with the HTTP status that says so.
//
// What the user sees of it depends on the status: livekit-client shows the text
// of 401 and 403 only, and server-sdk-go puts "unauthorized: " before that of
// 401. A refusal meant for people's eyes, such as one by residency, is a 403.
type Refusal struct {
	Status int
	Text   string
}

// Refuse makes a Refusal.
func Refuse(status int, format string, a ...any) *Refusal {
	return &Refusal{Status: status, Text: fmt.Sprintf(format, a...)}
}

// Error returns the text for the user.
func (r *Refusal) Error() string { return r.Text }
