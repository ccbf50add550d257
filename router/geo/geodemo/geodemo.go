// Package geodemo writes small GeoIP databases that place chosen networks, for
// the demo mesh and for tests. It is apart from package geo so that a node that
// only reads databases does not carry the writer.
package geodemo

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/maxmind/mmdbwriter"
	"github.com/maxmind/mmdbwriter/mmdbtype"
	"go4.org/netipx"

	"github.com/domicile/domicile/residency"
)

// Entry places one network.
type Entry struct {
	Prefix  netip.Prefix
	Country residency.Country
	City    string  // English name
	Lat     float64 // degrees
	Lon     float64 // degrees
}

// Make writes a City database built at the given time. Private, loopback and
// documentation networks may be placed too. A file already at path is replaced
// in one step, so that a reader never sees half of the new one.
func Make(path string, entries []Entry, built time.Time) error {
	tree, err := mmdbwriter.New(mmdbwriter.Options{
		DatabaseType:            "GeoLite2-City",
		Description:             map[string]string{"en": "Domicile demo: made-up places, not for production"},
		Languages:               []string{"en"},
		BuildEpoch:              built.Unix(),
		IncludeReservedNetworks: true,
	})
	if err != nil {
		return fmt.Errorf("make GeoIP database: %w", err)
	}
	for _, e := range entries {
		if !e.Prefix.IsValid() || e.Country == "" {
			return fmt.Errorf("make GeoIP database: entry %q in %q: want a network and a country", e.Prefix, e.Country)
		}
		if err := tree.Insert(netipx.PrefixIPNet(e.Prefix.Masked()), record(e)); err != nil {
			return fmt.Errorf("make GeoIP database: network %q: %w", e.Prefix, err)
		}
	}
	if err := replace(path, tree); err != nil {
		return fmt.Errorf("make GeoIP database %q: %w", path, err)
	}
	return nil
}

func record(e Entry) mmdbtype.Map {
	return mmdbtype.Map{
		"country":  mmdbtype.Map{"iso_code": mmdbtype.String(e.Country)},
		"city":     mmdbtype.Map{"names": mmdbtype.Map{"en": mmdbtype.String(e.City)}},
		"location": mmdbtype.Map{"latitude": mmdbtype.Float64(e.Lat), "longitude": mmdbtype.Float64(e.Lon)},
	}
}

// replace writes to a neighbour of path and renames it.
func replace(path string, tree *mmdbwriter.Tree) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = tree.WriteTo(f)
	if err = errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
