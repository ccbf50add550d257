// Package certstest runs Let's Encrypt's test authority, pebble, for tests of
// certificates by ACME. It comes to the node's ports as a real authority does,
// finds names in a DNS of its own, and can be told to be away or to refuse. It
// needs no network but loopback.
package certstest

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"golang.org/x/net/dns/dnsmessage"
)

// Authority is Let's Encrypt's test authority, which comes to the node's ports as a
// real one does.
type Authority struct {
	Directory string
	Roots     *x509.CertPool // of its own HTTPS
	Issued    *x509.CertPool // of the certificates that it issues
	DNS       *DNS
	Orders    atomic.Int64 // that were asked for

	// intercept answers in pebble's place when it returns true. Set by tests.
	intercept atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

// Options change what the authority does.
type Options struct {
	Life       time.Duration // of certificates; default 90 days
	BadNonces  int           // percent of nonces that are rejected
	BindingKey string        // base64url; external account binding is required then
	NoPlain    bool          // it does not find port 80 open
	NoAdvice   bool          // it says nothing about renewals
}

// environment is held while pebble reads what it is to do from its environment.
var environment sync.Mutex

func newFrontEnd(o Options, store *db.MemoryStore, validator func() *va.VAImpl, authority *ca.CAImpl) wfe.WebFrontEndImpl {
	environment.Lock()
	defer environment.Unlock()
	os.Setenv("PEBBLE_VA_NOSLEEP", "1")
	os.Setenv("PEBBLE_AUTHZREUSE", "0")
	os.Setenv("PEBBLE_WFE_NONCEREJECT", fmt.Sprint(o.BadNonces))
	return wfe.New(silent, store, validator(), authority, []string{"pebble.test"}, false, o.BindingKey != "", 1, 1)
}

var silent = log.New(io.Discard, "", 0)

// Start runs an authority until the test ends. It looks for every name at these
// ports of 127.0.0.1, in the place of 80 and 443.
func Start(t *testing.T, plainPort, tlsPort uint16, o Options) *Authority {
	t.Helper()
	if o.Life == 0 {
		o.Life = 90 * 24 * time.Hour
	}
	store := db.NewMemoryStore()
	authority := ca.New(silent, store, "", "ecdsa", 0, 1, map[string]ca.Profile{
		"default": {Description: "as long as the test wants", ValidityPeriod: uint64(o.Life / time.Second)},
	})
	if o.BindingKey != "" {
		if err := store.AddExternalAccountKeyByID("operator", o.BindingKey); err != nil {
			t.Fatal(err)
		}
	}
	p := &Authority{DNS: newDNS(t), Issued: x509.NewCertPool()}
	plain := int(plainPort)
	if o.NoPlain {
		plain = 1 // tcpmux; nobody has it
	}
	front := newFrontEnd(o, store, func() *va.VAImpl { return va.New(silent, plain, int(tlsPort), false, p.DNS.addr, store) }, authority)
	handler := front.Handler()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := p.intercept.Load(); f != nil && (*f)(w, r) {
			return
		}
		if o.NoAdvice && r.URL.Path == wfe.DirectoryPath {
			withoutAdvice(w, r, handler)
			return
		}
		if strings.Contains(r.URL.Path, "order-plz") {
			p.Orders.Add(1)
		}
		handler.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = silent
	srv.StartTLS()
	t.Cleanup(srv.Close)
	p.Directory = srv.URL + wfe.DirectoryPath
	p.Roots = x509.NewCertPool()
	p.Roots.AddCert(srv.Certificate())
	p.Issued.AddCert(authority.GetRootCert(0).Cert)
	return p
}

// withoutAdvice serves the directory of an authority that does not know RFC 9773.
func withoutAdvice(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	rec := httptest.NewRecorder()
	handler.ServeHTTP(rec, r)
	var directory map[string]any
	json.Unmarshal(rec.Body.Bytes(), &directory)
	delete(directory, "renewalInfo")
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(directory)
}

// Answer makes the authority answer requests to paths that contain part so.
func (p *Authority) Answer(part string, answer http.HandlerFunc) {
	f := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, part) {
			return false
		}
		answer(w, r)
		return true
	}
	p.intercept.Store(&f)
}

// Refuse makes the authority answer requests to paths that contain part with a problem.
func (p *Authority) Refuse(part, kind string, status int, detail string) {
	p.Answer(part, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status})
	})
}

// Away makes the authority break off every connection.
func (p *Authority) Away() {
	f := func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) }
	p.intercept.Store(&f)
}

// Back ends what Answer, Refuse and Away began.
func (p *Authority) Back() { p.intercept.Store(nil) }

// DNS is where the authority looks names up: every name is 127.0.0.1, and TXT
// records are those that are present.
type DNS struct {
	addr string

	mu  sync.Mutex
	txt map[string][]string
}

func newDNS(t *testing.T) *DNS {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &DNS{addr: ln.Addr().String(), txt: map[string][]string{}}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { n.serve(conn) })
		}
	})
	return n
}

// serve answers one question over TCP: two bytes of length, then the message.
func (n *DNS) serve(conn net.Conn) {
	defer conn.Close()
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return
	}
	b := make([]byte, int(size[0])<<8|int(size[1]))
	if _, err := io.ReadFull(conn, b); err != nil {
		return
	}
	var m dnsmessage.Message
	if m.Unpack(b) != nil || len(m.Questions) != 1 {
		return
	}
	m.Response, m.Additionals = true, nil
	m.Answers = n.answer(m.Questions[0])
	if b, err := m.Pack(); err == nil {
		conn.Write(append([]byte{byte(len(b) >> 8), byte(len(b))}, b...))
	}
}

func (n *DNS) answer(q dnsmessage.Question) (answers []dnsmessage.Resource) {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.TrimSuffix(q.Name.String(), ".")
	head := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}
	switch {
	case q.Type == dnsmessage.TypeA:
		answers = append(answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
	case q.Type == dnsmessage.TypeTXT:
		for _, text := range n.txt[name] {
			answers = append(answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.TXTResource{TXT: []string{text}}})
		}
	}
	return answers
}

// Present makes a record that the authority sees at once.
func (n *DNS) Present(_ context.Context, name, value string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.txt[name] = append(n.txt[name], value)
	return nil
}

// Remove removes what Present made.
func (n *DNS) Remove(_ context.Context, name, value string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.txt[name]) == 0 {
		return fmt.Errorf("no record %s", name)
	}
	delete(n.txt, name)
	return nil
}

// Records returns how many names have records.
func (n *DNS) Records() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.txt)
}
