package whip

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/domicile/domicile/control"
)

const (
	typeSDP      = "application/sdp"
	typeFragment = "application/trickle-ice-sdpfrag"

	// maxOffer bounds an offer, in bytes: browsers send about 10 KiB.
	maxOffer = 64 << 10
	// maxFragment bounds a PATCH: some 100 candidates.
	maxFragment = 16 << 10

	// redirected marks a request that was sent here by another node, which is not
	// sent on: two nodes that take each other for the right one would play on.
	redirected = "redirected"
)

// endpoint serves /whip or /whep.
func (s *Server) endpoint(d direction) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		headers(w)
		switch r.Method {
		case http.MethodOptions:
			w.Header().Set("Accept-Post", typeSDP)
			w.WriteHeader(http.StatusOK)
		case http.MethodGet, http.MethodHead:
			// Players tell a WHEP URL by the type that HEAD answers with.
			w.Header().Set("Accept-Post", typeSDP)
			w.Header().Set("Content-Type", typeSDP)
			w.WriteHeader(http.StatusOK)
		case http.MethodPost:
			if err := s.post(w, r, d); err != nil {
				s.refuse(w, redirect(w, r, err))
			}
		default:
			w.Header().Set("Allow", "GET, HEAD, OPTIONS, POST")
			s.refuse(w, Refuse(http.StatusMethodNotAllowed, "%.16q is not served here: POST an SDP offer", r.Method))
		}
	})
}

