package transport

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
)

// takeGroup makes a group of sockets that somebody else has bound to one address.
func takeGroup(conns []*net.UDPConn) (*group, error) {
	g := &group{}
	for i, conn := range conns {
		addr := (&socket{conn: conn}).addr()
		if i > 0 && addr != g.addr {
			return nil, errors.Join(fmt.Errorf("take media sockets: %q and %q are two addresses", g.addr, addr), g.close(), conn.Close())
		}
		s, err := useSocket(conn, addr)
		if err != nil {
			return nil, errors.Join(err, g.close())
		}
		g.addr = addr
		g.socks = append(g.socks, s)
	}
	if canSteer {
		// Whoever bound them may not have shared the port; then all sockets get reports.
		_ = g.separate(&net.ListenConfig{Control: sharePort})
	}
	return g, nil
}

// Files are duplicates of the sockets of the first address, for a process that is to
// go on with them (Config.Sockets). They are the caller's.
func (e *Engine) Files() ([]*os.File, error) {
	var files []*os.File
	for _, s := range e.groups[0].socks {
		f, err := s.conn.File()
		if err != nil {
			for f := range slices.Values(files) {
				f.Close()
			}
			return nil, fmt.Errorf("hand media sockets over: %w", err)
		}
		files = append(files, f)
	}
	return files, nil
}
