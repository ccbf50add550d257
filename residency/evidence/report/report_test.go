package report_test

import (
	"crypto/x509"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/evidencetest"
	"github.com/domicile/domicile/residency/evidence/report"
	"github.com/domicile/domicile/residency/evidence/verify"
)

func parse(b []byte) (*residency.Bundle, error) { return configs.ParsePolicy("policy.yaml", b) }

// result is that of a room of three nodes; with tenant names that are markup.
func result(t *testing.T, policy string) *verify.Result {
	t.Helper()
	m, err := evidencetest.New(t.TempDir(), 3, true, policy, parse)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.Room(t.TempDir(), evidencetest.Shape{SID: "RM_<b>x</b>", Minutes: 2, Seed: 1, Also: []evidence.Receipt{
		{Side: evidence.Refused, Peer: "br9", Class: residency.ClassMedia, Rule: residency.RuleZone, Packets: 12},
		{Side: evidence.Stored, Class: residency.ClassChat, Rule: residency.RuleZone, Packets: 1, Bytes: 100}}})
	if err != nil {
		t.Fatal(err)
	}
	return verify.File(b, verify.Options{Roots: []*x509.Certificate{m.CA.Certificate()}, Parse: parse})
}

func TestReportSaysWhoHandledWhatWhere(t *testing.T) {
	r := result(t, evidencetest.PolicyText)
	for lang, want := range map[verify.Lang][]string{
		verify.English: {"Proved: the nodes", "Example Hosting GmbH (DE)", "Example Holding AG (CH)", "de0 (DE) → us2 (US)", "audio, video, screen", "outside the zone, for its own participants there",
			"22 November 2026", "recorded", "Everything in the European Economic Area", "countersigned by: fr1, us2", "What this does not prove",
			"de0 → br9", "Refused because", "outside the zone", "chat in the meeting"},
		verify.German: {"Belegt: Die Belege", "Oberste Muttergesellschaft", "Ton, Bild, Bildschirm", "außerhalb der Zone, für eigene Teilnehmende dort", "22.11.2026", "aufgezeichnet", "Was damit nicht belegt ist", "de0 → br9", "Verweigert, weil"},
	} {
		page, err := report.HTML(r, lang)
		if err != nil {
			t.Fatal(err)
		}
		text := string(report.Text(r, lang))
		for _, w := range want {
			if !strings.Contains(string(page), w) {
				t.Errorf("%s: the page does not say %q", lang, w)
			}
			if !strings.Contains(strings.Join(strings.Fields(text), " "), w) {
				t.Errorf("%s: the text does not say %q", lang, w)
			}
		}
		if strings.Contains(string(page), "<b>") || strings.Contains(string(page), "http") && strings.Contains(string(page), "src=") {
			t.Errorf("%s: the page carries foreign markup or fetches something", lang)
		}
		wellFormed(t, string(page))
	}
}

// wellFormed walks the page as XML: every element is closed in order.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, []string{"meta"}, xml.HTMLEntity
	depth := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("the page is not well formed: %v", err)
		}
		switch token.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		}
	}
	if depth != 0 {
		t.Errorf("%d elements are not closed", depth)
	}
}

func TestReportSaysWhatIsWrong(t *testing.T) {
	r := result(t, strings.Replace(evidencetest.PolicyText, "all: EEA", "all: DACH", 1))
	for lang, want := range map[verify.Lang]string{verify.English: "The policy was broken", verify.German: "Die Richtlinie wurde verletzt"} {
		if text := string(report.Text(r, lang)); !strings.Contains(text, want) || !strings.Contains(text, `outside zone "DACH"`) {
			t.Errorf("%s:\n%s", lang, text)
		}
	}
	broken := verify.File([]byte("x"), verify.Options{})
	if page, err := report.HTML(broken, verify.German); err != nil || !strings.Contains(string(page), "Die Datei ist nicht lesbar") {
		t.Errorf("of no file at all: %v\n%s", err, page)
	}
}
