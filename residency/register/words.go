package register

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/text/language"
	"golang.org/x/text/language/display"

	"github.com/domicile/domicile/residency"
)

// Language is one in which the register can be written.
type Language string

// The languages.
const (
	English Language = "en"
	German  Language = "de"
)

// Languages lists them.
func Languages() []Language { return []Language{English, German} }

// texts are the words of the register, English and German.
var texts = map[string][2]string{
	"title":       {"Register of processors", "Verzeichnis der Auftragsverarbeiter"},
	"intro":       {"Made from the signed policies and the certificates of the nodes. What a node may do is what the gate decides in the running mesh.", "Erstellt aus den signierten Richtlinien und den Zertifikaten der Knoten. Was ein Knoten darf, ist das, was im laufenden Netz entschieden wird."},
	"made":        {"As of", "Stand"},
	"version":     {"Version of the policies", "Version der Richtlinien"},
	"of":          {"of", "vom"},
	"until":       {"until", "bis"},
	"from":        {"from", "ab"},
	"closed":      {"The policies list the nodes of the mesh. No other can take part.", "Die Richtlinien zählen die Knoten des Netzes auf. Kein anderer kann teilnehmen."},
	"open":        {"The policies do not list the nodes: every node with a certificate of the operator's authority can take part.", "Die Richtlinien zählen die Knoten nicht auf: jeder Knoten mit einem Zertifikat der Stelle des Betreibers kann teilnehmen."},
	"operator":    {"Operator", "Betreiber"},
	"parent":      {"Ultimate parent", "Oberste Muttergesellschaft"},
	"itself":      {"none", "keine"},
	"node":        {"Node", "Knoten"},
	"country":     {"Country", "Land"},
	"third":       {"third country", "Drittland"},
	"roles":       {"Roles", "Aufgaben"},
	"policy":      {"Policy", "Richtlinie"},
	"policies":    {"Policies", "Richtlinien"},
	"default":     {"default", "Vorgabe"},
	"stores":      {"Stores", "Speichert"},
	"handles":     {"Passes on", "Leitet durch"},
	"outside":     {"Passes on for its own participants outside the zone", "Leitet durch für eigene Teilnehmende außerhalb der Zone"},
	"transfer":    {"Ground for the transfer", "Grundlage der Übermittlung"},
	"notransfer":  {"none stated", "keine angegeben"},
	"nothing":     {"nothing", "nichts"},
	"refused":     {"Takes no part", "Nimmt nicht teil"},
	"certificate": {"Certificate", "Zertifikat"},
	"tenants":     {"Tenants", "Mandanten"},
	"tenant":      {"Tenant", "Mandant"},
	"alone":       {"For these tenants alone", "Nur für diese Mandanten"},
	"controller":  {"Controller for its attendees", "Verantwortlich gegenüber den Teilnehmenden"},
	"notstated":   {"not stated", "nicht angegeben"},
	"rolenote":    {"Towards the attendees of a tenant's meetings the tenant is the controller; the operators below process on its behalf.", "Gegenüber den Teilnehmenden der Treffen eines Mandanten ist der Mandant verantwortlich; die Betreiber verarbeiten in seinem Auftrag."},
	"recording":   {"Recording", "Aufzeichnung"},
	"chatlog":     {"Chat is kept", "Chat wird aufbewahrt"},
	"qalog":       {"Questions and answers are kept", "Fragen und Antworten werden aufbewahrt"},
	"yes":         {"yes", "ja"},
	"no":          {"no", "nein"},
	"notice":      {"after a notice", "nach einem Hinweis"},
	"consent":     {"after a notice, with consent", "nach einem Hinweis, mit Einwilligung"},
	"ended":       {"not in force", "nicht in Kraft"},
	"missing":     {"Listed, and not seen: these nodes handle nothing", "Aufgezählt, aber nicht gesehen: diese Knoten verarbeiten nichts"},
	"none":        {"No node has shown a certificate.", "Kein Knoten hat ein Zertifikat gezeigt."},

	"origin": {"origin (stores)", "Ursprung (speichert)"},
	"edge":   {"edge (passes on)", "Rand (leitet durch)"},

	"media":        {"audio, video, screen", "Ton, Bild, Bildschirm"},
	"signalling":   {"connection data and who is present", "Verbindungsdaten und Anwesenheit"},
	"chat":         {"chat in the meeting", "Chat im Treffen"},
	"chat_offline": {"chat outside of meetings", "Chat außerhalb von Treffen"},
	"metadata":     {"data about the room", "Angaben zum Raum"},
	"transcript":   {"transcripts", "Mitschriften"},
	"export":       {"exports", "Exporte"},
	"telemetry":    {"usage statistics", "Nutzungsstatistik"},

	residency.BasisAdequacy:    {"adequacy decision (article 45 GDPR)", "Angemessenheitsbeschluss (Artikel 45 DSGVO)"},
	residency.BasisClauses:     {"standard contractual clauses (article 46 GDPR)", "Standardvertragsklauseln (Artikel 46 DSGVO)"},
	residency.BasisBindingRule: {"binding corporate rules (article 47 GDPR)", "verbindliche interne Vorschriften (Artikel 47 DSGVO)"},
	residency.BasisDerogation:  {"derogation (article 49 GDPR)", "Ausnahme (Artikel 49 DSGVO)"},

	residency.RuleNoBundle:    {"there are no policies", "es gibt keine Richtlinien"},
	residency.RuleBundleStale: {"the policies have expired", "die Richtlinien sind abgelaufen"},
	residency.RuleRevoked:     {"its certificate is revoked", "sein Zertifikat ist widerrufen"},
	residency.RuleRegister:    {"the policies do not list it so", "die Richtlinien führen es nicht so auf"},
	residency.RuleQuarantine:  {"it is not believed to be where its certificate says", "es steht wohl nicht dort, wo sein Zertifikat sagt"},
	"invalid":                 {"its certificate is not valid now", "sein Zertifikat gilt jetzt nicht"},
}

