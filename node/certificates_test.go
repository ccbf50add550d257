package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/node/front/certs/certstest"
	"github.com/domicile/domicile/residency"
)

// A node whose authority is away starts and carries on with a certificate of its
// own, and says so to whoever asks. When the authority is back it finds the node
// at port 80, and the metrics have the end of the new certificate.
func TestCertificateByACME(t *testing.T) {
	const name = "node.example.org"
	listen := Listen{HTTPS: freePort(t), Redirect: freePort(t), Metrics: freePort(t), Media: netip.MustParseAddrPort("127.0.0.1:0")}
	authority := certstest.Start(t, listen.Redirect.Port(), listen.HTTPS.Port(), certstest.Options{})
	authority.Away()
	looked, again := make(chan time.Duration), make(chan time.Time)
	dir := t.TempDir()
	var turned atomic.Int64 // by how much the keeper's clock is ahead
	keeper, err := certs.FromACME(certs.ACMEConfig{Directory: authority.Directory, Roots: authority.Roots, Names: []string{name},
		Dir: filepath.Join(dir, "acme"), Clock: certs.Clock{
			Now: func() time.Time { return time.Now().Add(time.Duration(turned.Load())) },
			After: func(d time.Duration) <-chan time.Time {
				looked <- d
				return again
			}}})
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Self: nodeIn("dev", "DE", residency.RoleEdge), Bundle: testBundle(1), Standalone: true, Keys: testKeys,
		Listen: listen, PublicURL: "https://" + name, ServerCertificate: keeper.Get, Certificates: keeper, DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	defer func() {
		stop()
		for {
			select {
			case <-looked:
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
				return
			}
		}
	}()

	plain := &http.Transport{DisableKeepAlives: true}
	ask := func(tr http.RoundTripper, url string) string {
		t.Helper()
		got, err := fetch(ctx, tr, url)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	end := regexp.MustCompile(`\ndomicile_tls_certificate_not_after_timestamp_seconds (\S+)`)
	metrics := func() (text, ends string) {
		text = ask(plain, "http://"+listen.Metrics.String()+"/metrics")
		m := end.FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no metric of the certificate's end:\n%s", text)
		}
		return text, m[1]
	}
	<-looked
	doubting := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	if got := ask(doubting, "https://"+listen.HTTPS.String()+"/"); !strings.HasPrefix(got, "200") {
		t.Errorf("without an authority the node answers %.100q", got)
	}
	if text, ends := metrics(); ends != "0" || !strings.Contains(text, `domicile_tls_certificate_failures_total{reason="away"} 1`) {
		t.Errorf("the end is %s; metrics\n%s", ends, text)
	}

	authority.Back()
	turned.Add(int64(time.Minute))
	again <- time.Time{}
	<-looked
	believing := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: authority.Issued, ServerName: name}}
	if got := ask(believing, "https://"+listen.HTTPS.String()+"/"); !strings.HasPrefix(got, "200") {
		t.Errorf("with the certificate the node answers %.100q", got)
	}
	if text, ends := metrics(); ends == "0" || !strings.Contains(text, "domicile_tls_certificate_renewals_total 1") {
		t.Errorf("the end is %s; metrics\n%s", ends, text)
	}
	admin := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return DialAdmin(ctx, dir) }}
	var state NodeState
	if err := json.Unmarshal([]byte(strings.TrimPrefix(ask(admin, "http://admin/state"), "200 ")), &state); err != nil ||
		state.Certificate == nil || state.Certificate.SelfMade || state.Certificate.Names[0] != name {
		t.Errorf("state %+v, %v", state.Certificate, err)
	}
}
