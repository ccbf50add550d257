package registry

import (
	"path"
	"strings"

	"github.com/domicile/domicile/residency"
)

// The retentions of files.
const (
	WithRoom      Retention = "until the room is deleted, or as the policy says"
	WithRecording Retention = "as the policy says, or until it is erased"
	WithChat      Retention = "as the policy says, or until it is erased"
	WithList      Retention = "as the policy says, or until it is erased"
	WithHook      Retention = "until the webhook has been told, 10 minutes at most while the node runs, or until it is erased"
	WithExport    Retention = "until its last day, 30 days if nobody said otherwise, or until it is erased"
	WithEvidence  Retention = "until the operator deletes the directory; names as the policy says, or until they are erased"
	UntilPaid     Retention = "until the receipts of the erasure are written"
	WithNode      Retention = "as long as the node"
	WithMesh      Retention = "while the node is in the mesh"
	WithScrape    Retention = "as long as whoever collects metrics keeps them"
)

// File is a file, or files, of a node's data directory. Its zone is that of its class
// in the policy of the room that it is about; what is about no room lies where the
// node is.
type File struct {
	Path      string // as path.Match has it, below the data directory; ** at its end is whatever is below
	Class     residency.Class
	Retention Retention
	Personal  bool // something in it tells of a person
	Sealed    bool // readable with the origin's key alone; what is personal in it is
	Holds     string
}

