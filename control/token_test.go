package control

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
)

var (
	now  = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)
	keys = Keys{"devkey": "secret", "other": "another secret", "empty": ""}
)

// body is a good token's claims, changed by edit.
func body(edit func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{
		"iss": "devkey", "sub": "alice", "name": "Alice",
		"nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"video": map[string]any{"roomJoin": true, "room": "standup"},
	}
	if edit != nil {
		edit(c)
	}
	return c
}

func sign(t *testing.T, method jwt.SigningMethod, key any, c jwt.Claims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(method, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func hs256(t *testing.T, edit func(jwt.MapClaims)) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, []byte("secret"), body(edit))
}

func TestVerifyToken(t *testing.T) {
	set := func(key string, value any) func(jwt.MapClaims) {
		return func(c jwt.MapClaims) { c[key] = value }
	}
	for name, c := range map[string]struct {
		edit func(jwt.MapClaims)
		want string // part of the error; empty: accepted
	}{
		"good":                         {},
		"expired within the leeway":    {edit: set("exp", now.Add(-9*time.Second).Unix())},
		"valid within the leeway":      {edit: set("nbf", now.Add(9*time.Second).Unix())},
		"no nbf":                       {edit: func(c jwt.MapClaims) { delete(c, "nbf") }},
		"unknown claims":               {edit: set("inference", map[string]any{"perform": true})},
		"expired":                      {edit: set("exp", now.Add(-11*time.Second).Unix()), want: "token expired at 2026-05-04T09:59:49Z"},
		"issuer's clock 5 min behind":  {edit: set("exp", now.Add(-5*time.Minute).Unix()), want: "token expired at"},
		"issuer's clock 5 min ahead":   {edit: set("nbf", now.Add(5*time.Minute).Unix()), want: "token is not valid before 2026-05-04T10:05:00Z"},
		"no expiry":                    {edit: func(c jwt.MapClaims) { delete(c, "exp") }, want: "no expiry"},
		"expiry that is text":          {edit: set("exp", "tomorrow"), want: "malformed"},
		"unknown key":                  {edit: set("iss", "stranger"), want: `token is signed for an unknown API key "stranger"`},
		"no issuer":                    {edit: func(c jwt.MapClaims) { delete(c, "iss") }, want: "unknown API key"},
		"key without a secret":         {edit: set("iss", "empty"), want: "unknown API key"},
		"another key's name":           {edit: set("iss", "other"), want: `does not match the secret of API key "other"`},
		"issuer of 10,000 bytes":       {edit: set("iss", strings.Repeat("k", 10_000)), want: "unknown API key"},
		"no video grant":               {edit: func(c jwt.MapClaims) { delete(c, "video") }, want: "no video grant"},
		"null video grant":             {edit: set("video", nil), want: "no video grant"},
		"video grant of another type":  {edit: set("video", "all"), want: "malformed"},
		"audience":                     {edit: set("aud", "billing"), want: "another service"},
		"identity with a line break":   {edit: set("sub", "alice\nadmin"), want: "U+000A"},
		"identity of 257 bytes":        {edit: set("sub", strings.Repeat("a", 257)), want: "257 bytes"},
		"name of 257 bytes":            {edit: set("name", strings.Repeat("a", 257)), want: "257 bytes"},
		"more than 64 KiB of metadata": {edit: set("metadata", strings.Repeat("m", 64<<10)), want: "at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := VerifyToken(hs256(t, c.edit), keys, now)
			wantError(t, err, c.want)
			if (g == nil) != (err != nil) {
				t.Errorf("grants %v with error %v", g, err)
			}
		})
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Fatalf("refused: %v", err)
	case want != "" && err == nil:
		t.Fatalf("accepted, want an error with %q", want)
	case err != nil && !strings.Contains(err.Error(), want):
		t.Fatalf("error %q, want one with %q", err, want)
	case err != nil && len(err.Error()) > 250:
		t.Fatalf("error of %d bytes", len(err.Error()))
	}
}

