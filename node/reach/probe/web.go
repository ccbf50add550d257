package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 256 << 10

// web tests what a page needs: each way stands on those before it.
func (p *prober) web(ctx context.Context, l *lane) {
	if l.over != Proxy {
		defer p.redirect(ctx, l)
	}
	tcp := p.test(ctx, l, TCP, func(ctx context.Context, _ *Result) error { return p.tcp(ctx, l) })
	switch tcp.Outcome {
	case Works:
	case NoRoute:
		for _, w := range []Way{TLS, HTTP1, HTTP2, WebSocket, HTTP3} {
			p.without(l, w, NoRoute, "")
		}
		return
	default:
		p.skip(l, "TCP does not work", TLS, HTTP1, HTTP2, WebSocket)
		p.http3(ctx, l)
		return
	}
	secure := p.test(ctx, l, TLS, func(ctx context.Context, r *Result) error { return p.tls(ctx, l, r) })
	if secure.Outcome != Works && secure.Outcome != Certificate {
		p.skip(l, "TLS does not work", HTTP1, HTTP2, WebSocket)
		p.http3(ctx, l)
		return
	}
	first := p.test(ctx, l, HTTP1, func(ctx context.Context, r *Result) error { return p.about(ctx, l, r, "http/1.1") })
	if first.Outcome == NotDomicile {
		p.skip(l, "it is not a Domicile node", HTTP2, WebSocket, HTTP3)
		return
	}
	p.test(ctx, l, HTTP2, func(ctx context.Context, r *Result) error { return p.about(ctx, l, r, "h2") })
	p.webSocket(ctx, l)
	p.http3(ctx, l)
}

func (p *prober) skip(l *lane, why string, ways ...Way) {
	for _, w := range ways {
		p.without(l, w, Untested, why)
	}
}

func (p *prober) tcp(ctx context.Context, l *lane) error {
	c, err := l.dial(ctx, p.cfg.Host, p.cfg.Port)
	if err != nil {
		return err
	}
	return c.Close()
}

// tlsConfig is that of every test but the one of the certificate: a certificate
// that does not hold is said once, and the rest is tested all the same. No secret
// is sent.
func (p *prober) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{ServerName: p.cfg.Host, RootCAs: p.cfg.Roots, Time: p.cfg.Now, NextProtos: protocols, InsecureSkipVerify: true} //nolint:gosec // see above
}

// tls shakes hands and looks at the certificate as a browser does.
func (p *prober) tls(ctx context.Context, l *lane, r *Result) error {
	raw, err := l.dial(ctx, p.cfg.Host, p.cfg.Port)
	if err != nil {
		return err
	}
	defer raw.Close()
	chain, version, err := p.shake(ctx, raw, p.cfg.Host)
	if isCertificate(err) {
		r.Cause, r.Mend = distrust(err, chain, p.cfg.Host, p.cfg.Now())
	}
	if err != nil {
		return err
	}
	left := int(chain[0].NotAfter.Sub(p.cfg.Now()).Hours() / 24)
	r.Detail = fmt.Sprintf("%s, for %s, from %s, ends in %d days (%s)",
		version, names(chain[0]), issuer(chain[0]), left, day(chain[0].NotAfter))
	return nil
}

// shake does a handshake that verifies the certificate for a host.
func (p *prober) shake(ctx context.Context, raw net.Conn, host string) (chain []*x509.Certificate, version string, err error) {
	cfg := p.tlsConfig("http/1.1")
	cfg.ServerName, cfg.InsecureSkipVerify = host, false
	c := tls.Client(raw, cfg)
	err = c.HandshakeContext(ctx)
	var verify *tls.CertificateVerificationError
	if errors.As(err, &verify) {
		return verify.UnverifiedCertificates, "", err
	}
	if err != nil {
		return nil, "", err
	}
	state := c.ConnectionState()
	return state.PeerCertificates, tls.VersionName(state.Version), nil
}

