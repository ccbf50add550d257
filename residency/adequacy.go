package residency

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// adequacyJSON is kept by hand; it says where its facts are from and of when.
//
//go:embed zonedata/adequacy.json
var adequacyJSON []byte

// ZoneAdequate is the built-in zone of the countries with an adequacy decision
// for everybody in them, none of which is in the EEA. Countries whose decision
// is partial are not in it: whether it covers a node depends on who runs it.
const ZoneAdequate = "ADEQUATE"

// Adequacy is a decision of the European Commission that a country protects
// personal data as the EU does.
type Adequacy struct {
	Country     Country
	Reference   string
	From, Until time.Time // zero Until: no end is set
	Partial     string    // whom it covers, if not everybody in the country
	EndedBy     string    // what ended it before its time
}

// inForce reports whether the decision holds at t.
func (a Adequacy) inForce(t time.Time) bool {
	return !t.Before(a.From) && (a.Until.IsZero() || t.Before(a.Until))
}

// Adequacies lists the decisions of which the program knows, oldest first, and
// the day up to which it knows them.
func Adequacies() (decisions []Adequacy, asOf time.Time) {
	return slices.Clone(world().adequacies), world().adequacyAsOf
}

// AdequacyOf returns the decision on a country that holds at t. Of several the
// one that holds longest.
func AdequacyOf(c Country, t time.Time) (found Adequacy, ok bool) {
	for _, a := range world().adequacies {
		if a.Country != c || !a.inForce(t) {
			continue
		}
		if !ok || a.Until.IsZero() || !found.Until.IsZero() && a.Until.After(found.Until) {
			found, ok = a, true
		}
	}
	return found, ok
}

// parseAdequacy adds the decisions to the atlas, and the zone that follows from
// those in force on the day of the data.
func (a *atlas) parseAdequacy(b []byte) error {
	var file struct {
		AsOf      day `json:"as_of"`
		Decisions []struct {
			Country   Country `json:"country"`
			Reference string  `json:"reference"`
			From      day     `json:"from"`
			Until     day     `json:"until"`
			Partial   string  `json:"partial"`
			EndedBy   string  `json:"ended_by"`
		} `json:"decisions"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("read adequacy decisions: %w", err)
	}
	a.adequacyAsOf = time.Time(file.AsOf)
	var members []Country
	for _, d := range file.Decisions {
		if _, known := a.countries[d.Country]; !known || d.Reference == "" || time.Time(d.From).IsZero() {
			return fmt.Errorf("read adequacy decisions: %q of %q: want a known country, a reference and a day", d.Reference, d.Country)
		}
		decision := Adequacy{Country: d.Country, Reference: d.Reference, From: time.Time(d.From), Until: time.Time(d.Until), Partial: d.Partial, EndedBy: d.EndedBy}
		a.adequacies = append(a.adequacies, decision)
		if decision.Partial == "" && decision.inForce(a.adequacyAsOf) {
			members = append(members, d.Country)
		}
	}
	slices.Sort(members)
	a.zones[ZoneAdequate] = slices.Compact(members)
	return nil
}

// day is a date in JSON, the moment at which it begins in UTC.
type day time.Time

// UnmarshalText reads a date such as 2026-01-31.
func (d *day) UnmarshalText(b []byte) error {
	t, err := time.Parse(time.DateOnly, string(b))
	*d = day(t)
	return err
}
