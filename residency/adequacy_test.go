package residency

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func date(s string) time.Time {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		panic(err)
	}
	return t
}

// TestAdequacies states what must hold of the data, and what the requirements
// say of it: Privacy Shield ended on 2020-07-16 (R22).
func TestAdequacies(t *testing.T) {
	zone, ok := NamedZone(ZoneAdequate)
	if !ok || !slices.IsSorted(zone) {
		t.Fatalf("zone %s: %v", ZoneAdequate, zone)
	}
	for c, want := range map[Country]bool{"CH": true, "GB": true, "JP": true, "KR": true, "NZ": true, "BR": true, "US": false, "CA": false, "DE": false, "NO": false, "CN": false, "RU": false} {
		if slices.Contains(zone, c) != want {
			t.Errorf("%s in %s: want %v", c, ZoneAdequate, want)
		}
	}
	decisions, asOf := Adequacies()
	for _, d := range decisions {
		if !d.Country.Known() || !d.Country.Third() || d.From.After(asOf) || !d.Until.IsZero() && !d.From.Before(d.Until) || d.EndedBy != "" && d.Until.IsZero() {
			t.Errorf("decision %+v cannot be", d)
		}
	}
	for _, c := range []struct {
		country Country
		at      string
		want    string // a part of the reference; empty: none
	}{
		{"US", "2015-10-05", "Safe Harbour"}, {"US", "2015-10-06", ""}, {"US", "2016-07-11", ""},
		{"US", "2020-07-15", "Privacy Shield"}, {"US", "2020-07-16", ""}, {"US", "2023-07-09", ""}, {"US", "2023-07-10", "Data Privacy Framework"},
		{"CH", "1999-12-31", ""}, {"CH", "2026-01-01", "2000/518/EC"}, {"GB", "2031-12-26", "2021/1772"}, {"GB", "2031-12-27", ""},
		{"CN", "2026-01-01", ""}, {"DE", "2026-01-01", ""}, {"", "2026-01-01", ""},
	} {
		d, ok := AdequacyOf(c.country, date(c.at))
		if ok != (c.want != "") || !strings.Contains(d.Reference, c.want) {
			t.Errorf("%s on %s: got %+v, want %q", c.country, c.at, d, c.want)
		}
	}
	decisions[0].Country = "US"
	if again, _ := Adequacies(); again[0].Country != "CH" {
		t.Error("a caller changed the decisions")
	}
}

func TestParseAdequacy(t *testing.T) {
	for text, want := range map[string]string{
		`{`:                       "read adequacy decisions",
		`{"as_of": "2026-13-01"}`: "read adequacy decisions",
		`{"as_of": "2026-01-01", "decisions": [{"country": "XX", "reference": "r", "from": "2020-01-01"}]}`: "want a known country",
		`{"as_of": "2026-01-01", "decisions": [{"country": "CH", "from": "2020-01-01"}]}`:                   "a reference",
		`{"as_of": "2026-01-01", "decisions": [{"country": "CH", "reference": "r"}]}`:                       "and a day",
	} {
		a, err := parseAtlas(zonesJSON)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.parseAdequacy([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", text, err)
		}
	}
}
