package node

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Refusal is why a person or program does not get what they asked for, with
// what would work instead. It travels between nodes as JSON.
type Refusal struct {
	Code    string `json:"code"` // see below
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Rule    string `json:"rule,omitempty"`   // of the gate or the router
	Policy  string `json:"policy,omitempty"` // of the room
	Use     *Use   `json:"use,omitempty"`    // a node that would do
}

// Use names a node to use instead.
type Use struct {
	Node residency.NodeName `json:"node"`
	URL  string             `json:"url"`
}

// The codes of refusals.
const (
	CodeRefused      = "refused"             // by residency or placement
	CodeNotFound     = "not_found"           // no such room or participant
	CodeInvalid      = "invalid"             // the request cannot be carried out as it stands
	CodeForbidden    = "forbidden"           // the token does not grant it
	CodePrecondition = "failed_precondition" // the node's configuration does not allow it
	CodeMissing      = "unimplemented"       // this server does not have it
	CodeUnavailable  = "unavailable"         // a node that is needed cannot be asked now
	CodeBusy         = "busy"                // too many such requests from one network
	CodeGone         = "gone"                // a link that has expired
	CodeInternal     = "internal"            // this node failed; its log says how
)

// rulePolicyMismatch refuses a token that asks for another policy than the room has.
const rulePolicyMismatch = "policy-mismatch"

// Error returns the whole story in one line.
func (r *Refusal) Error() string {
	s := r.Message
	if r.Use != nil {
		s += "; use node " + string(r.Use.Node) + " instead: " + r.Use.URL
	}
	if r.Hint != "" {
		s += " (" + r.Hint + ")"
	}
	return s
}

// status is the HTTP status of a refusal.
func (r *Refusal) status() int {
	switch r.Code {
	case CodeRefused, CodeForbidden:
		return http.StatusForbidden
	case CodeNotFound:
		return http.StatusNotFound
	case CodeInvalid:
		return http.StatusBadRequest
	case CodePrecondition:
		return http.StatusPreconditionFailed
	case CodeMissing:
		return http.StatusNotImplemented
	case CodeUnavailable:
		return http.StatusServiceUnavailable
	case CodeGone:
		return http.StatusGone
	case CodeBusy:
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

// refused turns a verdict into a refusal.
func refused(v residency.Verdict) *Refusal {
	return &Refusal{Code: CodeRefused, Message: v.Reason, Hint: v.Hint, Rule: v.Rule, Policy: v.Policy}
}

// byPlace reports whether another node might grant what this one refuses.
func (r *Refusal) byPlace() bool {
	return r.Code == CodeRefused && r.Rule != rulePolicyMismatch && r.Rule != ruleOriginAway && r.Rule != ruleOtherTenant
}

// instead adds the node that a placement chose, unless that is the one that refuses.
// What placement suggests comes before the gate's hint, which is for operators.
func (r *Refusal) instead(p router.Placement, self residency.NodeName) *Refusal {
	out := *r
	if p.Node() == self {
		return &out
	}
	if p.Chosen != nil {
		out.Use, out.Hint = &Use{Node: p.Chosen.Node, URL: p.Chosen.URL}, ""
	} else {
		out.Hint = cmp.Or(p.Hint, out.Hint)
	}
	return &out
}

// asRefusal finds the refusal in an error; any other error is an internal one.
func asRefusal(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) {
		return r
	}
	return &Refusal{Code: CodeInternal, Message: err.Error()}
}

// encodeRefusal makes the error text that travels over a link.
func encodeRefusal(err error) error {
	b, jerr := json.Marshal(asRefusal(err))
	if jerr != nil {
		return err
	}
	return errors.New(string(b))
}

// decodeRefusal reads it again. A text that is none is kept as it is.
func decodeRefusal(text string) error {
	if i := strings.IndexByte(text, '{'); i >= 0 {
		var r Refusal
		if json.Unmarshal([]byte(text[i:]), &r) == nil && r.Code != "" {
			return &r
		}
	}
	return &Refusal{Code: CodeUnavailable, Message: text}
}

// toSignal makes what a LiveKit client is answered; it shows people only the
// texts of 401 and 403, so a residency refusal is a 403.
func toSignal(err error) error {
	var s *signal.Refusal
	if errors.As(err, &s) {
		return s
	}
	r := asRefusal(err)
	return signal.Refuse(r.status(), "%s", r.Error())
}

// toControl makes what the server API answers.
func toControl(err error) error {
	if err == nil {
		return nil
	}
	r := asRefusal(err)
	switch r.Code {
	case CodeRefused, CodeForbidden:
		return control.ErrRefused{Rule: r.Rule, Reason: r.Error()}
	case CodeNotFound:
		return fmt.Errorf("%w: %w", control.ErrNotFound, r)
	case CodeInvalid:
		return fmt.Errorf("%w: %w", control.ErrInvalid, r)
	case CodePrecondition:
		return fmt.Errorf("%w: %w", control.ErrPrecondition, r)
	case CodeUnavailable:
		return fmt.Errorf("%w: %w", control.ErrUnavailable, r)
	}
	return err
}
