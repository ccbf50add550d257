// Package lint holds the architecture of the repository as tests: which package
// may import which, which packages are pure, how long a file may be, what may
// not be committed. A failure says which rule was broken and why the rule is
// there. The package has no code beside its tests.
package lint
