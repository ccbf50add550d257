package signal

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/livekit/protocol/livekit"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/domicile/domicile/control"
)

// wrap makes the parameter as livekit-client does.
func wrap(t testing.TB, req *livekit.JoinRequest, c livekit.WrappedJoinRequest_Compression) string {
	t.Helper()
	b, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	if c == livekit.WrappedJoinRequest_GZIP {
		b = zip(t, b)
	}
	return wrapRaw(t, b, c)
}

func zip(t testing.TB, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func wrapRaw(t testing.TB, b []byte, c livekit.WrappedJoinRequest_Compression) string {
	t.Helper()
	w, err := proto.Marshal(&livekit.WrappedJoinRequest{Compression: c, JoinRequest: b})
	if err != nil {
		t.Fatal(err)
	}
	return base64.URLEncoding.EncodeToString(w)
}

// browserJoin is what livekit-client 2.23 sends.
func browserJoin() *livekit.JoinRequest {
	return &livekit.JoinRequest{
		ClientInfo: &livekit.ClientInfo{Sdk: livekit.ClientInfo_JS, Version: "2.23.0", Protocol: 17, ClientProtocol: 2,
			Os: "macOS", OsVersion: "15.1", Browser: "Chrome", BrowserVersion: "140", DeviceModel: "Pixel 9", Network: "wifi"},
		ConnectionSettings: &livekit.ConnectionSettings{AutoSubscribe: true, AdaptiveStream: true},
		PublisherOffer:     &livekit.SessionDescription{Type: "offer", Sdp: "v=0\r\n", Id: 1},
		AddTrackRequests:   []*livekit.AddTrackRequest{{Cid: "c"}},
	}
}

func TestParseJoinRequest(t *testing.T) {
	for _, c := range []livekit.WrappedJoinRequest_Compression{livekit.WrappedJoinRequest_NONE, livekit.WrappedJoinRequest_GZIP} {
		req := browserJoin()
		j, err := ParseJoin(get("/rtc/v1?access_token="+token(t, nil)+"&join_request="+wrap(t, req, c)), keys, now)
		if err != nil {
			t.Fatal(err)
		}
		want := Join{
			Single: true, First: First{Offer: req.PublisherOffer, Tracks: req.AddTrackRequests},
			Token: j.Token, Room: "standup", Identity: "alice", Attributes: map[string]string{"role": "host"},
			AutoSubscribe: true, AdaptiveStream: true,
			SDK: "js", SDKVersion: "2.23.0", Protocol: 17, ClientProtocol: 2, OS: "macOS", OSVersion: "15.1",
			Browser: "Chrome", BrowserVersion: "140", DeviceModel: "Pixel 9", Network: "wifi",
			RemoteAddr: netip.MustParseAddrPort("192.0.2.7:4711"),
		}
		if d := cmp.Diff(want, j, protocmp.Transform(), cmpopts.EquateComparable(netip.AddrPort{})); d != "" {
			t.Errorf("%v (-want +got):\n%s", c, d)
		}
	}
}

func TestParseJoinRequestOfAResume(t *testing.T) {
	no := false
	req := &livekit.JoinRequest{
		ClientInfo: &livekit.ClientInfo{Sdk: livekit.ClientInfo_REACT_NATIVE},
		Reconnect:  true, ReconnectReason: livekit.ReconnectReason_RR_PUBLISHER_FAILED, ParticipantSid: "PA_x",
		SyncState:             &livekit.SyncState{TrackSidsDisabled: []string{"TR_x"}},
		ConnectionSettings:    &livekit.ConnectionSettings{SubscriberAllowPause: &no},
		Metadata:              "mine",
		ParticipantAttributes: map[string]string{"seat": "4", "role": ""},
	}
	own := token(t, func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true); g.Metadata = "the token's" })
	j, err := ParseJoin(get("/rtc?access_token="+own+"&join_request="+wrap(t, req, livekit.WrappedJoinRequest_GZIP)), keys, now)
	if err != nil {
		t.Fatal(err)
	}
	if !j.Single || !j.Reconnect || j.SID != "PA_x" || j.ReconnectReason != livekit.ReconnectReason_RR_PUBLISHER_FAILED {
		t.Errorf("resume %+v", j)
	}
	if j.SDK != "reactnative" || !j.NoPause || j.AutoSubscribe || len(j.First.Sync.GetTrackSidsDisabled()) != 1 {
		t.Errorf("join %+v", j)
	}
	if j.Token.Metadata != "mine" || j.Attributes["seat"] != "4" || j.Attributes["role"] != "host" {
		t.Errorf("metadata %q, attributes %v", j.Token.Metadata, j.Attributes)
	}
}

