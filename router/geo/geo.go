// Package geo finds out where an attendee is: which address a request came from
// and which country and place a GeoIP database (MaxMind DB format) gives for it.
//
// It guesses nothing: an address that the database does not know, a special
// address, a missing or broken database each give "unknown" with a reason, and
// the router's fallback decides what that means. Reasons carry no address.
package geo

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/oschwald/geoip2-golang/v2"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

const (
	// maxSize is the largest database that is read: twice the largest that is
	// sold today, and small enough not to exhaust a node by a wrong path.
	maxSize = 1 << 30

	// staleAfter is the age from which a database is called stale. GeoLite's
	// terms ask for an update within 30 days; twice that is surely forgotten.
	staleAfter = 60 * 24 * time.Hour

	// Source is what a reason says when the database knew the address.
	Source = "geoip"
)

// Location is where an address is, as far as the database knows.
type Location struct {
	Country residency.Country
	City    string       // English name, "" if unknown
	At      router.Point // zero if unknown
}

// DB is a GeoIP database that can be replaced while it is used. It is safe for
// concurrent use. A nil DB knows nothing.
type DB struct {
	path    string
	current atomic.Pointer[generation]
}

// generation is one reading of the file. It is held in memory and not mapped,
// because a mapped file that somebody cuts kills the process with SIGBUS.
type generation struct {
	reader *geoip2.Reader // nil if the file could not be used
	built  time.Time
	fault  string // why reader is nil, for reasons: no path, no address
}

// Open reads the database at path. The DB it returns is usable even when the
// error is not nil: it knows nothing and says why, and Reload may mend it. An
// empty path is no error: the node then runs without GeoIP.
func Open(path string) (*DB, error) {
	db := &DB{path: path}
	db.current.Store(&generation{fault: "no GeoIP database is configured"})
	if path == "" {
		return db, nil
	}
	g, err := read(path)
	db.current.Store(g)
	return db, err
}

// Reload reads the file again. If that fails the DB goes on with what it had.
func (db *DB) Reload() error {
	if db == nil || db.path == "" {
		return nil
	}
	g, err := read(db.path)
	if err == nil || db.current.Load().reader == nil {
		db.current.Store(g)
	}
	return err
}

// Lookup finds the place of an address. ok means that the country is known, and
// reason is then Source; otherwise reason says why it is not.
func (db *DB) Lookup(addr netip.Addr) (loc Location, reason string, ok bool) {
	if !addr.IsValid() {
		return Location{}, "no address is known", false
	}
	if db == nil {
		return Location{}, "no GeoIP database is configured", false
	}
	addr = addr.Unmap().WithZone("")
	g := db.current.Load()
	if g.reader == nil {
		return Location{}, g.fault, false
	}
	loc, err := g.find(addr)
	switch {
	case err != nil:
		return Location{}, "the GeoIP database is broken", false
	case loc.Country != "":
		return loc, Source, true
	}
	if kind := special(addr); kind != "" {
		return loc, kind, false
	}
	return loc, "the GeoIP database does not know the address", false
}

// Attendee looks an address up in the form that the router takes.
func (db *DB) Attendee(addr netip.Addr) router.Attendee {
	loc, reason, ok := db.Lookup(addr)
	return router.Attendee{Country: loc.Country, At: loc.At, Known: ok, Source: reason, Addr: addr}
}

// Warning says what an operator should know of the database at now: that there
// is none, that it is unusable or stale. "" is all well.
func (db *DB) Warning(now time.Time) string {
	if db == nil {
		return "no GeoIP database is configured"
	}
	g := db.current.Load()
	if g.reader == nil {
		return g.fault
	}
	if age := now.Sub(g.built); age > staleAfter {
		return fmt.Sprintf("the GeoIP database was built on %s, %d days ago: update it",
			g.built.UTC().Format(time.DateOnly), int(age/(24*time.Hour)))
	}
	return ""
}

// read loads a file. It always returns a generation, one without a reader and
// with a fault if the error is not nil.
func read(path string) (*generation, error) {
	b, err := slurp(path)
	if err != nil {
		fault := "the GeoIP database cannot be read"
		if errors.Is(err, os.ErrNotExist) {
			fault = "the GeoIP database is missing"
		}
		return &generation{fault: fault}, fmt.Errorf("open GeoIP database %q: %w", path, err)
	}
	g, err := parse(b)
	if err != nil {
		return g, fmt.Errorf("open GeoIP database %q: %w", path, err)
	}
	return g, nil
}

// slurp reads a file of bounded size.
func slurp(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if st.Size() > maxSize {
		return nil, fmt.Errorf("%d bytes, at most %d are read", st.Size(), maxSize)
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, err
	}
	return b, nil
}

// parse takes the bytes of a database and tries it out, so that a wrong type or
// a broken tree is found at the start and not by the first attendee.
func parse(b []byte) (g *generation, err error) {
	g = &generation{fault: "the GeoIP database is broken"}
	defer guard(&err)
	reader, err := geoip2.OpenBytes(b)
	var unknown geoip2.UnknownDatabaseTypeError
	switch {
	case errors.As(err, &unknown):
		g.fault = "the GeoIP database is of the wrong type"
		return g, wrongType(unknown.DatabaseType)
	case err != nil:
		return g, err
	}
	built := reader.Metadata().BuildTime()
	for _, probe := range probes {
		var method geoip2.InvalidMethodError
		if _, err := reader.City(probe); errors.As(err, &method) {
			g.fault = "the GeoIP database is of the wrong type"
			return g, wrongType(method.DatabaseType)
		} else if err != nil {
			return g, err
		}
	}
	return &generation{reader: reader, built: built}, nil
}

func wrongType(got string) error {
	return fmt.Errorf("type %q: want a City or Country database such as GeoLite2-City", got)
}

// probes are looked up once when a database is opened. A database may well not
// know them; what counts is that its tree can be walked.
var probes = []netip.Addr{
	netip.AddrFrom4([4]byte{1, 1, 1, 1}),
	netip.AddrFrom4([4]byte{81, 2, 69, 142}),
	netip.AddrFrom4([4]byte{203, 0, 113, 1}),
}

// find looks an address up. A panic in the reader becomes an error: a damaged
// file must not take the node down.
func (g *generation) find(addr netip.Addr) (loc Location, err error) {
	defer guard(&err)
	rec, err := g.reader.City(addr)
	if err != nil {
		return Location{}, fmt.Errorf("look up: %w", err)
	}
	// Only the country where the address is. registered_country says where its
	// owner is and represented_country whose soldiers use it; neither is a place.
	if c, err := residency.ParseCountry(rec.Country.ISOCode); err == nil && c.Known() {
		loc.Country = c
	}
	loc.City = rec.City.Names.English
	if la, lo := rec.Location.Latitude, rec.Location.Longitude; la != nil && lo != nil {
		if at := (router.Point{Lat: *la, Lon: *lo}); at.Stated() {
			loc.At = at
		}
	}
	return loc, nil
}

// guard turns a panic into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("damaged database: %v", p)
	}
}
