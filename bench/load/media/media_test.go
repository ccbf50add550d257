package media

import (
	"testing"
	"time"

	"github.com/pion/rtp/codecs"
)

func TestStampComesBack(t *testing.T) {
	at := time.Unix(1_700_000_000, 123_456_789)
	b := make([]byte, 40)
	Stamp(b, at)
	if got, ok := ReadStamp(b); !ok || !got.Equal(at) {
		t.Errorf("read %v, %v, want %v", got, ok, at)
	}
	for _, bad := range [][]byte{nil, b[:39], make([]byte, 40), b[:11]} {
		if got, ok := ReadStamp(bad); ok {
			t.Errorf("%d bytes without a stamp read as %v", len(bad), got)
		}
	}
}

// A depacketiser of others takes the frames, and sees pictures that follow each
// other.
func TestVideoIsVP8(t *testing.T) {
	var v Video
	at := time.Unix(1_700_000_000, 0)
	for frame := range 3 {
		for i := range FramePackets {
			b := v.Packet(i, frame == 0, at)
			var d codecs.VP8Packet
			payload, err := d.Unmarshal(b)
			if err != nil {
				t.Fatalf("frame %d packet %d: %v", frame, i, err)
			}
			if int(d.PictureID) != frame || int(d.TL0PICIDX) != frame {
				t.Errorf("frame %d has picture id %d, TL0PICIDX %d", frame, d.PictureID, d.TL0PICIDX)
			}
			if starts := d.S == 1 && d.PID == 0; starts != (i == 0) {
				t.Errorf("packet %d begins a frame: %v", i, starts)
			}
			if key := payload[0]&1 == 0; i == 0 && key != (frame == 0) {
				t.Errorf("frame %d is a keyframe: %v", frame, key)
			}
			if _, ok := ReadStamp(payload); !ok {
				t.Errorf("frame %d packet %d has no stamp", frame, i)
			}
		}
		v.Next()
	}
}

func TestAudioIsStamped(t *testing.T) {
	var a Audio
	at := time.Unix(1_700_000_000, 5)
	if got, ok := ReadStamp(a.Packet(at)); !ok || !got.Equal(at) {
		t.Errorf("read %v, %v, want %v", got, ok, at)
	}
}
