package rtc

import (
	"testing"

	"github.com/pion/webrtc/v4"
)

func TestDataBothWays(t *testing.T) {
	alice, bob, _, _ := meet(t)
	if err := bob.session.SendData(true, []byte("early")); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, bob.received, "reliable data"); got != (message{"_reliable", "early"}) {
		t.Errorf("got %v", got)
	}
	ordered, none := false, uint16(0)
	reliable, err := alice.pub.CreateDataChannel("_reliable", nil)
	if err != nil {
		t.Fatal(err)
	}
	lossy, err := alice.pub.CreateDataChannel("_lossy", &webrtc.DataChannelInit{Ordered: &ordered, MaxRetransmits: &none})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := alice.pub.CreateDataChannel("foreign", nil)
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	foreign.OnClose(func() { close(closed) })
	for _, dc := range []*webrtc.DataChannel{reliable, lossy} {
		dc.OnOpen(func() {
			if err := dc.SendText(dc.Label()); err != nil {
				t.Error(err)
			}
		})
	}
	alice.offer()
	got := map[message]bool{wait(t, alice.data, "data"): true, wait(t, alice.data, "data"): true}
	for _, label := range []string{"_reliable", "_lossy"} {
		if !got[message{label, label}] {
			t.Errorf("nothing came on %q: %v", label, got)
		}
	}
	wait(t, closed, "the end of a channel that nobody knows")
	if err := bob.session.SendData(true, []byte("late")); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, bob.received, "reliable data"); got.text != "late" {
		t.Errorf("got %v", got)
	}
}

func TestDataIsBounded(t *testing.T) {
	e := newTestEngine(t)
	bob := newClient(t, e)
	if err := bob.session.SendData(true, nil); err == nil {
		t.Error("data could be sent before the subscriber was started")
	}
	bob.hold = true // never connects
	if err := bob.session.StartSubscriber(); err != nil {
		t.Fatal(err)
	}
	if err := bob.session.SendData(true, make([]byte, maxMessage+1)); err == nil {
		t.Error("a message beyond the limit was taken")
	}
	for range maxEarly / maxMessage {
		if err := bob.session.SendData(true, make([]byte, maxMessage)); err != nil {
			t.Fatal(err)
		}
	}
	if err := bob.session.SendData(true, []byte{1}); err == nil {
		t.Error("the queue has no end")
	}
	if err := bob.session.SendData(false, []byte{1}); err != nil {
		t.Errorf("lossy data: %v, want it dropped", err)
	}
	if got := bob.session.Stats().LossyDropped; got != 1 {
		t.Errorf("%d lossy messages dropped, want 1", got)
	}
}