// TestForgedTokens is A12.
func TestForgedTokens(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := hs256(t, nil)
	parts := strings.Split(good, ".")
	header := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) }
	admin, err := json.Marshal(body(func(c jwt.MapClaims) { c["video"] = map[string]any{"roomCreate": true} }))
	if err != nil {
		t.Fatal(err)
	}
	swapped := base64.RawURLEncoding.EncodeToString(admin)

	for name, c := range map[string]struct{ token, want string }{
		"alg none":                   {sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, body(nil)), "not signed with HS256"},
		"alg nOnE":                   {header(`{"alg":"nOnE"}`) + "." + parts[1] + ".", "not signed with HS256"},
		"RS256":                      {sign(t, jwt.SigningMethodRS256, rsaKey, body(nil)), "not signed with HS256"},
		"HS512 with the right key":   {sign(t, jwt.SigningMethodHS512, []byte("secret"), body(nil)), "not signed with HS256"},
		"RS256 over an HMAC":         {header(`{"alg":"RS256"}`) + "." + parts[1] + "." + parts[2], "not signed with HS256"},
		"alg that is a number":       {header(`{"alg":256}`) + "." + parts[1] + "." + parts[2], "not signed with HS256"},
		"no alg":                     {header(`{}`) + "." + parts[1] + "." + parts[2], "not signed with HS256"},
		"wrong secret":               {sign(t, jwt.SigningMethodHS256, []byte("guess"), body(nil)), "does not match the secret"},
		"empty secret":               {sign(t, jwt.SigningMethodHS256, []byte(""), body(nil)), "does not match the secret"},
		"claims swapped":             {parts[0] + "." + swapped + "." + parts[2], "does not match the secret"},
		"kid is a path":              {header(`{"alg":"HS256","kid":"../../dev/null"}`) + "." + parts[1] + "." + parts[2], "does not match the secret"},
		"signature cut":              {good[:len(good)-4], "does not match the secret"},
		"signature missing":          {parts[0] + "." + parts[1] + ".", "does not match the secret"},
		"two parts":                  {parts[0] + "." + parts[1], "malformed"},
		"four parts":                 {good + ".x", "malformed"},
		"cut in the claims":          {parts[0] + "." + parts[1][:20], "malformed"},
		"claims are not an object":   {parts[0] + "." + header(`[]`) + "." + parts[2], "malformed"},
		"not base64":                 {"!!!.???.###", "malformed"},
		"empty":                      {"", "empty"},
		"a megabyte":                 {strings.Repeat("a.", 1<<19), "at most 65536"},
		"64 KiB of dots":             {strings.Repeat(".", 64<<10), "malformed"},
		"deeply nested claims":       {parts[0] + "." + header(strings.Repeat(`[`, 20_000)) + "." + parts[2], "malformed"},
		"space before a good token":  {" " + good, "malformed"},
		"line break after the token": {good + "\n", "malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			g, err := VerifyToken(c.token, keys, now)
			wantError(t, err, c.want)
			if g != nil {
				t.Errorf("grants %+v beside an error", g)
			}
			for _, p := range strings.Split(c.token, ".") {
				if len(p) > 8 && strings.Contains(err.Error(), p) {
					t.Errorf("error %q repeats the token", err)
				}
			}
		})
	}
}

