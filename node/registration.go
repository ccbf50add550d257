package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/mail"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/sheet"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/router"
)

// Registration: who says beforehand that they will come (R11), where the policy has it.
// What is said is metadata: it is taken by nodes in that zone alone, and kept by an
// origin of it.

const (
	opRegister      = "register"      // keep a registration (an origin in the zone of metadata)
	opRegistrations = "registrations" // lines of a room's registrations (an origin that keeps some)

	registrationTrack = "registrations"
	maxFormField      = 200 // bytes of a field of the form
	// registrationRate and registrationBurst bound what a node takes, a second and at once:
	// each is a write to a disk.
	registrationRate  = 20
	registrationBurst = 200
	maxEmail          = 254 // bytes of an address (RFC 5321 section 4.5.3.1.3, without the brackets)
)

// Registration is a registration as it is kept.
type Registration struct {
	ID        string `json:"id"`
	AtMS      int64  `json:"at_ms"` // Unix milliseconds by the origin's clock
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Email     string `json:"email"`
	Company   string `json:"company,omitempty"`
	Sector    string `json:"sector,omitempty"`
	Phone     string `json:"phone,omitempty"`
	Identity  string `json:"identity,omitempty"` // of the token by which it was made, if there was one
}

// form is what somebody fills in.
type form struct {
	FirstName string `json:"first_name"`
	LastName  string `json:"last_name"`
	Email     string `json:"email"`
	Company   string `json:"company"`
	Sector    string `json:"sector"`
	Phone     string `json:"phone"`
}

// registration checks a form. What is wrong is said without repeating what was filled in.
func (f form) registration() (Registration, error) {
	r := Registration{FirstName: strings.TrimSpace(f.FirstName), LastName: strings.TrimSpace(f.LastName), Email: strings.TrimSpace(f.Email),
		Company: strings.TrimSpace(f.Company), Sector: strings.TrimSpace(f.Sector), Phone: strings.TrimSpace(f.Phone)}
	for _, x := range []struct {
		what, text string
		required   bool
	}{{"first_name", r.FirstName, true}, {"last_name", r.LastName, true}, {"email", r.Email, true},
		{"company", r.Company, false}, {"sector", r.Sector, false}, {"phone", r.Phone, false}} {
		switch {
		case x.text == "" && x.required:
			return r, &Refusal{Code: CodeInvalid, Message: x.what + " is missing"}
		case len(x.text) > cmp.Or(map[string]int{"email": maxEmail}[x.what], maxFormField):
			return r, &Refusal{Code: CodeInvalid, Message: x.what + " is too long"}
		case !utf8.ValidString(x.text) || strings.ContainsFunc(x.text, func(c rune) bool { return !unicode.IsPrint(c) }):
			return r, &Refusal{Code: CodeInvalid, Message: x.what + " contains what cannot be printed"}
		}
	}
	if a, err := mail.ParseAddress(r.Email); err != nil || a.Address != r.Email {
		return r, &Refusal{Code: CodeInvalid, Message: "email is no address"}
	}
	return r, nil
}

// register takes a registration: from who holds a token for the room, or from anybody
// where the node takes guests.
func (n *Node) register(w http.ResponseWriter, r *http.Request) (any, error) {
	key, identity := "", ""
	if r.Header.Get("Authorization") != "" {
		g, _, err := n.bearer(r)
		if err != nil {
			return nil, err
		}
		key, identity = g.APIKey, g.Identity
	} else if !n.cfg.Page.Guests || len(n.cfg.Keys) == 0 {
		return nil, &Refusal{Code: CodeForbidden, Message: "this node takes registrations with a token for the room alone"}
	} else {
		key = n.guestKey()
	}
	var f form
	if err := reading(w, r, &f); err != nil {
		return nil, err
	}
	reg, err := f.registration()
	if err != nil {
		return nil, err
	}
	if !n.lists.registering.Allow() {
		return nil, &Refusal{Code: CodeBusy, Message: "too many registrations at this moment", Hint: "try again in a moment"}
	}
	spec := room.Record{Name: r.PathValue("room"), Tenant: n.tenantOf(key)}
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: spec})
	if err != nil {
		return nil, n.atHome(spec, err)
	}
	reg.ID, reg.Identity = room.NewID("RG_"), identity
	at, err := n.takesRegistrations(rec)
	if err != nil {
		return nil, err
	}
	_, err = n.command(r.Context(), at, rec, command{Op: opRegister, Room: rec.Name, Tenant: rec.Tenant, Policy: rec.Policy, Request: encodeLine(reg)})
	return map[string]string{"id": reg.ID}, err
}

// takesRegistrations names the origin that keeps them, if this node may take them.
func (n *Node) takesRegistrations(rec room.Record) (residency.NodeName, error) {
	p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy)
	if err != nil || !p.Registration {
		return "", &Refusal{Code: CodeRefused, Rule: residency.RuleNotStored, Policy: rec.Policy, Message: fmt.Sprintf("policy %q keeps no registrations", rec.Policy)}
	}
	k := router.Keeper(n.gate(), keeping(rec, residency.ClassMetadata), n.homes(), n.now())
	if k.Chosen == nil {
		return "", &Refusal{Code: CodeRefused, Rule: k.Rule, Policy: rec.Policy, Message: k.Reason, Hint: k.Hint}
	}
	q := keeping(rec, residency.ClassMetadata)
	q.NoEvidence = n.noEvidenceOf(rec.Name)
	if _, v := n.tell(q); !v.Allow {
		ref := refused(v)
		ref.Use = &Use{Node: k.Chosen.Node, URL: k.Chosen.URL}
		return "", ref
	}
	return k.Chosen.Node, nil
}

