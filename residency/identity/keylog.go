//go:build keylog

package identity

import (
	"fmt"
	"io"
	"os"
)

// keyLog gives the secrets of links away, for tests alone: to the file that
// SSLKEYLOGFILE names, which nodes may share. Commands have no links.
var keyLog = func() io.Writer {
	if os.Getenv("SSLKEYLOGFILE") == "" {
		return nil
	}
	println("WARNING: built with the tag keylog: links are NOT private; for tests alone")
	f, err := os.OpenFile(os.Getenv("SSLKEYLOGFILE"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(fmt.Sprintf("identity: key log: %v", err))
	}
	return f
}()
