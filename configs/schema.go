package configs

import (
	"embed"
	"fmt"
)

// The JSON Schemas of the files, for editors. They are made from the same
// structs that the reader fills: go test ./configs -run TestSchemasAreCurrent -update
//
//go:embed schema/*.json
var schemas embed.FS

// Schema returns the JSON Schema (draft 2020-12) of "policy", "node" or "routing". It knows
// keys, types and words; what values mean together only ParsePolicy, LoadNode and ParseRouting know.
func Schema(file string) ([]byte, error) {
	b, err := schemas.ReadFile("schema/" + file + ".json")
	if err != nil {
		return nil, fmt.Errorf("schema of %q: there are those of \"node\", \"policy\" and \"routing\"", file)
	}
	return b, nil
}
