package configs

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/domicile/domicile/residency"
)

// country is one country of a file.
type country residency.Country

// countrySet is one entry of a list of countries: a country, or the members of
// a built-in zone.
type countrySet []residency.Country

func (c *country) readScalar(s scalar) *Fault {
	if f := norway(s); f != nil {
		return f
	}
	code, err := residency.ParseCountry(s.text)
	if err != nil {
		return unknownCountry(s, allowedFor(reflect.TypeFor[country]()))
	}
	*c = country(code)
	return nil
}

func (c *countrySet) readScalar(s scalar) *Fault {
	if f := norway(s); f != nil {
		return f
	}
	if members, ok := residency.NamedZone(s.text); ok {
		*c = members
		return nil
	}
	code, err := residency.ParseCountry(s.text)
	if err != nil {
		return unknownCountry(s, allowedFor(reflect.TypeFor[countrySet]()))
	}
	*c = countrySet{code}
	return nil
}

// switches are the words that YAML 1.1, which many tools still speak, reads as
// true or false. One of them is a country.
var switches = []string{"y", "yes", "n", "no", "on", "off", "true", "false"}

// norway catches Norway before it is lost. We would read NO without quotes as
// Norway, but the next tool that touches the file (a template engine, an editor,
// an older parser) makes it false, and a list of countries shorter.
func norway(s scalar) *Fault {
	if s.quoted || !slices.Contains(switches, strings.ToLower(s.text)) {
		return nil
	}
	f := &Fault{Message: "a country is meant, and many YAML readers take this for true or false", Allowed: allowedFor(reflect.TypeFor[country]())}
	switch strings.ToLower(s.text) {
	case "no", "n", "false", "off":
		f.Hint = `NO is Norway; quote it: "NO"`
	}
	return f
}

func unknownCountry(s scalar, allowed string) *Fault {
	f := &Fault{Message: "unknown country", Allowed: allowed}
	switch up := strings.ToUpper(s.text); {
	case s.kind == token.NullType:
	case up == "UK":
		f.Hint = "the United Kingdom is GB"
	case slices.Contains(residency.NamedZones(), up):
		f.Hint = fmt.Sprintf("the zone is written %s, and has its place in lists of countries", up)
	}
	return f
}

// flatten returns the countries of a list, sorted, each once.
func flatten(sets []countrySet) []residency.Country {
	all := slices.Concat(sets...)
	slices.Sort(all)
	if len(all) == 0 {
		return nil
	}
	return []residency.Country(slices.Compact(all))
}
