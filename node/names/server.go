package names

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/netutil"
)

const (
	// maxStreams bounds the TCP connections at once. Resolvers come over TCP when
	// an answer was cut, which ours are only for networks that ask too much.
	maxStreams = 256
	idle       = 5 * time.Second // of a TCP connection

	// maxAtWork bounds the questions that are being answered at once; an answer
	// takes some microseconds, so more of them is a flood, and is dropped.
	maxAtWork = 1024
)

// Server answers for a zone on sockets that it is given.
type Server struct {
	zone    *Zone
	limits  *limits
	packets net.PacketConn
	streams net.Listener
	log     *slog.Logger
	atWork  atomic.Int64
	counts  [len(results)]atomic.Uint64
}

var results = [...]Result{Answered, NoData, NoName, Nobody, Refused, Broken, Limited, Ignored}

// NewServer returns a server; Run starts it.
func NewServer(z *Zone, packets net.PacketConn, streams net.Listener, log *slog.Logger) *Server {
	return &Server{zone: z, limits: newLimits(), packets: packets, streams: streams, log: log}
}

// Run answers until ctx ends, and closes the sockets.
func (s *Server) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	udp := &dns.Server{PacketConn: s.packets, Handler: dns.HandlerFunc(s.packet)}
	tcp := &dns.Server{Listener: netutil.LimitListener(s.streams, maxStreams), Handler: dns.HandlerFunc(s.stream),
		ReadTimeout: idle, WriteTimeout: idle, IdleTimeout: func() time.Duration { return idle }}
	errs := make(chan error)
	for _, srv := range []*dns.Server{udp, tcp} {
		go func() { errs <- activate(ctx, srv) }()
	}
	first := <-errs
	stop() // one transport alone would be half a server
	return errors.Join(first, <-errs)
}

// activate runs one server until ctx ends, which is no error.
func activate(ctx context.Context, srv *dns.Server) error {
	up, ended := make(chan struct{}), make(chan error, 1)
	srv.NotifyStartedFunc = func() { close(up) }
	go func() { ended <- srv.ActivateAndServe() }()
	select {
	case <-up: // one that has not started cannot be told to stop
	case err := <-ended:
		return err
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), idle)
	defer cancel()
	if err := srv.ShutdownContext(grace); err != nil {
		return err
	}
	<-ended
	return nil
}

// packet answers over UDP, where anybody can claim any address.
func (s *Server) packet(w dns.ResponseWriter, q *dns.Msg) {
	s.answer(w, q, func(from netip.Addr, a *dns.Msg) (*dns.Msg, bool) {
		if s.limits.allow(from, time.Now()) {
			size := dns.MinMsgSize
			if opt := q.IsEdns0(); opt != nil {
				size = min(max(size, int(opt.UDPSize())), maxUDP)
			}
			a.Truncate(size)
			return a, true
		}
		cut := new(dns.Msg).SetReply(q)
		cut.Truncated = true // who really is there comes over TCP
		return cut, false
	})
}

// stream answers over TCP.
func (s *Server) stream(w dns.ResponseWriter, q *dns.Msg) {
	s.answer(w, q, func(_ netip.Addr, a *dns.Msg) (*dns.Msg, bool) { return a, true })
}

func (s *Server) answer(w dns.ResponseWriter, q *dns.Msg, fit func(netip.Addr, *dns.Msg) (*dns.Msg, bool)) {
	defer s.atWork.Add(-1)
	if s.atWork.Add(1) > maxAtWork {
		s.count(Limited)
		return
	}
	from, err := netip.ParseAddrPort(w.RemoteAddr().String())
	if err != nil {
		s.count(Ignored)
		return
	}
	a, result := s.zone.Answer(q, from.Addr().Unmap().WithZone(""))
	if a == nil {
		s.count(result)
		return
	}
	a, whole := fit(from.Addr().Unmap(), a)
	if !whole {
		result = Limited
	}
	s.count(result)
	if err := w.WriteMsg(a); err != nil {
		s.log.Debug("an answer of DNS did not leave", "error", err)
	}
}

func (s *Server) count(r Result) {
	for i, known := range results {
		if known == r {
			s.counts[i].Add(1)
		}
	}
}

// Counts returns the questions since the start by what became of them.
func (s *Server) Counts() map[Result]uint64 {
	m := make(map[Result]uint64, len(results))
	for i, r := range results {
		m[r] = s.counts[i].Load()
	}
	return m
}
