package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/internal/pgtest"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/residencytest"
)

func config(s *pgtest.Server) *Postgres {
	return &Postgres{Host: s.Dir, Port: pgtest.Port, Database: pgtest.Database, User: pgtest.User}
}

// named has an origin use a database of its test alone.
func named(database string) func(*Options) {
	return func(o *Options) { o.Postgres.Database = database }
}

// TestSharedPostgres runs what kills no server on one, each in a database of its own.
func TestSharedPostgres(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t)
	for name, test := range map[string]func(*testing.T, *pgtest.Server, string){
		"the same room": originsWriteTheSameRoom, "a file moves": fileMovesToPostgres,
		"refusals": postgresIsRefused, "columns": columnsOfPostgresAreRegistered, "aside": refusedIsKeptAside,
	} {
		t.Run(name, func(t *testing.T) {
			database := strings.ReplaceAll(name, " ", "_")
			pg.CreateDatabase(t, database)
			test(t, pg, database)
		})
	}
}

// origin opens a store of an origin that uses the server, and runs it.
func origin(t *testing.T, dir string, s *pgtest.Server, edit func(*Options)) *Store {
	t.Helper()
	o := Options{Disk: disk, Postgres: config(s), Retry: 10 * time.Millisecond, KeyFile: sharedKey(t)}
	if edit != nil {
		edit(&o)
	}
	st, err := Open(t.Context(), filepath.Join(dir, "rooms.db"), o)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- st.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, errors.Join(<-ran, st.Close()))
	})
	return st
}

// sharedKey is the key file that the origins of a test have been given.
func sharedKey(t *testing.T) string {
	t.Helper()
	path := filepath.Join(os.TempDir(), fmt.Sprintf("domicile-store-%d.key", os.Getpid()))
	if _, err := os.Stat(path); err != nil {
		must(t, makeKey(path))
	}
	return path
}

func removeKey() {
	os.Remove(filepath.Join(os.TempDir(), fmt.Sprintf("domicile-store-%d.key", os.Getpid())))
}

func state(t *testing.T, s *Store) State {
	t.Helper()
	st, err := s.State(t.Context())
	must(t, err)
	return st
}

// settled waits until the database has all that was written.
func settled(t *testing.T, s *Store) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		st := state(t, s)
		if !st.Away && st.Waiting == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database does not hear what waits: %+v", st)
		}
	}
}

// TestPostgresKilledWhileWriting writes while the server is killed and started again:
// what was acknowledged is there in the end, once, on two origins.
func TestPostgresKilledWhileWriting(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t)
	fra, waw := origin(t, t.TempDir(), pg, nil), origin(t, t.TempDir(), pg, nil)
	const writers, rounds = 4, 2
	stop := make(chan struct{})
	last := make([][]Room, writers) // what each has been told is kept
	kept, failed := make(chan struct{}, writers), make(chan struct{}, writers)
	more := func() { // waits for a few more writes
		for range 20 {
			select {
			case <-kept:
			case <-failed:
				return
			}
		}
	}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				r := sample(w*10_000 + i/3) // each room is written three times
				r.Metadata = fmt.Sprint(i)
				if err := put(t.Context(), fra, r); err != nil {
					t.Errorf("writer %d, room %d: %v", w, i, err)
					failed <- struct{}{}
					return
				}
				last[w] = append(last[w], r)
				select {
				case kept <- struct{}{}:
				default: // nobody waits
				}
			}
		})
	}
	waited := 0
	for range rounds {
		more()
		pg.Kill(t)
		more()
		waited += state(t, fra).Waiting
		pg.Start(t)
	}
	close(stop)
	wg.Wait()
	settled(t, fra)
	if st := state(t, fra); waited == 0 || st.Replayed == 0 || st.Refused > 0 {
		t.Errorf("the journal was never used, or lost something: %d waited, %+v", waited, st)
	}
	want := map[string]Room{}
	for _, list := range last {
		for _, r := range list {
			want[r.Name] = r
		}
	}
	settled(t, waw)
	got, err := waw.Rooms(t.Context())
	must(t, err)
	if len(got) != len(want) {
		t.Errorf("the other origin finds %d rooms, %d were acknowledged", len(got), len(want))
	}
	for _, r := range got {
		if r != want[r.Name] {
			t.Fatalf("got %+v, want %+v", r, want[r.Name])
		}
	}
	t.Logf("%d rooms, %d replayed", len(want), state(t, fra).Replayed)
}

