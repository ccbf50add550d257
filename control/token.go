package control

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/control/membership"
)

// TokenLeeway is how far the clock of whoever issued a token may differ from
// ours before the token counts as expired or not yet valid.
const TokenLeeway = 10 * time.Second

// Keys maps API keys to their secrets.
type Keys map[string]string

// Grants is what a verified token says: who its bearer is and what they may do.
// It holds personal data and belongs in no log.
type Grants struct {
	APIKey     string // the key that signed the token
	Identity   string // may be empty in tokens for the API
	Name       string
	Metadata   string
	Attributes map[string]string
	Kind       livekit.ParticipantInfo_Kind
	Video      *auth.VideoGrant // never nil after VerifyToken; its Get… methods know the defaults of unset fields
	RoomPreset string           // names a residency policy
	Expires    time.Time
}

// claims is the token's body as LiveKit's SDKs write it.
type claims struct {
	jwt.RegisteredClaims
	Name       string            `json:"name,omitempty"`
	Kind       string            `json:"kind,omitempty"`
	Metadata   string            `json:"metadata,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	Video      *auth.VideoGrant  `json:"video,omitempty"`
	RoomPreset string            `json:"roomPreset,omitempty"`
}

var (
	errMalformed  = errors.New("token is malformed: want the three parts of a JWT")
	errUnknownKey = errors.New("unknown API key") // from the key lookup through the JWT parser
)

// VerifyToken checks a LiveKit access token at now and returns what it grants.
// Only HS256 by a known API key is accepted, with an expiry and a video grant;
// a kid header is never looked at. Errors say what is wrong in words for
// people, and repeat nothing of the token but its API key.
//
// It does not use auth.ParseAPIToken, which reads the clock itself and forgives
// a whole minute.
func VerifyToken(token string, keys Keys, now time.Time) (*Grants, error) {
	switch {
	case token == "":
		return nil, errors.New("token is empty")
	case len(token) > MaxTokenBytes:
		return nil, fmt.Errorf("token has %d bytes, at most %d are allowed", len(token), MaxTokenBytes)
	case strings.ContainsAny(token, "\r\n"):
		// Go's base64 decoder skips line breaks, so many texts would be one token.
		return nil, errMalformed
	}
	var c claims
	parsed, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) {
		secret := keys[c.Issuer]
		if secret == "" {
			return nil, errUnknownKey
		}
		return []byte(secret), nil
	},
		jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithTimeFunc(func() time.Time { return now }),
		jwt.WithLeeway(TokenLeeway),
		jwt.WithExpirationRequired(),
	)
	if err != nil {
		return nil, explainToken(parsed, &c, err)
	}
	// RFC 7519 section 4.1.3: who is not named in an audience must refuse the
	// token. LiveKit's tokens have none, so one with it is meant for others.
	if len(c.Audience) > 0 {
		return nil, errors.New("token names an audience (aud), so it is meant for another service")
	}
	if c.Video == nil {
		return nil, errors.New("token carries no video grant")
	}
	return grantsOf(&c)
}

// explainToken puts the parser's error in our words. The cause is left out on
// purpose: it can quote parts of the token.
func explainToken(parsed *jwt.Token, c *claims, err error) error {
	switch {
	case errors.Is(err, errUnknownKey):
		return fmt.Errorf("token is signed for an unknown API key %.64q", c.Issuer)
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return errors.New("token has no expiry (exp)")
	case errors.Is(err, jwt.ErrTokenExpired):
		return fmt.Errorf("token expired at %s", c.ExpiresAt.UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return fmt.Errorf("token is not valid before %s", c.NotBefore.UTC().Format(time.RFC3339))
	}
	if parsed != nil && !errors.Is(err, jwt.ErrTokenMalformed) {
		if alg, ok := parsed.Header["alg"].(string); !ok || alg != jwt.SigningMethodHS256.Alg() {
			return errors.New("token is not signed with HS256")
		}
	}
	if errors.Is(err, jwt.ErrTokenSignatureInvalid) {
		return fmt.Errorf("token's signature does not match the secret of API key %.64q", c.Issuer)
	}
	return errMalformed
}

// grantsOf checks the sizes of what the token says about its bearer.
func grantsOf(c *claims) (*Grants, error) {
	g := &Grants{
		APIKey: c.Issuer, Identity: c.Subject, Name: c.Name, Metadata: c.Metadata, Attributes: c.Attributes,
		Kind: kindOf(c.Kind), Video: c.Video, RoomPreset: c.RoomPreset, Expires: c.ExpiresAt.Time,
	}
	if g.Identity == "" {
		g.Identity = c.ID // early LiveKit SDKs wrote the identity there
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	return g, nil
}

// check says which part of the grants is out of bounds.
func (g *Grants) check() error {
	if g.Identity != "" {
		if err := ValidIdentity(g.Identity); err != nil {
			return fmt.Errorf("token: %w", err)
		}
	}
	if len(g.Name) > MaxNameBytes {
		return fmt.Errorf("token: %w: name has %d bytes, at most %d are allowed", ErrInvalid, len(g.Name), MaxNameBytes)
	}
	if err := ValidMetadata(g.Metadata); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	if err := ValidAttributes(g.Attributes); err != nil {
		return fmt.Errorf("token: %w", err)
	}
	return nil
}

// kindOf reads a participant's kind; what it does not know is a standard one.
func kindOf(s string) livekit.ParticipantInfo_Kind {
	return livekit.ParticipantInfo_Kind(livekit.ParticipantInfo_Kind_value[strings.ToUpper(s)])
}

// MintToken signs a token for the grants, valid for ttl from now on, and before, by
// membership.MaxSkew: the clock of the node that it is shown to may be that far behind.
// g.APIKey and g.Expires are ignored; a token to join a room needs an identity and a room.
func MintToken(apiKey, secret string, g Grants, ttl time.Duration, now time.Time) (string, error) {
	switch {
	case apiKey == "" || secret == "":
		return "", errors.New("mint token: API key or secret is empty")
	case ttl <= 0:
		return "", fmt.Errorf("mint token: validity of %s, want more than 0", ttl)
	case g.Video == nil:
		return "", errors.New("mint token: no video grant")
	case g.Video.RoomJoin && (g.Identity == "" || g.Video.Room == ""):
		return "", errors.New("mint token: joining needs an identity and a room")
	}
	if err := g.check(); err != nil {
		return "", fmt.Errorf("mint %w", err)
	}
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    apiKey,
			Subject:   g.Identity,
			NotBefore: jwt.NewNumericDate(now.Add(-membership.MaxSkew)),
			ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Name: g.Name, Metadata: g.Metadata, Attributes: maps.Clone(g.Attributes),
		Video: g.Video.Clone(), RoomPreset: g.RoomPreset,
	}
	if g.Kind != livekit.ParticipantInfo_STANDARD {
		c.Kind = strings.ToLower(g.Kind.String())
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("mint token: %w", err)
	}
	return token, nil
}
