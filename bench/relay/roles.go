//go:build linux

package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/netip"
	"net/url"
	"os"
	"runtime/debug"
	"runtime/pprof"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/seal"
	"github.com/domicile/domicile/relay/wire"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/udp"
)

// Order is what a process is told to do, on its standard input.
type Order struct {
	Role     string         `json:"role"` // send or hear
	Way      string         `json:"way"`  // floor, udp or quic
	Load     Load           `json:"load"`
	At       netip.Addr     `json:"at"`    // own address
	Peer     netip.AddrPort `json:"peer"`  // the other's, told to who sends
	Turns    []time.Time    `json:"turns"` // when they begin
	Identity *Credentials   `json:"identity"`
	Profile  string         `json:"profile,omitempty"` // file for a processor profile of what is measured
}

// Report is what a process found.
type Report struct {
	Addr   netip.AddrPort `json:"addr"` // told first, by who hears
	Heard  *Heard         `json:"heard,omitempty"`
	CPU    float64        `json:"cpu_us_per_packet,omitempty"`
	Spent  Spent          `json:"spent"`
	LateBy float64        `json:"frames_late_ms_p99,omitempty"` // offered by the generator
	Stats  *relay.Stats   `json:"stats,omitempty"`
	Trace  []Moment       `json:"trace,omitempty"`
	Failed string         `json:"failed,omitempty"`
}

// Spent is what was used while it was measured, of all turns together, per second.
type Spent struct {
	CPU      float64 `json:"cpu_s"`      // of this process
	Switches float64 `json:"switches"`   // of its threads: each had nothing to do
	Machine  float64 `json:"machine_s"`  // of all processors, whoever used them
	Stolen   float64 `json:"stolen_s"`   // that the machine below gave to others
	GC       float64 `json:"gc_pause_s"` // of this process
}

// Moment is what a sender believed of the path.
type Moment struct {
	At       float64 `json:"at_s"` // since the first packet
	Estimate float64 `json:"estimate_mbps"`
	Because  string  `json:"because"`
	Queue    float64 `json:"queue_ms"`
	Held     int     `json:"held"`
	Dropped  uint64  `json:"dropped"` // packets so far
}

// Credentials are a certificate, its key, and the authority's certificate.
type Credentials struct {
	Cert, Key, Root []byte
}

// Issue makes an authority and the certificates of two nodes.
func Issue(names ...string) (map[string]*Credentials, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, err
	}
	list := map[string]*Credentials{}
	for i, name := range names {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
			URIs: []*url.URL{{Scheme: "bench", Host: name}}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, &key.PublicKey, caKey)
		if err != nil {
			return nil, err
		}
		pkcs, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, err
		}
		list[name] = &Credentials{Cert: der, Key: pkcs, Root: rootDER}
	}
	return list, nil
}

func (c *Credentials) configs() (server, client *tls.Config, err error) {
	key, err := x509.ParsePKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, nil, err
	}
	root, err := x509.ParseCertificate(c.Root)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	base := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.Cert}, PrivateKey: key}}, NextProtos: []string{"bench"}, MinVersion: tls.VersionTLS13}
	server, client = base.Clone(), base.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, roots
	client.InsecureSkipVerify = true // known by URI; verified below
	client.VerifyConnection = func(s tls.ConnectionState) error {
		_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots})
		return err
	}
	return server, client, nil
}

// Process does what it is ordered on in, and tells of it on out.
func Process(in io.Reader, out io.Writer) {
	var o Order
	tell := func(r Report) { _ = json.NewEncoder(out).Encode(r) } // whoever reads it is gone otherwise
	if err := json.NewDecoder(in).Decode(&o); err != nil {
		tell(Report{Failed: err.Error()})
		os.Exit(1)
	}
	r, err := o.do(tell)
	if err != nil {
		r.Failed = err.Error()
	}
	tell(r)
}

func (o *Order) do(tell func(Report)) (Report, error) {
	switch o.Role + " " + o.Way {
	case "send floor":
		return o.sendFloor()
	case "hear floor":
		return o.hearFloor(tell)
	}
	return o.link(tell)
}

// spent measures what is used while something is measured.
func (o *Order) spent() <-chan Spent {
	ch := make(chan Spent, 1)
	go func() {
		var sum Spent
		for i, begin := range o.Turns {
			time.Sleep(time.Until(begin.Add(o.Load.Warm)))
			end := o.profile(i)
			before := spentSoFar()
			time.Sleep(time.Until(begin.Add(o.Load.Warm + o.Load.Measured)))
			after := spentSoFar()
			end()
			seconds := o.Load.Measured.Seconds() * float64(len(o.Turns))
			sum.CPU += (after.CPU - before.CPU) / seconds
			sum.Switches += (after.Switches - before.Switches) / seconds
			sum.Machine += (after.Machine - before.Machine) / seconds
			sum.Stolen += (after.Stolen - before.Stolen) / seconds
			sum.GC += (after.GC - before.GC) / seconds
		}
		ch <- sum
	}()
	return ch
}

