package rtc

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"github.com/domicile/domicile/node/sfu"
)

// publisher is the peer connection on which the client sends. Every stream of
// a track has a goroutine that reads its RTP and one that reads its RTCP; both
// end when pion stops the receiver.
type publisher struct {
	s *Session // static

	negotiate sync.Mutex // one offer at a time; guards nothing else

	mu       sync.Mutex // guards the rest
	pc       *webrtc.PeerConnection
	closed   bool
	rids     map[string][]string // by MID, of the last offer
	incoming map[incomingKey]*incoming
	ignored  uint64         // streams beyond MaxTracks
	readers  sync.WaitGroup // grows under mu while not closed
}

// incomingKey tells tracks apart that follow each other in one media section.
type incomingKey struct{ mid, track string }

// incoming is a published track, all its streams together.
type incoming struct {
	publish func() *sfu.UpTrack // asks Events once, whichever stream comes first
	ssrcs   [sfu.MaxLayers]atomic.Uint32
	streams int // guarded by publisher.mu
}

// answer negotiates an offer of the client.
func (p *publisher) answer(offer string) (string, error) {
	p.negotiate.Lock()
	defer p.negotiate.Unlock()
	parsed, err := parseSDP(offer)
	if err != nil {
		return "", fmt.Errorf("answer publisher: %w", err)
	}
	pc, err := p.prepare(ridsByMID(parsed))
	if err != nil {
		return "", fmt.Errorf("answer publisher: %w", err)
	}
	answer, err := answerOffer(pc, offer)
	if err != nil {
		p.discardUnused(pc)
		return "", fmt.Errorf("answer publisher: %w", err)
	}
	return answerOpus(answer, parsed), nil
}

func answerOffer(pc *webrtc.PeerConnection, offer string) (string, error) {
	err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer})
	if err != nil {
		return "", fmt.Errorf("take offer: %w", err)
	}
	answer, err := pc.CreateAnswer(nil)
	if err != nil {
		return "", fmt.Errorf("create answer: %w", err)
	}
	done := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("apply answer: %w", err)
	}
	gathered(done)
	return pc.LocalDescription().SDP, nil
}

// prepare makes the connection at the first offer.
func (p *publisher) prepare(rids map[string][]string) (*webrtc.PeerConnection, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	p.rids = rids
	if p.pc != nil {
		return p.pc, nil
	}
	pc, err := p.s.engine.publishers.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, fmt.Errorf("make connection: %w", err)
	}
	p.s.watch(TargetPublisher, pc)
	pc.OnTrack(func(t *webrtc.TrackRemote, r *webrtc.RTPReceiver) { p.onTrack(pc, t, r) })
	pc.OnDataChannel(p.s.receiveData)
	p.pc = pc
	return pc, nil
}

// discardUnused drops a connection whose first offer failed half way, so that a
// better offer finds a fresh one. pion cannot roll back.
func (p *publisher) discardUnused(pc *webrtc.PeerConnection) {
	if pc.CurrentRemoteDescription() != nil {
		return
	}
	p.mu.Lock()
	if p.pc == pc {
		p.pc = nil
	}
	p.mu.Unlock()
	_ = pc.GracefulClose() // it carried nothing
}

// onTrack runs in a goroutine of pion's for as long as the stream lives.
func (p *publisher) onTrack(pc *webrtc.PeerConnection, track *webrtc.TrackRemote, r *webrtc.RTPReceiver) {
	mid := midOf(pc, r)
	key := incomingKey{mid, track.ID()}
	in, rids := p.join(pc, key, track)
	if in == nil {
		return
	}
	defer p.readers.Done()
	defer p.leave(key, in)
	layer, ok := layerOf(track.RID(), rids)
	up := in.publish()
	if up == nil || !ok {
		return
	}
	in.ssrcs[layer].Store(uint32(track.SSRC()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.readReports(r, track.RID(), layer, up)
	}()
	p.readPackets(track, layer, up)
	<-done
}

func midOf(pc *webrtc.PeerConnection, r *webrtc.RTPReceiver) string {
	for _, t := range pc.GetTransceivers() {
		if t.Receiver() == r {
			return t.Mid()
		}
	}
	return ""
}

// join counts a stream in. It returns nil for more than the session may have.
func (p *publisher) join(pc *webrtc.PeerConnection, key incomingKey, track *webrtc.TrackRemote) (*incoming, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, nil
	}
	rids := p.rids[key.mid]
	in := p.incoming[key]
	if in == nil {
		if len(p.incoming) >= p.s.cfg.MaxTracks {
			p.ignored++
			return nil, nil
		}
		in = p.newIncoming(pc, key, track, rids)
		p.incoming[key] = in
	}
	in.streams++
	p.readers.Add(1)
	return in, rids
}

