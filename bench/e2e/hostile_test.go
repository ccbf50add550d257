package e2e

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/quic-go/quic-go"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/residency/identity"
)

// TestBadInput sends a running mesh what it must not take, while two people
// meet: each gets a clear error, and the two notice nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	waw, nyc := meetTwo(t, m, "calm")
	for _, p := range []*tab{waw, nyc} {
		p.must(`window.was = []; for (const e of ["reconnecting", "signalReconnecting", "disconnected"])
			window.__domicile.room.on(e, () => window.was.push(e))`, nil)
	}
	badTokens(t, m)
	badSDP(t, m)
	badRTP(t, m)
	foreignCertificate(t, m)
	for _, p := range []*tab{waw, nyc} {
		p.until("goes on seeing and hearing the other", 10*time.Second, fmt.Sprintf(sees, 1))
		var was []string
		p.must(`return window.was`, &was)
		if len(was) > 0 {
			t.Errorf("%s noticed: %v", p.name, was)
		}
	}
	for _, n := range m.Nodes {
		if log := m.log(n.Name); strings.Contains(log, "panic") || strings.Contains(log, "goroutine ") {
			t.Errorf("node %s panicked", n.Name)
		}
	}
}

func badTokens(t *testing.T, m *mesh) {
	grants := control.Grants{Identity: "eve", Video: &auth.VideoGrant{RoomJoin: true, Room: "calm"}}
	good := m.mint(grants, time.Now())
	foreign, err := control.MintToken(m.Key, strings.Repeat("x", 32), grants, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	unknown, err := control.MintToken("APInobody", m.Secret, grants, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Split(good, ".")[1]
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + body + "."
	for _, c := range []struct{ name, token, says string }{
		{"expired", m.mint(grants, time.Now().Add(-2*time.Hour)), "expired"},
		{"of another secret", foreign, "signature"},
		{"of an unknown key", unknown, "key"},
		{"unsigned", none, "not signed with hs256"},
		{"cut", good[:len(good)/2], "token"},
		{"none", "", "no access token"},
	} {
		for _, path := range []string{"/rtc", "/rtc/validate"} {
			a := m.do(http.MethodGet, m.origin("nyc")+path+"?access_token="+c.token, "", nil)
			if a.status != http.StatusUnauthorized || !strings.Contains(strings.ToLower(a.body), c.says) {
				t.Errorf("a token that is %s, %s: %d %q, want 401 and a text with %q", c.name, path, a.status, a.body, c.says)
			}
			if len(c.token) > 20 && strings.Contains(a.body, c.token) {
				t.Errorf("the answer to a token that is %s repeats it", c.name)
			}
		}
	}
}

// badSDP sends offers that are no offers. Each ends its sender, who is told, or
// is passed over; nobody else notices.
func badSDP(t *testing.T, m *mesh) {
	whole := "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"
	for name, sdp := range map[string]string{
		"empty":        "",
		"cut":          whole[:len(whole)/2],
		"10,000 lines": whole + strings.Repeat("a=candidate:1 1 udp 1 127.0.0.1 1 typ host\r\n", 10_000),
		"10,000 media": whole + strings.Repeat("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n", 10_000),
		"no SDP":       strings.Repeat("\x00\n", 5000),
	} {
		w := m.dial("waw", m.token("calm", "eve", ""))
		w.join()
		w.send(&livekit.SignalRequest{Message: &livekit.SignalRequest_Offer{Offer: &livekit.SessionDescription{Type: "offer", Sdp: sdp}}})
		began := time.Now()
		_, err := w.until(patience*5*time.Second, func(r *livekit.SignalResponse) bool { return r.GetAnswer() != nil })
		switch {
		case err == nil:
			t.Errorf("an SDP that is %s was answered", name)
		case time.Since(began) > patience*4*time.Second:
			t.Errorf("an SDP that is %s: nothing was said for %s", name, time.Since(began))
		default:
			t.Logf("an SDP that is %s: %v", name, err)
		}
	}
}

// badRTP sends the media ports packets that lie about their lengths.
func badRTP(t *testing.T, m *mesh) {
	for _, n := range m.Nodes {
		c, err := net.Dial("udp", n.Media.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		random := rand.New(rand.NewPCG(1, 2))
		for i := range 3000 {
			b := make([]byte, random.IntN(200))
			for j := range b {
				b[j] = byte(random.Uint32())
			}
			for j, x := range [][]byte{
				{0xbf, 0xff, 0, 1}, {0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff}, // 15 CSRCs, extension of 262,140 bytes
				{0x80, 200, 0xff, 0xff}, {0x81, 205, 0xff, 0xff, 0, 0, 0, 1}, // RTCP longer than the packet
				{22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff},                           // a DTLS record of 64 KiB
				{0, 1, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, // STUN likewise
			} {
				if i%7 == j {
					b = append(x, b...)
				}
			}
			if _, err := c.Write(b); err != nil {
				t.Fatalf("the media port of %s: %v", n.Name, err)
			}
		}
	}
}

// foreignCertificate dials a relay port with a certificate of another operator's
// CA that says it is nyc, and with none.
func foreignCertificate(t *testing.T, m *mesh) {
	ca := filepath.Join(t.TempDir(), "ca")
	out := t.TempDir()
	m.mustRun("ca", "init", "--dir", ca)
	m.mustRun("ca", "issue", "--dir", ca, "--out", out, "--name", "fra", "--country", "DE", "--operator", "Somebody",
		"--operator-country", "DE", "--ip", "127.0.0.1")
	pair, err := identity.LoadPair(filepath.Join(out, "fra.pem"), filepath.Join(out, "fra-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, certs := range map[string][]tls.Certificate{"of another CA": {pair}, "missing": nil} {
		ctx, cancel := context.WithTimeout(context.Background(), patience*5*time.Second)
		defer cancel()
		conn, err := quic.DialAddr(ctx, m.node("waw").Relay.String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"domicile/1"},
			Certificates: certs}, &quic.Config{EnableDatagrams: true})
		if err == nil {
			// TLS 1.3: the client is done before the server has looked at its certificate.
			_, err = conn.AcceptStream(ctx)
		}
		if err == nil || ctx.Err() != nil {
			t.Errorf("a certificate that is %s: %v, want to be refused", name, err)
			continue
		}
		t.Logf("a certificate that is %s: %v", name, err)
	}
	if got := m.linked("waw"); got != 3 {
		t.Errorf("waw has links with %d nodes afterwards, itself included, want 3", got)
	}
}

// TestSecondParticipantOfOneIdentity has somebody join again on another node:
// the first connection is told why it ends, and the others keep their meeting.
func TestSecondParticipantOfOneIdentity(t *testing.T) {
	t.Parallel()
	m := sharedMesh(t)
	b, page := startBrowsers(t, ""), servePage(t)
	first := m.mustJoin(b, page, "waw", "twice", "same")
	other := m.mustJoin(b, page, "fra", "twice", "other")
	for _, p := range []*tab{first, other} {
		p.must(`await room.localParticipant.setMicrophoneEnabled(true)`, nil)
	}
	first.until("hears the other", 30*time.Second, `return (await growing()).includes("other microphone")`)
	second := m.mustJoin(b, page, "nyc", "twice", "same")
	began := time.Now()
	first.until("is told", 5*time.Second, `return seen.disconnected === "DUPLICATE_IDENTITY"`)
	t.Logf("told after %s", time.Since(began).Round(time.Millisecond))
	second.must(`await room.localParticipant.setMicrophoneEnabled(true)`, nil)
	second.until("hears the other", 20*time.Second, `return (await growing()).includes("other microphone")`)
	other.until("hears the second", 20*time.Second,
		`return (await growing()).includes("same microphone") && room.remoteParticipants.size === 1 && seen.disconnected === null`)
	var sid string // clients take what is said of their identity for their own
	second.must(`return room.localParticipant.sid`, &sid)
	var seen struct {
		Participants []struct{ Sid, Identity string }
	}
	for _, n := range []string{"fra", "waw", "nyc"} {
		eventually(t, n+" lists two participants", 5*time.Second, func() bool {
			seen.Participants = nil
			m.twirp(n, "ListParticipants", map[string]any{"room": "twice"}, &seen)
			return len(seen.Participants) == 2
		})
		for _, p := range seen.Participants {
			if p.Identity == "same" && p.Sid != sid {
				t.Errorf("%s knows the second as %s, its client as %s", n, p.Sid, sid)
			}
		}
	}
}
