package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/node/front/certs/certstest"
)

// nameOf is a name for the test alone: challenges are known by name in the
// whole process.
func nameOf(t *testing.T) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(t.Name()), "-"), "-") + ".example.org"
}

func start(t *testing.T, n *testNode, cfg ACMEConfig, at At) *Keeper {
	t.Helper()
	k, err := FromACME(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.run(k, at)
	return k
}

// One certificate for several names, proved by each kind of challenge, in the
// place of the node's own.
func TestIssue(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		at   func(*testNode) At
		o    certstest.Options
	}{
		{"HTTP-01", func(n *testNode) At { return At{Plain: n.plain} }, certstest.Options{}},
		{"TLS-ALPN-01", func(n *testNode) At { return At{TLS: n.tls} }, certstest.Options{}},
		{"port 80 is closed", (*testNode).both, certstest.Options{NoPlain: true}},
		{"a third of the nonces is rejected", (*testNode).both, certstest.Options{BadNonces: 33}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t)
			p := startPebble(t, n.both(), tt.o)
			names := []string{nameOf(t), "www." + nameOf(t)}
			k, err := FromACME(n.acme(p, names...))
			if err != nil {
				t.Fatal(err)
			}
			n.keeper.Store(k)
			if !n.state().SelfMade || n.believed(names[0], p.Issued) == nil {
				t.Error("before it is asked for, there is a certificate that browsers believe")
			}
			n.run(k, tt.at(n))
			n.settle()
			for _, name := range names {
				if err := n.believed(name, p.Issued); err != nil {
					t.Errorf("%s: %v\n%s", name, err, n.log)
				}
			}
			if s := n.state(); s.SelfMade || s.Renewals != 1 || s.Problem != "" || len(s.Failures) != 0 {
				t.Errorf("state %+v", s)
			}
		})
	}
}

