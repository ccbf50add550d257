package residency

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

//go:generate node zonedata/generate.mjs

// zonesJSON is generated from Unicode CLDR; see zonedata/generate.mjs.
//
//go:embed zonedata/zones.json
var zonesJSON []byte

// atlas is what the package knows of the world.
type atlas struct {
	countries map[Country]struct{}
	zones     map[string][]Country

	adequacies   []Adequacy
	adequacyAsOf time.Time
}

var world = sync.OnceValue(func() atlas {
	a, err := parseAtlas(zonesJSON)
	if err == nil {
		err = a.parseAdequacy(adequacyJSON)
	}
	if err != nil {
		// The file is compiled in: only a broken build gets here, and a node
		// without countries must not run.
		panic(fmt.Sprintf("residency: %v", err))
	}
	return a
})

func parseAtlas(b []byte) (atlas, error) {
	var file struct {
		Countries []Country            `json:"countries"`
		Zones     map[string][]Country `json:"zones"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return atlas{}, fmt.Errorf("read zone data: %w", err)
	}
	a := atlas{countries: make(map[Country]struct{}, len(file.Countries)), zones: file.Zones}
	for _, c := range file.Countries {
		a.countries[c] = struct{}{}
	}
	for name, members := range file.Zones {
		for _, c := range members {
			if _, ok := a.countries[c]; !ok {
				return atlas{}, fmt.Errorf("read zone data: zone %q: no such country: %q", name, c)
			}
		}
	}
	return a, nil
}

// Known reports whether the code is a country of ISO 3166-1 today, or XK
// (Kosovo), which registries and GeoIP databases use.
func (c Country) Known() bool {
	_, ok := world().countries[c]
	return ok
}

// Countries lists every known country in order.
func Countries() []Country { return slices.Sorted(maps.Keys(world().countries)) }

// NamedZone returns the countries of a built-in zone: "EU" (27 members), "EEA"
// (the EU with IS, LI and NO), "DACH" (DE, AT, CH; CH is in neither of the
// first two) or "ADEQUATE" (see ZoneAdequate). Names are upper case. The slice is the caller's.
func NamedZone(name string) ([]Country, bool) {
	members, ok := world().zones[name]
	return slices.Clone(members), ok
}

// NamedZones lists the names of the built-in zones in order.
func NamedZones() []string { return slices.Sorted(maps.Keys(world().zones)) }
