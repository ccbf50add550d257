package jsep

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// ledger is what must hold of all descriptions of a connection together. It reads
// them with nothing of ours but the parser.
type ledger struct {
	t       *testing.T
	version uint64
	mids    []string          // by section
	kinds   []string          // by section
	ssrcs   map[string]string // → the track it was first given to, with its section
	tracks  []string          // by section: what was sent in it in the description before
	numbers map[string]string // payload types and extension ids → what they stand for
}

func newLedger(t *testing.T) *ledger {
	return &ledger{t: t, ssrcs: make(map[string]string), numbers: make(map[string]string)}
}

// check reads a description of ours.
func (l *ledger) check(text string) {
	l.t.Helper()
	var d sdp.SessionDescription
	must(l.t, d.UnmarshalString(text))
	if d.Origin.SessionVersion <= l.version {
		l.t.Errorf("version %d after %d", d.Origin.SessionVersion, l.version)
	}
	l.version = d.Origin.SessionVersion
	if _, ok := d.Attribute("ice-lite"); !ok {
		l.t.Error("no ice-lite")
	}
	if len(d.MediaDescriptions) < len(l.mids) {
		l.t.Fatalf("%d sections, there were %d", len(d.MediaDescriptions), len(l.mids))
	}
	group, _ := d.Attribute("group")
	candidates := 0
	for i, m := range d.MediaDescriptions {
		mid, _ := m.Attribute("mid")
		l.keeps(i, mid, m.MediaName.Media)
		if open := m.MediaName.Port.Value != 0; open != slices.Contains(strings.Fields(group), mid) {
			l.t.Errorf("section %q, port %d, is bundled in %q", mid, m.MediaName.Port.Value, group)
		}
		track := ""
		for _, a := range m.Attributes {
			switch a.Key {
			case "msid":
				track = a.Value
			case "candidate":
				candidates++
			case "rtpmap", "extmap":
				l.stands(a)
			}
		}
		_, sends := m.Attribute("sendonly")
		_, both := m.Attribute("sendrecv")
		if media := m.MediaName.Media != "application"; media && (track != "") != (sends || both) {
			l.t.Errorf("section %q sends %q: %v", mid, track, sends || both)
		}
		if before := l.tracks[i]; before != "" && track != "" && before != track {
			l.t.Errorf("section %q carries %q at once after %q", mid, track, before)
		}
		l.tracks[i] = track
		l.own(m, mid+" "+track)
	}
	if candidates != 1 {
		l.t.Errorf("%d candidates", candidates)
	}
}

func (l *ledger) keeps(i int, mid, kind string) {
	l.t.Helper()
	if i == len(l.mids) {
		if slices.Contains(l.mids, mid) {
			l.t.Errorf("two sections are called %q", mid)
		}
		l.mids, l.kinds, l.tracks = append(l.mids, mid), append(l.kinds, kind), append(l.tracks, "")
	}
	if l.mids[i] != mid || l.kinds[i] != kind {
		l.t.Errorf("section %d is %s %q, it was %s %q", i, kind, mid, l.kinds[i], l.mids[i])
	}
}

// stands checks that a number means one thing everywhere.
func (l *ledger) stands(a sdp.Attribute) {
	l.t.Helper()
	number, what, _ := strings.Cut(a.Value, " ")
	key := a.Key + number
	if was := l.numbers[key]; was != "" && was != what {
		l.t.Errorf("%s %s is %q, it was %q", a.Key, number, what, was)
	}
	l.numbers[key] = what
}

// own checks that no SSRC has two tracks.
func (l *ledger) own(m *sdp.MediaDescription, track string) {
	l.t.Helper()
	for _, a := range m.Attributes {
		if a.Key != "ssrc" {
			continue
		}
		ssrc, _, _ := strings.Cut(a.Value, " ")
		if was := l.ssrcs[ssrc]; was != "" && was != track {
			l.t.Errorf("SSRC %s is of %q, it was of %q", ssrc, track, was)
		}
		l.ssrcs[ssrc] = track
	}
}

var someCodecs = []Codec{opusCodec, opusCodec, redCodec, vp8Codec, vp8Codec, h264Codec, vp9Codec, av1Codec}

