package configs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/identity"
)

// SignatureSuffix is what the name of a policy's signature has more than the policy's.
const SignatureSuffix = ".sig"

// policyFile is policy.yaml.
type policyFile struct {
	// Epoch numbers the version, from 1. Every change raises it; nodes of
	// different epochs do not relay rooms to each other until they agree.
	Epoch uint64 `yaml:"epoch,required"`
	// Issued says when the version was made; for people.
	Issued time.Time `yaml:"issued"`
	// Expires is when the bundle stops allowing anything. Without it, it never does.
	Expires time.Time `yaml:"expires"`
	// Default is the policy of rooms and tenants that name none.
	Default string `yaml:"default,required"`
	// Zones are sets of countries with a name, beside the built-in ones.
	Zones map[string]zoneFile `yaml:"zones"`
	// Policies say where each class of a room's data may go.
	Policies map[string]policyEntry `yaml:"policies,required"`
	// Nodes is the register of the mesh. With it, no other node takes part.
	Nodes []nodeEntry `yaml:"nodes" empty:"leave the key out to have no register"`
	// Revoked are serial numbers of certificates that count no longer.
	Revoked []serialNumber `yaml:"revoked"`
}

// zoneFile is a zone: countries, or anywhere, and who may run a node there.
type zoneFile struct {
	Countries               []countrySet `yaml:"countries" empty:"write 'anywhere: true' if every country is meant"`
	Anywhere                bool         `yaml:"anywhere"`
	OperatorCountries       []countrySet `yaml:"operator_countries" empty:"leave the key out to have any operator"`
	ParentCountries         []countrySet `yaml:"parent_countries" empty:"leave the key out to have any parent"`
	ExcludedParentCountries []countrySet `yaml:"excluded_parent_countries" empty:"leave the key out to exclude none"`
	Operators               []string     `yaml:"operators" empty:"leave the key out to have any operator"`
}

// policyEntry is a policy. The class "all" stands for every class that is not named.
type policyEntry struct {
	Title       string            `yaml:"title,required"` // one line, shown to attendees
	Description string            `yaml:"description"`
	Source      string            `yaml:"source"` // the platform arrangement it models
	Classes     map[string]string `yaml:"classes,required"`
	EdgeOutside edgeRule          `yaml:"edge_outside"` // never, or only-for-local-participants
	Recording   recordingEntry    `yaml:"recording"`    // not allowed by default
	ChatLog     bool              `yaml:"chat_log"`     // whether chat may be stored
}

type recordingEntry struct {
	Allowed bool `yaml:"allowed,required"`
	Notice  bool `yaml:"notice"`  // attendees are shown that it records
	Consent bool `yaml:"consent"` // nobody is recorded before agreeing
}

type nodeEntry struct {
	Name    residency.NodeName `yaml:"name,required"`
	Country country            `yaml:"country,required"`
}

// edgeRule says whether an edge outside the zones may carry live classes.
type edgeRule bool

const (
	edgeNever = "never"
	edgeLocal = "only-for-local-participants"
)

func (r *edgeRule) readScalar(s scalar) *Fault {
	if s.text != edgeNever && s.text != edgeLocal {
		return &Fault{Message: "unknown rule", Allowed: edgeNever + ", " + edgeLocal}
	}
	*r = s.text == edgeLocal
	return nil
}

// serialNumber is a certificate's serial number in the form identity.Parse gives.
type serialNumber string

var hexadecimal = regexp.MustCompile(`^[0-9A-Fa-f]+$`)

func (n *serialNumber) readScalar(s scalar) *Fault {
	digits := strings.ReplaceAll(s.text, ":", "")
	number, ok := new(big.Int).SetString(digits, 16)
	if !ok || !hexadecimal.MatchString(digits) || len(digits) > 40 {
		return &Fault{Message: "not a serial number", Allowed: "up to 40 hexadecimal digits, in quotes"}
	}
	*n = serialNumber(number.Text(16))
	return nil
}

// LoadPolicy reads a policy file. It does not look at its signature. An error
// about the file is of type Faults.
func LoadPolicy(path string) (*residency.Bundle, error) {
	b, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	return ParsePolicy(path, b)
}

// LoadSignedPolicy reads a policy file after one of the authorities is found to
// have signed it, in the file beside it.
func LoadSignedPolicy(path string, cas ...*x509.Certificate) (*residency.Bundle, error) {
	b, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	sig, err := readConfig(path + SignatureSuffix)
	if err != nil {
		return nil, err
	}
	if err := identity.VerifySignature(b, sig, cas...); err != nil {
		return nil, Faults{{File: path, Message: err.Error(), Hint: "sign the file again after every change: domicile policy sign"}}
	}
	return ParsePolicy(path, b)
}

// readConfig reads a file whole; what is wrong with it is a fault like others.
func readConfig(path string) ([]byte, error) {
	b, err := readFile(path)
	var faults Faults
	switch {
	case err == nil:
		return b, nil
	case errors.As(err, &faults):
		return nil, faults
	case errors.Is(err, fs.ErrNotExist):
		return nil, Faults{{File: path, Message: "there is no such file"}}
	case errors.Is(err, os.ErrPermission):
		return nil, Faults{{File: path, Message: "the file may not be read by this user"}}
	}
	return nil, Faults{{File: path, Message: err.Error()}}
}

// ParsePolicy reads the text of a policy file; name stands in errors, which are
// of type Faults.
func ParsePolicy(name string, b []byte) (*residency.Bundle, error) {
	d, root := parse(name, b)
	if root == nil {
		return nil, d.faults.sorted()
	}
	var f policyFile
	d.read(root, &f)
	bundle := d.bundle(&f)
	if err := d.faults.sorted(); err != nil {
		return nil, err
	}
	return bundle, nil
}

