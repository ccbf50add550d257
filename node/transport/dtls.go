package transport

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	_ "crypto/sha256" // fingerprints, of which
	_ "crypto/sha512" // clients choose the hash
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/logging"
	"github.com/pion/transport/v4/packetio"
)

const (
	// handshakeTimeout is long enough for a phone that loses half of its packets.
	handshakeTimeout = 20 * time.Second
	// flightInterval is after what a lost flight is sent again, doubling each time.
	// RFC 6347 section 4.2.4.1 allows less than its second where round trips are
	// known to be short; for a lost packet a joining user waits as long.
	flightInterval = 300 * time.Millisecond
	// helloInterval is the same of ours to a passive client: the first may come before
	// the client sends this way, so that its answer goes another one.
	helloInterval = 100 * time.Millisecond
	// certificateLife: clients check the fingerprint, not the dates.
	certificateLife = 10 * 365 * 24 * time.Hour
	// maxPipe bounds DTLS that waits for its reader, in bytes: half of what SCTP
	// lets a client have on the way.
	maxPipe = 256 << 10
)

// Fingerprint is the hash of a certificate as descriptions have it (RFC 8122).
type Fingerprint struct {
	Hash  string // "sha-256"
	Value string // "AB:CD:…"
}

// Profile is how SRTP is sealed (RFC 5764 section 4.1.2).
type Profile = dtls.SRTPProtectionProfile

// profiles are those that we take, the best first. GCM costs a seventh of the SHA-1
// profile, which is there for old clients.
var profiles = []Profile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80}

// hashes are those that RFC 8122 section 5 leaves strong enough.
var hashes = map[string]crypto.Hash{"sha-256": crypto.SHA256, "sha-384": crypto.SHA384, "sha-512": crypto.SHA512}

// identity is the certificate of an Engine.
type identity struct {
	cert        tls.Certificate
	fingerprint string
}

func newIdentity() (*identity, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return &identity{
		cert:        tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		fingerprint: "sha-256 " + digest(crypto.SHA256, der),
	}, nil
}

// digest writes a certificate's hash as descriptions have it.
func digest(h crypto.Hash, der []byte) string {
	w := h.New()
	w.Write(der)
	s := strings.ToUpper(hex.EncodeToString(w.Sum(nil)))
	var b strings.Builder
	for i := 0; i < len(s); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(s[i : i+2])
	}
	return b.String()
}

// checkRemote finds what a handshake could not work with.
func checkRemote(r Remote) error {
	if r.Setup != "active" && r.Setup != "passive" && r.Setup != "actpass" {
		return fmt.Errorf("set remote: unknown setup %q", r.Setup)
	}
	if r.Profile != 0 && !slices.Contains(profiles, r.Profile) {
		return fmt.Errorf("set remote: unknown profile %d of SRTP", r.Profile)
	}
	for _, f := range r.Fingerprints {
		if _, ok := hashes[strings.ToLower(f.Hash)]; ok {
			return nil
		}
	}
	return errors.New("set remote: no fingerprint of sha-256, sha-384 or sha-512")
}

func sameFingerprints(a, b []Fingerprint) bool {
	fold := func(fs []Fingerprint) []string {
		var all []string
		for _, f := range fs {
			all = append(all, strings.ToLower(f.Hash+" "+f.Value))
		}
		slices.Sort(all)
		return slices.Compact(all)
	}
	return slices.Equal(fold(a), fold(b))
}

// matches tells whether a certificate has one of the fingerprints.
func matches(der []byte, expected []Fingerprint) bool {
	for _, f := range expected {
		h, ok := hashes[strings.ToLower(f.Hash)]
		if ok && subtle.ConstantTimeCompare([]byte(digest(h, der)), []byte(strings.ToUpper(f.Value))) == 1 {
			return true
		}
	}
	return false
}