// wishes changes what a peer is to send, and knows what that is.
type wishes struct {
	rnd  *rand.Rand
	next int
	keys map[Key]Sender
}

func (w *wishes) change(t *testing.T, p *Peer) {
	t.Helper()
	for range w.rnd.IntN(4) {
		if len(w.keys) > 0 && w.rnd.IntN(3) == 0 {
			for k := range w.keys {
				delete(w.keys, k)
				if !p.RemoveSender(k) {
					t.Errorf("no sender %q", k)
				}
				break
			}
			continue
		}
		w.next++
		s := sender(Key(fmt.Sprint(w.next)), someCodecs[w.rnd.IntN(len(someCodecs))])
		if len(w.keys) < 12 {
			w.keys[s.Key] = s
			add(t, p, s)
		}
	}
}

// matches compares what was bound, over all changes, with what was wished for.
func (w *wishes) matches(t *testing.T, p *Peer, bound map[Key]Binding) {
	t.Helper()
	mids := p.MIDs()
	for k, s := range w.keys {
		b, ok := bound[k]
		if !ok {
			t.Errorf("%q is not bound", k)
			continue
		}
		if mids[b.MID] != s.TrackID || b.SSRC == 0 || b.PayloadType == 0 || b.Unsupported {
			t.Errorf("%+v is bound as %+v, MIDs %v", s, b, mids)
		}
		if b.Codec.MimeType != s.Codec.MimeType && !(s.Codec.MimeType == mimeRED && b.PlainOpus) {
			t.Errorf("%+v is bound as %+v", s, b)
		}
	}
	if len(mids) != len(w.keys) {
		t.Errorf("MIDs %v of %d senders", mids, len(w.keys))
	}
}

// spoil makes descriptions of a good one that cannot be taken.
func spoil(good string) []string {
	first := strings.Index(good, "\r\nm=")
	return []string{
		"", good[:first+2], strings.ReplaceAll(good, "a=ice-pwd", "a=ice-pw"), strings.ReplaceAll(good, "a=fingerprint", "a=finger"),
		strings.ReplaceAll(good, "a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:"), strings.ReplaceAll(good, "a=setup:", "a=setup:hold"),
		good[:first] + strings.ReplaceAll(good[first:], "a=mid:", "a=mid:x"), good + "m=\r\n",
	}
}

func TestRandomSubscriptionsOfPion(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			pc := newPion(t)
			p := New(Config{FirstSSRC: rnd.Uint32(), SessionID: 3, Data: true, RED: true, FreshSections: seed%2 == 0})
			w := wishes{rnd: rnd, keys: make(map[Key]Sender)}
			l := newLedger(t)
			bound := make(map[Key]Binding)
			for range 14 {
				w.change(t, p)
				o := offer(t, p)
				l.check(o)
				a := pionAnswers(t, pc, o)
				if len(bound) > 0 { // a fingerprint is known
					cut := a[:strings.LastIndex(a, "\r\nm=")+2]
					for i, bad := range append(spoil(a), cut) {
						if _, err := p.TakeAnswer(bad); err == nil {
							t.Fatalf("spoilt answer %d was taken", i)
						}
					}
				}
				c, err := p.TakeAnswer(a)
				must(t, err)
				for _, b := range c.Bound {
					bound[b.Key] = b
				}
				if len(c.Incoming)+len(c.Gone)+len(c.Unbound) != 0 || p.Pending() {
					t.Errorf("pending %v, change %+v", p.Pending(), c)
				}
				w.matches(t, p, bound)
			}
		})
	}
}

// publications are what a pion client sends.
type publications struct {
	rnd  *rand.Rand
	pc   *webrtc.PeerConnection
	next int
}