// bundle makes the value that a policy file stands for and reports what it
// cannot stand for.
func (d *document) bundle(f *policyFile) *residency.Bundle {
	b := &residency.Bundle{
		Epoch: residency.Epoch(f.Epoch), Issued: f.Issued, Expires: f.Expires,
		Default: f.Default, Policies: map[string]*residency.Policy{},
	}
	if f.Epoch == 0 && d.has("epoch") {
		d.fault("epoch", Fault{Message: "epochs count from 1", Allowed: "1 or more"})
	}
	if !f.Expires.IsZero() && !f.Issued.IsZero() && !f.Issued.Before(f.Expires) {
		d.faultf("expires", "the bundle expires before it is issued")
	}
	zones := d.zones(f)
	for name, entry := range f.Policies {
		b.Policies[name] = d.policy(name, entry, zones)
	}
	if d.has("policies") && len(f.Policies) == 0 {
		d.faultf("policies", "there is no policy")
	}
	if _, ok := f.Policies[f.Default]; !ok && d.has("default") && len(f.Policies) > 0 {
		d.fault("default", Fault{Message: "unknown policy", Allowed: sortedKeys(f.Policies)})
	}
	b.Nodes = d.register(f)
	for _, serial := range f.Revoked {
		b.Revoked = append(b.Revoked, string(serial))
	}
	return b
}

// zones returns the zones that policies may name: the file's and the built-in ones.
func (d *document) zones(f *policyFile) map[string]residency.Zone {
	zones := map[string]residency.Zone{}
	for _, name := range residency.NamedZones() {
		members, _ := residency.NamedZone(name)
		zones[name] = residency.Zone{Name: name, Countries: members}
	}
	for name, z := range f.Zones {
		zone := z.zone(name)
		d.checkZone(join("zones", name), zone, z)
		zones[name] = zone
	}
	return zones
}

func (z zoneFile) zone(name string) residency.Zone {
	return residency.Zone{
		Name: name, Countries: flatten(z.Countries), Anywhere: z.Anywhere,
		OperatorCountries:       flatten(z.OperatorCountries),
		ParentCountries:         flatten(z.ParentCountries),
		ExcludedParentCountries: flatten(z.ExcludedParentCountries),
		Operators:               z.Operators,
	}
}

func (d *document) checkZone(path string, zone residency.Zone, z zoneFile) {
	members, builtin := residency.NamedZone(strings.ToUpper(zone.Name))
	switch {
	case builtin && !slices.Equal(members, zone.Countries):
		d.faultKey(path, Fault{Message: "the zone has other countries than the built-in " + strings.ToUpper(zone.Name), Hint: "give it another name"})
	case !builtin && !validName(zone.Name):
		d.faultKey(path, Fault{Message: "not a zone's name", Allowed: nameForm})
	}
	switch {
	case z.Anywhere && d.has(join(path, "countries")):
		d.faultf(join(path, "anywhere"), "a zone has countries or is anywhere, not both")
	case !z.Anywhere && !d.has(join(path, "countries")):
		d.fault(path, Fault{Message: "the zone has no countries", Hint: "write 'countries: [DE, …]', or 'anywhere: true' if every country is meant"})
	}
	for _, c := range zone.ExcludedParentCountries {
		if slices.Contains(zone.ParentCountries, c) {
			d.faultf(join(path, "excluded_parent_countries"), "%s is asked for by parent_countries and excluded here", c)
		}
	}
	for i, operator := range zone.Operators {
		if strings.TrimSpace(operator) == "" {
			d.faultf(join(join(path, "operators"), strconv.Itoa(i)), "an operator without a name")
		}
	}
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
		EdgeOutside: bool(e.EdgeOutside), ChatLog: e.ChatLog,
		Recording: residency.RecordingRule{Allowed: e.Recording.Allowed, Notice: e.Recording.Notice, Consent: e.Recording.Consent},
	}
	if p.Recording.Consent && !p.Recording.Notice {
		d.fault(join(path, "recording.consent"), Fault{Message: "nobody can agree to what they are not told", Hint: "set notice: true too"})
	}
	if p.EdgeOutside && p.Zone(residency.ClassMedia).Anywhere {
		d.faultf(join(path, "edge_outside"), "nothing is outside the zone %q of media", p.Zone(residency.ClassMedia).Name)
	}
	return p
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

func (d *document) register(f *policyFile) (nodes []residency.Registered) {
	first := map[residency.NodeName]place{}
	for i, n := range f.Nodes {
		path := join(join("nodes", strconv.Itoa(i)), "name")
		if !d.has(path) {
			continue
		}
		if _, err := residency.ParseNodeName(string(n.Name)); err != nil {
			d.fault(path, Fault{Message: "not a node name", Allowed: nameForm})
		}
		if before, ok := first[n.Name]; ok {
			d.faultf(path, "two nodes of one name, the first in line %d", before.line)
		} else {
			first[n.Name] = d.places[path]
		}
		nodes = append(nodes, residency.Registered{Name: n.Name, Country: residency.Country(n.Country)})
	}
	return nodes
}

// nameForm is what validName accepts, in words.
var nameForm = fmt.Sprintf("1 to %d of a-z, 0-9 and inner hyphens", residency.MaxNodeName)

// validName holds for names of zones and policies what holds for nodes: they
// stand in URLs, logs and metrics.
func validName(s string) bool {
	_, err := residency.ParseNodeName(s)
	return err == nil
}

func sortedKeys[V any](m map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}
