package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/domicile/domicile/bench/netlab"
	"github.com/domicile/domicile/bench/wiretap"
)

// canaryBegins is what all canaries begin with; they are 16 bytes long.
const canaryBegins = "cNrY"

// Ports of the nodes of a field.
const fieldRelay, fieldGossip, fieldAttendees, fieldMark = 7900, 7946, 443, 9

// carrier is between whom something passed.
type carrier uint8

const (
	byRelay carrier = iota // nodes, over a link
	byGossip
	byMedia // a node and an attendee: media, bare or within TURN
	byText  // a node and an attendee: HTTP and signalling
	carriers
)

func (w carrier) String() string { return [...]string{"relay", "gossip", "media", "HTTP"}[w] }

// tap is a capture at the interface of each node that goes on while a test looks at
// what it has seen: the canaries in all that comes to a node and leaves it.
type tap struct {
	t    testing.TB
	ears []*ear

	mu     sync.Mutex // guards the rest
	seen   map[string]map[string]sighting
	counts [carriers]struct{ opened, closed int }
	odd    []string // what a node said that nobody should say
	heard  map[string]int
	marks  int
	also   map[string]string // further forms to look for, and what they stand for
}

// ear is the capture of one node. Its goroutine owns it.
type ear struct {
	tap     *tap
	node    string
	capture *netlab.Capture
	at      netip.Addr
	host    netip.Addr // where attendees are
	peers   map[netip.Addr]bool

	logs  [2]*os.File // of the secrets of links, of attendees
	quic  *wiretap.QUIC
	media *wiretap.Media
	tcp   *wiretap.Streams
	key   []byte              // of gossip
	parts map[[10]byte][]byte // of IP packets that came in several fragments
}

// passage is something with a canary that passed a node's interface.
type passage struct {
	at  time.Time
	by  carrier
	out bool // the node sent it
}

// sighting is what was seen of a canary at a node.
type sighting struct {
	packets  int
	first    time.Time
	last     time.Time
	from, to netip.AddrPort // of the first
	passed   []passage
}

// logs are the files of secrets that nodes, and attendees, give away.
type logs struct{ links, attendees string }

func (l logs) open() (files [2]*os.File, err error) {
	for i, path := range []string{l.links, l.attendees} {
		if files[i], err = os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600); err != nil {
			return files, err
		}
	}
	return files, nil
}

// startTap returns when all nodes are listened to. Nothing has to run in the
// namespaces yet.
func startTap(t testing.TB, net *netlab.Switch, names []string, secrets logs, gossip []byte) *tap {
	t.Helper()
	c := &tap{t: t, seen: map[string]map[string]sighting{}, heard: map[string]int{}}
	peers := map[netip.Addr]bool{}
	for _, l := range net.Ports {
		peers[l.Inside] = true
	}
	var running sync.WaitGroup
	for i, name := range names {
		capture, err := net.Ports[i].Capture()
		if err != nil {
			t.Fatal(err)
		}
		files, err := secrets.open()
		if err != nil {
			t.Fatal(err)
		}
		e := &ear{tap: c, node: name, capture: capture, at: net.Ports[i].Inside, host: net.Host, peers: peers, logs: files,
			parts: map[[10]byte][]byte{}, quic: wiretap.NewQUIC(), media: wiretap.NewMedia(), tcp: wiretap.NewStreams(gossip), key: gossip}
		c.ears = append(c.ears, e)
		running.Go(e.listen)
	}
	t.Cleanup(func() {
		for _, e := range c.ears {
			e.capture.Close()
		}
		running.Wait()
		for _, e := range c.ears {
			e.logs[0].Close()
			e.logs[1].Close()
		}
	})
	return c
}

func (e *ear) listen() {
	b := make([]byte, 65536)
	for {
		n, at, out, err := e.capture.Next(b)
		if err != nil {
			return // it was closed
		}
		const ethernet = 14
		if n > ethernet && binary.BigEndian.Uint16(b[12:]) != 0x0806 { // ARP names no more than addresses
			e.hear(b[ethernet:n], at, out)
		}
	}
}

// whole puts the fragments of an IPv4 packet together (RFC 791), which come one after
// the other on a wire that is one hop long; nil: there is more to come.
func (e *ear) whole(ip []byte) []byte {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return ip
	}
	size, head, field := int(binary.BigEndian.Uint16(ip[2:])), int(ip[0]&15)*4, binary.BigEndian.Uint16(ip[6:])
	more, offset := field&0x2000 != 0, int(field&0x1fff)*8
	if !more && offset == 0 || size > len(ip) || head > size {
		return ip
	}
	key := [10]byte(append(bytes.Clone(ip[12:20]), ip[4:6]...)) // from, to, number
	if offset == 0 {
		e.parts[key] = bytes.Clone(ip[:size])
		return nil
	}
	all := e.parts[key]
	if len(all) != headerOf(all)+offset || len(all) == 0 {
		delete(e.parts, key)
		return ip[:0] // a part is missing, or they came in another order: nobody can read it
	}
	all = append(all, ip[head:size]...)
	if e.parts[key] = all; more {
		return nil
	}
	delete(e.parts, key)
	binary.BigEndian.PutUint16(all[2:], uint16(min(len(all), 1<<16-1)))
	return all
}

