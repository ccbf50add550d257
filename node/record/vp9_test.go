package record

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
)

// layeredPayloads are ten pictures of VP9 in two spatial layers (L3T3_KEY at 640x360), as
// Chromium 150 sent them while it was short of bits: of some it leaves out the lower layer,
// of others the higher. Each payload follows its length, in two bytes.
func layeredPayloads(t testing.TB) (out [][]byte) {
	b, err := os.ReadFile("testdata/vp9-layers.payloads")
	if err != nil {
		t.Fatal(err)
	}
	for len(b) > 0 {
		n := 2 + int(binary.BigEndian.Uint16(b))
		out, b = append(out, b[2:n]), b[n:]
	}
	return out
}

// layeredEvents sends them, ten pictures a second.
func layeredEvents(t *testing.T) (out []event) {
	var last uint16
	at, sent := t0, layeredPayloads(t)
	for i, b := range sent {
		var p codecs.VP9Packet
		_, err := p.Unmarshal(b)
		must(t, err)
		if i > 0 && p.PictureID != last {
			at = at.Add(100 * time.Millisecond)
		}
		last = p.PictureID
		// The marker is on the highest layer, where that is not left out.
		pkt := rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: uint16(i), Timestamp: uint32(at.Sub(t0).Milliseconds()) * 90, Marker: p.E && p.SID == 1}, Payload: b}
		raw, err := pkt.Marshal()
		must(t, err)
		out = append(out, event{arrival: at, raw: raw})
	}
	return out
}

// stored are the pictures of what was recorded.
func stored(t *testing.T, events []event) (out [][]byte) {
	r, err := newRecorder(codecVP9, Options{Start: t0}, func(cluster []byte) error {
		for e, err := range entries(cluster) {
			must(t, err)
			if e.frame != nil {
				out = append(out, slices.Clone(e.frame.data))
			}
		}
		return nil
	})
	must(t, err)
	for _, e := range events {
		var p rtp.Packet
		must(t, p.Unmarshal(e.raw))
		must(t, r.packet(&packet{seq: p.SequenceNumber, ts: p.Timestamp, marker: p.Marker, payload: p.Payload, arrival: e.arrival}))
	}
	must(t, r.close(ending{}))
	return out
}

// shown are the hashes of the pictures that a decoder shows, and their sizes.
func shown(t *testing.T, path string, decoder ...string) (hashes, sizes []string) {
	t.Helper()
	out := tool(t, "ffmpeg", slices.Concat([]string{"-v", "error"}, decoder, []string{"-i", path, "-fps_mode", "passthrough", "-autoscale", "0", "-f", "framemd5", "-"})...)
	for line := range strings.Lines(out) {
		if f := strings.Split(strings.TrimSpace(line), ","); !strings.HasPrefix(line, "#") && len(f) == 6 {
			hashes, sizes = append(hashes, strings.TrimSpace(f[5])), append(sizes, strings.TrimSpace(f[4]))
		}
	}
	return hashes, sizes
}

