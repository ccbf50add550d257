// Package webhook tells programs outside of the mesh what happens, as LiveKit's server
// does: JSON by POST, with a token that is signed with an API key and holds the body's
// SHA-256, so that the receiver knows who sent it and that it is whole.
//
//	POST URL
//	Content-Type: application/webhook+json
//	Authorization: JWT (HS256: iss = API key, nbf, exp, sha256 = base64 of the body's)
//
// A Sender keeps the order of what it is given, up to a bound, and tries again with
// growing pauses. What does not get through is dropped for a named reason and counted. It
// does not decide who may be told what: that is asked of each Item before every attempt.
// It follows no redirect and uses no proxy, for both lead to places that nobody has
// declared. It writes nothing to a disk or a log by itself; a Shelf may keep what waits
// for the process that comes after this one, so that some of it may be told twice.
package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/hashicorp/go-retryablehttp"
)

// Item is something to tell.
type Item struct {
	// Body makes the JSON, with the number of items dropped since the last that went.
	Body func(dropped int) []byte
	// May reports whether it may still be told. It is asked before every attempt.
	May func() bool
	// Since is when it happened.
	Since time.Time
	// Kept says that it is on the shelf.
	Kept bool
	// ID is its name there, and Of what the shelf makes of it.
	ID string
	Of any
}

// Shelf keeps what waits. It is called by one goroutine at a time for each item, and may
// wait for a disk.
type Shelf interface {
	Keep(Item) (kept bool)
	Done(Item) // it was told, or dropped
}

// Reason says why an item was dropped.
type Reason string

// The reasons.
const (
	Full    Reason = "full"    // as many waited as may
	Stale   Reason = "stale"   // it waited for longer than MaxAge
	Refused Reason = "refused" // it may not be told, or not any more
	Failed  Reason = "failed"  // the receiver did not take it in all attempts
)

// Reasons lists every reason.
func Reasons() []Reason { return []Reason{Full, Stale, Refused, Failed} }

const (
	// Max bounds what waits for one receiver: a thousand participants who come at once.
	Max = 1024
	// MaxAge is how long something may wait: what is older is history, not news.
	MaxAge = 10 * time.Minute
	// attempts are made for one item, with pauses from pauseMin, doubled up to pauseMax:
	// a receiver that starts anew is waited for, for some 30 s.
	attempts = 7
	pauseMin = 500 * time.Millisecond
	pauseMax = 10 * time.Second
	// answerWithin bounds one attempt.
	answerWithin = 10 * time.Second
	// tokenTTL is how long the receiver may take the token for good.
	tokenTTL = 5 * time.Minute
	// maxAnswer is read of an answer, so that the connection can be used again.
	maxAnswer = 64 << 10
)

// Target is a receiver.
type Target struct {
	URL    string
	Key    string // name of the API key that signs
	Secret string
}

// Sender tells one receiver. Put is safe for concurrent use.
type Sender struct {
	// Static after New.
	target Target
	now    func() time.Time
	client *retryablehttp.Client // used by Run alone
	shelf  Shelf                 // nil: none
	queue  chan Item             // on the way to the shelf
	ready  chan Item             // on it, as far as it takes them

	waiting atomic.Int64 // in both, and being sent

	sent    atomic.Uint64
	dropped map[Reason]*atomic.Uint64 // its keys never change
	missed  int                       // since the last that went; owned by Run
	lost    atomic.Int64              // by Put, not in missed yet
}

// New returns a sender that sends once it runs; now is the time of day.
func New(t Target, shelf Shelf, now func() time.Time) *Sender {
	s := &Sender{target: t, shelf: shelf, now: now, queue: make(chan Item, Max), ready: make(chan Item, Max), dropped: map[Reason]*atomic.Uint64{}}
	for _, r := range Reasons() {
		s.dropped[r] = &atomic.Uint64{}
	}
	c := retryablehttp.NewClient()
	c.Logger, c.RetryMax, c.RetryWaitMin, c.RetryWaitMax = nil, attempts-1, pauseMin, pauseMax
	c.HTTPClient = &http.Client{Timeout: answerWithin,
		Transport:     &http.Transport{MaxIdleConns: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.client = c
	return s
}

// Put has something told. It returns at once; false says that it is dropped because too
// much waits.
func (s *Sender) Put(i Item) bool { return s.put(s.queue, i) }

// Restore has something told that an earlier process has kept, before Run.
func (s *Sender) Restore(i Item) bool { return s.put(s.ready, i) }

func (s *Sender) put(to chan Item, i Item) bool {
	if s.waiting.Add(1) > Max { // so that no channel is ever full
		s.waiting.Add(-1)
		s.lost.Add(1)
		s.dropped[Full].Add(1)
		return false
	}
	to <- i
	return true
}

// Run sends until ctx ends; then it tries for as long as last what still waits. What is
// on the shelf by then stays there.
func (s *Sender) Run(ctx context.Context, last time.Duration) {
	defer s.client.HTTPClient.CloseIdleConnections()
	var keeper sync.WaitGroup
	defer keeper.Wait()
	keeper.Go(func() { s.keep(ctx) })
	again := s.follow(ctx)
	keeper.Wait()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), last)
	defer cancel()
	if again != nil {
		s.tell(end, *again)
	}
	for {
		select {
		case i := <-s.ready:
			s.tell(end, i)
		default:
			return
		}
	}
}

