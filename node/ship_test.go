package node

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/vault"
)

// memoryStore is an object store that may be away.
type memoryStore struct {
	mu      sync.Mutex
	away    bool
	objects map[string][]byte
}

func (s *memoryStore) Name() string { return "s3:memory" }

func (s *memoryStore) do(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errors.New("connection refused")
	}
	return f()
}

func (s *memoryStore) Put(_ context.Context, name string, r io.Reader, _ int64) error {
	b, err := io.ReadAll(r)
	return errors.Join(err, s.do(func() error { s.objects[name] = b; return nil }))
}

func (s *memoryStore) Get(_ context.Context, name string) (r io.ReadCloser, err error) {
	err = s.do(func() error {
		b, ok := s.objects[name]
		r = io.NopCloser(bytes.NewReader(b))
		if !ok {
			return fs.ErrNotExist
		}
		return nil
	})
	return r, err
}

func (s *memoryStore) List(_ context.Context, below string) (map[string]int64, error) {
	found := map[string]int64{}
	return found, s.do(func() error {
		for name, b := range s.objects {
			if strings.HasPrefix(name, below) {
				found[name] = int64(len(b))
			}
		}
		return nil
	})
}

func (s *memoryStore) Remove(_ context.Context, name string) error {
	return s.do(func() error { delete(s.objects, name); return nil })
}

// TestRecordingGoesToTheBucket records on a node whose bucket is away: what is finished
// waits there, and goes as soon as the bucket is back. In a bucket outside the zone
// nothing is recorded from the start.
func TestRecordingGoesToTheBucket(t *testing.T) {
	t.Parallel()
	store := &memoryStore{away: true, objects: map[string][]byte{}}
	bucketIn := func(c residency.Country) func(*testMesh, *Config) {
		return func(_ *testMesh, cfg *Config) {
			cfg.Bucket = Bucket{Store: store}
			cfg.Places = Places{residency.ClassRecording: {What: "object store", Country: c,
				Operator: "Example GmbH", OperatorCountry: "DE", Parent: "Example GmbH", ParentCountry: "DE"}}
		}
	}
	m := newMeshOf(t, testBundle(1), bucketIn("DE"), "fra DE origin")
	fra := m.node("fra")
	anna := enter(t, fra, "town", "anna", preset("eea-only"))
	anna.publish("voice", livekit.TrackType_AUDIO)
	started, refusal := record(t, fra, "town", "start")
	if refusal != nil {
		t.Fatal(refusal)
	}
	id := vault.ID(started.ID)
	eventually(t, "something is recorded", func() bool { return held(t, fra, id).Size() > 3000 })
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	finished(t, fra, started.ID)
	before := frames(t, fra, id)
	eventually(t, "the operator is told that the bucket is away", func() bool { return strings.Contains(fra.log.String(), "wait for the bucket") })
	if before == 0 || len(held(t, fra, id).Replicas) != 0 {
		t.Errorf("%d frames, %+v", before, held(t, fra, id))
	}
	store.mu.Lock()
	store.away = false
	store.mu.Unlock()
	eventually(t, "the bucket has it", func() bool { r := held(t, fra, id).Replicas; return len(r) == 1 && r[0] == "s3:memory" })
	if after := frames(t, fra, id); after != before {
		t.Errorf("%d frames from the bucket, %d before", after, before)
	}

	outside := newMeshOf(t, testBundle(1), bucketIn("US"), "par FR origin").node("par")
	enter(t, outside, "town", "eve", preset("eea-only"))
	if _, refusal := record(t, outside, "town", "start"); refusal == nil || refusal.Code != CodeRefused {
		t.Errorf("recorded into a bucket outside the zone: %v", refusal)
	}
}

// TestShipmentThatFailsStopsNoOther: whatever fails is tried when the others have been.
func TestShipmentThatFailsStopsNoOther(t *testing.T) {
	s := shipments{failed: map[vault.ID]time.Time{}}
	tried, at := "", time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	for i := range 5 {
		ids := []vault.ID{"a", "b", "c"}
		s.order(ids)
		tried += string(ids[0])
		s.failed[ids[0]] = at.Add(time.Duration(i) * time.Second)
	}
	if tried != "abcab" {
		t.Errorf("tried %s", tried)
	}
}
