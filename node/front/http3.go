package front

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/domicile/domicile/node/front/admission"
)

// quicLimits bound the QUIC connections. A browser opens one for each page.
var quicLimits = admission.Limits{
	Open: 4096, OpenPerSource: 512,
	Pending: 512, PendingPerSource: 128,
	Rate: 20, Burst: 256,
}

// quicConfig bounds what one QUIC connection may make us keep. Early data, which
// can be replayed, is not taken.
func quicConfig() *quic.Config {
	return &quic.Config{
		HandshakeIdleTimeout:  3 * time.Second, // and twice that for the whole, about the budget of TCP
		MaxIdleTimeout:        30 * time.Second,
		MaxIncomingStreams:    maxStreams,
		MaxIncomingUniStreams: 8, // control, two of QPACK, and what is not known, which is closed

		InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: 64 << 10,
		InitialConnectionReceiveWindow: 128 << 10, MaxConnectionReceiveWindow: 256 << 10,

		Allow0RTT:       false,
		EnableDatagrams: false,
	}
}

// quicDoor serves HTTP/3.
type quicDoor struct {
	front     *Front
	ledger    *admission.Ledger
	transport *quic.Transport
	server    *http3.Server
}

func newQUICDoor(f *Front) *quicDoor {
	d := &quicDoor{front: f, ledger: admission.NewLedger(quicLimits)}
	var reset quic.StatelessResetKey
	rand.Read(reset[:]) //nolint:errcheck // it cannot fail
	d.transport = &quic.Transport{
		Conn:                f.cfg.QUIC,
		StatelessResetKey:   &reset, // so that clients of before a restart notice at once
		VerifySourceAddress: prove,
		ConnContext:         d.enter,
	}
	d.server = &http3.Server{Handler: d.handler(), MaxHeaderBytes: maxHeader, IdleTimeout: 2 * time.Minute}
	return d
}

// run serves until shutdown.
func (d *quicDoor) run() error {
	l, err := d.transport.Listen(http3.ConfigureTLSConfig(&tls.Config{GetCertificate: d.front.cfg.Certificate}), quicConfig())
	if err != nil {
		return err
	}
	err = d.server.ServeListener(&quicListener{l})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// shutdown lets requests under way finish within the grace.
func (d *quicDoor) shutdown(grace context.Context) {
	d.server.Shutdown(grace) //nolint:errcheck // who is not ready is cut off below
	d.transport.Close()      //nolint:errcheck // nothing is lost with it
	d.front.cfg.QUIC.Close() //nolint:errcheck // nor with that
}

// prove has each client that is new prove its address first, by a Retry (RFC 9000
// section 8.1.2). It costs a round trip, on a page that has come over TCP already,
// and clients that were here before have a token. Without, a datagram of 1200 bytes
// with a forged source would be answered with up to three times as many, and forged
// sources would use up the shares of honest ones.
func prove(net.Addr) bool { return true }

type ticketKey struct{}

// enter counts a connection in before its handshake, or refuses it.
func (d *quicDoor) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	var addr netip.Addr
	if a, ok := info.RemoteAddr.(interface{ AddrPort() netip.AddrPort }); ok {
		addr = a.AddrPort().Addr()
	}
	ticket, verdict := d.ledger.Enter(admission.Source(addr), d.front.cfg.Now())
	if verdict != admission.Admitted {
		d.front.counts.quicRefused[verdict].Add(1)
		return nil, fmt.Errorf("refused: %s", verdict)
	}
	context.AfterFunc(ctx, ticket.Leave) // ctx ends with the connection
	return context.WithValue(ctx, ticketKey{}, ticket), nil
}

// quicListener settles connections when their handshake is done.
type quicListener struct{ *quic.Listener }

// Accept returns a connection whose handshake is done.
func (l *quicListener) Accept(ctx context.Context) (*quic.Conn, error) {
	c, err := l.Listener.Accept(ctx)
	if err != nil {
		return nil, err
	}
	if t, ok := c.Context().Value(ticketKey{}).(*admission.Ticket); ok {
		t.Settle()
	}
	return c, nil
}

// handler is that of HTTP/1.1 and 2 with their bounds of time, which http3.Server
// has not.
func (d *quicDoor) handler() http.Handler {
	next := d.front.handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.front.counts.http3.Add(1)
		c, now := http.NewResponseController(w), time.Now()
		if errors.Join(c.SetReadDeadline(now.Add(readTimeout)), c.SetWriteDeadline(now.Add(writeTimeout))) != nil {
			panic(http.ErrAbortHandler) // the stream is gone
		}
		next.ServeHTTP(w, r)
	})
}

// altSvc is the header that tells browsers of HTTP/3 (RFC 7838): for an hour, so
// that those who were told wrong try no longer than that.
func altSvc(port uint16) string { return fmt.Sprintf(`h3=":%d"; ma=3600`, port) }