// Port 80 redirects as before, whatever is asked for, and only what the
// authority looks for is answered.
func TestPlainPortRedirects(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	start(t, n, n.acme(p, nameOf(t)), n.both())
	n.settle()
	if n.redirects.Load() != 0 {
		t.Errorf("%d requests of the authority were redirected", n.redirects.Load())
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/", "/.well-known/acme-challenge/token", "/.well-known/acme-challenge/../../etc/passwd"} {
		resp, err := client.Get("http://" + n.plain.String() + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMovedPermanently {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// A handshake for a challenge that nobody asked for gets no certificate, and
// others get the node's.
func TestStrangersChallenge(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	start(t, n, n.acme(p, nameOf(t)), n.both())
	n.settle()
	for _, name := range []string{nameOf(t), "other.example.org", ""} {
		conn, err := tls.Dial("tcp", n.tls.String(), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"acme-tls/1"}})
		if err == nil {
			conn.Close()
			t.Errorf("%q: the handshake for a challenge succeeds", name)
		}
	}
	n.shown("")
}

// A certificate that was got once is there at the next start, though the
// authority is away, and is kept where nobody else reads it.
func TestKeptOverRestarts(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	cfg := n.acme(p, nameOf(t))
	start(t, n, cfg, n.both())
	n.settle()
	first := n.shown(nameOf(t))

	again := newTestNode(t)
	p.Away()
	cfg.Clock = again.clock()
	start(t, again, cfg, again.both())
	again.settle()
	if got := again.shown(nameOf(t)); !got.Equal(first) {
		t.Errorf("after a restart the certificate is %s, was %s", got.SerialNumber, first.SerialNumber)
	}
	err := filepath.WalkDir(cfg.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if want := map[bool]os.FileMode{true: 0o700, false: 0o600}[d.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", path, info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// Another authority's certificate is not taken: that of a staging directory
// would be refused by browsers.
func TestAnotherDirectory(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	staging, production := startPebble(t, n.both(), certstest.Options{}), startPebble(t, n.both(), certstest.Options{})
	cfg := n.acme(staging, nameOf(t))
	start(t, n, cfg, n.both())
	n.settle()

	again := newTestNode(t)
	cfg.Clock, cfg.Directory = again.clock(), production.Directory
	k, err := FromACME(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !k.State().SelfMade {
		t.Error("with another directory the certificate of the first is in use")
	}
}

// New names in the configuration: the old certificate is in use until the new one comes.
func TestOtherNames(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	cfg := n.acme(p, nameOf(t))
	start(t, n, cfg, n.both())
	n.settle()

	k2 := cfg
	k2.Names = []string{nameOf(t), "more." + nameOf(t)}
	k, err := FromACME(k2)
	if err != nil {
		t.Fatal(err)
	}
	if k.State().SelfMade {
		t.Error("a certificate for some of the names is not used")
	}
	again := newTestNode(t)
	k2.Clock = again.clock()
	p2 := startPebble(t, again.both(), certstest.Options{})
	k2.Directory, k2.Roots = p2.Directory, p2.Roots
	start(t, again, k2, again.both())
	again.settle()
	if err := again.believed("more."+nameOf(t), p2.Issued); err != nil {
		t.Error(err)
	}
}

// The authority is away when the node starts: TLS works with a certificate of
// the node's own, handshakes do not wait, everything says so, and when the
// authority is back the node finds it within seconds of its own accord.
func TestAuthorityAway(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	p.Away()
	start(t, n, n.acme(p, nameOf(t)), n.both())
	for i, want := range []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute} {
		w := n.settle()
		s := n.state()
		if w.d != want || !s.SelfMade || s.Failures[Away] != uint64(i+1) || !strings.Contains(s.Problem, Away.Hint()) {
			t.Fatalf("attempt %d: wait %s, want %s; state %+v", i+1, w.d, want, s)
		}
		n.shown(nameOf(t))
		if i == 2 {
			p.Back()
		}
		n.pass(w, w.d)
	}
	n.settle()
	if err := n.believed(nameOf(t), p.Issued); err != nil {
		t.Errorf("%v\n%s", err, n.log)
	}
	if s := n.state(); s.SelfMade || s.Problem != "" {
		t.Errorf("state %+v", s)
	}
	if got := strings.Count(n.log.String(), "browsers refuse this node"); got != 1 {
		t.Errorf("that browsers refuse the node is logged %d times, want once:\n%s", got, n.log)
	}
}

// While the authority keeps the node waiting, handshakes do not wait.
func TestHandshakesDoNotWait(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	asked, release := make(chan struct{}), make(chan struct{})
	p.Answer("order-plz", func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-release
		panic(http.ErrAbortHandler)
	})
	start(t, n, n.acme(p, nameOf(t)), n.both())
	<-asked
	n.shown(nameOf(t))
	p.Away()
	close(release)
	n.settle()
}

// Certificates are renewed in time, whatever they live, and short ones too.
func TestRenewal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		life, after time.Duration
	}{
		{90 * day, 60 * day},
		{6 * day, 3 * day},
		{7 * time.Hour, 210 * time.Minute},
	} {
		t.Run(tt.life.String(), func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t)
			p := startPebble(t, n.both(), certstest.Options{Life: tt.life, NoAdvice: true})
			start(t, n, n.acme(p, nameOf(t)), n.both())
			w := n.settle()
			first := n.shown(nameOf(t))
			due := first.NotBefore.Add(tt.after)
			if got := n.state().NextTry; got.Sub(due).Abs() > time.Minute {
				t.Fatalf("the next attempt is at %s, want %s", got, due)
			}
			n.pass(w, tt.after-time.Hour) // the wait is cut: time is looked at each hour
			w = n.settle()
			if got := n.shown(nameOf(t)); !got.Equal(first) {
				t.Error("renewed too early")
			}
			n.pass(w, time.Hour+time.Minute)
			n.settle()
			if got := n.shown(nameOf(t)); got.Equal(first) || p.Orders.Load() != 2 || n.state().Renewals != 2 {
				t.Errorf("not renewed; %d orders\n%s", p.Orders.Load(), n.log)
			}
		})
	}
}

