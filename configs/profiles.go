package configs

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// The profiles are policy files that load as they are. Each has a policy that is
// named like the file, and whatever else the arrangement needs. FormatPolicy puts
// several into one bundle to sign: a policy file includes nothing, so that its
// signature covers all it says.
//
//go:embed profiles/*.yaml
var profiles embed.FS

// Profiles lists the names of the built-in policy profiles in order.
func Profiles() []string {
	entries, err := fs.ReadDir(profiles, "profiles")
	if err != nil {
		panic(fmt.Sprintf("configs: %v", err)) // compiled in
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".yaml")
	}
	slices.Sort(names)
	return names
}

// Profile returns the policy of a built-in profile.
func Profile(name string) (*residency.Policy, error) {
	bundle, err := ProfileBundle(name)
	if err != nil {
		return nil, err
	}
	return bundle.Policy(name)
}

// ProfileBundle returns a built-in profile whole: the policy of its name, and the
// tenants, nodes and other policies that belong to the arrangement.
func ProfileBundle(name string) (*residency.Bundle, error) {
	if !slices.Contains(Profiles(), name) {
		return nil, fmt.Errorf("profile %q: unknown; there are %s", name, strings.Join(Profiles(), ", "))
	}
	file := "profiles/" + name + ".yaml"
	b, err := profiles.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("profile %q: %w", name, err)
	}
	bundle, err := ParsePolicy(file, b)
	if err != nil {
		return nil, fmt.Errorf("profile %q: %w", name, err)
	}
	return bundle, nil
}
