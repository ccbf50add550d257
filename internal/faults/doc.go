// Package faults plants faults in the code that decides where bytes may go, and
// tests that the harness for leaks (TestNoLeak in router, node/room and relay) finds each
// of them: a test that cannot fail proves nothing.
//
// A fault is a line of the production code and what stands there instead. All of
// them are laid over the sources at once (go build -overlay), each behind a switch
// that one run of the compiled harness turns; with none turned it has to pass. The
// sources themselves are never touched, and no program can be built so by accident.
package faults