// The authority may want a renewal sooner: it does so before it revokes many.
// A window in the past is not a loop.
func TestAdvice(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	past := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"suggestedWindow": map[string]any{
			"start": time.Now().Add(-2 * time.Hour), "end": time.Now().Add(-time.Hour)}})
	}
	p.Answer("renewalInfo", past)
	start(t, n, n.acme(p, nameOf(t)), n.both())
	w := n.settle()
	n.pass(w, w.d)
	w = n.settle() // advice has been asked for
	first := n.shown(nameOf(t))
	if left := n.state().NextTry.Sub(n.clock().Now()); left < day || left > minAge {
		t.Fatalf("the next attempt is in %s; want it in more than a day, and no more than %s\n%s", left, minAge, n.log)
	}
	n.pass(w, minAge)
	n.settle()
	if n.shown(nameOf(t)).Equal(first) {
		t.Errorf("not renewed\n%s", n.log)
	}
}

// As the end comes nearer and the authority stays away, the log warns, once for
// each threshold, and the old certificate stays in use to the end and beyond.
func TestWarnings(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{NoAdvice: true})
	start(t, n, n.acme(p, nameOf(t)), n.both())
	w := n.settle()
	first := n.shown(nameOf(t))
	p.Refuse("order-plz", "userActionRequired", http.StatusForbidden, "the terms have changed")
	var said []string
	line := regexp.MustCompile(`ends soon.* days=(\d+)|has ended`)
	for _, left := range []time.Duration{31 * day, 29 * day, 15 * day, 14 * day, 13 * day, 7 * day, 2 * day, 24 * time.Hour, time.Hour, 0, -time.Hour, -day} {
		n.log.reset()
		n.pass(w, first.NotAfter.Add(-left).Sub(n.clock().Now()))
		w = n.settle()
		for _, m := range line.FindAllStringSubmatch(n.log.String(), -1) {
			said = append(said, fmt.Sprintf("%s left: %s", left, m[1]))
		}
	}
	if got, want := strings.Join(said, "\n"), "336h0m0s left: 14\n168h0m0s left: 7\n24h0m0s left: 1\n0s left: "; got != want {
		t.Errorf("said\n%s\nwant\n%s", got, want)
	}
	if !n.shown(nameOf(t)).Equal(first) {
		t.Error("another certificate is in use")
	}
	if s := n.state(); !s.NotAfter.Equal(first.NotAfter) || s.SelfMade || !strings.Contains(s.Problem, "the terms have changed") {
		t.Errorf("state %+v", s)
	}
}

