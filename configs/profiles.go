package configs

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/domicile/domicile/residency"
)

// The profiles are policy files that load as they are, one policy each, named
// like the file. FormatPolicy puts several into one bundle to sign: a policy
// file includes nothing, so that its signature covers all it says.
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

// Profile returns a built-in policy profile.
func Profile(name string) (*residency.Policy, error) {
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
	return bundle.Policy(name)
}
