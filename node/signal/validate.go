package signal

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/domicile/domicile/control"
)

// Validate serves GET /rtc/validate and /rtc/v1/validate. Clients ask it after their WebSocket was
// refused, because a browser hides the answer to a failed upgrade; its text is
// what the user gets to see. check lets the node refuse a join that is well
// formed, by residency for instance, with a Refusal; other errors become 500.
//
// It never answers 404 but in a Refusal of check whose text contains "requested
// room does not exist": livekit-client takes every other 404 for a sign that the
// path is missing, and tries /rtc again at once, without end.
func Validate(keys control.Keys, now func() time.Time, check func(Join) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		join, err := ParseJoin(r, keys, now())
		if err == nil {
			err = check(join)
		}
		if err != nil {
			WriteRefusal(w, err)
			return
		}
		writeText(w, http.StatusOK, "success")
	})
}

// WriteRefusal answers /rtc and /rtc/validate alike: the Refusal's status and
// text, or 500 for an error that is none.
func WriteRefusal(w http.ResponseWriter, err error) {
	var refusal *Refusal
	if !errors.As(err, &refusal) {
		refusal = Refuse(http.StatusInternalServerError, "the server failed to answer, try again")
	}
	writeText(w, refusal.Status, refusal.Text)
}

// writeText answers a page of any origin. Answers depend on the token and the
// moment, so nobody may keep them.
func writeText(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// A client that has gone is all that can fail here.
	_, _ = io.WriteString(w, text)
}