// Whatever an authority refuses is told apart by what an operator can do.
func TestFailures(t *testing.T) {
	t.Parallel()
	problem := func(part, kind string, status int) func(*testNode, *certstest.Authority, *ACMEConfig) {
		return func(_ *testNode, p *certstest.Authority, _ *ACMEConfig) {
			p.Refuse(part, kind, status, "because of "+kind)
		}
	}
	for _, tt := range []struct {
		name string
		with func(*testNode, *certstest.Authority, *ACMEConfig)
		want Reason
		wait time.Duration
		says string
	}{
		{"too many orders", problem("order-plz", "rateLimited", 429), RateLimit, time.Hour, "because of rateLimited"},
		{"too many requests", problem("sign-me-up", "rateLimited", 503), RateLimit, time.Hour, "because of"},
		{"errors inside", problem("order-plz", "serverInternal", 500), Away, 30 * time.Second, "because of"},
		{"every nonce is bad", problem("order-plz", "badNonce", 400), Away, 30 * time.Second, "because of"},
		{"not such names", problem("order-plz", "rejectedIdentifier", 403), Refused, 5 * time.Minute, "because of"},
		{"bad contact", problem("sign-me-up", "invalidContact", 400), Account, 5 * time.Minute, "because of"},
		{"CAA", problem("order-plz", "caa", 403), DNSWrong, 5 * time.Minute, "because of"},
		{"no JSON", func(_ *testNode, p *certstest.Authority, _ *ACMEConfig) {
			p.Answer("dir", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") })
		}, Other, 5 * time.Minute, "text/html"},
		{"a binding is wanted", func(n *testNode, _ *certstest.Authority, c *ACMEConfig) {
			p := startPebble(n.t, n.both(), certstest.Options{BindingKey: "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy0wMTIzNA"})
			c.Directory, c.Roots = p.Directory, p.Roots
		}, Account, 5 * time.Minute, "xternal"},
		{"unknown root", func(_ *testNode, _ *certstest.Authority, c *ACMEConfig) { c.Roots = x509.NewCertPool() }, Trust, 5 * time.Minute, "unknown authority"},
		{"nobody there", func(_ *testNode, _ *certstest.Authority, c *ACMEConfig) { c.Directory = "https://127.0.0.1:1/dir" }, Away, 30 * time.Second, "refused"},
		{"somebody else answers", func(n *testNode, p *certstest.Authority, c *ACMEConfig) {
			stranger := httptest.NewUnstartedServer(http.NotFoundHandler())
			stranger.Config.ErrorLog = silent
			stranger.StartTLS()
			n.t.Cleanup(stranger.Close)
			q := startPebble(n.t, At{addrOf(stranger), addrOf(stranger)}, certstest.Options{})
			c.Directory, c.Roots = q.Directory, q.Roots
		}, WrongAnswer, 5 * time.Minute, "TLS-ALPN-01"},
		{"all ports are closed", func(n *testNode, p *certstest.Authority, c *ACMEConfig) {
			q := startPebble(n.t, At{closed, closed}, certstest.Options{})
			c.Directory, c.Roots = q.Directory, q.Roots
		}, Unreachable, 5 * time.Minute, "HTTP-01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newTestNode(t)
			p := startPebble(t, n.both(), certstest.Options{})
			cfg := n.acme(p, nameOf(t))
			tt.with(n, p, &cfg)
			start(t, n, cfg, n.both())
			w := n.settle()
			s := n.state()
			if s.Failures[tt.want] != 1 || min(tt.wait, warnEvery) != w.d || s.NextTry.Sub(n.clock().Now()) != tt.wait {
				t.Errorf("failures %v, wait %s; want %q, %s\n%s", s.Failures, w.d, tt.want, tt.wait, n.log)
			}
			if !strings.Contains(s.Problem, tt.says) || !strings.Contains(s.Problem, tt.want.Hint()) {
				t.Errorf("the problem %q does not say %q and %q", s.Problem, tt.says, tt.want.Hint())
			}
			if strings.Contains(n.log.String(), "operator@example.org") {
				t.Errorf("the log shows the address of the account:\n%s", n.log)
			}
			n.shown(nameOf(t))
		})
	}
}

func TestBinding(t *testing.T) {
	t.Parallel()
	const secret = "YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1ieXRlcy0wMTIzNA"
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{BindingKey: secret})
	cfg := n.acme(p, nameOf(t))
	cfg.EABKey, cfg.EABSecret = "operator", secret
	start(t, n, cfg, n.both())
	n.settle()
	if err := n.believed(nameOf(t), p.Issued); err != nil {
		t.Errorf("%v\n%s", err, n.log)
	}
}

// With DNS-01 the node need not be reached, and wildcards are issued.
func TestDNS(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, At{closed, closed}, certstest.Options{})
	cfg := n.acme(p, "*."+nameOf(t))
	cfg.DNS = p.DNS
	start(t, n, cfg, At{})
	n.settle()
	if err := n.believed("a."+nameOf(t), p.Issued); err != nil {
		t.Errorf("%v\n%s", err, n.log)
	}
	if p.DNS.Records() != 0 {
		t.Errorf("the records of %d names are left", p.DNS.Records())
	}
}

func TestDNSFails(t *testing.T) {
	t.Parallel()
	n := newTestNode(t)
	p := startPebble(t, n.both(), certstest.Options{})
	cfg := n.acme(p, nameOf(t))
	cfg.DNS = Exec{Path: script(t, "echo the provider says no >&2; exit 3")}
	start(t, n, cfg, At{})
	n.settle()
	if s := n.state(); s.Failures[Program] != 1 || !strings.Contains(s.Problem, "exit status 3: the provider says no") {
		t.Errorf("state %+v", s)
	}
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dns")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExec(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "out")
	e := Exec{Path: script(t, `printf '%s|' "$@" >> `+out)}
	value := `-$(id);"' x`
	if err := e.Present(context.Background(), "_acme-challenge.example.org", value); err != nil {
		t.Fatal(err)
	}
	if err := e.Remove(context.Background(), "_acme-challenge.example.org", "v"); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if want := "present|_acme-challenge.example.org|" + value + "|remove|_acme-challenge.example.org|v|"; err != nil || string(b) != want {
		t.Errorf("the program got %q, want %q (%v)", b, want, err)
	}

	// One that does not end, holds its output open, and prints without end.
	e = Exec{Path: script(t, "sleep 600 & yes"), Limit: 50 * time.Millisecond}
	if err := e.Present(context.Background(), "n", "v"); err == nil || len(err.Error()) > 2*maxOutput {
		t.Errorf("a program that does not end: %v", err)
	}
}

