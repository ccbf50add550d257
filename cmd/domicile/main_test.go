package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/domicile/domicile/bench/load/client"
	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/internal/freeport"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"domicile": main}) }

// TestScripts runs the command lines in testdata/script.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CACHE_HOME", e.WorkDir) // where the last demo is remembered
			e.Setenv("HOME", e.WorkDir)
			tcp, udp, err := freePorts()
			e.Setenv("PORT", fmt.Sprint(tcp))
			e.Setenv("UDPPORT", fmt.Sprint(udp))
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "meets": meets, "listens": listens, "evidence": makeEvidence, "tamper": tamper},
	})
}

func freePorts() (tcp, udp int, err error) {
	if tcp, err = freeport.Find(); err == nil {
		udp, err = freeport.Find()
	}
	return tcp, udp, err
}

// exits runs a command and compares its exit code: exits 2 domicile …
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// listens waits until something listens: listens HOST:PORT
func listens(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: listens HOST:PORT")
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	late := time.NewTimer(60 * time.Second)
	defer late.Stop()
	for {
		c, err := net.Dial("tcp", args[0])
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-poll.C:
		case <-late.C:
			ts.Fatalf("nobody listens: %v", err)
		}
	}
}

// meets waits for the node at an address, gets / and joins twice with real
// media: meets HOST:PORT KEY SECRET
func meets(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: meets HOST:PORT KEY SECRET")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		resp, err := http.Get("http://" + args[0] + "/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				ts.Fatalf("GET /: %s", resp.Status)
			}
			break
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			ts.Fatalf("GET /: %v", err)
		}
	}
	ts.Check(converse(ctx, args[0], args[1], args[2]))
}

// converse has one client publish and another one receive.
func converse(ctx context.Context, addr, key, secret string) error {
	join := func(identity string, publish bool) (*client.Client, error) {
		token, err := control.MintToken(key, secret, control.Grants{Identity: identity,
			Video: &auth.VideoGrant{RoomJoin: true, Room: "r"}}, time.Hour, time.Now())
		if err != nil {
			return nil, err
		}
		return client.Join(ctx, client.Config{URL: "ws://" + addr, Token: token, Subscribe: !publish, Audio: publish})
	}
	speaker, err := join("speaker", true)
	if err != nil {
		return err
	}
	defer speaker.Close()
	listener, err := join("listener", false)
	if err != nil {
		return err
	}
	defer listener.Close()
	speaker.Start()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for listener.Inbound().Packets() < 10 {
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%d packets arrived of %d sent", listener.Inbound().Packets(), speaker.Sent())
		}
	}
	return nil
}
