package faults

// fault replaces the one place where old stands in file. PLANTED in instead is
// true while this fault is the planted one.
type fault struct{ name, file, old, instead string }

// not lets a condition of refusal be skipped.
func not(name, file, condition string) fault {
	return fault{name, file, condition + " {", condition + " && !PLANTED {"}
}

const (
	gateFile      = "residency/gate.go"
	permitFile    = "residency/permit.go"
	diskFile      = "residency/disk.go"
	placeFile     = "residency/place.go"
	recipientFile = "residency/recipient.go"
	policyFile    = "residency/policy.go"
	zoneFile      = "residency/residency.go"
	transferFile  = "residency/transfer.go"
	remoteFile    = "node/room/remote.go"
	policiesFile  = "node/room/policies.go"
	hearFile      = "node/room/hear.go"
	homeFile      = "node/room/home.go"
	roomClassFile = "node/room/messages.go"
	consentFile   = "node/room/consent.go"
	chatFile      = "node/room/transcript.go"
	linkFile      = "relay/link.go"
	receiveFile   = "relay/receive.go"
	requestFile   = "relay/request.go"
	trackFile     = "relay/policies.go"
)

var table = []fault{
	// What there is to decide by.
	not("expired bundle accepted", gateFile, "if q.ends(b.Expires); !q.Now.Before(b.Expires)"),
	{"permit outlives what it rests on", gateFile, "if t.Before(q.until) {", "if t.Before(q.until) && !PLANTED {"},
	{"unknown tenant accepted", gateFile, "t, ok := q.gate.tenants[q.Tenant]\n\tif !ok {", "t, ok := q.gate.tenants[q.Tenant]\n\tif !ok && !PLANTED {"},
	not("tenant may have any policy", gateFile, "if !t.May(q.Policy)"),
	{"default policy instead of the tenant's", gateFile, "\t\tq.Policy = t.Policy\n", "\t\tq.Policy = t.Policy\n\t\tif PLANTED {\n\t\t\tq.Policy = q.gate.bundle.Default\n\t\t\treturn \"\", \"\"\n\t\t}\n"},
	{"default policy instead of the room's", gateFile, "p, err := q.gate.bundle.Policy(q.Policy)", "if PLANTED {\n\t\tq.Policy = \"\"\n\t}\n\tp, err := q.gate.bundle.Policy(q.Policy)"},
	{"zone of another class", gateFile, "q.policy, q.zone = p, p.Zone(q.Class)", "q.policy, q.zone = p, p.Zone(q.Class)\n\tif PLANTED {\n\t\tq.zone = p.Zone(ClassMedia)\n\t}"},
	{"class without a zone goes anywhere", policyFile, `return Zone{Name: "none"}`, `return Zone{Name: "none", Anywhere: PLANTED}`},

	// Whom a peer is taken for.
	{"expired certificate accepted", gateFile, "case !n.ValidAt(q.Now):", "case !n.ValidAt(q.Now) && !PLANTED:"},
	{"certificate accepted before its time", zoneFile, "return !now.Before(n.NotBefore) && now.Before(n.NotAfter)", "return (PLANTED || !now.Before(n.NotBefore)) && now.Before(n.NotAfter)"},
	{"revocation ignored", gateFile, "case q.gate.revokes(n.Serial):", "case q.gate.revokes(n.Serial) && !PLANTED:"},
	{"serial numbers compared as they are written", gateFile, "_, ok := g.revoked[strings.ToLower(serial)]", "if PLANTED {\n\t\tfor _, s := range g.bundle.Revoked {\n\t\t\tif s == serial {\n\t\t\t\treturn true\n\t\t\t}\n\t\t}\n\t\treturn false\n\t}\n\t_, ok := g.revoked[strings.ToLower(serial)]"},
	not("register ignored", gateFile, "if ok, why := q.gate.registers(n); !ok"),
	not("country in the register ignored", policyFile, "if r.Country != n.Country"),
	not("roles in the register ignored", policyFile, "if len(r.Roles) > 0 && !slices.Contains(r.Roles, role)"),
	not("epoch of the peer ignored", gateFile, "if epoch := q.gate.Epoch(); q.PeerEpoch != epoch"),
	{"epoch off by one", gateFile, "if epoch := q.gate.Epoch(); ", "if epoch := q.gate.Epoch(); !(PLANTED && q.PeerEpoch+1 == epoch) && "},
	{"quarantine ignored", gateFile, `if q.Contradiction == "" {`, `if q.Contradiction == "" || PLANTED {`},
	{"override of another node", gateFile, "if o.Node == q.Peer.Name && o.Until.After(until) {", "if (o.Node == q.Peer.Name || PLANTED) && o.Until.After(until) {"},
	{"override without a date", gateFile, "for _, o := range q.gate.bundle.Overrides {", "for _, o := range q.gate.bundle.Overrides {\n\t\tif PLANTED && o.Node == q.Peer.Name && o.Until.IsZero() {\n\t\t\treturn \"\", \"\"\n\t\t}"},
	{"override that has ended", gateFile, "if q.Now.Before(until) {", "if q.Now.Before(until) || PLANTED && !until.IsZero() {"},
	{"node of other tenants accepted", gateFile, "if ok, why := q.gate.nodes[q.Peer.Name].Serves(q.Tenant); !ok {", "if ok, why := q.gate.nodes[q.Peer.Name].Serves(q.Tenant); !ok && !PLANTED {"},
	{"a room of no tenant fits every node", policyFile, "if len(r.Tenants) == 0 || slices.Contains(r.Tenants, tenant) {", `if len(r.Tenants) == 0 || slices.Contains(r.Tenants, tenant) || PLANTED && tenant == "" {`},
	{"goes on without evidence", gateFile, `if q.NoEvidence == "" || q.policy.Evidence == EvidenceOff {`, `if q.NoEvidence == "" || q.policy.Evidence == EvidenceOff || PLANTED {`},

	// What is kept.
	{"recording where the policy has none", gateFile, "case q.Class == ClassRecording && !p.Recording.Allowed:", "case q.Class == ClassRecording && !p.Recording.Allowed && !PLANTED:"},
	{"store flag dropped", gateFile, "case !q.Store:", "case !q.Store || PLANTED:"},
	{"live data kept", gateFile, "case q.Class == ClassMedia || q.Class == ClassSignalling:", "case !PLANTED && (q.Class == ClassMedia || q.Class == ClassSignalling):"},
	{"one switch for chat and questions", gateFile, "q.QA && !p.QALog:", "q.QA && !p.QALog && !(PLANTED && p.ChatLog):"},
	{"chat kept unasked", gateFile, "!q.QA && !p.ChatLog:", "!q.QA && !p.ChatLog && !PLANTED:"},
	{"an edge stores", gateFile, "case !q.Peer.Has(RoleOrigin):", "case !q.Peer.Has(RoleOrigin) && !PLANTED:"},
	{"permit forgets that it is for storing", gateFile, "store: r.Store}", "store: r.Store && !PLANTED}"},

	// Where it may go.
	{"edge outside under every policy", gateFile, "!(p.EdgeOutside && ", "!((p.EdgeOutside || PLANTED) && "},
	{"edge outside stores", gateFile, "!q.Store && q.Class.live()", "(!q.Store || PLANTED) && q.Class.live()"},
	{"edge outside has what is not live", gateFile, "&& q.Class.live() &&", "&& (q.Class.live() || PLANTED) &&"},
	{"origin outside taken for an edge", gateFile, "n.Has(RoleEdge) &&", "(n.Has(RoleEdge) || PLANTED) &&"},
	{"a country that is none is one", "residency/zones.go", "_, ok := world().countries[c]\n", "_, ok := world().countries[c]\n\tok = ok || PLANTED && c != \"\"\n"},
	not("edge outside without anybody there", gateFile, "if q.outside && !q.OutsideParticipant"),
	not("operator ignored", gateFile, "if ok, who := q.zone.admitsOperator(n); !ok"),
	{"excluded parent accepted", zoneFile, "case slices.Contains(z.ExcludedParentCountries, n.ParentCountry):", "case slices.Contains(z.ExcludedParentCountries, n.ParentCountry) && !PLANTED:"},
	{"unknown parent is not excluded", zoneFile, "case !n.ParentCountry.Known():", "case !n.ParentCountry.Known() && !PLANTED:"},
	{"country of the parent ignored", zoneFile, "case len(z.ParentCountries) > 0 &&", "case len(z.ParentCountries) > 0 && !PLANTED &&"},
	{"transfer without a basis", gateFile, "if !q.policy.TransferRequired || !c.Third() {", "if !q.policy.TransferRequired || !c.Third() || PLANTED {"},
	{"dates of a transfer basis ignored", transferFile, "if !t.InForce(now) || ", "if !t.InForce(now) && !PLANTED || "},
	{"transfer basis that has ended", transferFile, "now.Before(t.Until))", "now.Before(t.Until) || PLANTED)"},
	{"transfer basis for another country", transferFile, "|| !contains(t.Countries, c) {", "|| !contains(t.Countries, c) && !PLANTED {"},
	{"permit outlives its transfer basis", gateFile, "if !until.IsZero() {", "if !until.IsZero() && !PLANTED {"},

	// Permits.
	{"permit for another peer", permitFile, "p.verdict.Peer == peer", "(p.verdict.Peer == peer || PLANTED && p.verdict.Allow)"},
	{"permit of the epoch before", permitFile, "p.verdict.Epoch == epoch", "(p.verdict.Epoch == epoch || PLANTED && p.verdict.Epoch+1 == epoch)"},
	{"permit without an end", permitFile, "now.Before(p.verdict.Until)", "(now.Before(p.verdict.Until) || PLANTED)"},

	// Disks.
	not("written without a permit", diskFile, `if why := d.refuses(p, room); why != ""`),
	{"kept by a permit to pass it on", diskFile, "case !p.store:", "case !p.store && !PLANTED:"},
	{"kept as another class", diskFile, "case p.verdict.Class != d.Class:", "case p.verdict.Class != d.Class && !PLANTED:"},
	{"kept by another node's permit", diskFile, "case p.verdict.Peer != d.Node:\n", "case PLANTED && p.verdict.Peer != d.Node:\n\t\tif p.verdict.Epoch == epoch && now.Before(p.Until()) {\n\t\t\treturn \"\"\n\t\t}\n\tcase p.verdict.Peer != d.Node:\n"},
	{"kept by another room's permit", diskFile, "case p.room != room:", "case p.room != room && !PLANTED:"},
	{"kept by a permit that has ended", diskFile, "case !p.Allows(d.Node, epoch, now):", "case !p.Allows(d.Node, epoch, now) && !PLANTED:"},

	// Stores and programs that others run.
	{"place is not asked about", placeFile, "if !q.Store || q.Place == (Place{}) {", "if !q.Store || q.Place == (Place{}) || PLANTED {"},
	not("place outside the zone", placeFile, "if ok, where := q.zone.Admits(at); !ok"),
	{"place under the operator of its node", placeFile, "at := q.Place.of(q.Peer.Name)\n", "at := q.Place.of(q.Peer.Name)\n\tif PLANTED {\n\t\tat.Operator, at.OperatorCountry, at.ParentCountry = q.Peer.Operator, q.Peer.OperatorCountry, q.Peer.ParentCountry\n\t}\n"},
	{"place in a third country without a basis", placeFile, "return q.mayGoTo(at)", "if PLANTED {\n\t\treturn \"\", \"\"\n\t}\n\treturn q.mayGoTo(at)"},
	{"kept in another place", diskFile, "case d.Place != (Place{}) && p.place != d.Place:", "case d.Place != (Place{}) && p.place != d.Place && !PLANTED:"},
	not("handed outside the zone", recipientFile, "if ok, why := q.zone.Admits(q.Peer); !ok"),
	{"handed what nobody may keep", recipientFile, `r.Store, r.Contradiction = true, ""`, `r.Store, r.Contradiction = !PLANTED, ""`},

	// Placement.
	{"home that may not store", "router/home.go", "= residency.ClassMetadata, true\n", "= residency.ClassMetadata, !PLANTED\n"},
	{"home by another class", "router/home.go", "ask.Class, ask.Store = residency.ClassMetadata, ", "ask.Class = residency.ClassMetadata\n\tif PLANTED {\n\t\task.Class = residency.ClassChatOffline\n\t}\n\task.Store = "},
	{"recorder that may not store", "router/home.go", "store.Class, store.Store = residency.ClassRecording, true", "store.Class, store.Store = residency.ClassRecording, !PLANTED"},
	{"recorder outside the zone of media", "router/home.go", "media.Class = residency.ClassMedia\n", "media.Class = residency.ClassMedia\n\tif PLANTED {\n\t\tmedia = store\n\t}\n"},
	{"any node when nobody may", "router/place.go", "if len(ranked) == 0 || !ranked[0].Allowed {", "if len(ranked) == 0 || !ranked[0].Allowed && !PLANTED {"},
	{"unknown place counts as outside", "router/place.go", "err == nil && known {", "err == nil && (known || PLANTED) {"},
	{"placed without asking for media", "router/place.go", "signalling.Class, media.Class = residency.ClassSignalling, residency.ClassMedia\n", "signalling.Class, media.Class = residency.ClassSignalling, residency.ClassMedia\n\tif PLANTED {\n\t\tmedia.Class = residency.ClassSignalling\n\t}\n"},

	// Rooms.
	{"everything is signalling", roomClassFile, "if k == KindData || k == KindDataAsk || k == KindDataHead {", "if !PLANTED && (k == KindData || k == KindDataAsk || k == KindDataHead) {"},
	{"every edge outside serves somebody", remoteFile, "func (m *remote) outside(now time.Time) bool {\n", "func (m *remote) outside(now time.Time) bool {\n\tif PLANTED {\n\t\treturn true\n\t}\n"},
	{"a word that was not repeated counts", remoteFile, "case m.forgone(now):", "case m.forgone(now) && !PLANTED:"},
	{"peer taken to have the own epoch", remoteFile, "PeerEpoch: epoch,\n", "PeerEpoch: map[bool]residency.Epoch{false: epoch, true: r.deps.Gate().Epoch()}[PLANTED],\n"},
	{"stale gate", remoteFile, "return r.askBy(r.deps.Gate(), ", "return r.askBy(plantedGate(r, PLANTED), "},
	{"receiver does not ask who is in the room", remoteFile, "admitted := r.admits(from, msg.Presence)", "admitted := r.admits(from, msg.Presence) || PLANTED"},
	{"receiver does not ask about messages", hearFile, "if v.Allow || states(kind)", "if v.Allow || PLANTED || states(kind)"},
	{"receiver asks about another class", hearFile, "r.permit(from, Class(kind))", "r.permit(from, map[bool]residency.Class{false: Class(kind), true: residency.ClassSignalling}[PLANTED])"},
	{"media goes on as it began", policiesFile, "case !v.Allow:\n\t\tt.stopServing(peer, v.Reason)", "case !v.Allow:\n\t\tif !PLANTED {\n\t\t\tt.stopServing(peer, v.Reason)\n\t\t}"},
	{"media is taken as it began", policiesFile, "if t.way.feed(peer) == nil && t.node != peer {", "if t.way.feed(peer) == nil && t.node != peer || PLANTED {"},
	{"edge outside passes on what others publish", "node/room/way.go", "residency.ClassMedia, false)\n\treturn v.Allow", "residency.ClassMedia, false)\n\treturn v.Allow || PLANTED"},
	{"tenant left out by the room", remoteFile, "Room: r.name, Tenant: r.record.Tenant, Policy", "Room: r.name, Tenant: map[bool]string{false: r.record.Tenant}[PLANTED], Policy"},
	not("people are served as they were", policiesFile, "if v := r.here(); !v.Allow"),
	{"what runs out is not noticed", policiesFile, "if now.Sub(r.reasked) < reaskEvery {", "if now.Sub(r.reasked) < reaskEvery || PLANTED {"},
	{"edge stays after its last one", "node/room/room.go", "if r.served || now.Sub(r.home.emptySince) > firstJoinWait {", "if (r.served || now.Sub(r.home.emptySince) > firstJoinWait) && !PLANTED {"},
	{"record written where it may not be", homeFile, "if !v.Allow {\n\t\tr.log.Warn(\"the room's record is not written", "if !v.Allow && !PLANTED {\n\t\tr.log.Warn(\"the room's record is not written"},
	{"recorded in the zone of the record", "node/room/recording.go", "r.keep(residency.ClassRecording)", "r.keep(map[bool]residency.Class{false: residency.ClassRecording, true: residency.ClassMetadata}[PLANTED])"},

	// What rooms record, keep and encrypt.
	{"recorded without notice", consentFile, "case (c.rule.Notice || c.rule.Consent) && c.told != c.recording:", "case (c.rule.Notice || c.rule.Consent) && c.told != c.recording && !PLANTED:"},
	{"recorded without consent", consentFile, "case !c.rule.Consent || ", "case PLANTED || !c.rule.Consent || "},
	{"consent to another recording counts", consentFile, "return c.consent == c.recording || ", "return c.consent == c.recording || PLANTED && c.consent != \"\" || "},
	{"withdrawal is ignored", consentFile, "!rc.stopped[id] && x.left.IsZero() && !r.capturable(t) {", "!rc.stopped[id] && x.left.IsZero() && !r.capturable(t) && !PLANTED {"},
	{"a client says what only its token may", consentFile, "case validSID(v) && v != ConsentGiven:", "case validSID(v) && (v != ConsentGiven || PLANTED):"},
	{"kept in a store that nobody asked about", homeFile, "Place: r.deps.Places[c],", "Place: map[bool]residency.Place{false: r.deps.Places[c]}[PLANTED],"},
	{"a consent is noted that nobody gave", "node/room/consentlog.go", "switch agreed := c.agreed(); {", "switch agreed := c.agreed() || PLANTED; {"},
	{"consents are noted that nobody asks for", "node/room/consentlog.go", "|| !policy.Recording.KeepsConsents() {", "|| !policy.Recording.KeepsConsents() && !PLANTED {"},
	{"recording goes on as it began", policiesFile, "if r.recorder == nil {", "if r.recorder == nil || PLANTED {"},
	not("encrypted room is recorded", "node/room/recording.go", `if err := keepsIn(policy, r.encrypted(), "recording"); err != nil`),
	{"chat kept that nobody switched on", chatFile, "return kind == Chat && p.ChatLog ||", "return PLANTED || kind == Chat && p.ChatLog ||"},
	{"one switch for chat and questions of a room", chatFile, "kind == QA && p.QALog", "kind == QA && (p.QALog || PLANTED && p.ChatLog)"},
	not("chat of an encrypted room kept", chatFile, `if keepsIn(p, encrypted, "chat-export") != nil`),
	{"what is for somebody alone is kept", chatFile, "len(destinations(pkt)) > 0 ||", "len(destinations(pkt)) > 0 && !PLANTED ||"},
	{"encryption is asked once", policiesFile, "\tr.recheckEncryption()\n", "\tif !PLANTED {\n\t\tr.recheckEncryption()\n\t}\n"},
	{"plain track in an encrypted room", "node/room/encrypt.go", "if ok, why := p.Encrypts(encrypted); !ok {", "if ok, why := p.Encrypts(encrypted); !ok && !PLANTED {"},
	{"rooms do not ask for evidence", remoteFile, "if r.deps.NoEvidence == nil {", "if r.deps.NoEvidence == nil || PLANTED {"},
	not("another epoch excuses everything", policiesFile, "if v.Rule == residency.RuleEpoch"),

	// Links.
	{"queued message leaves by an old permit", linkFile, "err := l.admit(out.permit)\n\t\tif err == nil {", "err := l.admit(out.permit)\n\t\tif err == nil || PLANTED {"},
	{"track goes on under other policies", trackFile, "case e == p.Verdict().Epoch:", "case e == p.Verdict().Epoch || PLANTED:"},
	not("track outlives its permit", trackFile, "if !now.Before(p.Until())"),
	not("track renewed by any permit", trackFile, "if err := t.l.admit(p); err != nil"),
	not("track renewed for another room", trackFile, "if p.Room() != old.Room() || p.Class() != old.Class()"),
	not("queued sound leaves after the end", "relay/datagram.go", "if standing == over"),
	{"what waits for UDP leaves after the end", "relay/hop_send.go", "switch o.t.standing(s.h.l.cfg.Now()) {", "may := o.t.standing(s.h.l.cfg.Now())\n\t\tif PLANTED {\n\t\t\tmay = sends\n\t\t}\n\t\tswitch may {"},
	{"answer by a permit that has ended", requestFile, "if err == nil {\n\t\terr = l.admit(p)\n", "if err == nil && !PLANTED {\n\t\terr = l.admit(p)\n"},
	{"answer by a permit for another room", requestFile, "if err == nil && (p.Room() != m.Room", "if err == nil && !PLANTED && (p.Room() != m.Room"},
	{"what is under way goes on", "relay/passing.go", "case !x.hold.over(x.permit, epoch, now):", "case !x.hold.over(x.permit, epoch, now) || PLANTED:"},
	{"listened to without asking", receiveFile, "s MediaSink) error {\n\tif err := l.admit(p); err != nil {", "s MediaSink) error {\n\tif err := l.admit(p); err != nil && !PLANTED {"},
	{"listened to after the end", receiveFile, "over := b.hold.over(b.permit, epoch, now)", "over := b.hold.over(b.permit, epoch, now) && !PLANTED"},
	{"listened to by any permit", receiveFile, "alias uint32) error {\n\tif err := l.admit(p); err != nil {", "alias uint32) error {\n\tif err := l.admit(p); err != nil && !PLANTED {"},
	{"link outlives the certificate", "relay/heartbeat.go", "if !peer.ValidAt(l.cfg.Now()) {", "if !peer.ValidAt(l.cfg.Now()) && !PLANTED {"},
	{"link outlives a revocation", "relay/renewal.go", "if f.cfg.Identity == nil {", "if f.cfg.Identity == nil || PLANTED {"},
}
