package front

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/pires/go-proxyproto"

	"github.com/domicile/domicile/node/front/admission"
)

const (
	// proxyFixed is the part of a PROXY header of version 2 before what its length counts.
	proxyFixed = 16
	// maxProxyHeader bounds that length, in bytes: 36 of addresses, and room for
	// what balancers like to add (names, a TLS certificate's).
	maxProxyHeader = 2048
)

var errProxyHeader = errors.New("no PROXY protocol header of version 2")

// trusted tells whether a header must stand in front of what this peer sends. It
// is asked of the socket's own address.
func (f *Front) trusted(c net.Conn) bool {
	if len(f.cfg.Proxies) == 0 {
		return false
	}
	peer := addrOf(c.RemoteAddr())
	for _, p := range f.cfg.Proxies {
		if p.Contains(peer) {
			return true
		}
	}
	return false
}

// named reads the header and charges the connection to the client that it names.
// A connection of the proxy's own (LOCAL: it looks whether we live) has no client
// and keeps the proxy's address.
func (f *Front) named(c *conn) bool {
	client, err := readProxyHeader(c.Conn)
	if err != nil {
		f.counts.outcomes[failProxy].Add(1)
		return false
	}
	if client == nil {
		return true
	}
	c.client = client
	if v := c.ticket.Name(admission.Source(addrOf(client)), f.cfg.Now()); v != admission.Admitted {
		f.counts.refused[v].Add(1)
		return false
	}
	return true
}

// readProxyHeader reads a header of version 2 and not one byte more. No address
// means that the proxy speaks for itself.
//
//	0                        12  13      14      16
//	| 0D0A0D0A000D0A515549540A | 2 cmd | family | length | addresses, TLVs … |
//
// Version 1 is refused: it is text of a length that is known only at its end, and
// whoever sends it can send this.
func readProxyHeader(r io.Reader) (net.Addr, error) {
	b := make([]byte, proxyFixed, proxyFixed+64)
	for n := 0; n < proxyFixed; { // what is no header is not waited for to the end
		m, err := r.Read(b[n:])
		n += m
		if sig := min(n, len(proxyproto.SIGV2)); !bytes.Equal(b[:sig], proxyproto.SIGV2[:sig]) {
			return nil, errProxyHeader
		}
		if err != nil {
			return nil, fmt.Errorf("read PROXY header: %w", err)
		}
	}
	length := int(binary.BigEndian.Uint16(b[14:]))
	if length > maxProxyHeader {
		return nil, fmt.Errorf("%w: %d bytes long, at most %d", errProxyHeader, length, maxProxyHeader)
	}
	b = append(b, make([]byte, length)...)
	if _, err := io.ReadFull(r, b[proxyFixed:]); err != nil {
		return nil, fmt.Errorf("read PROXY header: %w", err)
	}
	return parseProxyHeader(b)
}

func parseProxyHeader(b []byte) (net.Addr, error) {
	h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errProxyHeader, err)
	}
	if h.Command.IsLocal() {
		return nil, nil
	}
	tcp, ok := h.SourceAddr.(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%w: it names no TCP client", errProxyHeader)
	}
	return tcp, nil
}
