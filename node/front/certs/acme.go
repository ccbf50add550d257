package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

// ACMEConfig says which authority is asked for which certificate.
type ACMEConfig struct {
	Directory string         // URL of the authority's directory
	Email     string         // whom the authority writes to; may be empty
	Names     []string       // one certificate for all, DNS names in lower case and addresses
	Roots     *x509.CertPool // whom the directory's server is believed by; nil: the system's
	Profile   string         // of the authority, such as "shortlived"; empty: its default
	DNS       DNS            // proves names by DNS-01 and nothing else; nil: HTTP-01 and TLS-ALPN-01

	// EABKey and EABSecret bind the account to one that the authority knows
	// already (RFC 8555 section 7.3.4); the secret in base64url.
	EABKey, EABSecret string

	Dir   string // for accounts, certificates and keys; created with mode 0700
	Clock Clock
	Log   *slog.Logger
}

const (
	// attemptLimit bounds one attempt by one kind of challenge. Authorities
	// answer within seconds; DNS-01 waits for records in addition.
	attemptLimit  = 3 * time.Minute
	dnsLimit      = 15 * time.Minute
	askAdviceEach = 6 * time.Hour // RFC 9773 section 4.3.2 recommends this where the authority says nothing
	adviceLimit   = 30 * time.Second
)

// acmeSource is a certificate by ACME.
type acmeSource struct {
	// Static after construction.
	cfg    ACMEConfig
	keeper *Keeper
	store  *storage
	bundle string // name of the certificate's file

	// Owned by Run.
	standing
	have  *tls.Certificate // got from the authority, nil if none
	asked time.Time        // when its advice is asked for next
	ways  []way            // made at the first look, when At is known
}

// way is one kind of challenge.
type way struct {
	name   string
	issuer *certmagic.ACMEIssuer
}

// FromACME takes the certificate that was got last, or makes one of its own for
// the time being; the authority is asked by Run.
func FromACME(cfg ACMEConfig) (*Keeper, error) {
	if len(cfg.Names) == 0 || cfg.Directory == "" || cfg.Dir == "" {
		return nil, errors.New("certificate by ACME: want a directory, names, and where to keep them")
	}
	k := newKeeper(cfg.Names, cfg.Clock, cfg.Log)
	a := &acmeSource{cfg: cfg, keeper: k, store: newStorage(cfg.Dir)}
	k.source = a
	a.bundle = bundleOf((&certmagic.ACMEIssuer{CA: cfg.Directory}).IssuerKey())
	if err := a.restore(); err == nil {
		return k, nil
	}
	own, err := selfMade(cfg.Names, k.now())
	if err != nil {
		return nil, fmt.Errorf("certificate by ACME: %w", err)
	}
	k.use(own, true)
	return k, nil
}

func (a *acmeSource) authority() string {
	u, err := url.Parse(a.cfg.Directory)
	if err != nil {
		return a.cfg.Directory
	}
	return u.Host
}

// restore takes the certificate that was got before. One that has ended or
// holds for other names is better than none: browsers at least say which.
func (a *acmeSource) restore() error {
	pair, err := a.store.saved(a.bundle)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f := failure{Storage, err}
			a.keeper.failed(f)
			a.keeper.log.Warn("the certificate got before cannot be used, a new one is asked for", "error", err, "hint", f.reason.Hint())
		}
		return err
	}
	a.adopt(pair)
	a.keeper.use(pair, false)
	return nil
}

// adopt notes what there is to know of the certificate in use.
func (a *acmeSource) adopt(pair *tls.Certificate) {
	a.have = pair
	a.standing = standing{notBefore: pair.Leaf.NotBefore, notAfter: pair.Leaf.NotAfter,
		fits: holdsFor(pair.Leaf, a.cfg.Names) == nil, spread: spreadOf(pair.Leaf)}
	a.asked = time.Time{}
}

// look asks the authority for a certificate if it is time.
func (a *acmeSource) look(ctx context.Context, at At) time.Duration {
	if a.ways == nil {
		a.ways = a.waysAt(at)
	}
	a.askAdvice(ctx)
	if a.wait() <= 0 {
		a.attempt(ctx)
	}
	return a.wait()
}

// wait is how long there is nothing to do.
func (a *acmeSource) wait() time.Duration {
	a.now = a.keeper.now()
	next := nextTry(a.standing)
	a.keeper.willTry(next)
	return max(0, next.Sub(a.now))
}

func (a *acmeSource) attempt(ctx context.Context) {
	pair, err := a.obtain(ctx)
	switch {
	case ctx.Err() != nil: // going down
	case err != nil:
		a.failed(err)
	default:
		a.adopt(pair)
		a.obtained = a.keeper.now()
		a.keeper.renewed(pair)
	}
}

func (a *acmeSource) failed(err error) {
	f := failure{reasonOf(err), err}.without(a.cfg.Email)
	a.failures++
	a.reason, a.failedAt = f.reason, a.keeper.now()
	a.keeper.failed(f)
	a.keeper.log.Warn("no certificate from the authority, the last one stays in use", "names", a.cfg.Names,
		"reason", f.reason, "error", f.err, "hint", f.reason.Hint(), "again_in", a.wait().Round(time.Second))
}

