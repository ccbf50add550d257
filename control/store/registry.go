package store

import "github.com/domicile/domicile/residency"

// Retention says when a stored value is erased.
type Retention string

// The retentions in use.
const (
	// WithRoom: erased with DeleteRoom, from the file and its journal.
	WithRoom Retention = "room"
	// WithFile: about the file itself, kept as long as it exists.
	WithFile Retention = "file"
)

// Column registers one stored column (R12). Its zone is the one that the policy
// of its room gives to Class; that a node stores nothing outside that zone is
// the gate's decision, taken before anything is put here.
type Column struct {
	Table, Name string
	Class       residency.Class
	Retention   Retention
	Personal    bool // may name or describe a person
}

// Columns lists every column of the store. What is not in it may not be stored.
func Columns() []Column {
	return []Column{
		{Table: "room", Name: "name", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true},
		{Table: "room", Name: "sid", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "policy", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "metadata", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true},
		{Table: "room", Name: "empty_timeout", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "departure_timeout", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "max_participants", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "created", Class: residency.ClassMetadata, Retention: WithRoom},

		// Which migrations the file has seen, kept by goose.
		{Table: "goose_db_version", Name: "id", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "version_id", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "is_applied", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "tstamp", Class: residency.ClassMetadata, Retention: WithFile},
	}
}