func spentSoFar() Spent {
	m := look()
	var mem debug.GCStats
	debug.ReadGCStats(&mem)
	cpu, switches := Used()
	return Spent{CPU: cpu.Seconds(), Switches: float64(switches), Machine: m.busy.Seconds(), Stolen: m.stolen.Seconds(), GC: mem.PauseTotal.Seconds()}
}

// profile begins a processor profile of the first turn where one is asked for, and
// returns what ends it. It costs a little itself.
func (o *Order) profile(turn int) (end func()) {
	if turn > 0 || o.Profile == "" {
		return func() {}
	}
	f, err := os.Create(o.Profile)
	if err != nil {
		slog.Error("profile", "error", err)
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		slog.Error("profile", "error", err)
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}
}

// sent is the report of who played all turns.
func (o *Order) sent(late []time.Duration, spent <-chan Spent) Report {
	s := <-spent
	_, p99, _ := percentiles(late)
	return Report{CPU: s.CPU * 1e6 / o.Load.Packets(), Spent: s, LateBy: p99}
}

// play plays all turns.
func (o *Order) play(offer func(track int, layer uint8, last bool, rtp []byte), tick func()) (late []time.Duration) {
	for _, begin := range o.Turns {
		time.Sleep(time.Until(begin))
		late = append(late, o.Load.Play(begin, offer, tick)...)
	}
	return late
}

func floorSecret(uint32) ([]byte, error) { return make([]byte, seal.SecretSize), nil }

func (o *Order) sendFloor() (Report, error) {
	sock, err := udp.Listen(netip.AddrPortFrom(o.At, 0))
	if err != nil {
		return Report{}, err
	}
	defer sock.Close()
	sealer, err := seal.NewSealer(floorSecret, 1, time.Now())
	if err != nil {
		return Report{}, err
	}
	out, arena, used := sock.Sender(o.Peer), make([]byte, 256<<10), 0
	flush := func() {
		out.Flush()
		used = 0
	}
	spent := o.spent()
	late := o.play(func(track int, layer uint8, last bool, rtp []byte) {
		if used+2048 > len(arena) || out.Full() {
			flush()
		}
		b := arena[used : used+wire.HopSize+2]
		b[wire.HopSize], b[wire.HopSize+1] = byte(track>>8), byte(track)
		b = append(b, rtp...)
		sealed, err := sealer.Seal(b, o.Turns[0])
		if err != nil {
			return
		}
		used += len(sealed)
		out.Add(sealed)
	}, flush)
	return o.sent(late, spent), nil
}

func (o *Order) hearFloor(tell func(Report)) (Report, error) {
	sock, err := udp.Listen(netip.AddrPortFrom(o.At, 0))
	if err != nil {
		return Report{}, err
	}
	tell(Report{Addr: sock.Addr()})
	opener, err := seal.NewOpener(floorSecret)
	if err != nil {
		return Report{}, err
	}
	x, one := NewListener(o.Load, o.Turns...), make([][]byte, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sock.Receive(func(b []byte, _ time.Time) {
			h, err := wire.ParseHop(b)
			if err != nil {
				return
			}
			if b, err = opener.Open(h, b, o.Turns[0]); err == nil && len(b) > 2 {
				one[0] = b[2:]
				x.Take(int(b[0])<<8|int(b[1]), 0, one)
			}
		}) == nil {
		}
	}()
	spent := <-o.spent()
	time.Sleep(time.Second)
	sock.Close()
	<-done
	return o.heard(x, spent), nil
}

// node is one end of a link.
type node struct {
	up chan *relay.Link
}

func (n *node) LinkUp(l *relay.Link)                                           { n.up <- l }
func (*node) LinkDown(*relay.Link, error)                                      {}
func (*node) Message(*relay.Link, relay.Kind, string, residency.Class, []byte) {}
func (*node) Request(context.Context, *relay.Link, relay.Kind, string, residency.Class, []byte) ([]byte, residency.Permit, error) {
	return nil, residency.Permit{}, fmt.Errorf("nobody answers")
}