// speaker finds words in one language.
type speaker struct {
	lang    Language
	regions display.Namer
}

func in(lang Language) speaker {
	tag := language.English
	if lang == German {
		tag = language.German
	}
	return speaker{lang, display.Regions(tag)}
}

// say returns a text; what has none is returned as it is.
func (s speaker) say(key string) string {
	t, ok := texts[key]
	switch {
	case !ok:
		return key
	case s.lang == German:
		return t[1]
	}
	return t[0]
}

// place names a country: "Germany (DE)".
func (s speaker) place(c residency.Country) string {
	region, err := language.ParseRegion(string(c))
	if err != nil {
		return c.String()
	}
	return fmt.Sprintf("%s (%s)", s.regions.Name(region), c)
}

func (s speaker) places(list []residency.Country) string {
	var out []string
	for _, c := range list {
		out = append(out, s.place(c))
	}
	return strings.Join(out, ", ")
}

// day writes a date as ISO 8601, which is read alike everywhere.
func (s speaker) day(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	return t.UTC().Format(time.DateOnly)
}

func (s speaker) classes(list []residency.Class) string {
	var out []string
	for _, c := range list {
		out = append(out, s.class(c))
	}
	return strings.Join(out, "; ")
}

func (s speaker) class(c residency.Class) string {
	if c == residency.ClassRecording && s.lang == German {
		return "Aufzeichnungen"
	} else if c == residency.ClassRecording {
		return "recordings"
	}
	return s.say(string(c))
}

func (s speaker) roles(list []residency.Role) string {
	var out []string
	for _, r := range list {
		out = append(out, s.say(string(r)))
	}
	return strings.Join(out, ", ")
}

// basis puts a ground of transfer in words.
func (s speaker) basis(b Basis) string {
	out := s.say(b.Kind)
	if b.Reference != "" {
		out += ": " + b.Reference
	}
	out += fmt.Sprintf(", %s %s", s.say("from"), s.day(b.From))
	if !b.Until.IsZero() {
		out += fmt.Sprintf(" %s %s", s.say("until"), s.day(b.Until))
	}
	if !b.InForce {
		out += " (" + s.say("ended") + ")"
	}
	return out
}

// transfer says on what ground a node has data under a policy; empty if it
// stands in the EEA.
func (s speaker) transfer(n Node, u Use) string {
	if !n.Third {
		return ""
	}
	if len(u.Transfers) == 0 {
		return s.say("notransfer")
	}
	var out []string
	for _, b := range u.Transfers {
		out = append(out, s.basis(b))
	}
	return strings.Join(out, "; ")
}

// refusal says why a node takes no part, empty if it does.
func (s speaker) refusal(n Node) string {
	switch {
	case n.RefusedRule == "":
		return ""
	case n.RefusedRule == residency.RuleCertificate:
		return s.say("invalid")
	}
	return s.say(n.RefusedRule)
}

func (s speaker) parent(p Processor) string {
	if p.Parent == p.Name && p.ParentCountry == p.Country {
		return s.say("itself")
	}
	return p.Parent + ", " + s.place(p.ParentCountry)
}
