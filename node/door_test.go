package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
)

const stunCookie = "\x21\x12\xa4\x42"

// allocate is a bare TURN Allocate request (RFC 8656 section 7.1) for UDP.
var allocate = []byte("\x00\x03\x00\x08" + stunCookie + "0123456789ab" + "\x00\x19\x00\x04\x11\x00\x00\x00")

// unauthorized tells whether a message is the answer of a TURN server to it: an
// error of Allocate, 401.
func unauthorized(b []byte) error {
	if len(b) < 20 || binary.BigEndian.Uint16(b) != 0x0113 || string(b[8:20]) != "0123456789ab" {
		return fmt.Errorf("answer % x is no error of Allocate", b)
	}
	if !bytes.Contains(b, []byte("\x00\x00\x04\x01")) {
		return fmt.Errorf("answer % x has no code 401", b)
	}
	return nil
}

// onePort is a node of which everything is on one port, for TCP and UDP.
type onePort struct {
	*testNode
	addr  string
	roots *tls.Config
}

func startOnePort(t *testing.T, edit func(*Config)) *onePort {
	t.Helper()
	m := newMesh(t, testBundle(1))
	cfg := m.secure(m.config("fra DE origin"))
	if edit != nil {
		edit(&cfg)
	}
	return &onePort{testNode: m.start(cfg), addr: cfg.Listen.HTTPS.String(), roots: &tls.Config{RootCAs: m.ca.Pool(), ServerName: "node.test"}}
}

func (o *onePort) dial(ctx context.Context, network string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, o.addr)
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

func (o *onePort) dialTLS(ctx context.Context, alpn ...string) (net.Conn, error) {
	c, err := o.dial(ctx, "tcp")
	if err != nil {
		return nil, err
	}
	cfg := o.roots.Clone()
	cfg.NextProtos = alpn
	return tls.Client(c, cfg), nil
}

// asks says bytes and hands the answer to a judge.
func asks(dial func(context.Context) (net.Conn, error), say []byte, judge func([]byte) error) func(context.Context) error {
	return func(ctx context.Context) error {
		c, err := dial(ctx)
		if err != nil {
			return err
		}
		defer c.Close()
		if _, err := c.Write(say); err != nil {
			return err
		}
		b := make([]byte, 2048)
		n, err := c.Read(b)
		if n == 0 && err != io.EOF && !errors.Is(err, syscall.ECONNRESET) { // closed with bytes unread
			return fmt.Errorf("no answer: %w", err)
		}
		return judge(b[:n])
	}
}

func closed(b []byte) error {
	if len(b) > 0 {
		return fmt.Errorf("answered with %q", b)
	}
	return nil
}

func says(what string) func([]byte) error {
	return func(b []byte) error {
		if !bytes.Contains(b, []byte(what)) {
			return fmt.Errorf("no %q in %.200q", what, b)
		}
		return nil
	}
}

// runs a program and looks for words in what it prints.
func runs(what, stdin, name string, args ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, name, args...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return says(what)(out)
	}
}

