package bucket

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a patient connection and its other end.
func pipe(t *testing.T) (c, other net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	c, err := patiently(func(context.Context, string, string) (net.Conn, error) { return near, nil }, stallsAfter)(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return c, far
}

// TestStalls reads and writes for longer than a connection may stall, and then stalls.
func TestStalls(t *testing.T) {
	const pause, pieces = stallsAfter * 2 / 3, 10
	stalled := func(t *testing.T, since time.Time, err error) {
		t.Helper()
		if d := time.Since(since); !errors.Is(err, os.ErrDeadlineExceeded) || d != stallsAfter {
			t.Errorf("after %v: %v", d, err)
		}
	}
	t.Run("reading", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, other := pipe(t)
			go func() {
				for range pieces {
					time.Sleep(pause)
					other.Write([]byte{1})
				}
			}()
			got, began := make([]byte, pieces), time.Now()
			if _, err := io.ReadFull(c, got); err != nil || time.Since(began) != pieces*pause {
				t.Fatalf("what comes slowly ends after %v: %v", time.Since(began), err)
			}
			time.Sleep(10 * stallsAfter) // who reads may take his time
			began = time.Now()
			_, err := c.Read(got)
			stalled(t, began, err)
		})
	})
	t.Run("writing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, other := pipe(t)
			answered := make(chan error, 1)
			go func() { // as HTTP does, which waits for the answer meanwhile
				_, err := c.Read(make([]byte, 1))
				answered <- err
			}()
			go func() {
				piece := make([]byte, patientPiece)
				for range pieces {
					time.Sleep(pause)
					io.ReadFull(other, piece)
				}
				other.Write([]byte{1})
			}()
			if n, err := c.Write(make([]byte, pieces*patientPiece)); err != nil {
				t.Fatalf("what goes slowly ends after %d bytes: %v", n, err)
			}
			if err := <-answered; err != nil {
				t.Fatalf("the answer: %v", err)
			}
			began := time.Now()
			_, err := c.Write([]byte{1})
			stalled(t, began, err)
		})
	})
}

// TestSilentStore asks a store that begins to answer and then says no more.
func TestSilentStore(t *testing.T) {
	gone := make(chan struct{})
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		io.WriteString(w, strings.Repeat(" ", 1000))
		w.(http.Flusher).Flush()
		<-gone
	}))
	defer store.Close()
	defer close(gone)
	b, err := open(Config{Endpoint: strings.TrimPrefix(store.URL, "http://"), Bucket: "records", Region: "us-east-1", Access: "a", Secret: "s", Plaintext: true}, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	for name, ask := range map[string]func(context.Context) error{
		"an object": func(ctx context.Context) error {
			r, err := b.Get(ctx, "RE_a/x.dtr")
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(io.Discard, r)
			return err
		},
		"a list": func(ctx context.Context) error {
			_, err := b.List(ctx, "RE_a/")
			return err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // else it would hang for ever
		if err := ask(ctx); !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			t.Errorf("%s that stalls: %v, %v", name, err, ctx.Err())
		}
		cancel()
	}
}
