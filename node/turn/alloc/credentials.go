package alloc

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// MaxTTL is the longest time for which credentials open an allocation.
const MaxTTL = 15 * time.Minute

// Session stands for one participant in one room. It is keyed, so that a user
// name seen on the wire or in a browser's log names nobody.
type Session [16]byte

// Claims is what a user name says. They are true when the password is right.
type Claims struct {
	Session Session
	Issued  time.Time
	Expires time.Time
}

// Credentials makes and reads time-limited credentials. It keeps no state:
//
//	user name = base36(expires, Unix seconds) "-" base36(issued, Unix µs) "-" hex(session)
//	session   = HMAC(session key, length of room, room, participant), 16 bytes
//	password  = base64(HMAC(password key, user name))
type Credentials struct {
	sessionKey, passwordKey []byte
}

// NewCredentials derives its keys from a secret.
func NewCredentials(secret []byte) *Credentials {
	return &Credentials{
		sessionKey:  mac(secret, []byte("domicile turn tag 1")),
		passwordKey: mac(secret, []byte("domicile turn password 1")),
	}
}

func mac(key []byte, parts ...[]byte) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		h.Write(p)
	}
	return h.Sum(nil)
}

// Session of a participant in a room.
func (c *Credentials) Session(participant, room string) Session {
	n := binary.BigEndian.AppendUint64(nil, uint64(len(room)))
	return Session(mac(c.sessionKey, n, []byte(room), []byte(participant))[:16])
}

// Issue makes credentials that open allocations until ttl has passed, MaxTTL at
// most, for which 0 stands.
func (c *Credentials) Issue(s Session, now time.Time, ttl time.Duration) (username, password string) {
	if ttl <= 0 || ttl > MaxTTL {
		ttl = MaxTTL
	}
	username = strconv.FormatInt(now.Add(ttl).Unix(), 36) + "-" +
		strconv.FormatInt(now.UnixMicro(), 36) + "-" + hex.EncodeToString(s[:])
	return username, c.password(username)
}

func (c *Credentials) password(username string) string {
	return base64.RawStdEncoding.EncodeToString(mac(c.passwordKey, []byte(username)))
}

// key is the long-term key of RFC 8489 section 9.2.2.
func (c *Credentials) key(username string) [md5.Size]byte {
	return md5.Sum([]byte(username + ":" + Realm + ":" + c.password(username)))
}

// maxUsername is more than any user name of ours has.
const maxUsername = 64

var errUsername = errors.New("user name: not one of ours")

// parse reads a user name. Anybody can write one; only the password, which
// depends on all of it, makes it true.
func parse(username string) (Claims, error) {
	if len(username) > maxUsername {
		return Claims{}, errUsername
	}
	expiry, rest, _ := strings.Cut(username, "-")
	issue, tag, _ := strings.Cut(rest, "-")
	expires, err1 := strconv.ParseInt(expiry, 36, 64)
	issued, err2 := strconv.ParseInt(issue, 36, 64)
	raw, err3 := hex.DecodeString(tag)
	if err1 != nil || err2 != nil || err3 != nil || len(raw) != len(Session{}) {
		return Claims{}, errUsername
	}
	return Claims{Session: Session(raw), Issued: time.UnixMicro(issued), Expires: time.Unix(expires, 0)}, nil
}
