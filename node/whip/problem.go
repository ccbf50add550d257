package whip

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"
)

// Problem is why a request is not carried out, as RFC 9457 has it, with what
// would work instead.
type Problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`            // of the status
	Detail string `json:"detail"`           // for the person who set the client up
	Hint   string `json:"hint,omitempty"`   // what to do about it
	Rule   string `json:"rule,omitempty"`   // that refused
	Policy string `json:"policy,omitempty"` // of the room
	Node   string `json:"node,omitempty"`   // that would do
	URL    string `json:"url,omitempty"`    // of that node

	// RetryAfter tells a client when to try again. 0: it is not told.
	RetryAfter time.Duration `json:"-"`
	// Redirect is the base URL of a node that takes this very request, or empty.
	Redirect string `json:"-"`
}

// Refuse makes a Problem.
func Refuse(status int, format string, a ...any) *Problem {
	return &Problem{Status: status, Detail: fmt.Sprintf(format, a...)}
}

// Error returns the detail.
func (p *Problem) Error() string { return p.Detail }

// asProblem finds the problem in an error. Any other error is internal, and its
// text is the log's alone.
func (s *Server) asProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	s.cfg.Log.Error("WHIP or WHEP request failed", "error", err)
	return Refuse(http.StatusInternalServerError, "the server failed to carry this out, try again")
}

// refuse answers with a problem.
func (s *Server) refuse(w http.ResponseWriter, err error) {
	p := *s.asProblem(err)
	p.Title = http.StatusText(p.Status)
	h := w.Header()
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(p.RetryAfter.Seconds()))))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="domicile"`)
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p) //nolint:errcheck // the client is gone then
}
