package configs

import (
	"slices"
	"strconv"
	"strings"

	"github.com/domicile/domicile/residency"
)

// zoneFile is a zone: countries, or anywhere, and who may run a node there.
type zoneFile struct {
	Countries               []countrySet `yaml:"countries" empty:"write 'anywhere: true' if every country is meant"`
	Anywhere                bool         `yaml:"anywhere"`
	OperatorCountries       []countrySet `yaml:"operator_countries" empty:"leave the key out to have any operator"`
	ParentCountries         []countrySet `yaml:"parent_countries" empty:"leave the key out to have any parent"`
	ExcludedParentCountries []countrySet `yaml:"excluded_parent_countries" empty:"leave the key out to exclude none"`
	Operators               []string     `yaml:"operators" empty:"leave the key out to have any operator"`
}

// zones returns the zones that policies may name: the file's and the built-in ones.
func (d *document) zones(f *policyFile) map[string]residency.Zone {
	zones := map[string]residency.Zone{}
	for _, name := range residency.NamedZones() {
		members, _ := residency.NamedZone(name)
		zones[name] = residency.Zone{Name: name, Countries: members}
	}
	for name, z := range f.Zones {
		zone := z.zone(name)
		d.checkZone(join("zones", name), zone, z)
		zones[name] = zone
	}
	return zones
}

func (z zoneFile) zone(name string) residency.Zone {
	return residency.Zone{
		Name: name, Countries: flatten(z.Countries), Anywhere: z.Anywhere,
		OperatorCountries:       flatten(z.OperatorCountries),
		ParentCountries:         flatten(z.ParentCountries),
		ExcludedParentCountries: flatten(z.ExcludedParentCountries),
		Operators:               z.Operators,
	}
}

func (d *document) checkZone(path string, zone residency.Zone, z zoneFile) {
	members, builtin := residency.NamedZone(strings.ToUpper(zone.Name))
	switch {
	case builtin && !slices.Equal(members, zone.Countries):
		d.faultKey(path, Fault{Message: "the zone has other countries than the built-in " + strings.ToUpper(zone.Name), Hint: "give it another name"})
	case !builtin && !validName(zone.Name):
		d.faultKey(path, Fault{Message: "not a zone's name", Allowed: nameForm})
	}
	switch {
	case z.Anywhere && d.has(join(path, "countries")):
		d.faultf(join(path, "anywhere"), "a zone has countries or is anywhere, not both")
	case !z.Anywhere && !d.has(join(path, "countries")):
		d.fault(path, Fault{Message: "the zone has no countries", Hint: "write 'countries: [DE, …]', or 'anywhere: true' if every country is meant"})
	}
	for _, c := range zone.ExcludedParentCountries {
		if slices.Contains(zone.ParentCountries, c) {
			d.faultf(join(path, "excluded_parent_countries"), "%s is asked for by parent_countries and excluded here", c)
		}
	}
	for i, operator := range zone.Operators {
		if strings.TrimSpace(operator) == "" {
			d.faultf(join(join(path, "operators"), strconv.Itoa(i)), "an operator without a name")
		}
	}
}
