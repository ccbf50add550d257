package configs

import (
	"cmp"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// policyEntry is a policy. The class "all" stands for every class that is not named.
type policyEntry struct {
	// Title is one line, shown to attendees.
	Title string `yaml:"title,required"`
	// Description says in some sentences what is promised.
	Description string `yaml:"description"`
	// Source is the platform arrangement that it models.
	Source string `yaml:"source"`
	// Classes gives each data class a zone; `all` stands for those not named.
	Classes classZones `yaml:"classes,required"`
	// EdgeOutside says whether an edge outside the zones may carry media,
	// signalling and chat while somebody from outside is connected through it.
	EdgeOutside edgeRule `yaml:"edge_outside"`
	// Recording is not allowed by default.
	Recording recordingEntry `yaml:"recording"`
	// ChatLog says whether chat may be stored. Off by default.
	ChatLog bool `yaml:"chat_log"`
	// QALog says whether questions and answers may be stored. Off by default.
	QALog bool `yaml:"qa_log"`
	// AttendanceLog says whether it is kept who was there and when. Off by default.
	AttendanceLog bool `yaml:"attendance_log"`
	// Registration says whether people may register beforehand, with name and e-mail
	// address. Off by default.
	Registration bool `yaml:"registration"`
	// E2EE says whether rooms may be, have to be or cannot be end-to-end encrypted.
	E2EE e2eeRule `yaml:"e2ee"`
	// Evidence says whether what cannot be proved afterwards is refused.
	Evidence evidenceRule `yaml:"evidence"`
	// TransferBasis says whether nodes in third countries, those outside the EEA,
	// need one of the transfers below to be in force.
	TransferBasis transferRule `yaml:"transfer_basis"`
	// Transfers are the grounds on which data may go to third countries.
	Transfers []transferEntry `yaml:"transfers" empty:"leave the key out to have none"`
	// Retention says for how long each kind of data is kept, such as 90d. Without a
	// word it is kept until somebody erases it, exports for 30 days.
	Retention retentionSpans `yaml:"retention"`
	// FewOrigins accepts zones in which the register has fewer than two origins.
	FewOrigins originRule `yaml:"few_origins"`
}

type recordingEntry struct {
	Allowed bool `yaml:"allowed,required"`
	// Notice: attendees are shown that it records.
	Notice bool `yaml:"notice"`
	// Consent: nobody is recorded before agreeing.
	Consent bool `yaml:"consent"`
	// Start says who starts a recording: the host, who also stops it, or nobody: every
	// meeting is recorded (always), until the room is empty.
	Start startRule `yaml:"start"`
	// Withdrawal says what becomes of a participant's recorded tracks when they take
	// their consent back: they end there (keep), or go (erase).
	Withdrawal withdrawalRule `yaml:"withdrawal"`
	// ConsentLog says whether it is kept who was asked and what they answered (keep,
	// the default where consent is asked for), or not (none).
	ConsentLog consentLogRule `yaml:"consent_log"`
}

// classZones names a zone for each class, or for `all` of the others.
type classZones map[string]string

// edgeRule says whether an edge outside the zones may carry live classes.
type edgeRule bool

const (
	edgeNever = "never"
	edgeLocal = "only-for-local-participants"
)

func (r *edgeRule) readScalar(s scalar) *Fault {
	*r = s.text == edgeLocal
	return oneOf(s, "unknown rule", []string{edgeNever, edgeLocal})
}

// startRule says whether every meeting is recorded.
type startRule bool

const (
	startHost   = "host"
	startAlways = "always"
)

func (r *startRule) readScalar(s scalar) *Fault {
	*r = s.text == startAlways
	return oneOf(s, "unknown rule", []string{startHost, startAlways})
}

func startText(p *residency.Policy) string {
	if p.Recording.Always {
		return ", start: " + startAlways
	}
	return ""
}

// originRule says whether fewer than two origins are enough.
type originRule bool

const (
	originsAccepted = "accepted"
	originsRefused  = "refused"
)

func (r *originRule) readScalar(s scalar) *Fault {
	*r = s.text == originsAccepted
	return oneOf(s, "unknown rule", []string{originsAccepted, originsRefused})
}

// e2eeRule says what the policy makes of end-to-end encryption.
type e2eeRule residency.E2EERule

func (r *e2eeRule) readScalar(s scalar) *Fault {
	*r = e2eeRule(s.text)
	return oneOf(s, "unknown rule", residency.E2EERules())
}

// evidenceRule says whether evidence is a condition.
type evidenceRule residency.EvidenceRule

func (r *evidenceRule) readScalar(s scalar) *Fault {
	*r = evidenceRule(s.text)
	return oneOf(s, "unknown rule", residency.EvidenceRules())
}

// oneOf gives the fault of a word that is none of the allowed ones.
func oneOf[S ~string](s scalar, message string, words []S) *Fault {
	if slices.Contains(words, S(s.text)) {
		return nil
	}
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return &Fault{Message: message, Allowed: strings.Join(texts, ", ")}
}

func (d *document) policy(name string, e policyEntry, zones map[string]residency.Zone) *residency.Policy {
	path := join("policies", name)
	if !validName(name) {
		d.faultKey(path, Fault{Message: "not a policy's name", Allowed: nameForm})
	}
	if d.has(join(path, "title")) && strings.TrimSpace(e.Title) == "" {
		d.faultf(join(path, "title"), "the title is empty")
	}
	p := &residency.Policy{
		Name: name, Title: e.Title, Description: e.Description, Source: e.Source,
		Zones:       d.classes(join(path, "classes"), e.Classes, zones),
		EdgeOutside: bool(e.EdgeOutside),
		Recording:   residency.RecordingRule{Allowed: e.Recording.Allowed, Notice: e.Recording.Notice, Consent: e.Recording.Consent, Always: bool(e.Recording.Start), EraseWithdrawn: bool(e.Recording.Withdrawal), NoConsentLog: bool(e.Recording.ConsentLog)},
		ChatLog:     e.ChatLog, QALog: e.QALog, AttendanceLog: e.AttendanceLog, Registration: e.Registration,
		E2EE:             residency.E2EERule(cmp.Or(e.E2EE, e2eeRule(residency.E2EEAllowed))),
		Evidence:         residency.EvidenceRule(cmp.Or(e.Evidence, evidenceRule(residency.EvidenceRequired))),
		Transfers:        d.transfers(path, e),
		TransferRequired: bool(e.TransferBasis),
		SingleOrigin:     bool(e.FewOrigins),
		Retention:        d.retention(join(path, "retention"), e.Retention),
	}
	d.contradictions(path, p)
	return p
}

// contradictions reports what no room could keep (R6).
func (d *document) contradictions(path string, p *residency.Policy) {
	if p.Recording.Consent && !p.Recording.Notice {
		d.fault(join(path, "recording.consent"), Fault{Message: "nobody can agree to what they are not told", Hint: "set notice: true too"})
	}
	if p.Recording.EraseWithdrawn && !p.Recording.Consent {
		d.fault(join(path, "recording.withdrawal"), Fault{Message: "nobody can take back what they are not asked for", Hint: "set consent: true too"})
	}
	if p.Recording.Always && !p.Recording.Allowed {
		d.fault(join(path, "recording.start"), Fault{Message: "nothing is recorded that is not allowed", Hint: "set allowed: true, or leave start out"})
	}
	if p.EdgeOutside && p.Zone(residency.ClassMedia).Anywhere {
		d.faultf(join(path, "edge_outside"), "nothing is outside the zone %q of media", p.Zone(residency.ClassMedia).Name)
	}
	if p.E2EE == residency.E2EERequired {
		if p.Recording.Allowed {
			d.fault(join(path, "recording.allowed"), Fault{Message: "a room that must be end-to-end encrypted cannot be recorded", Hint: "set allowed: false, or e2ee: allowed"})
		}
		if p.ChatLog {
			d.fault(join(path, "chat_log"), Fault{Message: "the chat of a room that must be end-to-end encrypted cannot be kept", Hint: "set chat_log: false, or e2ee: allowed"})
		}
	}
	d.transfersCover(path, p)
}

// allClasses is the key that stands for every class that is not named.
const allClasses = "all"

func (d *document) classes(path string, named map[string]string, zones map[string]residency.Zone) map[residency.Class]residency.Zone {
	result := map[residency.Class]residency.Zone{}
	for class, zone := range named {
		if class != allClasses && !slices.Contains(residency.Classes(), residency.Class(class)) {
			d.faultKey(join(path, class), Fault{Message: "unknown data class", Allowed: classNames()})
		}
		if _, ok := zones[zone]; !ok {
			d.fault(join(path, class), Fault{Message: "unknown zone", Allowed: sortedKeys(zones)})
		}
	}
	var missing []string
	for _, class := range residency.Classes() {
		zone, ok := named[string(class)]
		if !ok {
			zone, ok = named[allClasses]
		}
		if !ok {
			missing = append(missing, string(class))
		}
		result[class] = zones[zone]
	}
	if len(missing) > 0 && d.has(path) {
		d.fault(path, Fault{Message: "classes without a zone: " + strings.Join(missing, ", "), Hint: "name a zone for each, or one for the rest with 'all'"})
	}
	return result
}

func classNames() string {
	names := []string{allClasses}
	for _, c := range residency.Classes() {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}
