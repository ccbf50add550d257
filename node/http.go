package node

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/web"
)

// maxBody bounds the JSON that the page's API reads.
const maxBody = 16 << 10

// handler is everything that the node answers over HTTP to attendees and
// platforms. The operator's side is not here (see admin.go).
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /rtc", n.serveRTC)
	mux.HandleFunc("GET /rtc/validate", n.validate)
	mux.HandleFunc("OPTIONS /rtc/validate", n.validate)
	mux.HandleFunc("GET /rtc/v1", n.serveRTC)
	mux.HandleFunc("GET /rtc/v1/validate", n.validate)
	mux.HandleFunc("OPTIONS /rtc/v1/validate", n.validate)
	mux.Handle("GET /settings/regions", cors(http.HandlerFunc(n.regions)))
	mux.Handle("OPTIONS /settings/regions", cors(http.NotFoundHandler()))
	mux.Handle("/twirp/livekit.RoomService/", control.NewRoomService(service{n}, n.cfg.Keys, n.now))
	mux.Handle("/twirp/livekit.Egress/", control.NewEgress(service{n}, n.cfg.Keys, n.now))
	n.whip.Mount(mux)
	mux.Handle("/api/", cors(n.api()))
	mux.Handle("/", web.Handler())
	return mux
}

// cors lets pages of any origin call: what counts is the token, and there are
// no cookies.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS")
		h.Set("Cache-Control", "no-store")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// reading parses a JSON body strictly.
func reading(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return &Refusal{Code: CodeInvalid, Message: "the request's JSON: " + err.Error()}
	}
	return nil
}

// answer writes a value, or an error as the page expects it.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		r := asRefusal(err)
		w.WriteHeader(r.status())
		v = map[string]*Refusal{"error": r}
	}
	json.NewEncoder(w).Encode(v) //nolint:errcheck // the client is gone then
}

// publicHost is the host and port by which attendees reach this node.
func (n *Node) publicHost() (host, port string) {
	u, err := url.Parse(n.cfg.PublicURL)
	if err != nil || u.Host == "" {
		a := n.front.Addr()
		return a.Addr().String(), "443"
	}
	if host, port, err = net.SplitHostPort(u.Host); err != nil {
		return u.Hostname(), "443"
	}
	return host, port
}

func netipAddrPort(ip netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(ip, port) }