// client makes requests over a lane, with one version of HTTP.
func (p *prober) client(l *lane, protocol string) *http.Client {
	t := &http.Transport{
		TLSClientConfig: p.tlsConfig(), Protocols: new(http.Protocols), DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return nil, err
			}
			return l.dial(ctx, host, uint16(n))
		},
	}
	t.Protocols.SetHTTP1(protocol == "http/1.1")
	t.Protocols.SetHTTP2(protocol == "h2")
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (p *prober) url(scheme, path string) string {
	u := url.URL{Scheme: scheme, Host: net.JoinHostPort(p.cfg.Host, strconv.Itoa(int(p.cfg.Port))), Path: path}
	return u.String()
}

// about asks the node who it is.
func (p *prober) about(ctx context.Context, l *lane, r *Result, protocol string) error {
	return p.ask(ctx, p.client(l, protocol), r)
}

func (p *prober) ask(ctx context.Context, client *http.Client, r *Result) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url("https", "/api/node"), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	var a struct {
		About
		ReachTest *bool `json:"reach_test"`
	}
	if resp.StatusCode != http.StatusOK || json.Unmarshal(b, &a) != nil || a.Name == "" || a.Country == "" {
		return fail(NotDomicile, "GET /api/node: %s%s", resp.Status, server(resp))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.node = &About{Name: printable(a.Name), Country: printable(a.Country), City: printable(a.City), Version: printable(a.Version)}
	p.h3 = p.h3 || strings.Contains(resp.Header.Get("Alt-Svc"), "h3=")
	switch {
	case a.ReachTest == nil:
		p.noTests = "this node is too old to be tested"
	case !*a.ReachTest:
		p.noTests = "the operator has switched tests off: page.reach_test in node.yaml"
	}
	r.Detail = ""
	return nil
}

// maxServer bounds what is shown of a foreign server's name.
const maxServer = 40

func server(resp *http.Response) string {
	s := strings.ToValidUTF8(resp.Header.Get("Server"), "")
	if s == "" {
		return ""
	}
	return ", from " + s[:min(len(s), maxServer)]
}

// webSocket upgrades and measures round trips.
func (p *prober) webSocket(ctx context.Context, l *lane) {
	p.mu.Lock()
	off := p.noTests
	p.mu.Unlock()
	if off != "" {
		p.without(l, WebSocket, Untested, off)
		return
	}
	p.test(ctx, l, WebSocket, func(ctx context.Context, r *Result) error {
		began := time.Now()
		ws, resp, err := websocket.Dial(ctx, p.url("https", "/api/reach"), &websocket.DialOptions{HTTPClient: p.client(l, "http/1.1")}) //nolint:bodyclose // the library closes it
		if err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return fail(upgradeRefused(resp.StatusCode), "%s", resp.Status)
		}
		if err != nil {
			return err
		}
		defer ws.CloseNow() //nolint:errcheck // nothing is owed any more
		r.RTT, err = roundTrips(func(b []byte) error {
			return errors.Join(ws.Write(ctx, websocket.MessageBinary, b), swallow(ws.Read(ctx)))
		})
		r.Took = Millis(time.Since(began))
		return err
	})
}

func swallow(_ websocket.MessageType, _ []byte, err error) error { return err }

func upgradeRefused(status int) Outcome {
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return Limited
	}
	return Refused
}

// pings is how many round trips are measured; the middle one is told.
const pings = 5

// roundTrips measures the time that f takes.
func roundTrips(f func(b []byte) error) (Millis, error) {
	var took []time.Duration
	for i := range pings {
		began := time.Now()
		if err := f(fmt.Appendf(nil, "ping %d", i)); err != nil {
			return 0, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return Millis(took[pings/2]), nil
}

// redirect looks whether plain HTTP leads to the page.
func (p *prober) redirect(ctx context.Context, l *lane) {
	p.test(ctx, l, Redirect, func(ctx context.Context, r *Result) error {
		u := url.URL{Scheme: "http", Host: net.JoinHostPort(p.cfg.Host, strconv.Itoa(int(p.cfg.RedirectPort))), Path: "/"}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return err
		}
		resp, err := p.client(l, "http/1.1").Do(req)
		if err != nil {
			return fail(NotOffered, "") // nobody misses it
		}
		resp.Body.Close()
		to, err := resp.Location()
		if err != nil || to.Scheme != "https" {
			return fail(NotDomicile, "GET %s: %s%s", u.String(), resp.Status, server(resp))
		}
		r.Detail = "to " + to.Scheme + "://" + to.Host
		return nil
	})
}
