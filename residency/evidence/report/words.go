package report

import (
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
)

// words is all text of a report in one language.
type words struct {
	Title, Proved, Gap, Broken, Breach                               string
	Room, Pseudonym, Period, Policy, Tenant, Receipts, Exported      string
	Log, LogText, Nobody                                             string
	Nodes, NodesNote, Node, Country, Operator, Parent, Roles         string
	Hops, HopsNote, FromTo, Class, Bytes, Packets, When, Epoch, Rule string
	Kept, How, QA, Refused, RefusedNote, Because, Times, Policies    string
	Promise                                                          string
	Findings, Covers, CoversGap, CoversNothing, Not                  string
	CoversItems, NotItems                                            []string
	Classes                                                          map[residency.Class]string
	Rules, Refusals                                                  map[string]string
	Sides                                                            map[evidence.Side]string
	TimeForm, ShortForm, Group, Point                                string
}

var inEnglish = words{
	Title:  "Where this meeting's data was handled",
	Proved: "Proved: the nodes' receipts are whole, unchanged and agree with each other, and the policy in force allowed everything they state.",
	Gap:    "Not proved in full: nothing in this file contradicts the policy, but something is missing. It is listed below.",
	Broken: "Not proved: the file is not what the nodes wrote. What is wrong is listed below. Do not rely on the tables.",
	Breach: "The policy was broken: the nodes' own receipts show something that the policy did not allow. It is listed below.",
	Room:   "Meeting", Pseudonym: "Pseudonym in the log", Period: "From and until", Policy: "Policy", Tenant: "Customer", Receipts: "Receipts", Exported: "Exported by",
	Log: "Log", LogText: "of node %s, %d receipts of all meetings on %s; countersigned by: %s", Nobody: "nobody",
	Nodes: "Nodes that took part", NodesNote: "As the operator's authority certified them. Countries are codes of ISO 3166-1.",
	Node: "Node", Country: "Country", Operator: "Operator", Parent: "Ultimate parent", Roles: "Roles",
	Hops: "What went from node to node", HopsNote: "Both ends wrote receipts; the sender's figures stand here. Times are UTC.",
	FromTo: "From → to", Class: "Data", Bytes: "Amount", Packets: "Packets", When: "When", Epoch: "Policy version", Rule: "Allowed because",
	Kept: "What was kept, and where", How: "How", Refused: "What was refused", RefusedNote: "The nodes state that they kept this data back. How often is once for each time that it was asked for, or would have been sent.",
	QA: "questions and answers", Because: "Refused because", Times: "How often",
	Policies: "Under which policy", Promise: "What it promises",
	Findings: "What is wrong or missing", Covers: "What this proves", Not: "What this does not prove",
	CoversGap:     "As far as the receipts reach, and except for what is listed above:",
	CoversNothing: "Nothing, until what is listed above is explained.",
	CoversItems: []string{
		"Each node named here signed what it sent, received, stored and recorded of this meeting. No receipt was changed, and none is missing between a node's first and its last.",
		"Both ends of each way between two nodes state the same amounts, within one part in a thousand.",
		"The receipts stand in a log that only grows. Other nodes signed that they saw it so; it was not rewritten afterwards.",
		"Each node's country, operator and ultimate parent are those that the operator's authority certified, and its certificate was valid at the time.",
		"The policies were signed by the operator's authority. Each receipt was judged again by the rules that nodes decide by: all was allowed.",
	},
	NotItems: []string{
		"That a node stands where its certificate says: the operator's authority vouches for it.",
		"What a node did with data beyond passing it on, or what two nodes passed to each other and both left out. A node with a valid certificate is trusted to run the unchanged program.",
		"Where the participants were, what their devices did, and which way packets took on the internet between two nodes. The way is encrypted.",
		"That a participant outside the zone really was connected where a node outside the zone carried data for its own participants.",
		"Anything of other meetings, or of copies that a participant made.",
	},
	Classes: map[residency.Class]string{"media": "audio, video, screen", "signalling": "signalling, names of those present", "chat": "chat in the meeting", "chat_offline": "chat outside of meetings",
		"metadata": "the meeting's record", "recording": "recording", "transcript": "transcript", "export": "export", "telemetry": "statistics"},
	Rules: map[string]string{residency.RuleZone: "inside the zone", residency.RuleEdgeOutside: "outside the zone, for its own participants there"},
	Refusals: map[string]string{residency.RuleZone: "outside the zone", residency.RuleEdgeEmpty: "outside the zone, and nobody from outside is connected there",
		residency.RuleEpoch: "it had another version of the policies", residency.RuleCertificate: "its certificate was not valid", residency.RuleRevoked: "its certificate is revoked",
		residency.RuleRegister: "it is not in the register of nodes", residency.RuleQuarantine: "it is not believed to be where its certificate says", residency.RuleTenant: "it does not serve this customer",
		residency.RuleEvidence: "it could not have been proved", residency.RuleNotStored: "this is not kept", residency.RuleStoreRole: "it is no node that stores",
		residency.RuleTransfer: "there is no basis for a transfer to its country", residency.RuleBundleStale: "the policies had ended", residency.RuleNoPolicy: "there was no policy for it"},
	Sides:    map[evidence.Side]string{evidence.Stored: "stored", evidence.Recorded: "recorded", evidence.Erased: "erased"},
	TimeForm: "2 January 2006, 15:04:05 UTC", ShortForm: "2006-01-02 15:04:05", Group: ",", Point: ".",
}

