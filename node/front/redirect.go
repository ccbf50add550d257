package front

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// redirector answers HTTP in clear: the challenges of an ACME server, and
// everything else with the same address under https, if that address is ours.
func (f *Front) redirector() http.Handler {
	var h http.Handler = http.HandlerFunc(f.redirect)
	if f.cfg.Challenge != nil {
		h = f.cfg.Challenge(h)
	}
	return h
}

func (f *Front) redirect(w http.ResponseWriter, r *http.Request) {
	host, ours := f.ownHost(r)
	path := r.URL.RequestURI()
	if !ours || !strings.HasPrefix(path, "/") {
		http.Error(w, "This address speaks HTTPS, and under its own name only.", http.StatusBadRequest)
		return
	}
	h := w.Header()
	h.Set("Location", "https://"+host+path)
	h.Set("Cache-Control", "no-store") // the name may move to a host that speaks HTTP
	w.WriteHeader(http.StatusPermanentRedirect)
}

// ownHost is the host that a request names, as it stands in a URL of ours, if it
// is one of this node's names or the address that the connection came to. Whoever
// sends people to another host through us gets nothing.
func (f *Front) ownHost(r *http.Request) (string, bool) {
	name := strings.ToLower(r.Host)
	if host, _, err := net.SplitHostPort(name); err == nil {
		name = host
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if !f.isOwn(name, r) {
		return "", false
	}
	if strings.Contains(name, ":") {
		name = "[" + name + "]"
	}
	if f.cfg.PublicPort != 443 {
		name += ":" + strconv.Itoa(int(f.cfg.PublicPort))
	}
	return name, true
}

func (f *Front) isOwn(name string, r *http.Request) bool {
	for _, own := range f.cfg.Names {
		if name == strings.ToLower(own) {
			return true
		}
	}
	addr, err := netip.ParseAddr(name)
	if err != nil || addr.Zone() != "" {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && addrOf(local) == addr.Unmap()
}