func facts(name string) residency.Node {
	return residency.Node{Name: residency.NodeName(name), Country: "DE", Operator: "bench", OperatorCountry: "DE", Parent: "bench", ParentCountry: "DE",
		Roles: residency.Roles(), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
}

func permit(peer residency.Node) (residency.Permit, error) {
	zones := map[residency.Class]residency.Zone{}
	for _, c := range residency.Classes() {
		zones[c] = residency.Zone{Name: "anywhere", Anywhere: true}
	}
	gate := residency.NewGate(&residency.Bundle{Epoch: 1, Default: "open", Policies: map[string]*residency.Policy{"open": {Name: "open", Zones: zones}}})
	p, v := gate.Permit(residency.Request{Room: "bench", Class: residency.ClassMedia, Peer: peer, PeerEpoch: 1, Now: time.Now()})
	if !v.Allow {
		return p, fmt.Errorf("permit: %s", v.Reason)
	}
	return p, nil
}

// link plays over a link, or listens at its other end. Who sends is a and dials b.
func (o *Order) link(tell func(Report)) (Report, error) {
	self, other := "a", "b"
	if o.Role == "hear" {
		self, other = other, self
	}
	server, client, err := o.Identity.configs()
	if err != nil {
		return Report{}, err
	}
	n := &node{up: make(chan *relay.Link, 1)}
	cfg := relay.Config{Self: facts(self), Listen: netip.AddrPortFrom(o.At, 0), ServerTLS: server, ClientTLS: client, Handler: n,
		Epoch: func() residency.Epoch { return 1 }, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		PeerNode: func(s tls.ConnectionState) (residency.Node, error) {
			return facts(s.PeerCertificates[0].URIs[0].Host), nil
		}}
	if o.Way == "udp" {
		cfg.Media = netip.AddrPortFrom(o.At, 0)
	}
	f, err := relay.New(cfg)
	if err != nil {
		return Report{}, err
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	defer func() {
		stop()
		<-ended
	}()
	f.SetPeers([]relay.Peer{{Name: residency.NodeName(other), Addr: o.Peer}})
	if o.Role == "hear" {
		tell(Report{Addr: f.Addr()})
	}
	var l *relay.Link
	select {
	case l = <-n.up:
	case <-time.After(10 * time.Second):
		return Report{}, fmt.Errorf("no link")
	}
	p, err := permit(l.Peer())
	if err != nil {
		return Report{}, err
	}
	if o.Role == "hear" {
		return o.hear(l, p)
	}
	return o.send(l, p)
}

type ear struct {
	x     *Listener
	track int
}

func (e ear) Media(layer uint8, rtp [][]byte, _ time.Time) { e.x.Take(e.track, layer, rtp) }
func (ear) Report(uint8, wire.SenderReport, time.Time)     {}

// hear binds the aliases of all tracks: they count from 1.
func (o *Order) hear(l *relay.Link, p residency.Permit) (Report, error) {
	x := NewListener(o.Load, o.Turns...)
	for i := range o.Load.Tracks() {
		if err := l.Bind(p, uint32(i+1), ear{x, i}); err != nil {
			return Report{}, err
		}
	}
	spent := <-o.spent()
	time.Sleep(time.Second)
	r, s := o.heard(x, spent), l.Stats()
	r.Stats = &s
	return r, nil
}

func (o *Order) heard(x *Listener, spent Spent) Report {
	h := x.Result(time.Duration(spent.CPU * float64(len(o.Turns)) * float64(o.Load.Measured)))
	return Report{Heard: &h, Spent: spent}
}

func (o *Order) send(l *relay.Link, p residency.Permit) (Report, error) {
	tracks := make([]*relay.Track, o.Load.Tracks())
	for i := range tracks {
		var err error
		if tracks[i], err = l.OpenTrack(p, i < o.Load.Cameras); err != nil {
			return Report{}, err
		}
	}
	spent := o.spent()
	trace := o.trace(l)
	late := o.play(func(track int, layer uint8, last bool, rtp []byte) { tracks[track].Offer(layer, last, rtp) }, func() {})
	r := o.sent(late, spent)
	s := l.Stats()
	r.Stats, r.Trace = &s, <-trace
	time.Sleep(1500 * time.Millisecond) // what is lost is asked for meanwhile
	return r, nil
}

// trace looks at a link twice a second.
func (o *Order) trace(l *relay.Link) <-chan []Moment {
	ch := make(chan []Moment, 1)
	go func() {
		var list []Moment
		begin := o.Turns[0]
		for at := time.Duration(0); at < o.Turns[len(o.Turns)-1].Sub(begin)+o.Load.Warm+o.Load.Measured; at += time.Second / 2 {
			time.Sleep(time.Until(begin.Add(at)))
			s, m := l.Stats(), Moment{At: at.Seconds()}
			if s.UDP != nil {
				m.Estimate, m.Because, m.Queue, m.Held = s.UDP.Estimate/1e6, s.UDP.Because, float64(s.UDP.Queue.Microseconds())/1000, s.UDP.Held
			}
			for _, n := range s.Drops {
				m.Dropped += n
			}
			list = append(list, m)
		}
		ch <- list
	}()
	return ch
}
