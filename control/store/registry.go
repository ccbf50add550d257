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
	Sealed      bool // readable with the origin's key alone
}

// Columns lists every column of the store. What is not in it may not be stored.
func Columns() []Column {
	return []Column{
		{Table: "room", Name: "handle", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "sid", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "room", Name: "sealed", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true, Sealed: true},

		// What a shared database is still to be told: in the file alone.
		{Table: "pending", Name: "seq", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "pending", Name: "handle", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "pending", Name: "sid", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "pending", Name: "gone", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "pending", Name: "sealed", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true, Sealed: true},

		// What the shared database has refused of that: in the file alone.
		{Table: "aside", Name: "seq", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "aside", Name: "handle", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "aside", Name: "sid", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "aside", Name: "gone", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "aside", Name: "sealed", Class: residency.ClassMetadata, Retention: WithRoom, Personal: true, Sealed: true},
		{Table: "aside", Name: "reason", Class: residency.ClassMetadata, Retention: WithRoom},
		{Table: "aside", Name: "since", Class: residency.ClassMetadata, Retention: WithRoom},

		// By which key and database they are known.
		{Table: "about", Name: "name", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "about", Name: "value", Class: residency.ClassMetadata, Retention: WithFile},

		// Which migrations the file has seen, kept by goose.
		{Table: "goose_db_version", Name: "id", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "version_id", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "is_applied", Class: residency.ClassMetadata, Retention: WithFile},
		{Table: "goose_db_version", Name: "tstamp", Class: residency.ClassMetadata, Retention: WithFile},
	}
}