// TestOnePortTakesEverythingAtOnce: each of these reaches its handler while all the
// others are under way, and while half handshakes and slow bytes stand about.
func TestOnePortTakesEverythingAtOnce(t *testing.T) {
	t.Parallel()
	o := startOnePort(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	url := "https://" + o.addr + "/"
	over := func(network string) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return o.dial(ctx, network) }
	}
	overTLS := func(alpn ...string) func(context.Context) (net.Conn, error) {
		return func(ctx context.Context) (net.Conn, error) { return o.dialTLS(ctx, alpn...) }
	}
	iceHead := append([]byte{0, byte(len(allocate))}, allocate...) // framed as RFC 4571, and no check
	ways := map[string]func(context.Context) error{
		"curl, HTTP/2":                  runs("HTTP/2 200", "", "curl", "-skI", "-X", "GET", url),
		"curl, HTTP/1.1":                runs("HTTP/1.1 200", "", "curl", "-skI", "--http1.1", "-X", "GET", url),
		"curl without ALPN":             runs("HTTP/1.1 200", "", "curl", "-skI", "--no-alpn", "-X", "GET", url),
		"curl, no TLS":                  runs("Location: "+url+"a?b", "", "curl", "-sI", "-X", "GET", "http://"+o.addr+"/a?b"),
		"openssl s_client":              runs("ALPN protocol: stun.turn", "", "openssl", "s_client", "-connect", o.addr, "-alpn", "stun.turn", "-tls1_2"),
		"openssl s_client without ALPN": runs("No ALPN negotiated", "", "openssl", "s_client", "-connect", o.addr),
		"TURN over UDP":                 asks(over("udp"), allocate, unauthorized),
		"TURN over TCP":                 asks(over("tcp"), allocate, unauthorized),
		"TURN over TLS":                 asks(overTLS("stun.turn"), allocate, unauthorized),
		"TURN over TLS without ALPN":    asks(overTLS(), allocate, unauthorized),
		"ICE-TCP, and no check":         asks(over("tcp"), iceHead, closed),
		"garbage":                       asks(over("tcp"), []byte("\xfe\xed\xfa\xce and more"), closed),
		"garbage within TLS":            asks(overTLS(), []byte("\xfe\xed\xfa\xce and more"), closed),
		"a PROXY header of anybody":     asks(over("tcp"), []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x50\x12\x67\x01\xbb"), closed),
		"HTTP/3":                        o.http3,
		"the API over HTTP/1.1 by hand": asks(overTLS("http/1.1"), []byte("GET /api/config HTTP/1.1\r\nHost: node.test\r\nConnection: close\r\n\r\n"), says("HTTP/1.1 ")),
	}
	for range 50 { // in everybody's way
		half, err := o.dial(ctx, "tcp")
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		io.WriteString(half, "\x16\x03\x01\x02\x00\x01")
		silent, err := o.dial(ctx, "tcp")
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	var all sync.WaitGroup
	for name, way := range ways {
		for range 3 {
			all.Go(func() {
				if err := way(ctx); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			})
		}
	}
	all.Wait()
	got := o.front.Stats().Outcomes
	for what, least := range map[string]uint64{"http": 12, "turn": 9, "ice_tcp": 3, "redirect": 3, "garbage": 9} {
		if got[what] < least {
			t.Errorf("%d connections went to %s, want at least %d", got[what], what, least)
		}
	}
	if n := o.front.Stats().HTTP3; n != 3 {
		t.Errorf("%d requests over HTTP/3, want 3", n)
	}
}

func (o *onePort) http3(ctx context.Context) error {
	_, err := o.get3(ctx, "/")
	return err
}

func (o *onePort) get3(ctx context.Context, path string) (string, error) {
	tr := &http3.Transport{TLSClientConfig: o.roots}
	defer tr.Close()
	return fetch(ctx, tr, "https://"+o.addr+path)
}

// fetch returns the answer's status and body in one.
func fetch(ctx context.Context, tr http.RoundTripper, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%d %s", resp.StatusCode, b), err
}

// TestOperatorsSideIsNotOnAttendeesPorts (A19): nothing that the admin socket or
// the metrics say is to be had at an address that attendees reach.
func TestOperatorsSideIsNotOnAttendeesPorts(t *testing.T) {
	t.Parallel()
	var metrics netip.AddrPort
	o := startOnePort(t, func(c *Config) {
		metrics = freePort(t)
		c.Listen.Metrics = metrics
		c.Listen.HTTP = freePort(t)
	})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	plain := &http.Transport{DisableKeepAlives: true}
	secure := &http.Transport{DisableKeepAlives: true, TLSClientConfig: o.roots, ForceAttemptHTTP2: true}
	ports := map[string]func(path string) (string, error){
		"https":  func(p string) (string, error) { return fetch(ctx, secure, "https://"+o.addr+p) },
		"HTTP/3": func(p string) (string, error) { return o.get3(ctx, p) },
		"http":   func(p string) (string, error) { return fetch(ctx, plain, "http://"+o.cfg.Listen.HTTP.String()+p) },
		"http_redirect": func(p string) (string, error) {
			return fetch(ctx, noFollow{plain}, "http://"+o.cfg.Listen.Redirect.String()+p)
		},
	}
	telling := []string{"domicile_attendees", `"members"`, `"linked"`, "goroutine ", "# HELP"}
	told := func(s string) bool {
		for _, w := range telling {
			if strings.Contains(s, w) {
				return true
			}
		}
		return false
	}
	for port, get := range ports {
		for _, path := range []string{"/metrics", "//metrics", "/../metrics", "/api/../metrics", "/state", "/explain?room=r", "/api/state", "/admin", "/admin.sock", "/debug/pprof/", "/debug/vars"} {
			got, err := get(path)
			if err != nil {
				t.Errorf("%s%s: %v", port, path, err)
			}
			if told(got) {
				t.Errorf("%s%s tells what only the operator may know: %.200q", port, path, got)
			}
		}
	}
	// The same eyes see it where it is.
	if got, err := fetch(ctx, plain, "http://"+metrics.String()+"/metrics"); err != nil || !told(got) {
		t.Errorf("the metrics' own address: %.100q, %v", got, err)
	}
	admin := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialAdmin(ctx, o.cfg.DataDir) }}
	if got, err := fetch(ctx, admin, "http://admin/state"); err != nil || !told(got) {
		t.Errorf("the admin socket: %.100q, %v", got, err)
	}
}

// noFollow leaves redirects alone.
type noFollow struct{ http.RoundTripper }

func (n noFollow) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := n.RoundTripper.RoundTrip(r)
	if err == nil {
		resp.Header.Del("Location")
		if resp.StatusCode/100 == 3 {
			resp.StatusCode = http.StatusNoContent
		}
	}
	return resp, err
}
