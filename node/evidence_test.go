package node

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/node/outbox"
	"github.com/domicile/domicile/node/room"
	"github.com/domicile/domicile/node/signal"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/evidence"
	"github.com/domicile/domicile/residency/evidence/verify"
)

// TestEvidenceOfAMeeting records a meeting over three nodes. Afterwards the
// receipts of both ends of every hop, and of what was recorded, are in the home's
// log, and the figures agree.
func TestEvidenceOfAMeeting(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), signed, "fra DE origin", "waw PL", "osl NO")
	fra := m.node("fra")
	anna := enter(t, m.node("waw"), "town", "anna", preset("eea-only"))
	olaf := enter(t, m.node("osl"), "town", "olaf", nil)
	bob := enter(t, fra, "town", "bob", nil)
	camera := anna.publish("camera", livekit.TrackType_VIDEO)
	voice := olaf.publish("voice", livekit.TrackType_AUDIO)
	olaf.hears(camera)
	bob.hears(camera)
	anna.hears(voice)
	if _, refusal := record(t, fra, "town", "start"); refusal != nil {
		t.Fatal(refusal)
	}
	eventually(t, "receipts are in the log while the meeting goes on", func() bool { return fra.evidenceState().Receipts > 0 })
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	for _, c := range []*client{anna, olaf, bob} {
		c.close()
	}
	if err := fra.deleteRoom(t.Context(), fra.rooms.get("town").Snapshot().Record); err != nil {
		t.Fatal(err)
	}
	var r *verify.Result
	within(t, 3*patience, "every chain has its last receipt, and all is proved", func() bool {
		file, err := fra.evidenceOf("town")
		if err != nil {
			return false
		}
		r = verify.File(file, m.verifier())
		return finals(t, file) == 3 && (r.Whole() || r.Worst() > verify.Gap)
	})
	ends := map[string]bool{}
	for _, f := range r.Flows {
		ends[string(f.Node)+" "+string(f.Side)+" "+string(f.Peer)+" "+string(f.Class)] = true
	}
	for _, hop := range []string{
		"waw sent osl media", "osl received waw media", "waw sent fra media", "fra received waw media",
		"osl sent waw media", "waw received osl media", "waw sent fra signalling", "fra received waw signalling",
		"fra sent waw signalling", "waw received fra signalling", "fra stored fra metadata", "fra recorded fra recording",
	} {
		if !ends[hop] {
			t.Errorf("no evidence of %s, got %v", hop, ends)
		}
	}
	for _, f := range r.Findings {
		t.Errorf("%+v", f)
	}
	if len(r.Epochs) != 1 || r.Epochs[0].Title != "EEA" {
		t.Errorf("the file has the policies %+v", r.Epochs)
	}
	if fra.evidenceState().Problem != "" || fra.evidenceState().Waiting != 0 {
		t.Errorf("got %+v", fra.evidenceState())
	}
	eventually(t, "others have seen the log's head", func() bool {
		w := m.node("waw")
		w.testimony.mu.Lock()
		defer w.testimony.mu.Unlock()
		_, size := w.testimony.witness.Newest("fra")
		return size > 0
	})
}

// signed gives a node its policies as the authority signed them, so that they are in
// the evidence.
func signed(m *testMesh, cfg *Config) {
	cfg.Policies.Signed = m.sign(m.bundle)
	cfg.Policies.Parse = parseJSON
	cfg.Authorities = []*x509.Certificate{m.ca.Certificate()}
}

// parseJSON reads the text of a bundle as testMesh.sign writes it.
func parseJSON(text []byte) (*residency.Bundle, error) {
	b := &residency.Bundle{}
	return b, json.Unmarshal(text, b)
}

func (m *testMesh) verifier() verify.Options {
	return verify.Options{Roots: []*x509.Certificate{m.ca.Certificate()}, Parse: parseJSON}
}

// finals counts the chains in a file that have ended.
func finals(t *testing.T, file []byte) int {
	t.Helper()
	n := 0
	for line := range strings.Lines(string(file)) {
		if i := strings.Index(line, `{"version":1,"room":`); i >= 0 && strings.Contains(line, `"final":true`) {
			n++
		}
	}
	return n
}

