package configs

import (
	"cmp"
	"math"

	"github.com/domicile/domicile/residency"
)

// Store says where an origin keeps the records of rooms: sealed, in rooms.db in
// DataDir, or in a PostgreSQL that the origins of a zone share.
type Store struct {
	// KeyFile holds the key that records are sealed with, 32 bytes in base64. Origins
	// that share a database have the same. Default: keys/store.key in DataDir, which
	// the node makes; with postgres you make it, and say so here.
	KeyFile string `yaml:"key_file"`

	// JournalMB bounds what waits on the node's own disk, in MB of 10⁶ bytes, while the
	// database is away; 1 to 10000. Default 64, for some 50,000 rooms of 1 kB. When it
	// is full, new rooms are refused; meetings go on.
	JournalMB int `yaml:"journal_mb"`

	Postgres Postgres `yaml:"postgres"`
}

// Postgres is a database that origins of one zone share. Over a network it is spoken
// to in TLS 1.3 alone.
type Postgres struct {
	// Host is its name or address, or the directory of its Unix socket. Required.
	Host     string `yaml:"host,required"`
	Port     int    `yaml:"port"`              // default 5432
	Database string `yaml:"database,required"` // it must exist; the node makes its tables
	User     string `yaml:"user,required"`     // owns the database

	// PasswordFile holds the user's password, readable by its owner alone. Default:
	// none, for a socket or a server that asks for no password.
	PasswordFile string `yaml:"password_file"`

	// CA is a file of the certificates by which the server is believed, PEM. Default:
	// the system's. On this very machine: without it, no TLS.
	CA string `yaml:"ca"`

	// Place is where the database is and who runs it. Required: without it the gate
	// would let nothing be kept there.
	Place Place `yaml:"place,required"`
}

// Place is where a database or an object store is. It is your word, by which the gate
// judges it like a node.
type Place struct {
	Country country `yaml:"country,required"` // where its disks are

	// Operator runs it, OperatorCountry is where that is. Default: whoever runs the node.
	Operator        string  `yaml:"operator"`
	OperatorCountry country `yaml:"operator_country"`
	// Parent is the operator's ultimate parent. Default: the operator itself; without
	// an operator, the node's.
	Parent        string  `yaml:"parent"`
	ParentCountry country `yaml:"parent_country"`
}

// Of returns the place of a node as the gate looks at it.
func (p Place) Of(self residency.Node, what string) residency.Place {
	at := residency.Place{What: what, Country: residency.Country(p.Country)}
	if p.Operator == "" {
		at.Operator, at.OperatorCountry, at.Parent, at.ParentCountry = self.Operator, self.OperatorCountry, self.Parent, self.ParentCountry
		return at
	}
	at.Operator, at.OperatorCountry = p.Operator, residency.Country(p.OperatorCountry)
	at.Parent, at.ParentCountry = cmp.Or(p.Parent, p.Operator), residency.Country(cmp.Or(p.ParentCountry, p.OperatorCountry))
	return at
}

// validatePlace checks what belongs together.
func (d *document) validatePlace(path string, p Place) {
	if p.Operator != "" && p.OperatorCountry == "" {
		d.fault(join(path, "operator"), Fault{Message: "the key \"operator_country\" is missing", Hint: "say in which country the operator is: operator_country: DE"})
	}
	for _, key := range []string{"operator_country", "parent"} {
		if p.Operator == "" && d.has(join(path, key)) {
			d.fault(join(path, key), Fault{Message: "it says something about an operator that is not named", Hint: "name the operator too"})
		}
	}
	if p.Parent != "" && p.ParentCountry == "" {
		d.fault(join(path, "parent"), Fault{Message: "the key \"parent_country\" is missing", Hint: "say in which country the parent is: parent_country: DE"})
	}
	if p.Parent == "" && d.has(join(path, "parent_country")) {
		d.fault(join(path, "parent_country"), Fault{Message: "it says something about a parent that is not named", Hint: "name the parent too"})
	}
}

func (d *document) validateStore(s Store) {
	d.within("store.journal_mb", float64(s.JournalMB), 1, 10_000)
	if !d.has("store.postgres") {
		return
	}
	d.within("store.postgres.port", float64(s.Postgres.Port), 1, math.MaxUint16)
	for key, v := range map[string]string{"host": s.Postgres.Host, "database": s.Postgres.Database, "user": s.Postgres.User} {
		if path := join("store.postgres", key); d.has(path) && v == "" {
			d.faultf(path, "it is empty")
		}
	}
	if s.KeyFile == "" {
		d.fault("store.postgres", Fault{Message: "the key \"store.key_file\" is missing: origins that share a database share the key of its rooms",
			Hint: "make one with: openssl rand -base64 32 > store.key; give it to each of them, and no one else"})
	}
	d.validatePlace("store.postgres.place", s.Postgres.Place)
}
