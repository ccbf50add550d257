// Package web carries the attendee's page inside the binary and serves it.
//
// It knows the files that `npm run build` left in dist and the headers they
// need. It refuses to know anything else: the API that the page calls belongs
// to the node, and no file is ever read from disk.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// contentSecurityPolicy lets the page load from its own origin only. Connections
// and films are wider, because the attendee may be served by another node than the
// one the page came from; without TLS only from a page without TLS, which browsers see to.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
	"font-src 'self'; media-src 'self' blob: https: http:; worker-src 'self'; connect-src 'self' wss: ws: https: http:; " +
	"manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const permissionsPolicy = "camera=(self), microphone=(self), display-capture=(self), autoplay=(self), fullscreen=(self), geolocation=()"

// notBuilt is the page of a binary that was built before the page was.
const notBuilt = `<!doctype html><html lang="en"><meta charset="utf-8"><title>Domicile</title>` +
	`<h1>the page is not built: run make build</h1><p>The node itself works; only its web page is missing from this binary.</p></html>`

// contentTypes names every kind of file in dist. The table of the operating
// system is not asked: it differs from machine to machine.
var contentTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".map":         "application/json",
	".png":         "image/png",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".webmanifest": "application/manifest+json",
	".woff2":       "font/woff2",
}

// file is one file of the page, ready to send. It is immutable.
type file struct {
	contentType string
	cache       string
	etag        string
	plain       []byte
	gzipped     []byte // nil where compression gains nothing
}

// Handler serves the page. Paths it does not have answer 404: the page lives at
// "/" alone, and its state is in the query.
func Handler() http.Handler {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("web: embedded dist: " + err.Error()) // the directive above guarantees it
	}
	return newHandler(sub)
}

func newHandler(built fs.FS) http.Handler {
	files := load(built)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setSecurity(w.Header())
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := strings.TrimPrefix(r.URL.Path, "/")
		if name == "" {
			name = "index.html"
		}
		f, ok := files[name]
		if !ok {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		f.serve(w, r)
	})
}

func setSecurity(h http.Header) {
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Permissions-Policy", permissionsPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}

func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	h.Set("Cache-Control", f.cache)
	body, etag := f.plain, f.etag
	if f.gzipped != nil {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			h.Set("Content-Encoding", "gzip")
			body, etag = f.gzipped, f.etag+"-gzip"
		}
	}
	h.Set("ETag", `"`+etag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// acceptsGzip reports whether gzip is among the encodings and not ruled out by a
// weight of zero (RFC 9110, section 12.5.3).
func acceptsGzip(header string) bool {
	for part := range strings.SplitSeq(header, ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q := strings.ReplaceAll(params, " ", "")
			return q != "q=0" && q != "q=0.0" && q != "q=0.00" && q != "q=0.000"
		}
	}
	return false
}

// load reads and compresses all files once. Without index.html the page was not
// built, and "/" says so.
func load(built fs.FS) map[string]*file {
	files := map[string]*file{}
	_ = fs.WalkDir(built, ".", func(name string, d fs.DirEntry, err error) error {
		contentType, known := contentTypes[path.Ext(name)]
		if err != nil || d.IsDir() || !known {
			return nil //nolint:nilerr // an unreadable directory has no files to serve
		}
		if body, err := fs.ReadFile(built, name); err == nil {
			files[name] = newFile(name, contentType, body)
		}
		return nil
	})
	if files["index.html"] == nil {
		files["index.html"] = newFile("index.html", contentTypes[".html"], []byte(notBuilt))
	}
	return files
}

func newFile(name, contentType string, body []byte) *file {
	sum := sha256.Sum256(body)
	f := &file{contentType: contentType, cache: cacheOf(name), etag: hex.EncodeToString(sum[:8]), plain: body}
	if len(body) > 1024 && compressible(contentType) {
		f.gzipped = compress(body)
	}
	return f
}

// cacheOf: files under assets/ have a hash of their content in their name.
func cacheOf(name string) string {
	switch {
	case strings.HasPrefix(name, "assets/"):
		return "public, max-age=31536000, immutable"
	case name == "index.html":
		return "no-cache"
	default:
		return "public, max-age=3600"
	}
}

func compressible(contentType string) bool {
	return strings.HasPrefix(contentType, "text/") || strings.Contains(contentType, "json") || strings.Contains(contentType, "svg")
}

func compress(body []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, _ = z.Write(body) // a bytes.Buffer takes every write
	_ = z.Close()
	return out.Bytes()
}
