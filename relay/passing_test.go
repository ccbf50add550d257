package relay_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/domicile/domicile/relay"
	"github.com/domicile/domicile/relay/relaytest"
	"github.com/domicile/domicile/residency"
)

// narrow is a path on which 100 kB take eight seconds.
var narrow = relaytest.Path{Delay: 10 * time.Millisecond, Rate: 100_000}

// switches puts the next epoch in force on both nodes.
func switches(nodes ...*relaytest.Node) {
	for _, n := range nodes {
		n.Epoch.Add(1)
		n.Fabric.Recheck()
	}
}

func TestRequestIsTakenBackWithItsPermit(t *testing.T) {
	simulate(t, narrow, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, _ := mesh.Pair(t)
		b.Answer(func(context.Context, relaytest.Message) ([]byte, residency.Permit, error) {
			t.Error("the request arrives")
			return nil, residency.Permit{}, nil
		})
		p := relaytest.Permit(t, b.ID.Node, 1, "r", residency.ClassChat)
		time.AfterFunc(200*time.Millisecond, func() { switches(a, b) })
		begun := time.Now()
		_, err := ab.Request(context.Background(), p, 1, make([]byte, 100_000))
		var refused *relay.RefusedError
		if took := time.Since(begun); !errors.As(err, &refused) || took > 800*time.Millisecond {
			t.Errorf("%v after %s, want a refusal soon after the policies changed", err, took)
		}
		time.Sleep(15 * time.Second)
	})
}

func TestAnswerIsTakenBackWithItsPermit(t *testing.T) {
	simulate(t, narrow, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, _ := mesh.Pair(t)
		b.Answer(func(context.Context, relaytest.Message) ([]byte, residency.Permit, error) {
			return make([]byte, 100_000), relaytest.Permit(t, a.ID.Node, 1, "r", residency.ClassChat), nil
		})
		time.AfterFunc(200*time.Millisecond, func() { switches(a, b) })
		begun := time.Now()
		got, err := ab.Request(context.Background(), relaytest.Permit(t, b.ID.Node, 1, "r", residency.ClassChat), 1, []byte("give"))
		if took := time.Since(begun); err == nil || took > 800*time.Millisecond {
			t.Errorf("%d bytes, %v after %s", len(got), err, took)
		}
	})
}

// A question that has arrived is answered, however long that takes; but what the asking
// node may not receive under the policies it has by then, it does not take.
func TestSlowAnswerIsJudgedWhenItComes(t *testing.T) {
	simulate(t, relaytest.Path{Delay: 10 * time.Millisecond}, func(t *testing.T, mesh *relaytest.Mesh) {
		a, b, ab, _ := mesh.Pair(t)
		b.Answer(func(context.Context, relaytest.Message) ([]byte, residency.Permit, error) {
			time.Sleep(3 * time.Second)
			return []byte("answer"), relaytest.Permit(t, a.ID.Node, 2, "r", residency.ClassChat), nil
		})
		time.AfterFunc(200*time.Millisecond, func() { switches(a, b) })
		begun := time.Now()
		got, err := ab.Request(context.Background(), relaytest.Permit(t, b.ID.Node, 1, "r", residency.ClassChat), 1, []byte("give"))
		var refused *relay.RefusedError
		if took := time.Since(begun); got != nil || !errors.As(err, &refused) || took < 3*time.Second {
			t.Errorf("%q, %v after %s, want a refusal of the answer", got, err, took)
		}
	})
}

// A control stream skips nothing: the link ends with a message that is stuck in it.
func TestLinkEndsWithAMessageThatMayNotGoOn(t *testing.T) {
	simulate(t, narrow, func(t *testing.T, mesh *relaytest.Mesh) {
		mesh.Configure = func(_ residency.NodeName, c *relay.Config) { c.SendTimeout = time.Minute }
		a, b, ab, _ := mesh.Pair(t)
		if err := ab.Send(relaytest.Permit(t, b.ID.Node, 1, "r", residency.ClassChat), 1, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(200 * time.Millisecond)
		switches(a, b)
		changed := time.Now()
		if le := linkError(t, relaytest.Await(t, a.Down, "link is down").Err); !strings.Contains(le.Text, "the permit of a message ended") || time.Since(changed) > 600*time.Millisecond {
			t.Errorf("%v after %s", le, time.Since(changed))
		}
		time.Sleep(15 * time.Second)
		if len(b.Messages) > 0 {
			t.Error("the message arrives")
		}
	})
}