// TestStartWithoutPostgres starts an origin while the database is away: it knows what
// it knew, and what is written, erased and changed meanwhile arrives in the end.
func TestStartWithoutPostgres(t *testing.T) {
	t.Parallel()
	pg, dir := pgtest.New(t), t.TempDir()
	t.Run("before", func(t *testing.T) {
		fra := origin(t, dir, pg, nil)
		for i := range 3 {
			must(t, put(t.Context(), fra, sample(i)))
		}
	})
	waw := origin(t, t.TempDir(), pg, nil)
	pg.Kill(t)
	changed, added := sample(1), sample(7)
	changed.Metadata = "changed while it was away"
	t.Run("away", func(t *testing.T) {
		fra := origin(t, dir, pg, nil)
		if st := state(t, fra); !st.Away || st.Problem == "" || st.Since == nil {
			t.Errorf("state %+v", st)
		}
		got, err := fra.Rooms(t.Context())
		must(t, err)
		if !slices.Equal(got, []Room{sample(0), sample(1), sample(2)}) {
			t.Errorf("known without the database: %+v", got)
		}
		must(t, put(t.Context(), fra, changed))
		must(t, put(t.Context(), fra, added))
		must(t, fra.DeleteRoom(t.Context(), sample(2).Name, sample(2).SID))
		if r, ok, err := fra.Room(t.Context(), changed.Name); !ok || err != nil || r != changed {
			t.Errorf("a journalled room reads as %+v, %v, %v", r, ok, err)
		}
	})
	t.Run("still away", func(t *testing.T) { // what waits outlives a restart
		if st := state(t, origin(t, dir, pg, nil)); st.Waiting != 3 || st.WaitingBytes == 0 {
			t.Errorf("state %+v", st)
		}
	})
	pg.Start(t)
	t.Run("back", func(t *testing.T) {
		settled(t, origin(t, dir, pg, nil))
	})
	settled(t, waw)
	got, err := waw.Rooms(t.Context())
	must(t, err)
	if want := []Room{sample(0), changed, added}; !slices.Equal(got, want) {
		t.Errorf("the other origin finds %+v, want %+v", got, want)
	}
}

// TestJournalIsBounded fills it: rooms are refused, and the end of one is not.
func TestJournalIsBounded(t *testing.T) {
	t.Parallel()
	pg := &pgtest.Server{Dir: t.TempDir()} // nobody is there
	s := origin(t, t.TempDir(), pg, func(o *Options) { o.JournalBytes = 10_000 })
	var kept []Room
	var err error
	for i := 0; err == nil && i < 100; i++ {
		if err = put(t.Context(), s, sample(i)); err == nil {
			kept = append(kept, sample(i))
		}
	}
	if !errors.Is(err, ErrJournalFull) || len(kept) == 0 {
		t.Fatalf("after %d rooms: %v", len(kept), err)
	}
	if st := state(t, s); st.WaitingBytes > 10_000 || st.Waiting != len(kept) {
		t.Errorf("%+v with %d rooms", st, len(kept))
	}
	for i := range 50 { // the same room again and again takes its place once
		r := kept[0]
		r.Metadata = strconv.Itoa(i)
		must(t, put(t.Context(), s, r))
	}
	must(t, s.DeleteRoom(t.Context(), kept[0].Name, ""))
	got, err := s.Rooms(t.Context())
	must(t, err)
	if len(got) != len(kept)-1 {
		t.Errorf("%d rooms are known, want %d", len(got), len(kept)-1)
	}
}

