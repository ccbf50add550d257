package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/control/store"
	"github.com/domicile/domicile/node"
	"github.com/domicile/domicile/residency"
)

// storeOf reads what node.yaml says of the store, and where it is.
func storeOf(y *configs.Node, self residency.Node) (node.Store, node.Places, error) {
	s := node.Store{KeyFile: y.Store.KeyFile, JournalBytes: int64(y.Store.JournalMB) * 1_000_000}
	p := y.Store.Postgres
	if p.Host == "" {
		return s, nil, nil
	}
	s.Postgres = &store.Postgres{Host: p.Host, Port: uint16(p.Port), Database: p.Database, User: p.User}
	if p.PasswordFile != "" {
		b, err := os.ReadFile(p.PasswordFile)
		if err != nil {
			return s, nil, fmt.Errorf("store.postgres.password_file: %w", err)
		}
		s.Postgres.Password = string(bytes.TrimRight(b, "\r\n"))
	}
	var err error
	if s.Postgres.TLS, err = databaseTLS(p, s.Postgres.Local()); err != nil {
		return s, nil, err
	}
	return s, node.Places{residency.ClassMetadata: p.Place.Of(self, "database")}, nil
}

// databaseTLS is nil on this very machine, unless the file says by whom the server is
// to be believed.
func databaseTLS(p configs.Postgres, local bool) (*tls.Config, error) {
	if p.CA == "" && local {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS13, ServerName: p.Host}
	if p.CA == "" {
		return cfg, nil
	}
	b, err := os.ReadFile(p.CA)
	if err != nil {
		return nil, fmt.Errorf("store.postgres.ca: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("store.postgres.ca: %q holds no certificate in PEM", p.CA)
	}
	return cfg, nil
}

// describePlaces says which policies keep no record of a room in the database that the
// file names, although this node might keep it.
func describePlaces(cfg node.Config, now time.Time) (lines []string) {
	gate, place := residency.NewGate(cfg.Bundle), cfg.Places[residency.ClassMetadata]
	if place == (residency.Place{}) {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Bundle.Policies)) {
		q := residency.Request{Policy: name, Class: residency.ClassMetadata, Store: true, Peer: cfg.Self, PeerEpoch: gate.Epoch(), Now: now}
		here := gate.Decide(q)
		q.Place = place
		if there := gate.Decide(q); here.Allow && !there.Allow {
			lines = append(lines, fmt.Sprintf("store: no room of policy %q can be made: %s", name, there.Reason))
		}
	}
	return lines
}
