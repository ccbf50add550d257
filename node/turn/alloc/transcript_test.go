package alloc

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pion/stun/v3"
)

var update = flag.Bool("update", false, "write what happens into the transcripts")

// TestTranscripts plays testdata/*.txt: each line that begins with > is told to
// the server, what stands below it is what happens.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(text) {
				t.Errorf("happened:\n%s", got)
			}
		})
	}
}

// play returns the transcript with what really happens.
func play(t *testing.T, text string) string {
	s := &script{w: newWorld(t, roomy), clients: map[string]*client{}}
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			b.WriteString(line + "\n")
		case strings.HasPrefix(line, "> "):
			b.WriteString(line + "\n" + s.do(strings.Fields(line[2:])))
		}
	}
	return b.String()
}

type script struct {
	w       *world
	clients map[string]*client
}

// do carries out one line: verb, client, arguments.
func (s *script) do(words []string) string {
	verb, args := words[0], words[1:]
	switch verb {
	case "limits": // limits NODE SESSION SOURCE
		s.w.table.limits = Limits{PerNode: atoi(args[0]), PerSession: atoi(args[1]), PerSource: atoi(args[2])}
		return ""
	case "after":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			s.w.t.Fatal(err)
		}
		s.w.now = s.w.now.Add(d)
		return told(s.w.table.Tick(s.w.now))
	case "revoke":
		return told(s.w.table.Revoke(s.w.creds.Session(args[0], "blue"), s.w.now))
	case "join": // join NAME ADDRESS [PARTICIPANT]
		who := args[len(args)-1]
		if len(args) == 2 {
			who = args[0]
		}
		c := s.w.join(who, udp(args[1]))
		c.name = args[0]
		s.clients[args[0]] = c
		return ""
	}
	c := s.clients[args[0]]
	if c == nil {
		s.w.t.Fatalf("nobody is called %q", args[0])
	}
	return s.ask(c, verb, args[1:])
}

func (s *script) ask(c *client, verb string, args []string) string {
	addr := func(i int) netip.AddrPort { return netip.MustParseAddrPort(args[i]) }
	switch verb {
	case "renew": // new credentials, as the signalling gives them
		c.user, c.password = s.w.creds.Issue(s.w.creds.Session(c.name, "blue"), s.w.now, 10*time.Minute)
		return ""
	case "steal": // another's nonce
		c.nonce = s.clients[args[0]].nonce
		return ""
	case "pose": // another's credentials
		c.user, c.password = s.clients[args[0]].user, s.clients[args[0]].password
		return ""
	case "close":
		return told(s.w.table.Close(c.flow))
	case "allocate":
		return c.ask(stun.MethodAllocate, demands(args)...).String()
	case "again": // the same message once more
		before := s.w.ids
		s.w.ids--
		defer func() { s.w.ids = before }()
		return c.ask(stun.MethodAllocate, demands(args)...).String()
	case "refresh":
		var attrs []stun.Setter
		if len(args) > 0 {
			attrs = append(attrs, lifetime(uint32(atoi(args[0]))))
		}
		return c.ask(stun.MethodRefresh, attrs...).String()
	case "permit":
		var attrs []stun.Setter
		for i := range args {
			attrs = append(attrs, peer(addr(i)))
		}
		return c.ask(stun.MethodCreatePermission, attrs...).String()
	case "bind":
		n, _ := strconv.ParseUint(args[0], 0, 16)
		return c.bind(uint16(n), addr(1)).String()
	case "send":
		return c.send(addr(0), "data").String()
	case "connect":
		return c.ask(stun.MethodConnect, peer(addr(0))).String()
	case "bare": // without credentials
		nonce := c.nonce
		defer func() { c.nonce = nonce }()
		c.nonce = nil
		return s.ask(c, args[0], args[1:])
	case "binding":
		return c.w.give(c.flow, c.build(stun.BindingRequest)).String()
	}
	return fmt.Sprintf("what is %q?\n", verb)
}

// demands are what an Allocate asks for, UDP unless it says otherwise.
func demands(args []string) []stun.Setter {
	known := map[string]stun.Setter{
		"tcp":         setter{stun.AttrRequestedTransport, []byte{6, 0, 0, 0}},
		"ipv4":        setter{attrRequestedFamily, []byte{familyIPv4, 0, 0, 0}},
		"ipv6":        setter{attrRequestedFamily, []byte{familyIPv6, 0, 0, 0}},
		"family-9":    setter{attrRequestedFamily, []byte{9, 0, 0, 0}},
		"even-port":   setter{stun.AttrEvenPort, []byte{0}},
		"reserve":     setter{stun.AttrEvenPort, []byte{0x80}},
		"reservation": setter{stun.AttrReservationToken, make([]byte, 8)},
		"unfragmented": setter{
			stun.AttrDontFragment, nil},
		"cut": setter{attrRequestedFamily, []byte{1}},
	}
	attrs := []stun.Setter{}
	if !slices.Contains(args, "tcp") && !slices.Contains(args, "nothing") {
		attrs = append(attrs, viaUDP)
	}
	for _, a := range args {
		if known[a] != nil {
			attrs = append(attrs, known[a])
		}
	}
	return attrs
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