// What lies in the directory may be damaged or missing, and the node goes on.
func TestStorage(t *testing.T) {
	t.Parallel()
	issue := func(t *testing.T) (*testNode, *certstest.Authority, ACMEConfig) {
		n := newTestNode(t)
		p := startPebble(t, n.both(), certstest.Options{})
		cfg := n.acme(p, nameOf(t))
		start(t, n, cfg, n.both())
		n.settle()
		return n, p, cfg
	}
	bundle := func(cfg ACMEConfig) string {
		found, err := filepath.Glob(filepath.Join(cfg.Dir, "*", "certificate.pem"))
		if err != nil || len(found) != 1 {
			t.Fatalf("certificates %q: %v", found, err)
		}
		return found[0]
	}
	damage := func(t *testing.T, path string, change func([]byte) []byte) {
		t.Helper()
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(b), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func([]byte) []byte{
		"empty": func([]byte) []byte { return nil },
		"cut":   func(b []byte) []byte { return b[:len(b)/2] },
		"other": func(b []byte) []byte { return []byte(strings.Repeat("x", 1<<20)) },
	} {
		t.Run("certificate "+name, func(t *testing.T) {
			t.Parallel()
			n, p, cfg := issue(t)
			damage(t, bundle(cfg), change)
			k, err := FromACME(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if s := k.State(); !s.SelfMade || s.Failures[Storage] != 1 {
				t.Errorf("state %+v", s)
			}
			// As if restarted: the account is there, the certificate comes anew.
			w := k.source.(*acmeSource)
			w.look(context.Background(), n.both())
			if s := k.State(); s.SelfMade || s.Problem != "" || p.Orders.Load() != 2 {
				t.Errorf("state %+v, %d orders", s, p.Orders.Load())
			}
		})
	}
	for _, kind := range []string{"json", "key"} {
		t.Run("account "+kind, func(t *testing.T) {
			t.Parallel()
			n, _, cfg := issue(t)
			if err := os.Remove(bundle(cfg)); err != nil {
				t.Fatal(err)
			}
			files, _ := filepath.Glob(filepath.Join(cfg.Dir, "acme", "*", "users", "*", "*."+kind))
			if len(files) != 1 {
				t.Fatalf("files %q", files)
			}
			damage(t, files[0], func(b []byte) []byte { return b[:len(b)/2] })
			k, err := FromACME(cfg)
			if err != nil {
				t.Fatal(err)
			}
			k.source.look(context.Background(), n.both())
			if s := k.State(); s.SelfMade || len(s.Failures) != 0 {
				t.Errorf("a damaged account is not made anew: state %+v", s)
			}
		})
	}
	t.Run("no directory", func(t *testing.T) {
		t.Parallel()
		n := newTestNode(t)
		p := startPebble(t, n.both(), certstest.Options{})
		cfg := n.acme(p, nameOf(t))
		cfg.Dir = filepath.Join(cfg.Dir, "file", "acme")
		if err := os.WriteFile(filepath.Dir(cfg.Dir), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		start(t, n, cfg, n.both())
		n.settle()
		if s := n.state(); !s.SelfMade || s.Failures[Storage] == 0 || p.Orders.Load() != 0 {
			t.Errorf("state %+v, %d orders", s, p.Orders.Load())
		}
		n.shown(nameOf(t))
	})
}

func TestFromACMERefuses(t *testing.T) {
	for _, cfg := range []ACMEConfig{
		{Directory: "https://acme.example.org/dir", Dir: t.TempDir()},
		{Names: []string{"a.example.org"}, Dir: t.TempDir()},
		{Names: []string{"a.example.org"}, Directory: "https://acme.example.org/dir"},
	} {
		if _, err := FromACME(cfg); err == nil {
			t.Errorf("%+v is accepted", cfg)
		}
	}
}
