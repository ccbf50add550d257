package web

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

var builtPage = fstest.MapFS{
	"placeholder":            {Data: []byte("kept in the tree")},
	"index.html":             {Data: []byte("<!doctype html><title>page</title>")},
	"icon.svg":               {Data: []byte("<svg/>")},
	"assets/index-a1b2c3.js": {Data: []byte(strings.Repeat("export const answer = 42;\n", 100))},
}

func get(t *testing.T, h http.Handler, method, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandlerAnswers(t *testing.T) {
	tests := []struct {
		method, target     string
		status             int
		contentType, cache string
	}{
		{"GET", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"HEAD", "/", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/?room=daily&autojoin=1", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/index.html", 200, "text/html; charset=utf-8", "no-cache"},
		{"GET", "/assets/index-a1b2c3.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable"},
		{"GET", "/icon.svg", 200, "image/svg+xml", "public, max-age=3600"},
		{"GET", "/placeholder", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/assets/", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/assets/index-old.js", 404, "text/plain; charset=utf-8", ""},
		{"GET", "/../embed.go", 404, "text/plain; charset=utf-8", ""},
		{"GET", "//etc/passwd", 404, "text/plain; charset=utf-8", ""},
		{"POST", "/", 405, "text/plain; charset=utf-8", ""},
	}
	h := newHandler(builtPage)
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.target, func(t *testing.T) {
			res := get(t, h, tt.method, tt.target)
			if res.StatusCode != tt.status {
				t.Errorf("status %d, want %d", res.StatusCode, tt.status)
			}
			if got := res.Header.Get("Content-Type"); got != tt.contentType {
				t.Errorf("content type %q, want %q", got, tt.contentType)
			}
			if got := res.Header.Get("Cache-Control"); got != tt.cache {
				t.Errorf("cache control %q, want %q", got, tt.cache)
			}
			if res.Header.Get("Content-Security-Policy") != contentSecurityPolicy || res.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Error("security headers are missing")
			}
		})
	}
}

// The page may talk to other nodes, and play films from the origins that keep them; it
// may load nothing else from any host but its own.
func TestSecurityPolicyNamesNoHost(t *testing.T) {
	for directive := range strings.SplitSeq(contentSecurityPolicy, "; ") {
		name, sources, _ := strings.Cut(directive, " ")
		for source := range strings.FieldsSeq(sources) {
			quoted := source == "'self'" || source == "'none'"
			scheme := source == "data:" || source == "blob:"
			switch name {
			case "connect-src":
				scheme = source == "wss:" || source == "ws:" || source == "https:" || source == "http:"
			case "media-src":
				scheme = scheme || source == "https:" || source == "http:"
			}
			if !quoted && !scheme {
				t.Errorf("%s allows %q", name, source)
			}
		}
	}
}

func TestHandlerCompresses(t *testing.T) {
	h := newHandler(builtPage)
	plain := get(t, h, "GET", "/assets/index-a1b2c3.js")
	packed := get(t, h, "GET", "/assets/index-a1b2c3.js", "Accept-Encoding", "br, gzip")
	if packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" {
		t.Fatalf("encodings %q and %q, want gzip and none", packed.Header.Get("Content-Encoding"), plain.Header.Get("Content-Encoding"))
	}
	if packed.Header.Get("ETag") == plain.Header.Get("ETag") {
		t.Error("both representations carry the same ETag")
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if body(t, z) != body(t, plain.Body) {
		t.Error("the compressed body differs from the plain one")
	}
	refused := get(t, h, "GET", "/assets/index-a1b2c3.js", "Accept-Encoding", "gzip;q=0, identity")
	if got := refused.Header.Get("Content-Encoding"); got != "" {
		t.Errorf("encoding %q although gzip was ruled out", got)
	}
}

func TestHandlerRevalidates(t *testing.T) {
	h := newHandler(builtPage)
	etag := get(t, h, "GET", "/").Header.Get("ETag")
	if etag == "" {
		t.Fatal("no ETag")
	}
	if res := get(t, h, "GET", "/", "If-None-Match", etag); res.StatusCode != http.StatusNotModified {
		t.Errorf("status %d, want 304", res.StatusCode)
	}
}

func TestPageNotBuilt(t *testing.T) {
	h := newHandler(fstest.MapFS{"placeholder": builtPage["placeholder"]})
	res := get(t, h, "GET", "/")
	if res.StatusCode != 200 || !strings.Contains(body(t, res.Body), "the page is not built: run make build") {
		t.Errorf("status %d without the hint to build the page", res.StatusCode)
	}
	if got := res.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("cache control %q, want no-cache", got)
	}
}

// Whatever is embedded right now, built or not, is served at "/".
func TestEmbeddedPage(t *testing.T) {
	if res := get(t, Handler(), "GET", "/"); res.StatusCode != 200 {
		t.Errorf("status %d, want 200", res.StatusCode)
	}
}