// headers are those of every answer. Pages of any origin may call: what counts
// is the token, and there are no cookies.
func headers(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS, POST, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match")
	h.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch")
	h.Set("Access-Control-Max-Age", "7200") // what Chromium caps it to
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

// redirect turns a refusal that names another node's base URL into a 307 to the
// same path there. The client sends offer and token again, so only HTTPS will do.
// A page is not redirected: fetch follows by itself and leaves the token behind.
func redirect(w http.ResponseWriter, r *http.Request, err error) error {
	var p *Problem
	if !errors.As(err, &p) || p.Redirect == "" || r.URL.Query().Has(redirected) || r.Header.Get("Origin") != "" {
		return err
	}
	u, uerr := url.Parse(p.Redirect)
	if uerr != nil || u.Scheme != "https" || u.Host == "" {
		return err
	}
	u.Path, u.RawPath, u.RawQuery = r.URL.Path, r.URL.RawPath, redirected+"=1"
	w.Header().Set("Location", u.String())
	moved := *p
	moved.Status = http.StatusTemporaryRedirect
	return &moved
}

// post makes a session.
func (s *Server) post(w http.ResponseWriter, r *http.Request, d direction) error {
	join, bearer, err := s.join(r, d)
	if err != nil {
		return err
	}
	body, err := s.offer(w, r, d)
	if err != nil {
		return err
	}
	offer, problem := rules{d, map[string][]string{"audio": s.cfg.Audio, "video": s.cfg.Video}}.checkOffer(body)
	if problem != nil {
		return problem
	}
	res := newResource(ownerOf(join, bearer), offer.Credentials)
	if problem := s.reserve(res); problem != nil {
		return problem
	}
	begun := false
	defer func() {
		if !begun {
			s.release(res)
		}
	}()
	answer, err := s.open(r.Context(), d, join, r.PathValue("source"), offer, res)
	if err != nil {
		return err
	}
	begun = true
	s.begin(res)
	s.created(w, r, res, answer)
	return nil
}

// open asks the room for the session.
func (s *Server) open(ctx context.Context, d direction, join Join, source string, offer Offer, res *resource) (answer Answer, err error) {
	if d == ingest {
		res.session, answer, err = s.cfg.Rooms.Publish(ctx, join, offer)
	} else {
		res.session, answer, err = s.cfg.Rooms.Watch(ctx, join, source, offer)
	}
	res.transport = transportOf(answer.SDP)
	return answer, err
}

// created answers with a new session.
func (s *Server) created(w http.ResponseWriter, r *http.Request, res *resource, answer Answer) {
	h := w.Header()
	location := pathSessions + res.id
	if r.URL.Query().Has(redirected) {
		location = s.cfg.Base + location
	}
	h.Set("Location", location)
	h.Set("ETag", res.tag)
	h.Set("Content-Type", typeSDP)
	h.Set("Accept-Patch", typeFragment)
	for _, server := range answer.ICEServers {
		h.Add("Link", server.link())
	}
	w.WriteHeader(http.StatusCreated)
	io.WriteString(w, answer.SDP) //nolint:errcheck // a client that is gone never connects, and its session is removed
}

// link is an ICE server as RFC 9725, section 4.6, writes it.
func (i ICEServer) link() string {
	s := "<" + i.URL + `>; rel="ice-server"`
	if i.Username != "" {
		s += "; username=" + quoted(i.Username) + "; credential=" + quoted(i.Credential) + `; credential-type="password"`
	}
	return s
}

// quoted is a quoted-string of RFC 9110, section 5.6.4.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// join verifies the token and that it grants what the path asks for.
func (s *Server) join(r *http.Request, d direction) (Join, string, error) {
	grants, bearer, err := s.authenticate(r)
	if err != nil {
		return Join{}, "", err
	}
	v := grants.Video
	if !v.RoomJoin {
		return Join{}, "", Refuse(http.StatusForbidden, "the token does not allow joining a room (roomJoin)")
	}
	if err := errors.Join(control.ValidRoomName(v.Room), control.ValidIdentity(grants.Identity)); err != nil {
		return Join{}, "", Refuse(http.StatusForbidden, "token: %v", err)
	}
	if named := r.PathValue("room"); named != "" && named != v.Room {
		return Join{}, "", Refuse(http.StatusForbidden, "the token is for another room than the URL's")
	}
	if d == ingest && !v.GetCanPublish() {
		return Join{}, "", Refuse(http.StatusForbidden, "the token does not allow publishing (canPublish)")
	}
	if d == egress && !v.GetCanSubscribe() {
		return Join{}, "", Refuse(http.StatusForbidden, "the token does not allow watching (canSubscribe)")
	}
	return Join{Token: grants, Room: v.Room, Request: r}, bearer, nil
}

// authenticate verifies the bearer token. One that is there is returned even if
// it is not valid any more.
func (s *Server) authenticate(r *http.Request) (*control.Grants, string, error) {
	bearer, err := control.BearerToken(r)
	if err == nil && bearer == "" {
		err = errors.New("no access token was sent: Authorization: Bearer TOKEN")
	}
	if err != nil {
		return nil, "", Refuse(http.StatusUnauthorized, "%v", err)
	}
	grants, err := control.VerifyToken(bearer, s.cfg.Keys, s.cfg.Now())
	if err != nil {
		return nil, bearer, Refuse(http.StatusUnauthorized, "%v", err)
	}
	return grants, bearer, nil
}

// offer reads the body of a POST.
func (s *Server) offer(w http.ResponseWriter, r *http.Request, d direction) (string, error) {
	if !accepts(r.Header.Values("Accept")) {
		return "", Refuse(http.StatusNotAcceptable, "the answer is %s, which the request's Accept header rules out", typeSDP)
	}
	body, err := read(w, r, typeSDP, maxOffer)
	if err == nil && strings.TrimSpace(body) == "" {
		if d == egress {
			return "", Refuse(http.StatusNotAcceptable, "this server makes no offers of its own: the player has to send one")
		}
		return "", Refuse(http.StatusBadRequest, "the request has no body: an SDP offer is wanted")
	}
	return body, err
}

// read reads a body of the type, up to a limit.
func read(w http.ResponseWriter, r *http.Request, want string, limit int64) (string, error) {
	if got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || got != want {
		return "", Refuse(http.StatusUnsupportedMediaType, "the request's Content-Type is %.64q, want %q", r.Header.Get("Content-Type"), want)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return "", Refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes", limit)
	case err != nil:
		return "", Refuse(http.StatusBadRequest, "the body could not be read")
	}
	return string(body), nil
}

// accepts reports whether an Accept header lets an SDP answer through.
func accepts(headers []string) bool {
	if len(headers) == 0 {
		return true
	}
	for _, item := range strings.Split(strings.Join(headers, ","), ",") {
		kind, params, err := mime.ParseMediaType(item)
		if err != nil || strings.Trim(params["q"], "0.") == "" && params["q"] != "" {
			continue
		}
		if kind == typeSDP || kind == "application/*" || kind == "*/*" {
			return true
		}
	}
	return false
}