func TestMintedTokenVerifies(t *testing.T) {
	no := false
	want := Grants{
		APIKey: "devkey", Identity: "alice", Name: "Alice Ä", Metadata: "{}",
		Attributes: map[string]string{"role": "host"}, Kind: livekit.ParticipantInfo_AGENT,
		Video:      &auth.VideoGrant{RoomJoin: true, Room: "standup", CanSubscribe: &no, CanPublishSources: []string{"camera"}},
		RoomPreset: "eea-only", Expires: now.Add(time.Minute),
	}
	token, err := MintToken("devkey", "secret", want, time.Minute, now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := VerifyToken(token, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	got.Expires = got.Expires.UTC()
	if d := cmp.Diff(&want, got); d != "" {
		t.Errorf("grants after a round trip (-want +got):\n%s", d)
	}
	if _, err := VerifyToken(token, keys, now.Add(time.Minute+TokenLeeway)); err == nil {
		t.Error("accepted after its end")
	}
}

// TestMintedTokenIsGoodWhereClocksDiffer: one node signs it, ten minutes ahead, and another
// reads it, ten minutes behind.
func TestMintedTokenIsGoodWhereClocksDiffer(t *testing.T) {
	g := Grants{Identity: "alice", Video: &auth.VideoGrant{RoomJoin: true, Room: "standup"}}
	token, err := MintToken("devkey", "secret", g, time.Hour, now.Add(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := VerifyToken(token, keys, now.Add(-10*time.Minute)); err != nil {
		t.Error(err)
	}
}

// TestReadsLiveKitsTokens: tokens as LiveKit's own library writes them, which
// takes the time from the clock.
func TestReadsLiveKitsTokens(t *testing.T) {
	token, err := auth.NewAccessToken("devkey", "secret").
		SetIdentity("alice").SetName("Alice").SetValidFor(time.Hour).SetKind(livekit.ParticipantInfo_STANDARD).
		SetAttributes(map[string]string{"a": "b"}).SetRoomPreset("eea-only").
		SetVideoGrant(&auth.VideoGrant{RoomJoin: true, Room: "standup"}).ToJWT()
	if err != nil {
		t.Fatal(err)
	}
	g, err := VerifyToken(token, keys, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if g.Identity != "alice" || g.RoomPreset != "eea-only" || g.Attributes["a"] != "b" || g.Kind != livekit.ParticipantInfo_STANDARD {
		t.Errorf("grants %+v", g)
	}
	if v := g.Video; !v.GetCanPublish() || !v.GetCanSubscribe() || !v.GetCanPublishData() || v.GetCanUpdateOwnMetadata() {
		t.Error("unset permissions: want publishing, data and subscribing allowed, own metadata not")
	}

	ours, err := MintToken("devkey", "secret", *g, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v, err := auth.ParseAPIToken(ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, theirs, err := v.Verify("secret"); err != nil || theirs.Video.Room != "standup" || theirs.Identity != "alice" {
		t.Errorf("LiveKit's library reads our token as %+v, %v", theirs, err)
	}
}

func TestMintTokenRefuses(t *testing.T) {
	good := Grants{Identity: "alice", Video: &auth.VideoGrant{RoomJoin: true, Room: "standup"}}
	for name, mint := range map[string]func(g Grants) (string, error){
		"no secret": func(g Grants) (string, error) { return MintToken("devkey", "", g, time.Hour, now) },
		"no key":    func(g Grants) (string, error) { return MintToken("", "secret", g, time.Hour, now) },
		"no time":   func(g Grants) (string, error) { return MintToken("devkey", "secret", g, 0, now) },
		"no grant":  func(g Grants) (string, error) { g.Video = nil; return MintToken("devkey", "secret", g, time.Hour, now) },
		"no identity": func(g Grants) (string, error) {
			g.Identity = ""
			return MintToken("devkey", "secret", g, time.Hour, now)
		},
		"huge metadata": func(g Grants) (string, error) {
			g.Metadata = strings.Repeat("m", 1<<20)
			return MintToken("devkey", "secret", g, time.Hour, now)
		},
	} {
		if token, err := mint(good); err == nil || token != "" {
			t.Errorf("%s: token %q, error %v", name, token, err)
		}
	}
}

func FuzzVerifyToken(f *testing.F) {
	good, err := jwt.NewWithClaims(jwt.SigningMethodHS256, body(nil)).SignedString([]byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		g, err := VerifyToken(token, keys, now)
		if (g == nil) != (err != nil) {
			t.Fatalf("grants %+v with error %v", g, err)
		}
		if err == nil && token != good {
			t.Fatalf("a token that nobody signed is accepted: %q", token)
		}
	})
}

// TestKeysAreNotChanged guards the map that all requests share.
func TestKeysAreNotChanged(t *testing.T) {
	before := maps.Clone(keys)
	_, err := VerifyToken(hs256(t, func(c jwt.MapClaims) { c["iss"] = "stranger" }), keys, now)
	wantError(t, err, "unknown API key")
	if !maps.Equal(before, keys) {
		t.Errorf("keys became %v", keys)
	}
}
