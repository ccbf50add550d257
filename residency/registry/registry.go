// Package registry lists what a node may write down beside what a meeting's
// participants send each other: for each field its data class, how long it is kept
// and whether it is about a person (R12). Tests compare it with the code; what is
// not listed cannot be written.
//
// It is a list and decides nothing: where a class may lie is the gate's affair.
package registry

import "github.com/domicile/domicile/residency"

// Retention says how long something is kept.
type Retention string

// The retentions of what is not in the database.
const (
	// WithLog: as long as the operator keeps the node's log.
	WithLog Retention = "as long as the log"
)

// Field is one thing that is written down.
type Field struct {
	Name      string
	Class     residency.Class
	Retention Retention
	Personal  bool   // tells of a person, if only by an identifier
	Holds     string // what it holds, and what it never does
}

// LogAttributes lists the keys of log lines in order. A log line holds no name of a
// person, no address of an attendee, no token and nothing that anybody said.
// Somebody in a meeting appears by the identifier of their connection alone, which
// is made at random and means nothing outside of the meeting.
func LogAttributes() []Field {
	return []Field{
		log("address", "address of this node, or of another"),
		log("after", "number of a message, or a time span"),
		log("again_in", "time until the next attempt"),
		log("alias", "number of a track on a link"),
		log("at_most", "limit of something counted"),
		log("before", "value that was replaced"),
		log("bucket", "name of the object store that the configuration names"),
		log("bytes", "size"),
		log("carriage", "quic or udp: where the media of a link goes"),
		log("class", "data class"),
		log("code", "kind of refusal"),
		log("codec", "name of a codec"),
		log("country", "country of a node"),
		log("days", "number of days"),
		log("epoch", "version of the policies"),
		log("err", "text of an error between nodes"),
		log("error", "text of an error; what an attendee has sent is not quoted in it"),
		log("export", "identifier of a prepared export"),
		log("fallback", "setting for attendees of unknown place"),
		log("figure", "name of a measured figure"),
		log("from", "name of a node"),
		log("ground", "why something is refused, in a word"),
		log("hint", "what the operator can do"),
		log("home_policy", "name of a policy"),
		log("home_tenant", "name of a tenant"),
		log("kind", "number or name of a kind"),
		log("messages", "number of messages"),
		log("migrations", "number of migrations"),
		log("name", "name of a node, or of this node in a certificate"),
		log("names", "host names of this node"),
		log("node", "name of a node"),
		log("nodes", "number or names of nodes"),
		log("not_after", "end of a certificate"),
		log("object", "id of a room, a recording or a file of chat that is kept"),
		log("operator", "operator of a node, as its certificate states it"),
		log("panic", "text of a fault in the program"),
		person("participant", "identifier of a participant's connection, never a name"),
		log("participants", "number of participants"),
		log("path", "file or folder of this node"),
		log("peer", "name of a node"),
		log("policy", "name of a policy"),
		log("port", "port of this node"),
		person("publisher", "identifier of a participant's connection, never a name"),
		log("quality", "quality of a connection, in a word"),
		log("reason", "why something happened, in the program's own words"),
		log("recording", "identifier of a recording"),
		log("request", "kind of a request"),
		log("room", "identifier of a room, never its name"),
		log("rule", "rule that decided"),
		log("self", "name of this node"),
		log("serial", "serial number of a node's certificate"),
		log("source", "kind of a track: camera, microphone, screen"),
		log("stack", "where in the program a fault was"),
		log("target", "direction of a media connection"),
		log("tenant", "name of a tenant"),
		log("term", "how many homes a room has had"),
		log("to", "name of a node, or a time"),
		log("track", "identifier of a track"),
		log("upto", "number of a message"),
		log("url", "public address of a node"),
	}
}

func log(name, holds string) Field {
	return Field{Name: name, Class: residency.ClassTelemetry, Retention: WithLog, Holds: holds}
}

func person(name, holds string) Field {
	f := log(name, holds)
	f.Personal = true
	return f
}