func TestParseJoinRequestRefuses(t *testing.T) {
	gz, none := livekit.WrappedJoinRequest_GZIP, livekit.WrappedJoinRequest_NONE
	plain, err := proto.Marshal(browserJoin())
	if err != nil {
		t.Fatal(err)
	}
	with := func(edit func(*livekit.JoinRequest)) string {
		req := browserJoin()
		edit(req)
		return wrap(t, req, gz)
	}
	own := token(t, func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true) })
	for name, c := range map[string]struct {
		token, param string
		status       int
		text         string
	}{
		"none":                    {"", "", 400, "missing"},
		"no base64":               {"", "%21", 400, "base64url"},
		"no protobuf":             {"", "AAAA", 400, "WrappedJoinRequest"},
		"unknown compression":     {"", wrapRaw(t, plain, 7), 400, "compression 7"},
		"gzip that is none":       {"", wrapRaw(t, plain, gz), 400, "not gzip"},
		"cut gzip":                {"", wrapRaw(t, zip(t, plain)[:40], gz), 400, "cut"},
		"a bomb":                  {"", wrapRaw(t, zip(t, make([]byte, 50<<20)), gz), 400, "more than 1048576 bytes"},
		"cut JoinRequest":         {"", wrapRaw(t, plain[:len(plain)-1], none), 400, "does not hold"},
		"line break in the os":    {"", with(func(r *livekit.JoinRequest) { r.ClientInfo.Os = "a\nb" }), 400, "control characters"},
		"sid of 129 bytes":        {"", with(func(r *livekit.JoinRequest) { r.ParticipantSid = strings.Repeat("s", 129) }), 400, "129 bytes"},
		"protocol below zero":     {"", with(func(r *livekit.JoinRequest) { r.ClientInfo.Protocol = -1 }), 400, "-1"},
		"65 tracks":               {"", with(func(r *livekit.JoinRequest) { r.AddTrackRequests = make([]*livekit.AddTrackRequest, 65) }), 400, "65 tracks"},
		"metadata, not allowed":   {"", with(func(r *livekit.JoinRequest) { r.Metadata = "m" }), 403, "canUpdateOwnMetadata"},
		"attributes, not allowed": {"", with(func(r *livekit.JoinRequest) { r.ParticipantAttributes = map[string]string{"a": "b"} }), 403, "canUpdateOwnMetadata"},
		"metadata, too large":     {own, with(func(r *livekit.JoinRequest) { r.Metadata = strings.Repeat("m", 64<<10+1) }), 400, "at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			if c.token == "" {
				c.token = token(t, nil)
			}
			_, err := ParseJoin(get("/rtc/v1?access_token="+c.token+"&join_request="+c.param), keys, now)
			var refusal *Refusal
			if !errors.As(err, &refusal) || refusal.Status != c.status || !strings.Contains(refusal.Text, c.text) {
				t.Errorf("%v, want %d with %q", err, c.status, c.text)
			}
		})
	}
}

func FuzzDecodeJoinRequest(f *testing.F) {
	f.Add(wrap(f, browserJoin(), livekit.WrappedJoinRequest_GZIP))
	f.Add(wrap(f, browserJoin(), livekit.WrappedJoinRequest_NONE))
	f.Add(wrapRaw(f, zip(f, make([]byte, 2<<20)), livekit.WrappedJoinRequest_GZIP))
	f.Add("")
	own := token(f, func(g *control.Grants) { g.Video.SetCanUpdateOwnMetadata(true) })
	f.Fuzz(func(t *testing.T, param string) {
		r := get("/rtc/v1")
		q := r.URL.Query()
		q.Set("access_token", own)
		q.Set("join_request", param)
		r.URL.RawQuery = q.Encode()
		j, err := ParseJoin(r, keys, now)
		var refusal *Refusal
		switch {
		case err != nil && (!errors.As(err, &refusal) || refusal.Status < 400 || refusal.Status > 403):
			t.Fatalf("error %v is no refusal", err)
		case err != nil:
			return
		}
		if !j.Single || j.Identity != "alice" || len(j.First.Tracks) > maxAnnounced || control.ValidAttributes(j.Attributes) != nil {
			t.Fatalf("out of bounds: %+v", j)
		}
		for _, s := range []string{j.SID, j.SDK, j.SDKVersion, j.OS, j.Browser, j.DeviceModel, j.Network} {
			if len(s) > maxParamBytes || strings.ContainsAny(s, "\r\n\x00") {
				t.Fatalf("parameter %q", s)
			}
		}
	})
}