// originsWriteTheSameRoom has an origin that could not reach the database come
// back with an old record of a room: what another has written is put together with it.
func originsWriteTheSameRoom(t *testing.T, pg *pgtest.Server, database string) {
	together := func(o *Options) {
		o.Postgres.Database = database
		o.Merge = func(kept, put Room) Room {
			if len(put.Metadata) < len(kept.Metadata) {
				put.Metadata = kept.Metadata
			}
			put.State = max(put.State, kept.State)
			return put
		}
	}
	fra, waw := origin(t, t.TempDir(), pg, together), origin(t, t.TempDir(), pg, together)
	r := sample(1)
	r.Metadata, r.State = "m", "1"
	must(t, put(t.Context(), fra, r))
	older, newer := r, r
	older.State, newer.Metadata = "2", "mm"
	must(t, put(t.Context(), waw, newer))
	must(t, put(t.Context(), fra, older))
	want := r
	want.Metadata, want.State = "mm", "2"
	for name, s := range map[string]*Store{"fra": fra, "waw": waw} {
		if got, ok, err := s.Room(t.Context(), r.Name); !ok || err != nil || got != want {
			t.Errorf("%s: %+v, %v, %v", name, got, ok, err)
		}
	}
	// A room of that name that is over does not take a later one along.
	later := r
	later.SID = "RM_later"
	must(t, waw.DeleteRoom(t.Context(), r.Name, r.SID))
	must(t, put(t.Context(), waw, later))
	must(t, fra.DeleteRoom(t.Context(), r.Name, r.SID))
	if _, ok, err := waw.Room(t.Context(), r.Name); !ok || err != nil {
		t.Errorf("the later room is gone: %v", err)
	}
}

// fileMovesToPostgres gives a node that had its rooms in the file a database, and
// then another, and takes it away again.
func fileMovesToPostgres(t *testing.T, pg *pgtest.Server, database string) {
	dir, want := t.TempDir(), []Room{}
	plain := func() *Store {
		s, err := Open(t.Context(), filepath.Join(dir, "rooms.db"), Options{Disk: disk, KeyFile: sharedKey(t)})
		must(t, err)
		return s
	}
	s := plain()
	for i := range 5 {
		want = append(want, sample(i))
		must(t, put(t.Context(), s, sample(i)))
	}
	closeStore(t, s)
	pg.CreateDatabase(t, database+"_2")
	for _, db := range []string{database, database + "_2"} {
		t.Run("", func(t *testing.T) {
			settled(t, origin(t, dir, pg, named(db)))
			got, err := origin(t, t.TempDir(), pg, named(db)).Rooms(t.Context())
			must(t, err)
			if !slices.Equal(got, want) {
				t.Errorf("a database has %+v", got)
			}
		})
	}
	s = plain()
	defer closeStore(t, s)
	if got, err := s.Rooms(t.Context()); err != nil || !slices.Equal(got, want) {
		t.Errorf("the file alone has %+v, %v", got, err)
	}
}

// TestPostgresHoldsNoNames looks for a canary on the raw disks of the server and of
// the origin, rooms written straight and through the journal.
func TestPostgresHoldsNoNames(t *testing.T) {
	t.Parallel()
	const canary, sid = "canary-0e4f5d2c", "RM_canary"
	pg, dir := pgtest.New(t), t.TempDir()
	r := Room{Name: canary, SID: sid, Tenant: "acme", Metadata: canary, State: canary}
	t.Run("", func(t *testing.T) {
		s := origin(t, dir, pg, nil)
		must(t, put(t.Context(), s, r))
		pg.Kill(t)
		r.Metadata += "-2"
		must(t, put(t.Context(), s, r))
		pg.Start(t)
		settled(t, s)
		if got, _, err := s.Room(t.Context(), canary); err != nil || got.Metadata != r.Metadata {
			t.Errorf("%+v, %v", got, err)
		}
	})
	for _, d := range []string{pg.Dir, dir} {
		if !found(t, d, sid) {
			t.Errorf("%s holds nothing of the room, so this test proves nothing", d)
		}
		for _, word := range []string{canary, "acme", "eea-only"} {
			if found(t, d, word) {
				t.Errorf("%q is in clear on a disk", word)
			}
		}
	}
}