// storeRegistration keeps a registration on this origin.
func (n *Node) storeRegistration(rec room.Record, body []byte) error {
	var reg Registration
	if err := json.Unmarshal(body, &reg); err != nil || !strings.HasPrefix(reg.ID, "RG_") || len(reg.ID) > 64 || len(reg.Identity) > control.MaxIdentityBytes {
		return &Refusal{Code: CodeInvalid, Message: "registration: it is malformed"}
	}
	checked, err := form{reg.FirstName, reg.LastName, reg.Email, reg.Company, reg.Sector, reg.Phone}.registration()
	if err != nil {
		return err
	}
	if p, err := n.gate().Bundle().PolicyFor(rec.Tenant, rec.Policy); err != nil || !p.Registration {
		return &Refusal{Code: CodeRefused, Rule: residency.RuleNotStored, Policy: rec.Policy, Message: fmt.Sprintf("policy %q keeps no registrations", rec.Policy)}
	}
	checked.ID, checked.Identity, checked.AtMS = reg.ID, reg.Identity, n.now().UnixMilli()
	return n.keepLines(&n.lists.registrations, rec, encodeLine(checked))
}

// registered are the registrations of a room, from every origin that may tell this node.
func (n *Node) registered(ctx context.Context, rec room.Record) ([]Registration, missing, error) {
	list, seen := []Registration{}, map[string]bool{}
	lack, err := n.gather(ctx, rec, &n.lists.registrations, opRegistrations, func(b []byte) error {
		var reg Registration
		err := json.Unmarshal(b, &reg)
		if err == nil && !seen[reg.ID] { // copies of it may be kept
			seen[reg.ID] = true
			list = append(list, reg)
		}
		return err
	})
	return list, lack, err
}

// registrationsOf answers the host who wants to know who has registered.
func (n *Node) registrationsOf(w http.ResponseWriter, r *http.Request) error {
	rec, permit, err := n.mayDownload(r, "registrations", residency.ClassMetadata)
	if err != nil {
		return err
	}
	list, lack, err := n.registered(r.Context(), rec)
	if err != nil {
		return err
	}
	return n.exportTable(permit, w, r.FormValue("format"), rec.Name, map[string]any{"registrations": list}, registrationTable(list), lack)
}

// registrationTable is registrations for a spreadsheet.
func registrationTable(list []Registration) sheet.Table {
	t := sheet.Table{Name: "Registrations", Header: []string{"at", "first_name", "last_name", "email", "company", "sector", "phone", "identity"}}
	for _, g := range list {
		t.Rows = append(t.Rows, []any{ms(g.AtMS), g.FirstName, g.LastName, g.Email, g.Company, g.Sector, g.Phone, g.Identity})
	}
	return t
}

// mayDownload answers whether the caller is the room's host, and whether this node may
// put something of a class of it together for them.
func (n *Node) mayDownload(r *http.Request, what string, of residency.Class) (room.Record, residency.Permit, error) {
	g, name, err := n.bearer(r)
	if err != nil {
		return room.Record{}, residency.Permit{}, err
	}
	if !g.Video.RoomAdmin {
		return room.Record{}, residency.Permit{}, &Refusal{Code: CodeForbidden, Message: what + ": for the room's host alone: the token does not grant roomAdmin"}
	}
	rec, err := n.resolve(r.Context(), resolveRequest{Spec: room.Record{Name: name, Tenant: n.tenantOf(g.APIKey)}})
	if err != nil {
		return rec, residency.Permit{}, err
	}
	for _, class := range []residency.Class{of, residency.ClassExport} {
		q := keeping(rec, class)
		q.NoEvidence = n.noEvidenceOf(rec.Name)
		permit, v := n.tell(q)
		if !v.Allow {
			return rec, permit, n.atHome(rec, refused(v))
		}
		if class == residency.ClassExport {
			return rec, permit, nil
		}
	}
	return rec, residency.Permit{}, nil
}

// exportTable writes a table of a room to its host, by a permit to export it here: as
// JSON, or as a spreadsheet in which no cell is a formula.
func (n *Node) exportTable(p residency.Permit, w http.ResponseWriter, format, name string, v map[string]any, t sheet.Table, lack missing) error {
	if p.Class() != residency.ClassExport || p.Room() != name || !p.Allows(n.self().Name, n.gate().Epoch(), n.now()) {
		return fmt.Errorf("export: %w", errNoExport)
	}
	t = lack.mark(t)
	if len(lack) > 0 {
		v["missing"] = lack
		w.Header().Set("Domicile-Incomplete", lack.names())
	}
	switch format {
	case "", "json":
		w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(w).Encode(v)
	case "csv":
		w.Header().Set("Content-Type", exportTypes[format])
		return sheet.CSV(w, t)
	case "xlsx":
		w.Header().Set("Content-Type", exportTypes[format])
		return sheet.XLSX(w, t)
	}
	return &Refusal{Code: CodeInvalid, Message: fmt.Sprintf("format %q: want \"json\", \"csv\" or \"xlsx\"", format)}
}
