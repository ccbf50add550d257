package configs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/domicile/domicile/residency"
)

func TestExamplePolicy(t *testing.T) {
	b, err := LoadPolicy("examples/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.Policy("")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "eu-origin-global-edge" || !p.EdgeOutside || !p.Recording.Notice {
		t.Errorf("default policy: got %+v", p)
	}
	if got := p.Zone(residency.ClassRecording).Countries; !slices.Equal(got, []residency.Country{"DE", "FR", "PL"}) {
		t.Errorf("recordings: got %v", got)
	}
	nordic, err := b.Policy("nordic-only")
	if err != nil {
		t.Fatal(err)
	}
	if z := nordic.Zone(residency.ClassMedia); !z.Contains("NO") || z.Contains("DE") {
		t.Errorf("the Nordic zone lost Norway: %v", z.Countries)
	}
	if len(b.Nodes) != 4 || b.TenantOf("example-as-2026") != "example-as" || len(b.Overrides) != 1 {
		t.Errorf("register: got %v", b.Nodes)
	}
}

// TestProfiles states what the five arrangements mean, class by class.
func TestProfiles(t *testing.T) {
	stored := []residency.Class{residency.ClassChatOffline, residency.ClassMetadata, residency.ClassRecording,
		residency.ClassTranscript, residency.ClassExport, residency.ClassTelemetry}
	live := []residency.Class{residency.ClassMedia, residency.ClassSignalling, residency.ClassChat}
	eea, _ := residency.NamedZone("EEA")
	zones := func(t *testing.T, p *residency.Policy, classes []residency.Class, want ...residency.Country) {
		t.Helper()
		for _, c := range classes {
			if got := p.Zone(c).Countries; !slices.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", c, got, want)
			}
		}
	}
	checks := map[string]func(t *testing.T, p *residency.Policy){
		"eea-only": func(t *testing.T, p *residency.Policy) {
			zones(t, p, residency.Classes(), eea...)
		},
		"eu-origin-global-edge": func(t *testing.T, p *residency.Policy) {
			zones(t, p, live, eea...)
			zones(t, p, stored, "DE", "FR", "PL")
		},
		"tenant-pinned-country": func(t *testing.T, p *residency.Policy) {
			zones(t, p, residency.Classes(), "RU")
		},
		"dach-sovereign": func(t *testing.T, p *residency.Policy) {
			zones(t, p, append(live, residency.ClassRecording, residency.ClassTranscript, residency.ClassExport), "AT", "CH", "DE")
			if z := p.Zone(residency.ClassChat); !slices.Contains(z.ExcludedParentCountries, "US") {
				t.Error("a US parent is not excluded")
			}
			if !p.Zone(residency.ClassMetadata).Anywhere {
				t.Error("metadata has a zone of its own")
			}
		},
		"third-country-scc": func(t *testing.T, p *residency.Policy) {
			if !p.Zone(residency.ClassMedia).Anywhere || !p.Recording.Consent || !p.TransferRequired || len(p.Transfers) == 0 {
				t.Errorf("got %+v", p)
			}
			for _, b := range p.Transfers {
				if b.From.IsZero() || b.Until.IsZero() || b.Reference == "" {
					t.Errorf("a basis without dates or reference: %+v", b)
				}
			}
		},
	}
	if got := Profiles(); len(got) != len(checks) {
		t.Errorf("profiles: got %v", got)
	}
	for _, name := range Profiles() {
		t.Run(name, func(t *testing.T) {
			p, err := Profile(name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Evidence != residency.EvidenceRequired || p.E2EE != residency.E2EEAllowed || p.QALog || p.SingleOrigin {
				t.Errorf("evidence %q, e2ee %q, Q&A log %v, few origins %v", p.Evidence, p.E2EE, p.QALog, p.SingleOrigin)
			}
			if p.Name != name || p.Description == "" || p.Source == "" || strings.Contains(p.Description, "\n ") {
				t.Errorf("got %+v", p)
			}
			if p.EdgeOutside != (name == "eu-origin-global-edge") {
				t.Errorf("edge_outside is %v", p.EdgeOutside)
			}
			if !p.Recording.Allowed || !p.Recording.Notice || p.ChatLog {
				t.Errorf("recording %+v, chat log %v: want notice before recording and no chat log", p.Recording, p.ChatLog)
			}
			checks[name](t, p)
		})
	}
	if _, err := Profile("../node"); err == nil {
		t.Error("a profile that is none was loaded")
	}
}

