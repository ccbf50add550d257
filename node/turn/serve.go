package turn

import (
	"time"

	"github.com/domicile/domicile/node/transport"
	"github.com/domicile/domicile/node/turn/alloc"
)

// STUN takes what reached a media socket and is no connectivity check
// (transport.Door). It is called by the socket's worker: for strangers it takes
// no lock, and for Send indications only one that readers share.
func (s *Server) STUN(w *transport.Worker, from transport.Tuple, b []byte) {
	x := s.exchanges.Get().(*alloc.Exchange)
	defer s.exchanges.Put(x)
	flow := alloc.Flow{Client: from.AddrPort(), Server: from.Local()}
	if t, payload := s.take(x, flow, b, via{tuple: from}); t != nil {
		t.Deliver(w, payload)
	}
	if x.Reply != nil {
		w.Reply(from, x.Reply)
	}
}

// take decides about a message. Of a Send indication that is allowed it returns
// the payload, which lies in x, and where that goes; what is to be answered is in
// x.Reply.
func (s *Server) take(x *alloc.Exchange, flow alloc.Flow, b []byte, from via) (to *transport.Tunnel, payload []byte) {
	now := s.cfg.Now()
	verdict, why := s.guard.Read(x, now, flow, b)
	switch verdict {
	case alloc.Request:
		why = s.answer(x, now, from)
	case alloc.Data:
		if to, payload, why = s.indicated(x); why == alloc.Granted {
			return to, payload // counted by the tunnel
		}
	}
	s.counts[why].Add(1)
	return nil, nil
}

// answer lets the table decide about a request, and does what follows.
func (s *Server) answer(x *alloc.Exchange, now time.Time, from via) alloc.Reason {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return alloc.NodeFull
	}
	why, events := s.table.Answer(x, now)
	ended := s.follow(events, from)
	s.mu.Unlock()
	s.shut(ended)
	if why == alloc.Expired || why == alloc.Revoked {
		return s.guard.Refuse(x, now, why)
	}
	return why
}

// indicated finds where a Send indication goes. The first to an endpoint opens
// its tunnel.
func (s *Server) indicated(x *alloc.Exchange) (*transport.Tunnel, []byte, alloc.Reason) {
	s.mu.RLock()
	a, peer, payload, why := s.table.Permits(x)
	if why != alloc.Granted {
		s.mu.RUnlock()
		return nil, nil, why
	}
	r, ok := s.carriers[a].to(peer)
	s.mu.RUnlock()
	if ok {
		return r.tunnel, payload, alloc.Granted
	}
	return s.firstTo(x)
}

func (s *Server) firstTo(x *alloc.Exchange) (*transport.Tunnel, []byte, alloc.Reason) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, peer, payload, why := s.table.Permits(x) // once more: the lock was given up
	if why != alloc.Granted {
		return nil, nil, why
	}
	if r, ok := s.carriers[a].to(peer); ok {
		return r.tunnel, payload, alloc.Granted
	}
	return s.route(s.carriers[a], peer, 0), payload, alloc.Granted
}
