package geo

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/maxmind/mmdbwriter"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
	"github.com/domicile/domicile/router/geo/geodemo"
)

var built = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// demo writes a small database and opens it.
func demo(t *testing.T, entries ...geodemo.Entry) *DB {
	t.Helper()
	path := filepath.Join(t.TempDir(), "demo.mmdb")
	if err := geodemo.Make(path, entries, built); err != nil {
		t.Fatal(err)
	}
	db, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func entry(prefix string, c residency.Country, city string, lat, lon float64) geodemo.Entry {
	return geodemo.Entry{Prefix: netip.MustParsePrefix(prefix), Country: c, City: city, Lat: lat, Lon: lon}
}

func TestDemoPlacesSpecialAddressesToo(t *testing.T) {
	db := demo(t,
		entry("192.0.2.0/24", "DE", "Frankfurt", 50.11, 8.68),
		entry("198.51.100.0/24", "PL", "Warsaw", 52.23, 21.01),
		entry("203.0.113.0/24", "US", "New York", 40.71, -74.01),
		entry("127.20.0.0/16", "FR", "Paris", 48.86, 2.35),
		entry("2001:db8:1::/48", "NO", "Oslo", 59.91, 10.75),
	)
	for addr, want := range map[string]Location{
		"192.0.2.7":          {"DE", "Frankfurt", router.Point{Lat: 50.11, Lon: 8.68}},
		"198.51.100.255":     {"PL", "Warsaw", router.Point{Lat: 52.23, Lon: 21.01}},
		"203.0.113.0":        {"US", "New York", router.Point{Lat: 40.71, Lon: -74.01}},
		"127.20.3.4":         {"FR", "Paris", router.Point{Lat: 48.86, Lon: 2.35}},
		"2001:db8:1::1":      {"NO", "Oslo", router.Point{Lat: 59.91, Lon: 10.75}},
		"::ffff:203.0.113.9": {"US", "New York", router.Point{Lat: 40.71, Lon: -74.01}},
		"2001:db8:1::1%eth0": {"NO", "Oslo", router.Point{Lat: 59.91, Lon: 10.75}},
	} {
		loc, reason, ok := db.Lookup(netip.MustParseAddr(addr))
		if !ok || loc != want || reason != Source {
			t.Errorf("%s: %+v, %q, %v; want %+v", addr, loc, reason, ok, want)
		}
	}
	a := db.Attendee(netip.MustParseAddr("192.0.2.7"))
	if !a.Known || a.Country != "DE" || a.At.Lat != 50.11 || a.Source != Source {
		t.Errorf("attendee: %+v", a)
	}
}

// The addresses of attack test A1, and others that say nothing of a place.
func TestUnknownAddressesHaveAReason(t *testing.T) {
	db := demo(t, entry("8.8.8.0/24", "US", "", 40, -100))
	for addr, want := range map[string]string{
		"127.0.0.1":         "loopback address",
		"10.1.2.3":          "private address",
		"172.16.0.1":        "private address",
		"172.32.0.1":        "does not know the address",
		"192.168.1.1":       "private address",
		"169.254.1.1":       "link-local address",
		"100.64.0.1":        "behind a carrier's NAT",
		"100.128.0.1":       "does not know the address",
		"0.0.0.0":           "unspecified address",
		"192.0.2.1":         "documentation address",
		"192.0.0.8":         "special-purpose address",
		"198.18.0.1":        "benchmarking address",
		"224.0.0.1":         "multicast address",
		"240.0.0.1":         "reserved address",
		"255.255.255.255":   "reserved address",
		"9.9.9.9":           "does not know the address",
		"::1":               "loopback address",
		"::":                "unspecified address",
		"::ffff:127.0.0.1":  "loopback address",
		"::ffff:10.0.0.1":   "private address",
		"fe80::1%eth0":      "link-local address",
		"fd00::1":           "private address",
		"ff02::1":           "multicast address",
		"64:ff9b::7f00:1":   "translated address",
		"2001:db8::1":       "documentation address",
		"2a00:1450:4001::1": "does not know the address",
	} {
		loc, reason, ok := db.Lookup(netip.MustParseAddr(addr))
		if ok || !strings.Contains(reason, want) || loc != (Location{}) {
			t.Errorf("%s: %+v, %q, %v; want %q", addr, loc, reason, ok, want)
		}
		if strings.Contains(reason, addr) {
			t.Errorf("the reason carries the address: %q", reason)
		}
	}
	if _, reason, ok := db.Lookup(netip.Addr{}); ok || reason != "no address is known" {
		t.Errorf("no address: %q, %v", reason, ok)
	}
}

func TestMaxMindsOwnDatabases(t *testing.T) {
	for file, want := range map[string]Location{
		"GeoIP2-City-Test.mmdb":    {"GB", "London", router.Point{Lat: 51.5142, Lon: -0.0931}},
		"GeoLite2-City-Test.mmdb":  {"GB", "London", router.Point{Lat: 51.5142, Lon: -0.0931}},
		"GeoIP2-Country-Test.mmdb": {Country: "GB"},
	} {
		db, err := Open(filepath.Join("testdata", file))
		if err != nil {
			t.Error(err)
			continue
		}
		loc, reason, ok := db.Lookup(netip.MustParseAddr("81.2.69.142"))
		if !ok || loc != want {
			t.Errorf("%s: %+v, %q, %v", file, loc, reason, ok)
		}
	}
}

// A database that cannot be used leaves a DB that says so, and a node that runs.
func TestUnusableDatabases(t *testing.T) {
	dir := t.TempDir()
	good, err := os.ReadFile("testdata/GeoIP2-City-Test.mmdb")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	what := strings.Replace(string(good), "GeoIP2-City", "GeoIP2-What", 1)
	var asn bytes.Buffer
	tree, err := mmdbwriter.New(mmdbwriter.Options{DatabaseType: "GeoLite2-ASN"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tree.WriteTo(&asn); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, reason, err string }{
		"missing":           {filepath.Join(dir, "none.mmdb"), "missing", "no such file"},
		"a directory":       {dir, "cannot be read", "not a regular file"},
		"empty":             {write("empty", nil), "broken", "open GeoIP database"},
		"text":              {write("text", []byte("no database")), "broken", "open GeoIP database"},
		"cut at the front":  {write("front", good[:1000]), "broken", "open GeoIP database"},
		"cut at the end":    {write("end", good[:len(good)-200]), "broken", "open GeoIP database"},
		"an unknown type":   {write("type", []byte(what)), "wrong type", `type "GeoIP2-What"`},
		"not of places":     {write("asn", asn.Bytes()), "wrong type", `type "GeoLite2-ASN"`},
		"its tree is wrong": {"testdata/GeoIP2-City-Test-Invalid-Node-Count.mmdb", "broken", "open GeoIP database"},
	} {
		t.Run(name, func(t *testing.T) {
			db, err := Open(c.path)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want one with %q", err, c.err)
			}
			loc, reason, ok := db.Lookup(netip.MustParseAddr("81.2.69.142"))
			if ok || loc != (Location{}) || !strings.Contains(reason, c.reason) {
				t.Errorf("lookup: %+v, %q, %v", loc, reason, ok)
			}
			if w := db.Warning(built); w != reason {
				t.Errorf("warning %q, reason %q", w, reason)
			}
		})
	}
}

// This one opens and fails only where it is broken.
func TestDatabaseBrokenInAPlace(t *testing.T) {
	db, err := Open("testdata/GeoIP2-City-Test-Broken-Double-Format.mmdb")
	if err != nil {
		t.Logf("refused at once: %v", err)
	}
	_, reason, ok := db.Lookup(netip.MustParseAddr("2001:220::"))
	if ok || !strings.Contains(reason, "broken") {
		t.Errorf("lookup: %q, %v", reason, ok)
	}
}

func TestNoDatabase(t *testing.T) {
	var none *DB
	empty, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []*DB{none, empty} {
		_, reason, ok := db.Lookup(netip.MustParseAddr("81.2.69.142"))
		if ok || reason != "no GeoIP database is configured" || db.Warning(built) != reason {
			t.Errorf("lookup: %q, %v", reason, ok)
		}
		if err := db.Reload(); err != nil {
			t.Errorf("reload: %v", err)
		}
	}
}

func TestStaleDatabaseWarns(t *testing.T) {
	db := demo(t, entry("192.0.2.0/24", "DE", "", 50, 8))
	if w := db.Warning(built.Add(staleAfter)); w != "" {
		t.Errorf("fresh: %q", w)
	}
	if w := db.Warning(built.Add(staleAfter + 24*time.Hour)); !strings.Contains(w, "2026-03-01, 61 days ago") {
		t.Errorf("stale: %q", w)
	}
	if _, _, ok := db.Lookup(netip.MustParseAddr("192.0.2.1")); !ok {
		t.Error("a stale database does not answer")
	}
}

func TestReloadKeepsWhatWorks(t *testing.T) {
	db := demo(t, entry("192.0.2.0/24", "DE", "", 50, 8))
	country := func() residency.Country {
		loc, _, _ := db.Lookup(netip.MustParseAddr("192.0.2.1"))
		return loc.Country
	}
	if err := geodemo.Make(db.path, []geodemo.Entry{entry("192.0.2.0/24", "PL", "", 52, 21)}, built); err != nil {
		t.Fatal(err)
	}
	if country() != "DE" {
		t.Error("the file changed under the reader")
	}
	if err := db.Reload(); err != nil || country() != "PL" {
		t.Errorf("reloaded: %v, %s", err, country())
	}
	if err := os.WriteFile(db.path, []byte("cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := db.Reload(); err == nil || country() != "PL" {
		t.Errorf("reloaded a broken file: %v, %s", err, country())
	}
}

// A country that is none, and places that are not on Earth, are not believed.
func TestNonsenseIsNotBelieved(t *testing.T) {
	db := demo(t, entry("192.0.2.0/24", "ZZ", "Nowhere", 50, 8), entry("198.51.100.0/24", "DE", "Somewhere", 500, 8))
	if loc, reason, ok := db.Lookup(netip.MustParseAddr("192.0.2.1")); ok || reason == Source {
		t.Errorf("country ZZ: %+v, %q", loc, reason)
	}
	if loc, _, ok := db.Lookup(netip.MustParseAddr("198.51.100.1")); !ok || loc.At != (router.Point{}) {
		t.Errorf("latitude 500: %+v", loc)
	}
}

func TestMakeRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.mmdb")
	for _, e := range []geodemo.Entry{{}, {Prefix: netip.MustParsePrefix("192.0.2.0/24")}, {Country: "DE"}} {
		if err := geodemo.Make(path, []geodemo.Entry{e}, built); err == nil {
			t.Errorf("entry %+v was taken", e)
		}
	}
	if err := geodemo.Make(filepath.Join(path, "no", "such"), nil, built); err == nil {
		t.Error("wrote where there is no directory")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// FuzzLookup damages a database in one place and looks addresses up.
func FuzzLookup(f *testing.F) {
	good, err := os.ReadFile("testdata/GeoIP2-City-Test.mmdb")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(uint32(0), []byte{0xff, 0xff, 0xff}, []byte{81, 2, 69, 142})
	f.Add(uint32(10000), []byte{0x20, 0x00}, []byte{2, 125, 160, 216})
	f.Add(uint32(len(good)-100), []byte{0xe0}, []byte{89, 160, 20, 112})
	f.Fuzz(func(t *testing.T, at uint32, damage, ip []byte) {
		b := append([]byte(nil), good...)
		copy(b[int(at)%len(b):], damage)
		g, err := parse(b)
		if err != nil {
			if g.reader != nil || g.fault == "" {
				t.Fatalf("unusable, but %+v", g)
			}
			return
		}
		db := &DB{}
		db.current.Store(g)
		addr, _ := netip.AddrFromSlice(ip)
		loc, reason, ok := db.Lookup(addr)
		if ok != (loc.Country != "") || ok && !loc.Country.Known() || reason == "" {
			t.Fatalf("%s: %+v, %q, %v", addr, loc, reason, ok)
		}
	})
}
