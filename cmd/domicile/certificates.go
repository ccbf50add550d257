package main

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node/front/certs"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// certificates makes what keeps the certificate for attendees, from files or by ACME.
func certificates(y *configs.Node, files *configs.Files, log *slog.Logger) (*certs.Keeper, error) {
	if !y.ByACME() {
		return certs.FromFiles(certs.FilesConfig{Certificate: y.TLS.Certificate, Key: y.TLS.Key,
			Names: []string{y.PublicHost()}, Log: log})
	}
	a := y.TLS.ACME
	cfg := certs.ACMEConfig{Directory: a.Directory, Email: a.Email, Names: a.Names, Profile: a.Profile,
		Roots: files.ACMERoots, EABKey: a.EAB.KeyID, EABSecret: files.EABSecret,
		Dir: filepath.Join(y.DataDir, "acme"), Log: log}
	if a.DNS.Program != "" {
		cfg.DNS = certs.Exec{Path: a.DNS.Program}
	}
	return certs.FromACME(cfg)
}

// describeCertificate says in lines for a terminal what there is to know of the
// certificate for attendees; nothing if all is well.
func describeCertificate(s certs.State, now time.Time) (lines []string) {
	switch {
	case s.SelfMade:
		lines = append(lines, fmt.Sprintf("certificate for %s: none yet, %s will be asked when the node runs; until it comes browsers refuse the node", strings.Join(s.Names, ", "), s.Authority))
	case s.Authority != "":
		lines = append(lines, fmt.Sprintf("certificate for %s: from %s, until %s", strings.Join(s.Names, ", "), s.Authority, s.NotAfter.Format(time.RFC3339)))
	}
	if days, soon := certs.Ending(s.NotBefore, s.NotAfter, now); soon && !s.SelfMade {
		lines = append(lines, fmt.Sprintf("warning: the certificate for attendees %s (%s)", ending(days), s.NotAfter.Format(time.RFC3339)))
	}
	if s.Problem != "" {
		lines = append(lines, "warning: "+s.Problem)
	}
	return lines
}

// describeIdentity says how long the certificate lasts by which other nodes know
// this one, and warns when it is to be renewed.
func describeIdentity(n residency.Node, now time.Time) []string {
	s := shown{SecondsLeft: int64(n.NotAfter.Sub(now) / time.Second), Stage: identity.StageOf(n.NotBefore, n.NotAfter, now)}
	line := fmt.Sprintf("certificate of node %s: serial number %s, until %s, %s", n.Name, n.Serial, n.NotAfter.UTC().Format(time.RFC3339), s.left())
	if s.Stage != identity.StageGood {
		line = "warning: " + line
	}
	return []string{line}
}

func ending(days int) string {
	switch days {
	case 0:
		return "has ended"
	case 1:
		return "ends in less than a day"
	}
	return fmt.Sprintf("ends in less than %d days", days)
}