// fullDisk lets no file of this process grow beyond a few bytes until the
// returned function is called, as the disk of an origin that is full.
func fullDisk(t *testing.T) (empty func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	set := func(l syscall.Rlimit) {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &l); err != nil {
			t.Error(err)
		}
	}
	set(syscall.Rlimit{Cur: 16, Max: old.Max})
	empty = sync.OnceFunc(func() { set(old) })
	t.Cleanup(empty)
	return empty
}

// receiptsOf reads the receipts of a room out of an origin's log.
func receiptsOf(t *testing.T, n *testNode, name string) (list []evidence.Receipt) {
	t.Helper()
	file, err := n.evidenceOf(name)
	if err != nil {
		return nil
	}
	f, err := evidence.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range f.Logs[0].Receipts {
		r, err := evidence.Peek(i.Signed)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	return list
}

// sentBy is the request by which a node has sent its receipts of a room.
func sentBy(t *testing.T, n *testNode, name string, by residency.NodeName) []byte {
	t.Helper()
	file, err := n.evidenceOf(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := evidence.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m receipts
	for _, i := range f.Logs[0].Receipts {
		if r, err := evidence.Peek(i.Signed); err == nil && r.Node == by {
			m.Receipts = append(m.Receipts, string(i.Signed))
		}
	}
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// TestStaleReceiptsAreGivenUp has receipts wait that nobody will ever take: after a day
// they make room, and it is counted.
func TestStaleReceiptsAreGivenUp(t *testing.T) {
	t.Parallel()
	fra := newMesh(t, testBundle(1), "fra DE origin").node("fra")
	day := fra.now().Add(-shipWithin)
	fra.queue([]outbox.Item{{Room: "gone", Policy: "there is none", Line: "old", Since: day.Add(-time.Minute).UnixMilli()},
		{Room: "gone", Policy: "there is none", Line: "not yet", Since: day.Add(time.Minute).UnixMilli()}})
	eventually(t, "the old one is given up", func() bool { return fra.testimony.box.Dropped()[outbox.Stale] == 1 })
	if left := fra.testimony.box.Waiting(); len(left) != 1 || left[0].Line != "not yet" {
		t.Errorf("left are %+v", left)
	}
}

// TestReceiptsSurviveAKill has an origin hold receipts that the room's home does not
// take, and starts it anew with the disk as it was at one moment: all that waited then
// is in the log afterwards, each once.
func TestReceiptsSurviveAKill(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), signed, "fra DE origin", "par FR origin", "waw PL")
	home := m.node("waw").home(room.Record{Name: "town", Policy: "eea-only"})
	other := residency.NodeName("par")
	if home == "par" {
		other = "fra"
	}
	h, o := m.node(home), m.node(other)
	anna, bob := enter(t, o, "town", "anna", preset("eea-only")), enter(t, m.node("waw"), "town", "bob", nil)
	voice := anna.publish("voice", livekit.TrackType_AUDIO)
	bob.hears(voice)
	if err := h.testimony.log.Close(); err != nil { // it takes nothing any more
		t.Fatal(err)
	}
	eventually(t, "receipts wait", func() bool { return o.testimony.box.Len() > 0 })
	disk := filepath.Join(t.TempDir(), "disk") // of the moment, as after a kill
	if err := os.CopyFS(filepath.Join(disk, "evidence"), os.DirFS(o.evidenceDir())); err != nil {
		t.Fatal(err)
	}
	m.halt(other)
	m.halt(home)

	cfg := o.cfg
	cfg.DataDir = disk
	cfg.Listen.Gossip, h.cfg.Listen.Gossip = freePort(t), freePort(t)
	m.start(h.cfg)
	box, err := outbox.Open(filepath.Join(disk, "evidence", "outbox"), residency.Disk{})
	if err != nil {
		t.Fatal(err)
	}
	waited := box.Waiting()
	if err := box.Close(); err != nil || len(waited) == 0 {
		t.Fatalf("what waited is not on the disk: %v", err)
	}
	o = m.start(cfg)
	eventually(t, "what waited is sent", func() bool { return o.testimony.box.Len() == 0 })
	for _, i := range waited { // a node that has not met the others yet may be home itself
		if in, own := m.node(home).testimony.log.Has([]byte(i.Line)), o.testimony.log.Has([]byte(i.Line)); in == own {
			t.Errorf("a receipt is in the home's log: %v, in its writer's: %v", in, own)
		}
	}
	if fi, err := os.Stat(filepath.Join(disk, "evidence", "outbox")); err != nil || fi.Size() != 0 {
		t.Errorf("nothing waits, and the file is %v, %v", fi, err)
	}
}

// TestFullDiskStopsTheRoom fills the disk of the only origin under a meeting: what
// it can no longer prove it refuses, and says why; it takes people again when it can.
func TestFullDiskStopsTheRoom(t *testing.T) {
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra := m.node("fra")
	bob := enter(t, fra, "town", "bob", preset("eea-only"))
	enter(t, m.node("waw"), "town", "anna", nil)
	empty := fullDisk(t)
	filled := lived()
	eventually(t, "fra finds that it can prove nothing", func() bool { return fra.noEvidence() != "" })
	noticed := lived() - filled
	bob.await("is sent away", func() bool { return bob.leave != nil })
	stopped := lived() - filled
	t.Logf("noticed after %s, bob knows after %s", noticed, stopped)
	_, v := fra.permit(room.Record{Name: "town", Policy: "eea-only"}, residency.ClassMedia, "waw", false)
	if v.Allow || v.Rule != residency.RuleEvidence || !strings.Contains(v.Reason, "cannot be written") {
		t.Errorf("the gate says %+v", v)
	}
	empty()
	eventually(t, "fra can again", func() bool { return fra.noEvidence() == "" })
	// What takes a second is not the way but a machine that does something else.
	for round := 0; stopped > time.Second && round < 3; round++ {
		carl := enter(t, fra, "town", "carl", nil)
		empty := fullDisk(t)
		filled := lived()
		carl.await("is sent away", func() bool { return carl.leave != nil })
		stopped = lived() - filled
		empty()
		eventually(t, "fra can again", func() bool { return fra.noEvidence() == "" })
	}
	if stopped > time.Second {
		t.Errorf("people learned after %s that nothing can be proved", stopped)
	}
	enter(t, fra, "town", "carl", nil)
}

// TestOriginAwayAndBack takes the only origin away under a meeting. What is on its way
// waits; after the patience that the node is configured with, rooms that need evidence
// stop, and nobody gets in, who is told why. When the origin is back it gets all that
// waited, each receipt once, and remembers what others showed it.
func TestOriginAwayAndBack(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	unproved := *b.Policies["eea-only"]
	unproved.Name, unproved.Evidence = "unproved", residency.EvidenceOff
	b.Policies["unproved"] = &unproved
	m := newMeshOf(t, b, func(m *testMesh, cfg *Config) {
		signed(m, cfg)
		cfg.EvidencePatience = 2 * time.Second
	}, "fra DE origin", "waw PL", "osl NO")
	fra, waw := m.node("fra"), m.node("waw")
	anna, olaf := enter(t, waw, "town", "anna", preset("eea-only")), enter(t, m.node("osl"), "town", "olaf", nil)
	carl := enter(t, waw, "free", "carl", preset("unproved"))
	voice := anna.publish("voice", livekit.TrackType_AUDIO)
	olaf.hears(voice)
	eventually(t, "the origin has receipts of both", func() bool {
		writers := map[residency.NodeName]bool{}
		for _, r := range receiptsOf(t, fra, "town") {
			writers[r.Node] = true
		}
		return writers["waw"] && writers["osl"]
	})
	sid := fra.rooms.get("town").Snapshot().Record.SID
	before := len(receiptsOf(t, fra, sid))
	m.halt("fra")
	eventually(t, "waw finds that nothing takes its receipts", func() bool { return waw.noEvidence() != "" })
	anna.await("is sent away", func() bool { return anna.leave != nil })
	_, _, err := waw.mayJoin(t.Context(), httptest.NewRequest("GET", "/rtc", nil), signal.Join{Room: "town", Identity: "bob", Token: &control.Grants{RoomPreset: "eea-only"}})
	if r := asRefusal(err); err == nil || r.Rule != residency.RuleEvidence && r.Rule != ruleOriginAway || r.Hint == "" {
		t.Errorf("bob is told %+v, %v", r, err)
	}
	if r := asRefusal(waw.canProve(room.Record{Name: "town", Policy: "eea-only"})); r.Rule != residency.RuleEvidence || !strings.Contains(r.Message, "no origin") || r.Hint == "" {
		t.Errorf("the node refuses with %+v", r)
	}
	if carl.leave != nil {
		t.Error("a room whose policy wants no evidence stopped, too")
	}
	eventually(t, "the last receipts of the meeting wait", func() bool { return waw.testimony.box.Len() > 0 && m.node("osl").testimony.box.Len() > 0 })

	fra.cfg.Listen.Gossip = freePort(t)
	fra.cfg.Mesh.Join = []string{waw.cfg.Listen.Gossip.String()}
	fra = m.start(fra.cfg)
	for _, n := range []*testNode{waw, m.node("osl")} {
		eventually(t, "what waited is in the log", func() bool { return n.testimony.box.Len() == 0 && n.noEvidence() == "" })
	}
	var last []evidence.Receipt
	eventually(t, "the log has them", func() bool { last = receiptsOf(t, fra, sid); return len(last) > before })
	h, _ := fra.testimony.log.Head()
	if free := receiptsOf(t, fra, "free"); int(h.Size) != len(last)+len(free) {
		t.Errorf("%d and %d different receipts in a log of %d: some stand there twice", len(last), len(free), h.Size)
	}
	sent := sentBy(t, fra, sid, "waw")
	if _, _, err := fra.doReceipts(t.Context(), question{"waw", "", residency.ClassMetadata, sent}); err != nil {
		t.Errorf("what is sent again is refused: %v", err)
	}
	if again, _ := fra.testimony.log.Head(); again.Size != h.Size {
		t.Errorf("a log of %d receipts has %d after some came again", h.Size, again.Size)
	}
	if _, _, err := fra.doReceipts(t.Context(), question{"osl", "", residency.ClassMetadata, sent}); asRefusal(err).Code != CodeInvalid {
		t.Errorf("another node brings them: %v", err)
	}
	enter(t, waw, "town", "bob", preset("eea-only"))
}

// TestRoomWithoutHomeConcernsNoOther has receipts wait that no origin may keep any more,
// because the policies of their room changed: the room itself is refused, and the node
// goes on with all others.
func TestRoomWithoutHomeConcernsNoOther(t *testing.T) {
	t.Parallel()
	fra := newMesh(t, testBundle(1), "fra DE origin", "waw PL").node("fra")
	fra.queue([]outbox.Item{{Room: "gone", Policy: "there is none", Line: "a receipt", Since: fra.now().Add(-time.Hour).UnixMilli()}})
	fra.ship(t.Context())
	if why := fra.noEvidence(); why != "" {
		t.Fatalf("the node can prove nothing: %s", why)
	}
	enter(t, fra, "town", "anna", preset("eea-only"))
	permit := func(name string) residency.Verdict {
		fra.setHomeless(map[string]bool{"country": true})
		_, v := fra.permit(room.Record{Name: name, Policy: "eea-only"}, residency.ClassMedia, "waw", false)
		return v
	}
	if v := permit("country"); v.Allow || v.Rule != residency.RuleEvidence || !strings.Contains(v.Reason, "no origin may keep") {
		t.Errorf("the room without a home: %+v", v)
	}
	if v := permit("town"); !v.Allow {
		t.Errorf("the other: %+v", v)
	}
}

// TestHomeLost loses the home of a room for good. The other origin goes on under the
// same pseudonym, with the key that it was given before, also after it is started anew;
// what it has is exported from there, and together with what the old home had it is all.
func TestHomeLost(t *testing.T) {
	t.Parallel()
	m := newMeshOf(t, testBundle(1), signed, "fra DE origin", "par FR origin", "waw PL")
	waw := m.node("waw")
	rec := room.Record{Name: "town", Policy: "eea-only"}
	home, other := waw.home(rec), residency.NodeName("par")
	if home == "par" {
		other = "fra"
	}
	h, o := m.node(home), m.node(other)
	anna, bob := enter(t, waw, "town", "anna", preset("eea-only")), enter(t, o, "town", "bob", preset("eea-only"))
	voice := anna.publish("voice", livekit.TrackType_AUDIO)
	bob.hears(voice)
	sid := h.rooms.get("town").Snapshot().Record.SID
	eventually(t, "the other origin has the room's key", func() bool { _, ok := o.testimony.keys.get(sid); return ok })
	if key, err := os.ReadDir(filepath.Join(waw.cfg.DataDir, "evidence")); err == nil {
		t.Errorf("an edge has %v", key)
	}
	eventually(t, "the home has receipts of everybody", func() bool {
		nodes := map[residency.NodeName]bool{}
		for _, r := range receiptsOf(t, h, sid) {
			nodes[r.Node] = true
		}
		return len(nodes) == 3
	})
	var old []byte
	m.halt(home)
	eventually(t, "the other origin is the home now", func() bool { return o.home(rec) == other && waw.home(rec) == other })
	anna.say(&livekit.DataPacket{Kind: livekit.DataPacket_RELIABLE, Value: &livekit.DataPacket_User{User: &livekit.UserPacket{Payload: []byte("who is there?")}}})
	eventually(t, "what is written now is in its log", func() bool { return len(receiptsOf(t, o, sid)) > 0 })
	anna.close()
	bob.close()
	if err := o.deleteRoom(t.Context(), o.rooms.get("town").Snapshot().Record); err != nil {
		t.Fatal(err)
	}
	file, err := o.evidenceOf(sid)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range verify.File(file, m.verifier()).Findings {
		if f.Code != verify.MissingReceipt && f.Severity() != verify.Gap {
			t.Errorf("of the other origin alone: %+v", f)
		}
	}
	_, shown := o.testimony.witness.Newest(home)
	m.halt(other)
	o.cfg.Listen.Gossip, h.cfg.Listen.Gossip = freePort(t), freePort(t)
	o = m.start(o.cfg)
	if _, size := o.testimony.witness.Newest(home); size != shown || size == 0 {
		t.Errorf("started anew, it remembers a head of %d receipts, not of %d", size, shown)
	}
	h = m.start(h.cfg)
	if old, err = h.evidenceOf(sid); err != nil {
		t.Fatal(err)
	}
	if file, err = o.evidenceOf(sid); err != nil {
		t.Fatal(err)
	}
	r := verify.Files([][]byte{old, file}, m.verifier())
	for _, f := range r.Findings {
		if f.Severity() != verify.Gap {
			t.Errorf("of both origins: %+v", f)
		}
	}
	if len(r.Logs) != 2 {
		t.Errorf("logs %+v", r.Logs)
	}
}

// TestKeysGoNowhereElse sends a room's key to an origin that may not keep the room's
// metadata, and keys that cannot be.
func TestKeysGoNowhereElse(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US origin")
	fra, nyc := m.node("fra"), m.node("nyc")
	bob := enter(t, fra, "town", "bob", preset("eea-only"))
	defer bob.close()
	rec := fra.rooms.get("town").Snapshot().Record
	rk, ok := fra.testimony.keys.get(rec.SID)
	if !ok {
		t.Fatal("the home has no key")
	}
	if err := fra.shareKey(t.Context(), rec, "nyc"); err != nil || fra.testimony.shared[rec.SID]["nyc"] {
		t.Errorf("the home shares with an origin in the US: %v", err)
	}
	give := func(n *testNode, from residency.NodeName, s sharedKey) error {
		body, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = n.doRoomKey(t.Context(), question{from, "", residency.ClassMetadata, body})
		return err
	}
	if err := give(nyc, "fra", sharedKey{roomKey: rk, Policy: "eea-only"}); err == nil {
		t.Error("an origin in the US keeps the key")
	}
	other := rk
	other.Key = evidence.NewRoomKey()
	if err := give(fra, "fra", sharedKey{roomKey: other, Policy: "eea-only"}); err == nil {
		t.Error("a key that does not make the pseudonym is kept")
	}
	if other.Pseudonym, _ = other.Key.Pseudonym(rec.SID); give(fra, "fra", sharedKey{roomKey: other, Policy: "eea-only"}) == nil {
		t.Error("a room's key is replaced")
	}
	path := rk
	path.SID = "../RM_x"
	if path.Pseudonym, _ = path.Key.Pseudonym(path.SID); give(fra, "fra", sharedKey{roomKey: path, Policy: "eea-only"}) == nil {
		t.Error("a key with a path for an id is kept")
	}
}

// TestRefusalsAndKeptChat keeps a room in the EEA from a node in the US, and keeps what
// is written in it: both stand in the room's evidence, judged by the policies in it.
func TestRefusalsAndKeptChat(t *testing.T) {
	t.Parallel()
	b := testBundle(1)
	b.Policies["eea-only"].ChatLog, b.Policies["eea-only"].QALog = true, true
	m := newMeshOf(t, b, signed, "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	anna := enter(t, fra, "town", "anna", preset("eea-only"))
	if _, err := nyc.resolve(t.Context(), resolveRequest{Spec: room.Record{Name: "town"}}); asRefusal(err).Rule != residency.RuleZone {
		t.Fatalf("nyc is told %v", err)
	}
	anna.negotiate()
	for _, p := range slices.Concat(textStream("s1", "lk.chat", "kept"), textStream("s2", "domicile.qa", "is it?")) {
		anna.say(p)
	}
	rec := fra.rooms.get("town").Snapshot().Record
	eventually(t, "the chat is kept", func() bool { lines, err := fra.chats.read(rec); return err == nil && len(lines) == 2 })
	anna.close()
	if err := fra.deleteRoom(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	var r *verify.Result
	eventually(t, "all of it is proved", func() bool {
		file, err := fra.evidenceOf("town")
		if err != nil {
			return false
		}
		r = verify.File(file, m.verifier())
		return finals(t, file) == 1
	})
	for _, f := range r.Findings {
		if f.Severity() > verify.Gap {
			t.Errorf("%+v", f)
		}
	}
	var got []string
	for _, f := range r.Flows {
		if f.Side == evidence.Refused || f.Class == residency.ClassChat {
			got = append(got, fmt.Sprint(f.Side, " ", f.Class, " ", f.QA, " ", f.Peer, " ", f.Rule, " ", f.Packets))
		}
	}
	slices.Sort(got)
	if want := []string{"refused signalling false nyc zone 1", "stored chat false fra zone 1", "stored chat true fra zone 1"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if !slices.ContainsFunc(r.Nodes, func(n residency.Node) bool { return n.Name == "nyc" && n.Country == "US" }) {
		t.Error("the certificate of the node that was refused is not in the file")
	}
}

// TestEvidenceMetrics reads what Prometheus is told of a meeting's evidence.
func TestEvidenceMetrics(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "waw PL")
	fra, waw := m.node("fra"), m.node("waw")
	enter(t, fra, "town", "bob", preset("eea-only"))
	enter(t, waw, "town", "anna", nil)
	metrics := func(n *testNode) string {
		reg := prometheus.NewRegistry()
		reg.MustRegister(collector{n.Node})
		w := httptest.NewRecorder()
		promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		return w.Body.String()
	}
	figure := func(text, name string) float64 {
		for line := range strings.Lines(text) {
			if v, ok := strings.CutPrefix(line, name+" "); ok {
				f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
				if err != nil {
					t.Fatal(err)
				}
				return f
			}
		}
		return -1
	}
	eventually(t, "receipts of both are in the log", func() bool {
		f, w := metrics(fra), metrics(waw)
		return figure(w, "domicile_evidence_receipts_shipped_total") > 0 && figure(w, "domicile_evidence_receipts_waiting") == 0 &&
			figure(f, "domicile_evidence_log_receipts") >= figure(w, "domicile_evidence_receipts_shipped_total") &&
			figure(f, "domicile_evidence_log_bytes") > 500 && figure(f, "domicile_evidence_writable") == 1
	})
	f, w := metrics(fra), metrics(waw)
	if age := figure(f, "domicile_evidence_head_age_seconds"); age < 0 || age > patience.Seconds() {
		t.Errorf("the newest head is %v s old", age)
	}
	if figure(w, "domicile_evidence_log_receipts") != -1 || figure(w, `domicile_evidence_receipts_dropped_total{reason="full"}`) != 0 {
		t.Errorf("an edge has\n%s", w)
	}
}