// TestFormatPolicy puts all profiles into one bundle, as a demo or a `policy
// init` does, and reads it back.
func TestFormatPolicy(t *testing.T) {
	want := &residency.Bundle{
		Epoch: 7, Default: "eea-only", Policies: map[string]*residency.Policy{},
		Issued: testNow, Expires: testNow.Add(time.Hour),
		Revoked: []string{"1e10"},
	}
	for _, name := range Profiles() {
		p, err := Profile(name)
		if err != nil {
			t.Fatal(err)
		}
		want.Policies[name] = p
	}
	text, err := FormatPolicy(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParsePolicy("policy.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("bundle after writing and reading (-want +got):\n%s\n%s", diff, text)
	}
	again, err := FormatPolicy(got)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("writing twice differs: %v", err)
	}
}

func TestFormatPolicyRefuses(t *testing.T) {
	a, b := mustProfile(t, "eea-only"), mustProfile(t, "dach-sovereign")
	other := *b
	other.Zones = map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		other.Zones[c] = residency.Zone{Name: "EEA", Countries: []residency.Country{"DE"}}
	}
	for name, bundle := range map[string]*residency.Bundle{
		"one zone, two meanings": {Epoch: 1, Default: a.Name, Policies: map[string]*residency.Policy{a.Name: a, other.Name: &other}},
		"no epoch":               {Default: a.Name, Policies: map[string]*residency.Policy{a.Name: a}},
		"no such default":        {Epoch: 1, Default: "x", Policies: map[string]*residency.Policy{a.Name: a}},
		"no zones":               {Epoch: 1, Default: "x", Policies: map[string]*residency.Policy{"x": {Name: "x", Title: "x"}}},
	} {
		if text, err := FormatPolicy(bundle); err == nil {
			t.Errorf("%s: written as\n%s", name, text)
		}
	}
}

// mustProfile returns a profile.
func mustProfile(t *testing.T, name string) *residency.Policy {
	t.Helper()
	p, err := Profile(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestNorway writes Norway in every way; it is Norway or an error, never nobody.
func TestNorway(t *testing.T) {
	for _, c := range []struct {
		text string
		want bool
	}{
		{`"NO"`, true}, {`'NO'`, true}, {`"no"`, true},
		{`NO`, false}, {`no`, false}, {`No`, false}, {`nO`, false}, {`n`, false}, {`N`, false}, {`false`, false}, {`False`, false}, {`off`, false}, {`"false"`, false}, {`~`, false},
	} {
		text := fmt.Sprintf("epoch: 1\ndefault: p\nzones: {z: {countries: [SE, %s]}}\npolicies: {p: {title: t, classes: {all: z}}}\n", c.text)
		b, err := ParsePolicy("p.yaml", []byte(text))
		switch {
		case (err == nil) != c.want:
			t.Errorf("%s: got error %v", c.text, err)
		case err == nil && !b.Policies["p"].Zone(residency.ClassMedia).Contains("NO"):
			t.Errorf("%s: Norway is lost", c.text)
		}
	}
}

func TestFaultsAreBounded(t *testing.T) {
	text := "epoch: 1\n" + strings.Repeat("key: 1\n", 10_000)
	_, err := ParsePolicy("p.yaml", []byte(text))
	if faults, ok := err.(Faults); !ok || len(faults) > maxFaults {
		t.Errorf("got %d faults", len(faults))
	}
}

func TestFileTooLarge(t *testing.T) {
	text := bytes.Repeat([]byte("# all fine\n"), maxFile/10)
	if _, err := ParsePolicy("p.yaml", text); err == nil || !strings.Contains(err.Error(), "allowed: at most 1048576") {
		t.Errorf("got %v", err)
	}
	path := filepath.Join(t.TempDir(), "p.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, filepath.Dir(path), path + ".none"} {
		if _, err := LoadPolicy(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("%s: got %v", path, err)
		}
	}
}

// FuzzParsePolicy holds the reader to two things: it returns, and what it
// accepts gives every class of every policy a zone of known countries.
func FuzzParsePolicy(f *testing.F) {
	for _, pattern := range []string{"examples/policy.yaml", "profiles/*.yaml", "testdata/bad/policy/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParsePolicy("p.yaml", text)
		if err != nil {
			if _ = err.Error(); b != nil {
				t.Fatal("an error and a bundle")
			}
			return
		}
		if b.Epoch == 0 || b.Policies[b.Default] == nil {
			t.Fatalf("accepted %+v", b)
		}
		for _, p := range b.Policies {
			for _, c := range residency.Classes() {
				z := p.Zone(c)
				if !z.Anywhere && len(z.Countries) == 0 {
					t.Fatalf("policy %q: %s has a zone of nobody", p.Name, c)
				}
				for _, country := range z.Countries {
					if !country.Known() {
						t.Fatalf("policy %q: %s has country %q", p.Name, c, country)
					}
				}
			}
		}
		if _, err := FormatPolicy(b); err != nil {
			t.Fatalf("accepted, but cannot be written: %v", err)
		}
	})
}
