// Package e2e holds the tests that run the whole product: real processes of
// bin/domicile, real headless Chromiums, network namespaces, packet captures,
// ffprobe. It has no code of its own beside them.
package e2e