// shake does the handshake and takes the keys out of it.
func (c *Conn) shake(r Remote) (*dtls.Conn, error) {
	ctx, cancel := context.WithTimeout(c.ctx, handshakeTimeout)
	defer cancel()
	conn, err := c.newDTLS(r)
	if err != nil {
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err = conn.HandshakeContext(ctx); err == nil {
		err = c.takeKeys(conn, r.Setup == "passive")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("handshake: %w", err), conn.Close())
	}
	return conn, nil
}

func (c *Conn) newDTLS(r Remote) (*dtls.Conn, error) {
	verify := func(certs [][]byte, _ [][]*x509.Certificate) error {
		if len(certs) == 0 || !matches(certs[0], r.Fingerprints) {
			return errors.New("certificate is not the one of the description")
		}
		return nil
	}
	config := &dtls.Config{
		Certificates:           []tls.Certificate{c.engine.ident.cert},
		SRTPProtectionProfiles: profiles,
		ClientAuth:             dtls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // of names and dates; verify checks the fingerprint
		VerifyPeerCertificate:  verify,
		ExtendedMasterSecret:   dtls.RequireExtendedMasterSecret,
		FlightInterval:         flightInterval,
		// The cookie proves that a client hears what is sent to it. The check did.
		InsecureSkipVerifyHello: true,
		LoggerFactory:           quiet{},
	}
	if r.Setup == "passive" {
		if r.Profile != 0 {
			config.SRTPProtectionProfiles = []Profile{r.Profile}
		}
		config.FlightInterval = helloInterval
		return dtls.Client(c.pipe, nowhere{}, config)
	}
	return dtls.Server(c.pipe, nowhere{}, config)
}

// handshakeIn takes a DTLS datagram.
func (c *Conn) handshakeIn(b []byte) {
	if _, err := c.pipe.buffer.Write(b); err != nil {
		c.drops.add(DropHandshake)
	}
}

// pipe is the connection as DTLS sees it: it reads what the workers put in, and
// writes to wherever the client is.
type pipe struct {
	conn   *Conn
	buffer *packetio.Buffer
}

func newPipe(c *Conn) *pipe {
	p := &pipe{conn: c, buffer: packetio.NewBuffer()}
	p.buffer.SetLimitSize(maxPipe)
	return p
}

func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.buffer.Read(b)
	if errors.Is(err, io.ErrShortBuffer) {
		err = nil // a truncated record is one that does not open
	}
	return n, nowhere{}, err
}

// WriteTo sends at once: a flight is one datagram or two, and SCTP paces itself.
// Without a path the datagram is lost, and DTLS sends again.
func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	to := p.conn.way()
	if to == nil {
		return len(b), nil
	}
	if len(b) > maxReserve {
		return 0, fmt.Errorf("write DTLS: %d bytes", len(b))
	}
	batch := p.conn.engine.Batch()
	defer p.conn.engine.Release(batch)
	batch.send(to, b)
	return len(b), nil
}

func (p *pipe) Close() error                       { return p.buffer.Close() }
func (p *pipe) LocalAddr() net.Addr                { return nowhere{} }
func (p *pipe) SetDeadline(t time.Time) error      { return p.buffer.SetReadDeadline(t) }
func (p *pipe) SetReadDeadline(t time.Time) error  { return p.buffer.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(_ time.Time) error { return nil }

// nowhere stands for the client's address, which changes.
type nowhere struct{}

func (nowhere) Network() string { return "udp" }
func (nowhere) String() string  { return "client" }

// quiet keeps pion silent: what it logs holds addresses of participants.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger { return quiet{} }
func (quiet) Trace(string)                           {}
func (quiet) Tracef(string, ...any)                  {}
func (quiet) Debug(string)                           {}
func (quiet) Debugf(string, ...any)                  {}
func (quiet) Info(string)                            {}
func (quiet) Infof(string, ...any)                   {}
func (quiet) Warn(string)                            {}
func (quiet) Warnf(string, ...any)                   {}
func (quiet) Error(string)                           {}
func (quiet) Errorf(string, ...any)                  {}
