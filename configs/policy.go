package configs

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"reflect"
	"regexp"
	"slices"
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
	Issued moment `yaml:"issued"`
	// Expires is when the bundle stops allowing anything. Without it, it never does.
	Expires moment `yaml:"expires"`
	// Default is the policy of rooms that name none and belong to no tenant.
	Default string `yaml:"default,required"`
	// Zones are sets of countries with a name, beside the built-in ones.
	Zones map[string]zoneFile `yaml:"zones"`
	// Policies say where each class of a room's data may go.
	Policies map[string]policyEntry `yaml:"policies,required"`
	// Nodes is the register of the mesh. With it, no other node takes part.
	Nodes []nodeEntry `yaml:"nodes" empty:"leave the key out to have no register"`
	// Tenants are the platform's customers, whose API keys name them.
	Tenants map[string]tenantEntry `yaml:"tenants"`
	// Overrides believe nodes although something contradicts where they say they are.
	Overrides []overrideEntry `yaml:"overrides"`
	// Revoked are serial numbers of certificates that count no longer.
	Revoked []serialNumber `yaml:"revoked"`
}

// serialNumber is a certificate's serial number in the form identity.Parse gives.
type serialNumber string

var hexadecimal = regexp.MustCompile(`^[0-9A-Fa-f]+$`)

func (n *serialNumber) readScalar(s scalar) *Fault {
	serial, err := ParseSerial(s.text)
	if err != nil {
		return &Fault{Message: "not a serial number", Allowed: "up to 40 hexadecimal digits, in quotes"}
	}
	*n = serialNumber(serial)
	return nil
}

// ParseSerial reads a certificate's serial number as people write it, and returns
// the form in which policies revoke it.
func ParseSerial(text string) (string, error) {
	digits := strings.ReplaceAll(text, ":", "")
	number, ok := new(big.Int).SetString(digits, 16)
	if !ok || !hexadecimal.MatchString(digits) || len(digits) > 40 {
		return "", fmt.Errorf("serial number %q: want up to 40 hexadecimal digits", text)
	}
	return number.Text(16), nil
}

// moment is a time, or the day that begins then.
type moment time.Time

func (m moment) time() time.Time { return time.Time(m) }

func (m *moment) readScalar(s scalar) *Fault {
	t, err := time.Parse(time.RFC3339, s.text)
	if err != nil {
		t, err = time.Parse(time.DateOnly, s.text)
	}
	// The zero time would mean "no end" where an end was written.
	if t = t.UTC(); err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return &Fault{Message: "cannot be read", Allowed: allowedFor(reflect.TypeFor[moment]())}
	}
	*m = moment(t)
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
		Epoch: residency.Epoch(f.Epoch), Issued: f.Issued.time(), Expires: f.Expires.time(),
		Default: f.Default, Policies: map[string]*residency.Policy{},
	}
	if f.Epoch == 0 && d.has("epoch") {
		d.fault("epoch", Fault{Message: "epochs count from 1", Allowed: "1 or more"})
	}
	if !b.Expires.IsZero() && !b.Issued.IsZero() && !b.Issued.Before(b.Expires) {
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
	b.Tenants = d.tenants(f)
	d.overrides(f, b)
	if len(d.faults) == 0 {
		d.enoughOrigins(b) // what is half read would be counted wrongly
	}
	for _, serial := range f.Revoked {
		b.Revoked = append(b.Revoked, string(serial))
	}
	return b
}

// nameForm is what validName accepts, in words.
var nameForm = fmt.Sprintf("1 to %d of a-z, 0-9 and inner hyphens", residency.MaxNodeName)

// validName holds for names of zones and policies what holds for nodes: they
// stand in URLs, logs and metrics.
func validName(s string) bool {
	_, err := residency.ParseNodeName(s)
	return err == nil
}

// maxKeys bounds how many names a fault lists.
const maxKeys = 30

func sortedKeys[V any](m map[string]V) string {
	keys := slices.Sorted(maps.Keys(m))
	if len(keys) == 0 {
		return "none, there is no such entry"
	}
	if len(keys) > maxKeys {
		keys = append(keys[:maxKeys], "…")
	}
	return strings.Join(keys, ", ")
}