// Files lists what may lie in a data directory. A test runs a meeting that is
// recorded, kept and proved, and looks for others.
func Files() []File {
	return []File{
		{Path: "admin.sock", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "the operator's socket"},
		{Path: "acme/**", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "the certificate for attendees, its key, the account with the authority"},
		{Path: "backup-*/rooms.db", Class: residency.ClassMetadata, Retention: WithNode, Personal: true, Sealed: true, Holds: "a copy of rooms.db while a backup is made"},
		{Path: "chats/RE_*/chat.dtr", Class: residency.ClassChat, Retention: WithChat, Personal: true, Sealed: true, Holds: "chat (ChatLine)"},
		{Path: "chats/RE_*/qa.dtr", Class: residency.ClassChat, Retention: WithChat, Personal: true, Sealed: true, Holds: "questions and answers (ChatLine)"},
		{Path: "chats/RE_*/recording.json", Class: residency.ClassChat, Retention: WithChat, Personal: true, Sealed: true, Holds: "about them (document)"},
		{Path: "chats/erased/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: a file of that id was erased"},
		{Path: "chats/RE_*/lock", Class: residency.ClassTelemetry, Retention: WithChat, Holds: "nothing"},
		{Path: "attendance/RE_*/attendance.dtr", Class: residency.ClassMetadata, Retention: WithList, Personal: true, Sealed: true, Holds: "who came and went (AttendanceLine)"},
		{Path: "attendance/RE_*/recording.json", Class: residency.ClassMetadata, Retention: WithList, Personal: true, Sealed: true, Holds: "about them (document)"},
		{Path: "attendance/erased/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: a file of that id was erased"},
		{Path: "attendance/RE_*/lock", Class: residency.ClassTelemetry, Retention: WithList, Holds: "nothing"},
		{Path: "consents/RE_*/consents.dtr", Class: residency.ClassRecording, Retention: WithRecording, Personal: true, Sealed: true, Holds: "who was asked about a recording and what they answered (ConsentLine)"},
		{Path: "consents/RE_*/recording.json", Class: residency.ClassRecording, Retention: WithRecording, Personal: true, Sealed: true, Holds: "about them (document)"},
		{Path: "consents/erased/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: a file of that id was erased"},
		{Path: "consents/RE_*/lock", Class: residency.ClassTelemetry, Retention: WithRecording, Holds: "nothing"},
		{Path: "egresses/EG_*.age", Class: residency.ClassMetadata, Retention: WithList, Personal: true, Sealed: true, Holds: "that somebody had something recorded by the API (Slip, keptEgress)"},
		{Path: "evidence/certificates/*.der", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "nodes' certificates"},
		{Path: "evidence/countersignatures.json", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "what other nodes signed of this log (Countersignature)"},
		{Path: "evidence/hashes", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "the log's tree"},
		{Path: "evidence/lock", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing"},
		{Path: "evidence/log", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "receipts (Receipt), of rooms under pseudonyms"},
		{Path: "evidence/outbox", Class: residency.ClassMetadata, Retention: WithEvidence, Personal: true, Holds: "receipts that no log has taken yet (Item), with the room's name"},
		{Path: "evidence/policies/*.yaml", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "policies that were in force"},
		{Path: "evidence/policies/*.yaml.sig", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "their signatures"},
		{Path: "evidence/probe", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "a sentence: that the disk takes something"},
		{Path: "evidence/rooms/RM_*.json", Class: residency.ClassMetadata, Retention: WithEvidence, Personal: true, Holds: "the key of a room's pseudonym, and its name (roomKey)"},
		{Path: "evidence/witness.json", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "the newest head of each origin's log (Witness)"},
		{Path: "exports/EX_*/about.age", Class: residency.ClassExport, Retention: WithExport, Personal: true, Sealed: true, Holds: "about a prepared export (About)"},
		{Path: "exports/EX_*/body.age", Class: residency.ClassExport, Retention: WithExport, Personal: true, Sealed: true, Holds: "the export"},
		{Path: "exports/links.key", Class: residency.ClassExport, Retention: WithNode, Holds: "the key that links to exports are signed with"},
		{Path: "keys/recordings.key", Class: residency.ClassRecording, Retention: WithNode, Holds: "the private key of recordings and chat"},
		{Path: "keys/recordings.recipients", Class: residency.ClassRecording, Retention: WithNode, Holds: "further public keys"},
		{Path: "keys/tenants/*.recipients", Class: residency.ClassRecording, Retention: WithNode, Holds: "public keys of a tenant"},
		{Path: "keys/store.key", Class: residency.ClassMetadata, Retention: WithNode, Holds: "the key of rooms.db"},
		{Path: "orders", Class: residency.ClassMetadata, Retention: WithNode, Holds: "legal holds and erasures (Order); rooms and people as keyed hashes"},
		{Path: "owed", Class: residency.ClassMetadata, Retention: UntilPaid, Personal: true, Sealed: true, Holds: "what is being erased (Note)"},
		{Path: "policy/*/policy.yaml", Class: residency.ClassMetadata, Retention: WithNode, Holds: "policies"},
		{Path: "policy/*/policy.yaml.sig", Class: residency.ClassMetadata, Retention: WithNode, Holds: "their signature"},
		{Path: "recordings/RE_*/*.dtr", Class: residency.ClassRecording, Retention: WithRecording, Personal: true, Sealed: true, Holds: "recorded media, with whose it is (TrackMeta)"},
		{Path: "recordings/RE_*/recording.json", Class: residency.ClassRecording, Retention: WithRecording, Personal: true, Sealed: true, Holds: "about the recording (document); the room's name is sealed"},
		{Path: "recordings/erased/owed/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: the bucket has still to lose a recording of that id"},
		{Path: "recordings/erased/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: a recording of that id was erased"},
		{Path: "recordings/RE_*/lock", Class: residency.ClassTelemetry, Retention: WithRecording, Holds: "nothing"},
		{Path: "registrations/RE_*/registrations.dtr", Class: residency.ClassMetadata, Retention: WithList, Personal: true, Sealed: true, Holds: "who has registered (Registration)"},
		{Path: "registrations/RE_*/recording.json", Class: residency.ClassMetadata, Retention: WithList, Personal: true, Sealed: true, Holds: "about them (document)"},
		{Path: "registrations/erased/RE_*", Class: residency.ClassTelemetry, Retention: WithNode, Holds: "nothing: a file of that id was erased"},
		{Path: "registrations/RE_*/lock", Class: residency.ClassTelemetry, Retention: WithList, Holds: "nothing"},
		{Path: "rooms.db", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true, Sealed: true, Holds: "rooms (the columns are listed in control/store), and what a shared database is still to be told"},
		{Path: "rooms.db-*", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true, Sealed: true, Holds: "its journal"},
		{Path: "webhooks/EV_*.age", Class: residency.ClassMetadata, Retention: WithHook, Personal: true, Sealed: true, Holds: "what a webhook has still to be told (Slip, keptEvent)"},
	}
}

// FileAt finds the entry for a path below the data directory.
func FileAt(name string) (f File, ok bool) {
	for _, f := range Files() {
		below, deep := strings.CutSuffix(f.Path, "**")
		if match, err := path.Match(f.Path, name); err == nil && match || deep && strings.HasPrefix(name, below) {
			return f, true
		}
	}
	return File{}, false
}

// Document is a form of what is written to a disk, or told to other nodes and kept by
// them, as a struct of the program states it.
type Document struct {
	Package, Struct string
	Class           residency.Class
	Retention       Retention
	Fields          []string // those that tell of nobody
	Personal        []string // those that tell of a person
	Holds           string
}

// Documents lists them. Tests compare the fields with the structs.
func Documents() []Document {
	return []Document{
		{Package: "residency/vault", Struct: "document", Class: residency.ClassRecording, Retention: WithRecording, Holds: "a recording, or kept chat",
			Fields: list("version id policy node country started ended state after tracks copy replicas sealed"), Personal: list("private")},
		{Package: "residency/vault", Struct: "After", Class: residency.ClassRecording, Retention: WithRecording, Holds: "which recording it goes on from",
			Fields: list("id node part gap_ns")},
		{Package: "residency/vault", Struct: "private", Class: residency.ClassRecording, Retention: WithRecording, Holds: "its sealed part",
			Fields: list("finals keys"), Personal: list("room tenant metas")},
		{Package: "residency/vault", Struct: "TrackInfo", Class: residency.ClassRecording, Retention: WithRecording, Holds: "a file of it",
			Fields: list("id size clusters finished erased")},
		{Package: "residency/vault", Struct: "TrackMeta", Class: residency.ClassRecording, Retention: WithRecording, Holds: "whose track it is, sealed",
			Fields: list("track source kind mime clock_rate channels fmtp start_ns part"), Personal: list("participant name")},
		{Package: "node/room", Struct: "ChatLine", Class: residency.ClassChat, Retention: WithChat, Holds: "a message, sealed",
			Fields: list("at_ms kind"), Personal: list("identity name text")},
		{Package: "node/prepared", Struct: "About", Class: residency.ClassExport, Retention: WithExport, Holds: "a prepared export, sealed",
			Fields: list("id sid policy kind recording type size created expires notes over rooms"), Personal: list("room tenant name")},
		{Package: "node/prepared", Struct: "Part", Class: residency.ClassExport, Retention: WithExport, Holds: "a room of which something is in it, sealed", Fields: list("policy"), Personal: list("room tenant")},
		{Package: "node/prepared", Struct: "patch", Class: residency.ClassExport, Retention: WithExport, Holds: "what was written over a part of it, sealed", Fields: list("at"), Personal: list("data")},
		{Package: "node/room", Struct: "AttendanceLine", Class: residency.ClassMetadata, Retention: WithList, Holds: "that somebody came or went, sealed",
			Fields: list("at_ms event node country"), Personal: list("sid identity name")},
		{Package: "node/room", Struct: "ConsentLine", Class: residency.ClassRecording, Retention: WithRecording, Holds: "that somebody was told of a recording, or answered, sealed",
			Fields: list("at_ms event recording token node policy epoch"), Personal: list("sid identity name")},
		{Package: "node/room", Struct: "Egress", Class: residency.ClassMetadata, Retention: WithRoom, Holds: "what an API call wants recorded of a room, while it is recorded",
			Fields: list("id screen tracks audio_only video_only"), Personal: list("identity info")},
		{Package: "node/slips", Struct: "Slip", Class: residency.ClassMetadata, Retention: WithList, Holds: "a page about a room, sealed",
			Fields: list("id sid tenant policy at_ms"), Personal: list("room people body")},
		{Package: "node", Struct: "keptEgress", Class: residency.ClassMetadata, Retention: WithList, Holds: "what an API call had recorded, sealed",
			Personal: list("identity info")},
		{Package: "node", Struct: "keptEvent", Class: residency.ClassMetadata, Retention: WithHook, Holds: "what a webhook has still to be told, sealed",
			Fields: list("hook seq"), Personal: list("event")},
		{Package: "node", Struct: "Registration", Class: residency.ClassMetadata, Retention: WithList, Holds: "who has registered, sealed",
			Fields: list("id at_ms"), Personal: list("first_name last_name email company sector phone identity")},
		{Package: "residency/evidence", Struct: "Receipt", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "what went where, signed",
			Fields: list("version room node certificate run seq previous side peer peer_certificate class qa policy tenant rule epoch packets bytes lost lost_bytes first last final")},
		{Package: "residency/evidence", Struct: "Head", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "the state of a log, signed",
			Fields: list("version origin certificate log size root time")},
		{Package: "residency/evidence", Struct: "Countersignature", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "another node's signature of it",
			Fields: list("version witness certificate origin log size root logs time")},
		{Package: "residency/evidence", Struct: "Witness", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "what a node remembers of logs", Fields: list("heads")},
		{Package: "residency/evidence", Struct: "Shown", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "of one of them", Fields: list("head logs")},
		{Package: "node/outbox", Struct: "Item", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "a receipt that waits",
			Fields: list("tenant policy line certificates since"), Personal: list("room")},
		{Package: "node/outbox", Struct: "line", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "a line of them", Fields: list("certificate item")},
		{Package: "control/store", Struct: "document", Class: residency.ClassMetadata, Retention: WithRoom, Holds: "a room, sealed",
			Fields: list("sid tenant policy empty_timeout departure_timeout max_participants created state"), Personal: list("name metadata")},
		{Package: "node", Struct: "roomKey", Class: residency.ClassMetadata, Retention: WithEvidence, Holds: "which room a pseudonym is",
			Fields: list("sid key pseudonym created_ms tenant policy"), Personal: list("name")},
		{Package: "node/owed", Struct: "Note", Class: residency.ClassMetadata, Retention: UntilPaid, Holds: "what goes together, sealed", Fields: list("number things gone")},
		{Package: "node/owed", Struct: "Thing", Class: residency.ClassMetadata, Retention: UntilPaid, Holds: "of what an erasure is about, sealed",
			Fields: list("kind id part lines rule bytes tenant policy pseudonym"), Personal: list("room")},
		{Package: "residency/retention", Struct: "Order", Class: residency.ClassMetadata, Retention: WithNode, Holds: "a legal hold, or what has to go",
			Fields: list("id kind rule salt tenant no_tenant room participant recording only reason at_ms lifted_ms before_ms")},
		{Package: "residency/identity", Struct: "Claim", Class: residency.ClassTelemetry, Retention: WithMesh, Holds: "what a node says of itself to the mesh",
			Fields: list("Name Country Operator OperatorCountry Parent ParentCountry Roles CertFingerprint Epoch Load Attendees Latitude Longitude Issued RelayAddr GossipAddr URL")},
		{Package: "residency/identity", Struct: "Entry", Class: residency.ClassMetadata, Retention: WithNode, Holds: "a certificate that the operator's authority issued or revoked",
			Fields: list("at serial certificate replaces revoked epoch reason")},
	}
}

// Passing lists the structs of packages that write which are only read, shown or
// sent: nothing of them is on a disk by itself.
func Passing() []string {
	return []string{"control/store.Aside", "control/store.State", "residency/evidence.Announcement", "residency/evidence.Complaint", "residency/evidence.CountersignatureLine", "residency/evidence.Indexed",
		"residency/evidence.Manifest", "residency/evidence.PolicyLine", "residency/evidence.RoomLine", "residency/evidence.form",
		"residency/evidence.Extract", "residency/evidence.File", "residency/vault.Manifest", "residency/vault.Part"}
}

func list(s string) []string { return strings.Fields(s) }

// Writers lists the source files that may create files, with what they write. Those
// of cmd/ and the library of exports write where whoever calls them says.
func Writers() map[string]string {
	return map[string]string{
		"cmd/domicile/backup.go":        "the backup that the operator asks for",
		"cmd/domicile/ca.go":            "where the operator says: certificates, signatures",
		"cmd/domicile/carenew.go":       "a node's renewed certificate",
		"cmd/domicile/demo.go":          "the demo's folder",
		"cmd/domicile/demofiles.go":     "the demo's folder",
		"cmd/domicile/dev.go":           "a folder for one run",
		"cmd/domicile/evidence.go":      "the export that the operator asks for",
		"cmd/domicile/export.go":        "the export that the operator asks for",
		"control/store/backup.go":       "backup-*/rooms.db",
		"control/store/file.go":         "rooms.db",
		"control/store/seal.go":         "keys",
		"node/backup.go":                "backup-*/rooms.db",
		"node/adminsocket.go":           "admin.sock",
		"node/evidencekeys.go":          "evidence/rooms",
		"node/front/certs/store.go":     "acme",
		"node/node.go":                  "the data directory itself",
		"node/orders/orders.go":         "orders",
		"node/owed/owed.go":             "owed",
		"node/outbox/disk.go":           "evidence/outbox",
		"node/outbox/outbox.go":         "evidence/outbox",
		"node/prepared/file.go":         "exports",
		"node/prepared/link.go":         "exports",
		"node/slips/slips.go":           "egresses, webhooks",
		"node/prepared/shelf.go":        "exports",
		"node/record/export.go":         "the export that somebody asks for",
		"node/record/encode.go":         "the export that somebody asks for",
		"residency/bundles/dir.go":      "policy",
		"residency/evidence/disk.go":    "evidence",
		"residency/evidence/log.go":     "evidence",
		"residency/identity/ca.go":      "the authority's folder",
		"residency/identity/files.go":   "keys and certificates",
		"residency/identity/index.go":   "the authority's index",
		"residency/vault/copy.go":       "recordings, of other nodes",
		"residency/vault/disk.go":       "recordings, chats",
		"residency/vault/erase.go":      "recordings, chats",
		"residency/vault/erased.go":     "recordings, chats",
		"residency/vault/keys.go":       "keys",
		"residency/vault/remote.go":     "recordings/erased/owed",
		"residency/vault/layer.go":      "recordings, chats",
		"residency/vault/vault.go":      "recordings, chats",
		"router/geo/geodemo/geodemo.go": "the demo's GeoIP database",
	}
}

// MetricLabels lists the labels of metrics: none names a room or a person.
func MetricLabels() []Field {
	return []Field{
		label("bound", "which limit of this node refused somebody, in a word"),
		label("class", "a data class"),
		label("direction", "which way: in or out"),
		label("ground", "why a node's place is contradicted, in a word"),
		label("outcome", "how a connection was taken, in a word"),
		label("peer", "name of a node"),
		label("quarantined", "whether a contradicted node is"),
		label("reason", "why something was dropped or failed, in a word"),
		label("result", "what became of a message, in a word"),
		label("rule", "the rule by which the gate, or this node, refused"),
		label("transport", "UDP, TCP or TLS"),
	}
}

func label(name, holds string) Field {
	return Field{Name: name, Class: residency.ClassTelemetry, Retention: WithScrape, Holds: holds}
}
