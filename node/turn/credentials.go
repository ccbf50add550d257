package turn

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxTTL is the longest time for which credentials open an allocation.
const MaxTTL = 15 * time.Minute

// tag stands for one participant's session in one room. It is keyed, so that a
// user name seen on the wire or in a browser's log names nobody.
type tag [16]byte

// claims is what a user name says.
type claims struct {
	tag     tag
	issued  time.Time
	expires time.Time
}

// credentials makes and reads time-limited credentials. It keeps no state:
//
//	user name = base36(expires, Unix seconds) "-" base36(issued, Unix µs) "-" hex(tag)
//	tag       = HMAC(tag key, length of room, room, participant), 16 bytes
//	password  = base64(HMAC(password key, user name))
type credentials struct {
	tagKey, passwordKey []byte
}

func newCredentials(secret []byte) *credentials {
	return &credentials{
		tagKey:      mac(secret, []byte("domicile turn tag 1")),
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

func tagOf(c *credentials, participant, room string) tag {
	n := binary.BigEndian.AppendUint64(nil, uint64(len(room)))
	return tag(mac(c.tagKey, n, []byte(room), []byte(participant))[:16])
}

func (c *credentials) issue(t tag, now time.Time, ttl time.Duration) (username, password string) {
	if ttl <= 0 || ttl > MaxTTL {
		ttl = MaxTTL
	}
	username = strconv.FormatInt(now.Add(ttl).Unix(), 36) + "-" +
		strconv.FormatInt(now.UnixMicro(), 36) + "-" + hex.EncodeToString(t[:])
	return username, c.password(username)
}

func (c *credentials) password(username string) string {
	return base64.RawStdEncoding.EncodeToString(mac(c.passwordKey, []byte(username)))
}

// key is the long-term key of RFC 8489 section 9.2.2.
func (c *credentials) key(username, realm string) []byte {
	sum := md5.Sum([]byte(username + ":" + realm + ":" + c.password(username)))
	return sum[:]
}

// parse reads a user name. Anybody can write one; only the password, which
// depends on all of it, makes it true.
func parse(username string) (claims, error) {
	fail := func() (claims, error) { return claims{}, fmt.Errorf("user name %q: not one of ours", username) }
	parts := strings.Split(username, "-")
	if len(parts) != 3 {
		return fail()
	}
	expires, err1 := strconv.ParseInt(parts[0], 36, 64)
	issued, err2 := strconv.ParseInt(parts[1], 36, 64)
	raw, err3 := hex.DecodeString(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || len(raw) != len(tag{}) {
		return fail()
	}
	return claims{tag: tag(raw), issued: time.UnixMicro(issued), expires: time.Unix(expires, 0)}, nil
}