// keep puts what comes on the shelf, before anybody is told of it: whoever says what
// happens does not wait for a disk.
func (s *Sender) keep(ctx context.Context) {
	for {
		select {
		case i := <-s.queue:
			s.shelve(i)
		case <-ctx.Done():
			for {
				select {
				case i := <-s.queue:
					s.shelve(i)
				default:
					return
				}
			}
		}
	}
}

func (s *Sender) shelve(i Item) {
	if s.shelf != nil {
		i.Kept = s.shelf.Keep(i)
	}
	s.ready <- i
}

// follow sends until ctx ends. It returns what was being sent then.
func (s *Sender) follow(ctx context.Context) (again *Item) {
	for ctx.Err() == nil {
		select {
		case i := <-s.ready:
			err := s.post(ctx, i)
			if err != nil && ctx.Err() != nil {
				return &i
			}
			s.done(i, err)
		case <-ctx.Done():
		}
	}
	return nil
}

// errRefused ends the attempts at an item that may not be told any more.
var errRefused = errors.New("it may not be told any more")

// tell makes the last attempts of this process.
func (s *Sender) tell(ctx context.Context, i Item) {
	err := s.post(ctx, i)
	if err != nil && i.Kept && ctx.Err() != nil {
		s.waiting.Add(-1)
		return // the next process tells it
	}
	s.done(i, err)
}

// done ends an item.
func (s *Sender) done(i Item, err error) {
	s.waiting.Add(-1)
	s.count(err)
	if i.Kept {
		s.shelf.Done(i)
	}
}

// count takes note of what became of an item.
func (s *Sender) count(err error) {
	reason := Failed
	switch {
	case err == nil:
		s.sent.Add(1)
		s.missed = 0
		return
	case errors.Is(err, errRefused):
		reason = Refused
	case errors.Is(err, errStale):
		reason = Stale
	}
	s.missed++
	s.dropped[reason].Add(1)
}

var errStale = fmt.Errorf("it is older than %s", MaxAge)

// post makes the attempts. Every answer but 2xx is a failure; one that says that the
// request is at fault is not asked for again.
func (s *Sender) post(ctx context.Context, i Item) error {
	if err := s.still(i); err != nil {
		return err
	}
	s.missed += int(s.lost.Swap(0))
	body := i.Body(s.missed)
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, s.target.URL, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/webhook+json")
	req.Header.Set("User-Agent", "domicile")
	s.client.PrepareRetry = func(r *http.Request) error {
		if err := s.still(i); err != nil {
			return err
		}
		return s.sign(r, body)
	}
	if err := s.sign(req.Request, body); err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)) // so that the connection can be used again
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (s *Sender) still(i Item) error {
	switch {
	case s.now().Sub(i.Since) > MaxAge:
		return errStale
	case !i.May():
		return errRefused
	}
	return nil
}

// sign gives a request its token, anew for each attempt.
func (s *Sender) sign(r *http.Request, body []byte) error {
	sum, now := sha256.Sum256(body), s.now()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": s.target.Key, "nbf": now.Unix(), "exp": now.Add(tokenTTL).Unix(),
		"sha256": base64.StdEncoding.EncodeToString(sum[:]),
	}).SignedString([]byte(s.target.Secret))
	if err != nil {
		return fmt.Errorf("sign webhook: %w", err)
	}
	r.Header.Set("Authorization", token)
	return nil
}

// Sent is how many items were taken by the receiver.
func (s *Sender) Sent() uint64 { return s.sent.Load() }

// Dropped is how many were dropped for a reason.
func (s *Sender) Dropped(r Reason) uint64 { return s.dropped[r].Load() }

// Waiting is how many wait.
func (s *Sender) Waiting() int { return int(s.waiting.Load()) }