// obtain gets a certificate by the first way that works.
func (a *acmeSource) obtain(ctx context.Context) (*tls.Certificate, error) {
	if len(a.ways) == 0 {
		return nil, errors.New("there is no port at which an authority could find the node")
	}
	if err := a.store.prepare(); err != nil {
		return nil, wrongSide{Storage, err}
	}
	var errs []error
	for i, w := range a.ways {
		pair, err := a.obtainBy(ctx, w)
		if err == nil {
			a.ways[0], a.ways[i] = a.ways[i], a.ways[0] // next time this one first
			return pair, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", w.name, err))
		if !anotherWay(reasonOf(err)) {
			break
		}
	}
	return nil, allOf(errs)
}

// allOf joins errors in one line; the first one says why.
func allOf(errs []error) error {
	err := errs[0]
	for _, e := range errs[1:] {
		err = fmt.Errorf("%w; %w", err, e)
	}
	return err
}

func (a *acmeSource) obtainBy(ctx context.Context, w way) (*tls.Certificate, error) {
	limit := attemptLimit
	if a.cfg.DNS != nil {
		limit = dnsLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	csr, err := requestFor(a.cfg.Names, key)
	if err != nil {
		return nil, err
	}
	if err := w.issuer.PreCheck(ctx, a.cfg.Names, false); err != nil {
		return nil, wrongSide{Refused, err}
	}
	issued, err := w.issuer.Issue(ctx, csr)
	if err != nil {
		return nil, err
	}
	return a.accept(issued.Certificate, keyPEM)
}

// accept checks what the authority sent, and keeps it.
func (a *acmeSource) accept(chain, key []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, wrongSide{Away, fmt.Errorf("what the authority sent: %w", err)}
	}
	// When it begins is not asked: browsers go by their clocks, not by this node's.
	if err := holdsFor(pair.Leaf, a.cfg.Names); err != nil {
		return nil, wrongSide{Away, fmt.Errorf("what the authority sent: %w", err)}
	}
	if err := a.store.save(a.bundle, chain, key); err != nil {
		// Good for now, and better than none; a restart would ask for another.
		f := failure{Storage, err}
		a.keeper.log.Error("the new certificate is in use and cannot be kept", "error", err, "hint", f.reason.Hint())
	}
	return &pair, nil
}

// askAdvice asks the authority when it wants the certificate to be renewed
// (RFC 9773); it says so before it revokes many. Not knowing does no harm.
func (a *acmeSource) askAdvice(ctx context.Context) {
	now := a.keeper.now()
	if a.have == nil || len(a.ways) == 0 || now.Before(a.asked) || !now.Before(a.notAfter) {
		return
	}
	a.asked = now.Add(askAdviceEach)
	ctx, cancel := context.WithTimeout(ctx, adviceLimit)
	defer cancel()
	info, err := a.ways[0].issuer.GetRenewalInfo(ctx, certmagic.Certificate{Certificate: *a.have})
	if err != nil {
		a.keeper.log.Debug("the authority gives no advice on renewal", "error", err)
		return
	}
	a.windowStart, a.windowEnd = info.SuggestedWindow.Start, info.SuggestedWindow.End
}

// waysAt lists the kinds of challenges, the best first. Port 80 comes first: a
// connection there disturbs nobody, and what stands before many nodes passes
// it. With DNS-01 nothing else is tried, since it is chosen where the node is
// not to be reached.
func (a *acmeSource) waysAt(at At) (ways []way) {
	add := func(name string, change func(*certmagic.ACMEIssuer)) {
		ways = append(ways, way{name, a.issuer(change)})
	}
	if a.cfg.DNS != nil {
		add("DNS-01", func(i *certmagic.ACMEIssuer) { i.DNS01Solver = dnsSolver{a.cfg.DNS} })
		return ways
	}
	if at.Plain.IsValid() {
		add("HTTP-01", func(i *certmagic.ACMEIssuer) {
			i.DisableTLSALPNChallenge = true
			i.ListenHost, i.AltHTTPPort = bound(at.Plain)
		})
	}
	if at.TLS.IsValid() {
		add("TLS-ALPN-01", func(i *certmagic.ACMEIssuer) {
			i.DisableHTTPChallenge = true
			i.ListenHost, i.AltTLSALPNPort = bound(at.TLS)
		})
	}
	return ways
}

// bound says to certmagic where somebody listens already: it would open the
// port itself where nobody does.
func bound(a netip.AddrPort) (host string, port int) { return a.Addr().String(), int(a.Port()) }

func (a *acmeSource) issuer(change func(*certmagic.ACMEIssuer)) *certmagic.ACMEIssuer {
	quiet := zap.NewNop() // what matters comes back as an error; its lines have addresses in them
	template := certmagic.ACMEIssuer{
		CA: a.cfg.Directory, Email: a.cfg.Email, Agreed: true, Profile: a.cfg.Profile,
		TrustedRoots: a.cfg.Roots, DisableDistributedSolvers: true, Logger: quiet,
	}
	if a.cfg.EABKey != "" {
		template.ExternalAccount = &acme.EAB{KeyID: a.cfg.EABKey, MACKey: a.cfg.EABSecret}
	}
	change(&template)
	return certmagic.NewACMEIssuer(&certmagic.Config{Storage: a.store, Logger: quiet}, template)
}