func postgresIsRefused(t *testing.T, pg *pgtest.Server, database string) {
	s := origin(t, t.TempDir(), pg, named(database))
	refused := func(name string, want error, edit func(*Options)) {
		o := Options{Disk: disk, Postgres: config(pg), KeyFile: sharedKey(t)}
		o.Postgres.Database = database
		edit(&o)
		st, err := Open(t.Context(), filepath.Join(t.TempDir(), "rooms.db"), o)
		if err == nil {
			closeStore(t, st)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	refused("another key", ErrWrongKey, func(o *Options) { o.KeyFile = "" })
	refused("in clear over a network", ErrClear, func(o *Options) { o.Postgres.Host = "192.0.2.1" })
	_, err := s.shared.remote.db.ExecContext(t.Context(), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)`)
	must(t, err)
	refused("newer tables", ErrNewer, func(o *Options) {})

	// A permit that was not asked for the database opens no database.
	place := residency.Place{What: "database", Country: "DE"}
	s.disk.Place = place
	if err := put(t.Context(), s, sample(1)); !errors.Is(err, residency.ErrNotKept) {
		t.Errorf("a permit for the node's own disk: %v", err)
	}
	must(t, s.PutRoom(t.Context(), residencytest.KeepIn(place, sample(1).Name, sample(1).Tenant, residency.ClassMetadata), sample(1)))
}

// TestSilentPostgres has the database neither answer nor go: a write takes a second
// once, and nothing after that.
func TestSilentPostgres(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	o := Options{Disk: disk, KeyFile: sharedKey(t), Postgres: &Postgres{Host: "127.0.0.1", Port: uint16(ln.Addr().(*net.TCPAddr).Port), Database: "d", User: "u"}}
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "rooms.db"), o)
	must(t, err)
	defer closeStore(t, s)
	alone, err := Open(t.Context(), filepath.Join(t.TempDir(), "rooms.db"), Options{Disk: disk})
	must(t, err)
	defer closeStore(t, alone)
	writes := func(s *Store) time.Duration {
		begun := time.Now()
		for i := range 20 {
			must(t, put(t.Context(), s, sample(i)))
		}
		return time.Since(begun)
	}
	if d, disk := writes(s), writes(alone); d > disk+remoteWait {
		t.Errorf("20 writes took %v, where the disk alone takes %v", d, disk)
	}
}

// columnsOfPostgresAreRegistered is R12 for the shared database.
func columnsOfPostgresAreRegistered(t *testing.T, pg *pgtest.Server, database string) {
	s := origin(t, t.TempDir(), pg, named(database))
	rows, err := s.shared.remote.db.QueryContext(t.Context(), `SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = 'public'`)
	must(t, err)
	defer rows.Close()
	known, n := registered(), 0
	for ; rows.Next(); n++ {
		var name string
		must(t, rows.Scan(&name))
		if !slices.Contains(known, name) {
			t.Errorf("column %s is not registered", name)
		}
	}
	if must(t, rows.Err()); n < 5 || !strings.Contains(strings.Join(known, " "), "room.sealed") {
		t.Errorf("only %d columns were found", n)
	}
}

// TestPostgresOverTLS speaks to a server on a port: by its authority it is believed, by
// another it is not, and what waits stays here.
func TestPostgresOverTLS(t *testing.T) {
	t.Parallel()
	pg := pgtest.New(t)
	certificate, key, pool := selfSigned(t)
	port := pg.ServeTLS(t, certificate, key)
	over := func(roots *x509.CertPool) func(*Options) {
		return func(o *Options) {
			o.Postgres.Host, o.Postgres.Port = "127.0.0.1", uint16(port)
			o.Postgres.TLS = &tls.Config{MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1", RootCAs: roots}
		}
	}
	believed := origin(t, t.TempDir(), pg, over(pool))
	must(t, put(t.Context(), believed, sample(1)))
	if st := state(t, believed); st.Away || st.Waiting > 0 {
		t.Errorf("with its authority: %+v", st)
	}
	doubted := origin(t, t.TempDir(), pg, over(x509.NewCertPool()))
	must(t, put(t.Context(), doubted, sample(2)))
	if st := state(t, doubted); !st.Away || st.Waiting != 1 || !strings.Contains(st.Problem, "certificate") {
		t.Errorf("with another authority: %+v", st)
	}
	got, err := believed.Rooms(t.Context())
	must(t, err)
	if !slices.Equal(got, []Room{sample(1)}) {
		t.Errorf("the database has %+v", got)
	}
}

// selfSigned makes a certificate for 127.0.0.1 that is its own authority.
func selfSigned(t *testing.T) (certificate, private []byte, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	must(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pool
}
