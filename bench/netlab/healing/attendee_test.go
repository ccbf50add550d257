//go:build linux

package healing

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/livekit/protocol/auth"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/control"
)

const (
	// silence is after how long an attendee who gets nothing goes to the next node, as a
	// client may do that knows that others speak. Nodes are to have healed by then.
	silence = 700 * ms
	// attempt is how long joining the next one may take before the one after is tried.
	attempt = 3 * time.Second
	// settling is how long it waits for the first packet.
	settling = 2 * time.Second
)

// attendee is somebody who is told the addresses of all nodes, beginning with one, and
// goes on at the next when their own is lost.
type attendee struct {
	s       *stage
	room    *room
	who     string
	home    int // the node they belong on
	video   bool
	publish bool
	closing sync.WaitGroup

	moving sync.Mutex // held while they go from node to node

	mu     sync.Mutex
	c      *client.Client
	at     int       // the node they are on
	joined time.Time // since then
	last   time.Time // when the last packet came, on any node
	pause  time.Duration
	moves  int
	err    error // of the last attempt to join
}

// room is a meeting with one publisher.
type room struct {
	name   string
	speaks *attendee
	hear   []*attendee // one on every other node
}

func (a *attendee) join(at int) (*client.Client, error) {
	yes := true
	token, err := control.MintToken(apiKey, apiSecret, control.Grants{Identity: a.who,
		Video: &auth.VideoGrant{RoomJoin: true, Room: a.room.name, CanPublish: &yes, CanSubscribe: &yes}}, 3*time.Hour, time.Now())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), attempt)
	defer cancel()
	c, err := client.Join(ctx, client.Config{URL: a.s.url(a.s.nodes[at]), Token: token, Subscribe: !a.publish, Video: a.publish && a.video, Audio: a.publish && !a.video,
		From: a.s.web.Host, TLS: a.s.tls, Sample: 1024})
	if err == nil {
		c.Start()
	}
	return c, err
}

// goTo leaves the node where the attendee is, without a word that it could wait for,
// and joins at another.
func (a *attendee) goTo(at int) {
	a.mu.Lock()
	old := a.c
	a.c = nil
	a.mu.Unlock()
	if old != nil {
		a.note(old)
		a.closing.Go(old.Close)
	}
	c, err := a.join(at)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.c, a.at, a.err, a.joined = c, at, err, time.Now()
	a.moves++
}

// note takes in what came over a connection.
func (a *attendee) note(c *client.Client) {
	last, longest := c.Inbound().Pause(time.Now())
	a.mu.Lock()
	defer a.mu.Unlock()
	a.noteLocked(last, longest)
}

func (a *attendee) noteLocked(last time.Time, longest time.Duration) {
	a.pause = max(a.pause, longest)
	if first, _ := a.first(); !a.last.IsZero() && first.After(a.last) { // of another connection than the last before
		a.pause = max(a.pause, first.Sub(a.last))
	}
	if last.After(a.last) {
		a.last = last
	}
}

// first is when the first packet came over the connection that there is.
func (a *attendee) first() (time.Time, bool) {
	if a.c == nil {
		return time.Time{}, false
	}
	sound, video := a.c.Inbound().First()
	if a.video {
		sound = video
	}
	return sound, !sound.IsZero()
}

// look returns for how long nothing has come.
func (a *attendee) look(now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.c != nil {
		last, longest := a.c.Inbound().Pause(now)
		a.noteLocked(last, longest)
	}
	if a.last.IsZero() {
		return time.Hour
	}
	return now.Sub(a.last)
}

// took returns the longest pause since it was last asked, and how often they moved.
func (a *attendee) took() (pause time.Duration, moves int) {
	silent := a.look(time.Now())
	a.mu.Lock()
	defer a.mu.Unlock()
	pause, moves = max(a.pause, silent), a.moves
	a.pause, a.moves = 0, 0
	return pause, moves
}

// run has the attendee go on elsewhere when it has to.
func (a *attendee) run(ctx context.Context) {
	tick := time.NewTicker(5 * ms)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a.moving.Lock()
		if why := a.lost(); why != "" {
			a.s.t.Logf("%s %s leaves %s in %s: %s", time.Now().Format("15:04:05.000"), a.who, a.s.nodes[a.at].Name, a.room.name, why)
			a.goTo((a.at + 1) % len(a.s.nodes))
		}
		a.moving.Unlock()
	}
}

// goHome has the attendee go back to the node where they belong.
func (a *attendee) goHome() {
	a.moving.Lock()
	defer a.moving.Unlock()
	if a.at != a.home {
		a.goTo(a.home)
	}
}

// lost says why the attendee goes to another node; empty: it stays.
func (a *attendee) lost() string {
	silent := a.look(time.Now())
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.c == nil:
		return fmt.Sprint(a.err)
	case a.c.Err() != nil:
		return a.c.Err().Error()
	case !a.publish && silent > silence && time.Since(a.joined) > settling:
		return fmt.Sprintf("nothing has come for %s", silent.Round(ms))
	}
	return ""
}

func (a *attendee) close() {
	a.mu.Lock()
	c := a.c
	a.c = nil
	a.mu.Unlock()
	if c != nil {
		c.Close()
	}
	a.closing.Wait()
}