var inGerman = words{
	Title:  "Wo die Daten dieser Sitzung verarbeitet wurden",
	Proved: "Belegt: Die Belege der Knoten sind vollständig und unverändert und stimmen miteinander überein, und die geltende Richtlinie erlaubte alles, was sie angeben.",
	Gap:    "Nicht vollständig belegt: Nichts in dieser Datei widerspricht der Richtlinie, aber etwas fehlt. Es ist unten aufgeführt.",
	Broken: "Nicht belegt: Die Datei ist nicht das, was die Knoten geschrieben haben. Die Mängel sind unten aufgeführt. Auf die Tabellen ist kein Verlass.",
	Breach: "Die Richtlinie wurde verletzt: Die Belege der Knoten selbst zeigen etwas, das sie nicht erlaubte. Es ist unten aufgeführt.",
	Room:   "Sitzung", Pseudonym: "Pseudonym im Protokoll", Period: "Von und bis", Policy: "Richtlinie", Tenant: "Mandant", Receipts: "Belege", Exported: "Ausgestellt von",
	Log: "Protokoll", LogText: "des Knotens %s, %d Belege aller Sitzungen am %s; gegengezeichnet von: %s", Nobody: "niemandem",
	Nodes: "Beteiligte Knoten", NodesNote: "Wie die Zertifizierungsstelle des Betreibers sie bescheinigt hat. Länder als Codes nach ISO 3166-1.",
	Node: "Knoten", Country: "Land", Operator: "Betreiber", Parent: "Oberste Muttergesellschaft", Roles: "Rollen",
	Hops: "Was von Knoten zu Knoten ging", HopsNote: "Beide Seiten haben Belege geschrieben; hier stehen die Angaben des Absenders. Zeiten in UTC.",
	FromTo: "Von → an", Class: "Daten", Bytes: "Menge", Packets: "Pakete", When: "Wann", Epoch: "Fassung der Richtlinie", Rule: "Erlaubt, weil",
	Kept: "Was aufbewahrt wurde, und wo", How: "Wie", Refused: "Was verweigert wurde", RefusedNote: "Die Knoten geben an, diese Daten zurückgehalten zu haben. Gezählt ist jedes Mal, dass sie verlangt wurden oder gesendet worden wären.",
	QA: "Fragen und Antworten", Because: "Verweigert, weil", Times: "Wie oft",
	Policies: "Nach welcher Richtlinie", Promise: "Was sie zusagt (Wortlaut)",
	Findings: "Was falsch ist oder fehlt", Covers: "Was damit belegt ist", Not: "Was damit nicht belegt ist",
	CoversGap:     "Soweit die Belege reichen, und mit Ausnahme des oben Aufgeführten:",
	CoversNothing: "Nichts, solange das oben Aufgeführte nicht geklärt ist.",
	CoversItems: []string{
		"Jeder hier genannte Knoten hat unterschrieben, was er von dieser Sitzung gesendet, empfangen, gespeichert und aufgezeichnet hat. Kein Beleg wurde verändert, und zwischen dem ersten und dem letzten eines Knotens fehlt keiner.",
		"Beide Seiten jedes Weges zwischen zwei Knoten geben dieselben Mengen an, auf ein Tausendstel genau.",
		"Die Belege stehen in einem Protokoll, das nur wächst. Andere Knoten haben unterschrieben, dass sie es so gesehen haben; es wurde danach nicht umgeschrieben.",
		"Land, Betreiber und oberste Muttergesellschaft jedes Knotens sind die von der Zertifizierungsstelle des Betreibers bescheinigten; sein Zertifikat war zu der Zeit gültig.",
		"Die Richtlinien sind von der Zertifizierungsstelle des Betreibers unterschrieben. Jeder Beleg wurde noch einmal nach den Regeln beurteilt, nach denen die Knoten entscheiden: Alles war erlaubt.",
	},
	NotItems: []string{
		"Dass ein Knoten dort steht, wo sein Zertifikat es angibt: Dafür steht die Zertifizierungsstelle des Betreibers ein.",
		"Was ein Knoten außer der Weitergabe mit den Daten tat, und was zwei Knoten einander gaben und beide verschwiegen. Einem Knoten mit gültigem Zertifikat wird zugetraut, das unveränderte Programm auszuführen.",
		"Wo die Teilnehmenden waren, was ihre Geräte taten, und welchen Weg Pakete im Internet zwischen zwei Knoten nahmen. Der Weg ist verschlüsselt.",
		"Dass wirklich jemand von außerhalb der Zone verbunden war, wo ein Knoten außerhalb der Zone Daten für eigene Teilnehmende weitergab.",
		"Nichts über andere Sitzungen oder über Kopien, die Teilnehmende anfertigten.",
	},
	Classes: map[residency.Class]string{"media": "Ton, Bild, Bildschirm", "signalling": "Signalisierung, Namen der Anwesenden", "chat": "Chat in der Sitzung", "chat_offline": "Chat außerhalb von Sitzungen",
		"metadata": "Stammdaten der Sitzung", "recording": "Aufzeichnung", "transcript": "Mitschrift", "export": "Export", "telemetry": "Statistik"},
	Rules: map[string]string{residency.RuleZone: "innerhalb der Zone", residency.RuleEdgeOutside: "außerhalb der Zone, für eigene Teilnehmende dort"},
	Refusals: map[string]string{residency.RuleZone: "außerhalb der Zone", residency.RuleEdgeEmpty: "außerhalb der Zone, und niemand von außerhalb ist dort verbunden",
		residency.RuleEpoch: "er hatte eine andere Fassung der Richtlinien", residency.RuleCertificate: "sein Zertifikat galt nicht", residency.RuleRevoked: "sein Zertifikat ist widerrufen",
		residency.RuleRegister: "er steht nicht im Verzeichnis der Knoten", residency.RuleQuarantine: "sein angegebener Ort ist nicht glaubhaft", residency.RuleTenant: "er dient diesem Mandanten nicht",
		residency.RuleEvidence: "es wäre nicht zu belegen gewesen", residency.RuleNotStored: "dies wird nicht aufbewahrt", residency.RuleStoreRole: "er ist kein speichernder Knoten",
		residency.RuleTransfer: "für sein Land fehlt eine Grundlage der Übermittlung", residency.RuleBundleStale: "die Richtlinien waren abgelaufen", residency.RuleNoPolicy: "es gab keine Richtlinie dafür"},
	Sides:    map[evidence.Side]string{evidence.Stored: "gespeichert", evidence.Recorded: "aufgezeichnet", evidence.Erased: "gelöscht"},
	TimeForm: "02.01.2006, 15:04:05 UTC", ShortForm: "02.01.2006 15:04:05", Group: ".", Point: ",",
}