func (s *publications) change(t *testing.T) {
	t.Helper()
	sending := s.sending()
	if len(sending) > 0 && s.rnd.IntN(3) == 0 {
		must(t, s.pc.RemoveTrack(sending[s.rnd.IntN(len(sending))]))
		return
	}
	s.next++
	mime := []string{webrtc.MimeTypeOpus, webrtc.MimeTypeVP8, webrtc.MimeTypeH264}[s.rnd.IntN(3)]
	id := fmt.Sprint("cid", s.next)
	layer := func(rid string) webrtc.TrackLocal {
		options := []func(*webrtc.TrackLocalStaticRTP){}
		if rid != "" {
			options = append(options, webrtc.WithRTPStreamID(rid))
		}
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, id, "stream", options...)
		must(t, err)
		return track
	}
	simulcast := mime == webrtc.MimeTypeVP8 && s.rnd.IntN(2) == 0
	rid := ""
	if simulcast {
		rid = "q"
	}
	tr, err := s.pc.AddTransceiverFromTrack(layer(rid), webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	must(t, err)
	if simulcast {
		must(t, tr.Sender().AddEncoding(layer("h")))
		must(t, tr.Sender().AddEncoding(layer("f")))
	}
}

func (s *publications) sending() (out []*webrtc.RTPSender) {
	for _, snd := range s.pc.GetSenders() {
		if snd != nil && snd.Track() != nil {
			out = append(out, snd)
		}
	}
	return out
}

// matches compares what is coming in with what the client sends.
func (s *publications) matches(t *testing.T, in []Incoming) {
	t.Helper()
	var want, got []string
	for _, snd := range s.sending() {
		want = append(want, fmt.Sprint(snd.Track().ID(), " ", len(snd.GetParameters().Encodings)))
	}
	for _, i := range in {
		got = append(got, fmt.Sprint(i.TrackID, " ", max(len(i.RIDs), len(i.Streams))))
		if i.StreamID != "stream" || len(i.Formats) == 0 || i.Extensions.MID == 0 {
			t.Errorf("incoming %+v", i)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("incoming %q, sent are %q", got, want)
	}
}

func TestRandomSingleConnectionsWithPion(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			pc := newPion(t)
			_, err := pc.CreateDataChannel("_reliable", nil)
			must(t, err)
			p := New(Config{FirstSSRC: rnd.Uint32(), SessionID: 3, RED: seed%2 == 0})
			w := wishes{rnd: rnd, keys: make(map[Key]Sender)}
			pubs := publications{rnd: rnd, pc: pc}
			l := newLedger(t)
			bound := make(map[Key]Binding)
			var incoming []Incoming
			for range 14 {
				w.change(t, p)
				pubs.change(t)
				audio, video := p.Missing()
				for i := range audio + video {
					kind := webrtc.RTPCodecTypeVideo
					if i < audio {
						kind = webrtc.RTPCodecTypeAudio
					}
					_, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
					must(t, err)
				}
				o := pionOffers(t, pc)
				if p.Sections() > 0 {
					for i, bad := range spoil(o) {
						if _, err := p.TakeOffer(bad); err == nil {
							t.Fatalf("spoilt offer %d was taken", i)
						}
					}
				}
				c, a := answer(t, p, o)
				pionTakes(t, pc, a)
				l.check(a)
				for _, b := range c.Bound {
					bound[b.Key] = b
				}
				incoming = followed(t, incoming, c)
				pubs.matches(t, incoming)
				if p.Pending() || len(c.Unbound) > 0 {
					t.Errorf("pending %v, unbound %q", p.Pending(), c.Unbound)
				}
				w.matches(t, p, bound)
			}
		})
	}
}

// followed applies what is new and gone to a list, which must then be what the
// change says that there is.
func followed(t *testing.T, list []Incoming, c Change) []Incoming {
	t.Helper()
	same := func(a, b Incoming) bool { return a.MID == b.MID && a.TrackID == b.TrackID }
	for _, g := range c.Gone {
		n := len(list)
		if list = slices.DeleteFunc(list, func(in Incoming) bool { return same(in, g) }); len(list) != n-1 {
			t.Errorf("%q is gone, it was not there", g.TrackID)
		}
	}
	for _, in := range c.Incoming {
		if in.New {
			list = append(list, in)
		}
	}
	if len(list) != len(c.Incoming) || slices.ContainsFunc(list, func(a Incoming) bool {
		return !slices.ContainsFunc(c.Incoming, func(b Incoming) bool { return same(a, b) })
	}) {
		t.Errorf("incoming %+v does not follow from %+v", c.Incoming, list)
	}
	return list
}
