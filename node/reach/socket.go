package reach

import (
	"context"
	"net/http"
	"net/netip"

	"github.com/coder/websocket"
)

// ServeSocket answers a WebSocket by echoing, within the same limits as the
// other tests: some proxies let HTTPS through and cut what is upgraded. An
// error, a Denial, is returned before anything is written.
func (s *Server) ServeSocket(w http.ResponseWriter, r *http.Request, from netip.Addr) error {
	id, err := s.admit(from)
	if err != nil {
		return err
	}
	defer s.opening.Done()
	defer s.leave(id)
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, // that is: any origin
		CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // Accept has answered
	}
	defer ws.CloseNow() //nolint:errcheck // it may be closed already
	ws.SetReadLimit(MaxMessage)
	ctx, cancel := context.WithTimeout(s.ending, s.desk.limits.Life)
	defer cancel()
	echo(ctx, ws)
	return nil
}

// echo returns when the tester has gone, or wants too much.
func echo(ctx context.Context, ws *websocket.Conn) {
	for range maxEchoes {
		kind, payload, err := ws.Read(ctx)
		if err != nil {
			return
		}
		if err := ws.Write(ctx, kind, payload); err != nil {
			return
		}
	}
}