// A player shows one picture for each that was sent, the largest layer that came of it,
// and the same as a receiver over RTP does, which gets all layers as they were sent.
func TestSpatialLayersOfVP9(t *testing.T) {
	m := newMeeting(t)
	w := m.track("TR_cam", "alice", "camera", codecVP9)
	m.record(w, codecVP9, layeredEvents(t))
	must(t, w.Close())
	must(t, m.rec.Finish(t0.Add(2*time.Second)))
	path, _ := m.export(ExportOptions{})
	const large, small = "345600", "86400" // bytes of a picture in 4:2:0, 640x360 and 320x180
	want := []string{large, large, large, small, large, large, large, small, large, large}
	hashes, sizes := shown(t, path)
	if !slices.Equal(sizes, want) {
		t.Errorf("a player shows pictures of %v bytes, want %v", sizes, want)
	}
	// What is sent over RTP: the layers one after the other, all of them to be shown;
	// libvpx, which browsers decode with, shows the last.
	var sent [][]byte
	var sizesOf []int
	var last uint16
	for i, b := range layeredPayloads(t) {
		var p codecs.VP9Packet
		data, err := p.Unmarshal(b)
		must(t, err)
		if i == 0 || p.PictureID != last {
			sent, sizesOf = append(sent, nil), nil
		}
		if p.B {
			sizesOf = append(sizesOf, 0)
		}
		last = p.PictureID
		at := len(sent) - 1
		sent[at], sizesOf[len(sizesOf)-1] = append(sent[at], data...), sizesOf[len(sizesOf)-1]+len(data)
		if p.E && p.SID == 1 && len(sizesOf) > 1 {
			sent[at] = appendVP9Index(sent[at], sizesOf)
		}
	}
	reference := filepath.Join(t.TempDir(), "sent.ivf")
	must(t, os.WriteFile(reference, ivfFile(sent), 0o600))
	if seen, _ := shown(t, reference, "-c:v", "libvpx-vp9"); !slices.Equal(hashes, seen) {
		t.Errorf("a player shows\n%v\nwhat a receiver shows is\n%v", hashes, seen)
	}
	kept := stored(t, layeredEvents(t))
	if w, h, key := vp9Size(kept[0]); w != 640 || h != 360 || !key {
		t.Errorf("the first picture is %dx%d, keyframe %v; want 640x360, true", w, h, key)
	}
	if _, _, key := vp9Size(kept[1]); key {
		t.Error("the second picture counts as a keyframe")
	}
}

// Behind a hole a picture that begins with its upper layer may be half a picture, which
// no keyframe is.
func TestUpperLayerBehindAHole(t *testing.T) {
	events := layeredEvents(t)
	lower := slices.IndexFunc(events[1:], func(e event) bool { return e.arrival.Sub(t0) == 400*time.Millisecond }) + 1
	var p rtp.Packet
	var d codecs.VP9Packet
	for i := lower; ; i++ {
		must(t, p.Unmarshal(events[i].raw))
		if _, err := d.Unmarshal(p.Payload); err != nil || d.SID == 1 {
			events = slices.Delete(events, lower, i) // the lower layer of the fifth picture is lost
			break
		}
	}
	if n := len(stored(t, events)); n != 3+1 {
		t.Errorf("%d pictures stored, want three before the loss and the keyframe: of the fourth nobody knows whether it is whole", n)
	}
}

// A picture of more layers than there can be is none, and takes no memory.
func TestPictureWithoutEnd(t *testing.T) {
	v := &vp9Pictures{}
	frame, err := []byte(nil), error(nil)
	layers := 0
	for ; err == nil && layers < 1000; layers++ {
		frame, err = v.add(frame, []byte{0x08, 0x82}) // B: a frame begins
	}
	if layers != maxLayers+1 || len(v.ends) >= maxLayers {
		t.Errorf("%d layers taken: %v", layers-1, err)
	}
}

func ivfFile(frames [][]byte) []byte {
	b := binary.LittleEndian.AppendUint16([]byte("DKIF\x00\x00"), 32)
	b = append(b, "VP90"...)
	b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, 640), 360)
	for _, v := range []uint32{10, 1, uint32(len(frames)), 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for i, f := range frames {
		b = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint32(b, uint32(len(f))), uint64(i))
		b = append(b, f...)
	}
	return b
}

// Any payloads give frames whose headers can be read or not, and whose superframes hold
// together.
func FuzzVP9Layers(f *testing.F) {
	for _, b := range layeredPayloads(f)[:20] {
		f.Add(b, b)
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		v := &vp9Pictures{}
		v.begin()
		frame, err := v.add(nil, a)
		if err == nil {
			frame, err = v.add(frame, b)
		}
		if err != nil {
			return
		}
		layers := len(v.ends) + 1
		data, _ := v.finish(frame)
		vp9Size(data)
		if frames := vp9Frames(data); layers > 1 && len(frames) != layers {
			t.Fatalf("%d frames in a superframe of %d layers", len(frames), layers)
		}
	})
}
