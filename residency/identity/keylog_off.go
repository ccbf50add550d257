//go:build !keylog

package identity

import "io"

// keyLog is where the secrets of links are written: nowhere, but in binaries that
// tests build with the tag keylog, to open what they capture between nodes.
var keyLog io.Writer