// headerOf is the length of an IPv4 packet's header.
func headerOf(ip []byte) int {
	if len(ip) == 0 {
		return 0
	}
	return int(ip[0]&15) * 4
}

// hear takes an IP packet.
func (e *ear) hear(ip []byte, at time.Time, out bool) {
	if ip = e.whole(ip); ip == nil {
		return
	}
	if len(ip) == 0 {
		e.found(nil, false, packet{}, passage{at: at, out: out}, byMedia)
		return
	}
	p, ok := parseIP(ip)
	if !ok || p.protocol != 6 && p.protocol != 17 {
		return // the kernel's own: ICMP, groups
	}
	if p.dst.Port() == fieldMark {
		e.mark(p.payload)
		return
	}
	e.learn()
	far, port := p.src, p.dst.Port()
	if out {
		far = p.dst
	}
	if !e.peers[far.Addr()] && far.Addr() != e.host {
		if out { // who is nobody may knock, and gets no answer
			e.oddly(fmt.Sprintf("%s to %s, protocol %d", p.src, p.dst, p.protocol))
		}
		return
	}
	if nearPort := p.src.Port(); out && e.host == far.Addr() {
		port = nearPort
	}
	const tcp = 6
	g := passage{at: at, out: out}
	switch {
	case p.protocol == tcp:
		e.stream(ip, p, g, far.Addr() == e.host)
	case far.Addr() == e.host && port == fieldAttendees:
		plain, ok := e.media.Open(p.src, p.dst, p.payload)
		e.found(plain, ok, p, g, byMedia)
	case p.dst.Port() == fieldRelay:
		plain, ok := e.quic.Open(p.src, p.dst, p.payload)
		handshake := len(p.payload) > 0 && p.payload[0]&0x80 != 0
		e.found(plain, ok || handshake, p, g, byRelay)
	case p.dst.Port() == fieldGossip:
		plain, ok := wiretap.Gossip(e.key, p.payload)
		e.found(plain, ok, p, g, byGossip)
	default:
		e.oddly(fmt.Sprintf("%s to %s, protocol %d", p.src, p.dst, p.protocol))
	}
}

// stream takes a TCP segment. Between nodes only gossip has streams.
func (e *ear) stream(ip []byte, p packet, g passage, attendee bool) {
	s, ok := wiretap.ParseSegment(p.src, p.dst, ip[int(ip[0]&15)*4:min(len(ip), int(binary.BigEndian.Uint16(ip[2:])))])
	gossip := p.dst.Port() == fieldGossip || p.src.Port() == fieldGossip
	if !ok || !gossip && !attendee {
		e.oddly(fmt.Sprintf("%s to %s, TCP", p.src, p.dst))
		return
	}
	by := byText
	if gossip {
		by = byGossip
	}
	closed := e.tcp.Closed
	e.tcp.Take(s, func(plain []byte, message bool) {
		if message {
			inside, ok := e.media.Open(p.src, p.dst, plain)
			e.found(inside, ok, p, g, byMedia)
			return
		}
		e.found(plain, true, p, g, by)
	})
	for range e.tcp.Closed - closed {
		e.found(nil, false, p, g, by)
	}
}

// learn reads what is new in the files of secrets. They are written before anything is
// sent that they seal.
func (e *ear) learn() {
	if b := more(e.logs[0]); len(b) > 0 {
		e.quic.Learn(b)
	}
	if b := more(e.logs[1]); len(b) > 0 {
		e.media.Learn(b)
		e.tcp.Learn(b)
	}
}

// more reads the whole lines that a file has grown by.
func more(f *os.File) []byte {
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Size() <= at {
		return nil
	}
	b, _ := io.ReadAll(f)
	cut := bytes.LastIndexByte(b, '\n') + 1
	f.Seek(int64(cut-len(b)), io.SeekCurrent)
	return b[:cut]
}

// found counts a packet and keeps the canaries in it.
func (e *ear) found(plain []byte, ok bool, p packet, g passage, by carrier) {
	c := e.tap
	c.mu.Lock()
	defer c.mu.Unlock()
	if !ok {
		c.counts[by].closed++
		return
	}
	c.counts[by].opened++
	g.by = by
	for form, word := range c.also {
		if bytes.Contains(plain, []byte(form)) {
			c.saw(word, e.node, p, g)
		}
	}
	for {
		i := bytes.Index(plain, []byte(canaryBegins))
		if i < 0 || len(plain) < i+16 {
			return
		}
		c.saw(string(plain[i:i+16]), e.node, p, g)
		plain = plain[i+16:]
	}
}

