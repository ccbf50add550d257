package webhook

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	lk "github.com/livekit/protocol/webhook"
)

const secret = "a-secret-of-at-least-thirty-two-bytes"

// receiver takes what LiveKit's own library takes, and answers as it is told.
type receiver struct {
	mu     sync.Mutex
	answer []int // status codes, in order; then 200
	calls  int
	got    []string
	bad    []error
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := lk.Receive(q, auth.NewSimpleKeyProvider("key", secret))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if len(r.answer) > 0 {
		status := r.answer[0]
		r.answer = r.answer[1:]
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
		return
	}
	if err != nil {
		r.bad = append(r.bad, err)
	}
	r.got = append(r.got, string(body))
}

func item(text string) Item {
	return Item{Body: func(n int) []byte { return fmt.Appendf(nil, `%s after %d`, text, n) }, May: func() bool { return true }, Since: time.Now()}
}

// send has a sender tell a receiver some items, until none waits.
func send(t *testing.T, r *receiver, items ...Item) *Sender {
	t.Helper()
	srv := httptest.NewServer(r)
	defer srv.Close()
	s := New(Target{URL: srv.URL, Key: "key", Secret: secret}, nil, time.Now)
	s.client.RetryWaitMin, s.client.RetryWaitMax = time.Millisecond, time.Millisecond
	for _, i := range items {
		s.Put(i)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Run(ctx, 20*time.Second)
	return s
}

// TestSender sends in order, tries again, and says what is missing.
func TestSender(t *testing.T) {
	r := &receiver{answer: []int{500, 503, 429}}
	old, no := item("old"), item("no")
	old.Since = time.Now().Add(-MaxAge - time.Second)
	no.May = func() bool { return false }
	s := send(t, r, item("one"), old, no, item("two"), item("three"))
	if got := strings.Join(r.got, ", "); got != "one after 0, two after 2, three after 0" || len(r.bad) > 0 {
		t.Errorf("received %q, %v", got, r.bad)
	}
	if s.Sent() != 3 || s.Dropped(Stale) != 1 || s.Dropped(Refused) != 1 || r.calls != 6 {
		t.Errorf("sent %d, stale %d, refused %d in %d calls", s.Sent(), s.Dropped(Stale), s.Dropped(Refused), r.calls)
	}
}

// TestSenderGivesUp on a receiver that fails, one that leads elsewhere and one that does
// not want it; and stops in the middle when it may not be told any more.
func TestSenderGivesUp(t *testing.T) {
	for name, tt := range map[string]struct {
		answer []int
		calls  int
	}{
		"fails":    {[]int{500, 500, 500, 500, 500, 500, 500}, attempts + 1},
		"redirect": {[]int{307}, 2},
		"refuses":  {[]int{403}, 2},
	} {
		r := &receiver{answer: tt.answer}
		s := send(t, r, item("one"), item("two"))
		if s.Dropped(Failed) != 1 || r.calls != tt.calls || strings.Join(r.got, "") != "two after 1" {
			t.Errorf("%s: %d failed, %d calls, got %q", name, s.Dropped(Failed), r.calls, r.got)
		}
	}
	r := &receiver{answer: []int{500, 500, 500}}
	asked, i := 0, item("one")
	i.May = func() bool { asked++; return asked < 3 }
	if s := send(t, r, i); s.Dropped(Refused) != 1 || r.calls != 2 || len(r.got) != 0 {
		t.Errorf("%d refused, %d calls, got %q", s.Dropped(Refused), r.calls, r.got)
	}
}

// TestSenderIsBounded puts more in than may wait.
func TestSenderIsBounded(t *testing.T) {
	s := New(Target{URL: "http://127.0.0.1:1"}, nil, time.Now)
	for range Max + 3 {
		s.Put(item("x"))
	}
	if s.Waiting() != Max || s.Dropped(Full) != 3 {
		t.Errorf("%d wait, %d dropped", s.Waiting(), s.Dropped(Full))
	}
}

// memory is a shelf that outlives senders.
type memory struct {
	mu   sync.Mutex
	kept []Item
}

func (m *memory) Keep(i Item) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = append(m.kept, i)
	return i.ID != ""
}

func (m *memory) Done(i Item) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = slices.DeleteFunc(m.kept, func(other Item) bool { return other.ID == i.ID })
}

// TestShelf: what a sender has not told when it ends is told by the next, in order and
// before what comes then; what is told is not on the shelf any more.
func TestShelf(t *testing.T) {
	r, shelf := &receiver{answer: []int{503, 503, 503, 503, 503, 503, 503, 503}}, &memory{}
	srv := httptest.NewServer(r)
	defer srv.Close()
	named := func(text string) Item { i := item(text); i.ID = text; return i }
	first := New(Target{URL: srv.URL, Key: "key", Secret: secret}, shelf, time.Now)
	for _, text := range []string{"one", "two", "three"} {
		first.Put(named(text))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	first.Run(ctx, 0)
	if first.Dropped(Failed)+first.Dropped(Full) > 0 || first.Waiting() != 0 || len(shelf.kept) != 3 {
		t.Fatalf("%d failed, %d wait, %d on the shelf", first.Dropped(Failed), first.Waiting(), len(shelf.kept))
	}
	r.answer = nil
	next := New(Target{URL: srv.URL, Key: "key", Secret: secret}, shelf, time.Now)
	next.Put(named("four"))
	for _, i := range slices.Clone(shelf.kept) {
		i.Kept = true
		next.Restore(i)
	}
	next.Run(ctx, 20*time.Second)
	if got := strings.Join(r.got, ", "); got != "one after 0, two after 0, three after 0, four after 0" || len(shelf.kept) > 0 {
		t.Errorf("received %q, %d on the shelf", got, len(shelf.kept))
	}
}