func (p *publisher) newIncoming(pc *webrtc.PeerConnection, key incomingKey, track *webrtc.TrackRemote, rids []string) *incoming {
	in := &incoming{}
	about := Incoming{
		CID: key.track, StreamID: track.StreamID(), MID: key.mid,
		Codec: codecFrom(track.Codec().RTPCodecCapability), RIDs: rids,
	}
	if track.Kind() == webrtc.RTPCodecTypeVideo {
		about.Kind = sfu.Video
	}
	in.publish = sync.OnceValue(func() (up *sfu.UpTrack) {
		p.s.gate.pass(func() { up = p.s.events.Publish(about) })
		if up != nil {
			up.OnKeyframeRequest(func(l sfu.Layer) { in.askKeyframe(pc, l) })
		}
		return up
	})
	return in
}

// askKeyframe sends a PLI; a connection that is closing cannot be asked.
func (in *incoming) askKeyframe(pc *webrtc.PeerConnection, l sfu.Layer) {
	if ssrc := in.ssrcs[l].Load(); ssrc != 0 {
		_ = pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
	}
}

// leave counts a stream out; with the last one the track is over.
func (p *publisher) leave(key incomingKey, in *incoming) {
	p.mu.Lock()
	in.streams--
	last := in.streams == 0
	if last {
		delete(p.incoming, key)
	}
	p.mu.Unlock()
	if !last {
		return
	}
	if up := in.publish(); up != nil {
		p.s.gate.pass(func() { p.s.events.Unpublish(up) })
	}
}

// readPackets feeds the UpTrack until the stream ends.
func (p *publisher) readPackets(track *webrtc.TrackRemote, l sfu.Layer, up *sfu.UpTrack) {
	buf := make([]byte, maxPacket)
	burst := make([]sfu.Inbound, 1)
	var out sfu.Scratch
	for {
		n, _, err := track.Read(buf)
		if err != nil {
			return
		}
		burst[0] = sfu.Inbound{Raw: buf[:n], Arrival: p.s.engine.now()}
		up.Ingest(l, burst, &out)
	}
}

// readReports hands on the publisher's sender reports until the stream ends.
func (p *publisher) readReports(r *webrtc.RTPReceiver, rid string, l sfu.Layer, up *sfu.UpTrack) {
	buf := make([]byte, maxPacket)
	for {
		n, err := readRTCP(r, rid, buf)
		if err != nil {
			return
		}
		pkts, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue // a client's nonsense harms nobody
		}
		for _, pkt := range pkts {
			if sr, ok := pkt.(*rtcp.SenderReport); ok {
				up.Report(l, sfu.SenderReport{
					NTP: sr.NTPTime, RTP: sr.RTPTime,
					Packets: sr.PacketCount, Octets: sr.OctetCount, Arrival: p.s.engine.now(),
				})
			}
		}
	}
}

func readRTCP(r *webrtc.RTPReceiver, rid string, buf []byte) (int, error) {
	if rid == "" {
		n, _, err := r.Read(buf)
		return n, err
	}
	n, _, err := r.ReadSimulcast(buf, rid)
	return n, err
}

func (p *publisher) close() {
	p.mu.Lock()
	p.closed = true
	pc := p.pc
	p.mu.Unlock()
	if pc != nil {
		_ = pc.GracefulClose() // nothing is left to be lost
	}
	p.readers.Wait()
}