// saw keeps a sighting; c.mu is held.
func (c *tap) saw(canary, node string, p packet, g passage) {
	if c.seen[canary] == nil {
		c.seen[canary] = map[string]sighting{}
	}
	s := c.seen[canary][node]
	if s.packets++; s.packets == 1 {
		s.first, s.from, s.to = g.at, p.src, p.dst
	}
	s.last, s.passed = g.at, append(s.passed, g)
	c.seen[canary][node] = s
}

// watch looks for a word that is no canary, too, and for words in the forms that JSON
// gives to bytes.
func (c *tap) watch(words ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.also == nil {
		c.also = map[string]string{}
	}
	for _, w := range words {
		for _, form := range forms(w)[1:] {
			c.also[form] = w
		}
		if !strings.HasPrefix(w, canaryBegins) {
			c.also[w] = w
		}
	}
}

func (e *ear) oddly(what string) {
	e.tap.mu.Lock()
	defer e.tap.mu.Unlock()
	if len(e.tap.odd) < 20 {
		e.tap.odd = append(e.tap.odd, e.node+": "+what)
	}
}

func (e *ear) mark(b []byte) {
	e.tap.mu.Lock()
	defer e.tap.mu.Unlock()
	var n int
	if _, err := fmt.Sscanf(string(b), "mark %d", &n); err == nil {
		e.tap.heard[e.node] = n
	}
}

// settle waits until every capture has come to what happens now: a mark is sent to
// each node, and seen.
func (c *tap) settle() {
	c.t.Helper()
	c.mu.Lock()
	c.marks++
	n := c.marks
	c.mu.Unlock()
	for _, e := range c.ears {
		conn, err := net.Dial("udp4", netip.AddrPortFrom(e.at, fieldMark).String())
		if err != nil {
			c.t.Fatal(err)
		}
		fmt.Fprintf(conn, "mark %d", n)
		conn.Close()
	}
	eventually(c.t, fmt.Sprintf("the captures at all nodes go on: mark %d", n), 10*time.Second, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return !slices.ContainsFunc(c.ears, func(e *ear) bool { return c.heard[e.node] < n })
	})
}

// sightings returns where a canary was seen up to now, by node.
func (c *tap) sightings(canary string) map[string]sighting {
	c.t.Helper()
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	list := map[string]sighting{}
	for n, s := range c.seen[canary] {
		list[n] = s
	}
	return list
}

// take lists what passed each node with a canary, and forgets it. Who takes has
// settled before.
func (c *tap) take(canary string) map[string][]passage {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := map[string][]passage{}
	for n, s := range c.seen[canary] {
		list[n] = s.passed
	}
	delete(c.seen, canary)
	return list
}

// missed is what the captures could not keep and nobody could open, so far.
type missed struct {
	lost   uint64
	closed [carriers]int
	opened [carriers]int
}

func (c *tap) missed() (m missed) {
	c.t.Helper()
	for _, e := range c.ears {
		n, err := e.capture.Lost()
		if err != nil {
			c.t.Fatal(err)
		}
		m.lost += n
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for w, n := range c.counts {
		m.closed[w], m.opened[w] = n.closed, n.opened
	}
	return m
}

func (m missed) since(before missed) missed {
	m.lost -= before.lost
	for w := range m.closed {
		m.closed[w], m.opened[w] = m.closed[w]-before.closed[w], m.opened[w]-before.opened[w]
	}
	return m
}

// unseen says what kept somebody from looking at everything; "": nothing. One packet in
// a hundred may be noise: what a node that was killed had sent, a reset.
func (m missed) unseen() string {
	if m.lost > 0 {
		return fmt.Sprintf("%d packets were not captured", m.lost)
	}
	for w := range carriers {
		if m.closed[w] > m.opened[w]/100+20 {
			return fmt.Sprintf("%d packets of %s were opened and %d not", m.opened[w], w, m.closed[w])
		}
	}
	return ""
}

// strange is what nodes said to somebody who is nobody of theirs, or on no port of
// theirs.
func (c *tap) strange() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.odd)
}

// opened checks that the tap understands what it sees.
func (c *tap) opened(t testing.TB) {
	t.Helper()
	c.settle()
	m := c.missed()
	if why := m.unseen(); why != "" || m.opened[byRelay] < 100 || m.opened[byGossip] < 10 || m.opened[byMedia] < 100 || m.opened[byText] < 10 {
		t.Errorf("the capture says little: %s (%+v)", why, m)
	}
	for _, what := range c.strange() {
		t.Errorf("a node says something where nobody expects it: %s", what)
	}
	t.Logf("opened %v packets of %s, %s, %s, %s; %v stayed closed", m.opened, byRelay, byGossip, byMedia, byText, m.closed)
}
