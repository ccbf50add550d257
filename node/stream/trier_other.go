//go:build !linux

package stream

import "net"

// tune leaves connections as they are elsewhere.
func tune(net.Conn) {}

// trier takes nothing at once: everything is written by drain.
type trier struct{}

func newTrier(net.Conn) *trier { return nil }

func (t *trier) write([]byte) (int, error) { return 0, nil }

// looker finds nothing: what is there is read one by one.
type looker struct{}

func newLooker(net.Conn) *looker { return nil }

func (l *looker) read([]byte) (int, error) { return 0, errNothing }
