package control

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
)

// rooms is a Backend in memory. fail, if set, is every answer.
type rooms struct {
	byName map[string]*livekit.Room
	people map[string][]*livekit.ParticipantInfo
	fail   error
	calls  int
	last   any // request
}

func newRooms() *rooms {
	return &rooms{
		byName: map[string]*livekit.Room{"standup": {Name: "standup", Sid: "RM_1"}},
		people: map[string][]*livekit.ParticipantInfo{"standup": {{Identity: "alice", Sid: "PA_1"}}},
	}
}

func (b *rooms) CreateRoom(_ context.Context, req *livekit.CreateRoomRequest) (*livekit.Room, error) {
	b.calls++
	if b.fail != nil {
		return nil, b.fail
	}
	r := &livekit.Room{Name: req.Name, Metadata: req.Metadata, MaxParticipants: req.MaxParticipants}
	b.byName[req.Name] = r
	return r, nil
}

func (b *rooms) ListRooms(_ context.Context, names []string) ([]*livekit.Room, error) {
	b.calls++
	var list []*livekit.Room
	for _, r := range b.byName {
		if len(names) == 0 || names[0] == r.Name {
			list = append(list, r)
		}
	}
	return list, b.fail
}

func (b *rooms) DeleteRoom(_ context.Context, name string) error {
	b.calls++
	if b.byName[name] == nil {
		return fmt.Errorf("room %q: %w", name, ErrNotFound)
	}
	delete(b.byName, name)
	return b.fail
}

func (b *rooms) ListParticipants(_ context.Context, room string) ([]*livekit.ParticipantInfo, error) {
	b.calls++
	return b.people[room], b.fail
}

func (b *rooms) RemoveParticipant(_ context.Context, room, identity string) error {
	b.calls++
	for i, p := range b.people[room] {
		if p.Identity == identity {
			b.people[room] = append(b.people[room][:i], b.people[room][i+1:]...)
			return b.fail
		}
	}
	return fmt.Errorf("participant: %w", ErrNotFound)
}

func serve(t *testing.T, b Backend) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(NewRoomService(b, keys, func() time.Time { return now }))
	t.Cleanup(s.Close)
	return s
}

// as returns a context whose calls carry a token with the grant.
func as(t *testing.T, v auth.VideoGrant) context.Context {
	t.Helper()
	token, err := MintToken("devkey", "secret", Grants{Identity: "api", Video: &v}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := twirp.WithHTTPRequestHeaders(t.Context(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	return ctx
}

var all = auth.VideoGrant{RoomCreate: true, RoomList: true, RoomAdmin: true, Room: "standup"}

func TestRoomService(t *testing.T) {
	for name, dial := range map[string]func(string, livekit.HTTPClient, ...twirp.ClientOption) livekit.RoomService{
		"protobuf": livekit.NewRoomServiceProtobufClient,
		"json":     livekit.NewRoomServiceJSONClient,
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, newRooms())
			c, ctx := dial(s.URL, s.Client()), as(t, all)

			room, err := c.CreateRoom(ctx, &livekit.CreateRoomRequest{Name: "retro", Metadata: "m", MaxParticipants: 5})
			if err != nil || room.Name != "retro" || room.Metadata != "m" || room.MaxParticipants != 5 {
				t.Fatalf("CreateRoom: %v, %v", room, err)
			}
			list, err := c.ListRooms(ctx, &livekit.ListRoomsRequest{Names: []string{"retro"}})
			if err != nil || len(list.Rooms) != 1 {
				t.Fatalf("ListRooms: %v, %v", list, err)
			}
			if _, err := c.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: "retro"}); err != nil {
				t.Fatal(err)
			}
			_, err = c.DeleteRoom(ctx, &livekit.DeleteRoomRequest{Room: "retro"})
			wantCode(t, err, twirp.NotFound, `"retro"`)

			people, err := c.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: "standup"})
			if err != nil || len(people.Participants) != 1 {
				t.Fatalf("ListParticipants: %v, %v", people, err)
			}
			alice := &livekit.RoomParticipantIdentity{Room: "standup", Identity: "alice"}
			p, err := c.GetParticipant(ctx, alice)
			if err != nil || p.Sid != "PA_1" {
				t.Fatalf("GetParticipant: %v, %v", p, err)
			}
			if _, err := c.RemoveParticipant(ctx, alice); err != nil {
				t.Fatal(err)
			}
			_, err = c.GetParticipant(ctx, alice)
			wantCode(t, err, twirp.NotFound, "participant does not exist")
			_, err = c.PerformRpc(ctx, &livekit.PerformRpcRequest{Room: "standup"})
			wantCode(t, err, twirp.Unimplemented, "PerformRpc is not implemented")
		})
	}
}

func wantCode(t *testing.T, err error, code twirp.ErrorCode, text string) {
	t.Helper()
	var te twirp.Error
	if !errors.As(err, &te) || te.Code() != code || !strings.Contains(te.Msg(), text) {
		t.Errorf("error %v, want %s with %q", err, code, text)
	}
}

// TestGrants: each call with every grant but its own never reaches the backend.
func TestGrants(t *testing.T) {
	b := newRooms()
	s := serve(t, b)
	c := livekit.NewRoomServiceProtobufClient(s.URL, s.Client())
	admin := func(room string) auth.VideoGrant { return auth.VideoGrant{RoomAdmin: true, Room: room} }
	noCreate, noList, noAdmin := all, all, all
	noCreate.RoomCreate, noList.RoomList, noAdmin.RoomAdmin = false, false, false

	for name, call := range map[string]func() error{
		"create": func() error {
			_, err := c.CreateRoom(as(t, noCreate), &livekit.CreateRoomRequest{Name: "x"})
			return err
		},
		"delete": func() error {
			_, err := c.DeleteRoom(as(t, noCreate), &livekit.DeleteRoomRequest{Room: "standup"})
			return err
		},
		"list":                         func() error { _, err := c.ListRooms(as(t, noList), &livekit.ListRoomsRequest{}); return err },
		"participants":                 func() error { return listPeople(c, as(t, noAdmin), "standup") },
		"participants of another room": func() error { return listPeople(c, as(t, admin("retro")), "standup") },
		"participants of no room":      func() error { return listPeople(c, as(t, admin("")), "") },
		"remove": func() error {
			_, err := c.RemoveParticipant(as(t, noAdmin), &livekit.RoomParticipantIdentity{Room: "standup", Identity: "alice"})
			return err
		},
		"get": func() error {
			_, err := c.GetParticipant(as(t, admin("retro")), &livekit.RoomParticipantIdentity{Room: "standup", Identity: "alice"})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { wantCode(t, call(), twirp.Unauthenticated, "permissions denied") })
	}
	if b.calls != 0 {
		t.Errorf("the backend was called %d times", b.calls)
	}
}

func listPeople(c livekit.RoomService, ctx context.Context, room string) error {
	_, err := c.ListParticipants(ctx, &livekit.ListParticipantsRequest{Room: room})
	return err
}

func TestCreateRoomRefuses(t *testing.T) {
	b := newRooms()
	s := serve(t, b)
	c := livekit.NewRoomServiceProtobufClient(s.URL, s.Client())
	for text, req := range map[string]*livekit.CreateRoomRequest{
		"is empty":      {},
		"folder":        {Name: ".."},
		"129 bytes":     {Name: strings.Repeat("r", 129)},
		"65537 bytes":   {Name: "r", Metadata: strings.Repeat("m", 64<<10+1)},
		"node_id":       {Name: "r", NodeId: "nyc"},
		"agents":        {Name: "r", Agents: []*livekit.RoomAgentDispatch{{AgentName: "a"}}},
		"not supported": {Name: "r", Egress: &livekit.RoomEgress{}},
	} {
		_, err := c.CreateRoom(as(t, all), req)
		wantCode(t, err, twirp.InvalidArgument, text)
	}
	if b.calls != 0 {
		t.Errorf("the backend was called %d times", b.calls)
	}
}

func TestBackendErrors(t *testing.T) {
	b := newRooms()
	s := serve(t, b)
	c := livekit.NewRoomServiceJSONClient(s.URL, s.Client())
	for _, e := range []struct {
		err  error
		code twirp.ErrorCode
	}{
		{fmt.Errorf("x: %w", ErrNotFound), twirp.NotFound},
		{fmt.Errorf("x: %w", ErrInvalid), twirp.InvalidArgument},
		{fmt.Errorf("x: %w", ErrUnavailable), twirp.Unavailable},
		{fmt.Errorf("x: %w", ErrRefused{Rule: "zone", Reason: "x: nyc is outside"}), twirp.PermissionDenied},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), twirp.DeadlineExceeded},
		{errors.New("x: disk on fire"), twirp.Internal},
	} {
		b.fail = e.err
		_, err := c.CreateRoom(as(t, all), &livekit.CreateRoomRequest{Name: "r"})
		wantCode(t, err, e.code, "create room: x")
		var te twirp.Error
		if errors.As(err, &te) && e.code == twirp.PermissionDenied && te.Meta("rule") != "zone" {
			t.Errorf("rule of the refusal is %q, want zone", te.Meta("rule"))
		}
	}
}

func TestHTTP(t *testing.T) {
	s := serve(t, newRooms())
	token, err := MintToken("devkey", "secret", Grants{Video: &all}, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	const path = "/twirp/livekit.RoomService/ListRooms"
	good := map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json"}
	with := func(key, value string) map[string]string {
		h := map[string]string{"Authorization": good["Authorization"], "Content-Type": good["Content-Type"]}
		h[key] = value
		return h
	}
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		text               string
	}{
		"good":               {"POST", path, "{}", good, 200, `"rooms"`},
		"unknown field":      {"POST", path, `{"newer":1}`, good, 200, `"rooms"`},
		"scheme in capitals": {"POST", path, "{}", with("Authorization", "BEARER "+token), 200, `"rooms"`},
		"preflight":          {"OPTIONS", path, "", nil, 204, ""},
		"no token":           {"POST", path, "{}", with("Authorization", ""), 401, "no token"},
		"other scheme":       {"POST", path, "{}", with("Authorization", "Basic Zm9v"), 401, `not \"Bearer`},
		"bad token":          {"POST", path, "{}", with("Authorization", "Bearer x"), 401, "malformed"},
		"GET":                {"GET", path, "", good, 404, "POST"},
		"unknown method":     {"POST", "/twirp/livekit.RoomService/Nope", "{}", good, 404, "bad_route"},
		"unknown service":    {"POST", "/twirp/livekit.Egress/ListEgress", "{}", good, 404, "bad_route"},
		"content type":       {"POST", path, "{}", with("Content-Type", "text/plain"), 404, "Content-Type"},
		"cut JSON":           {"POST", path, `{"names":["a"`, good, 400, "malformed"},
		"cut protobuf":       {"POST", path, "\x0a\x7f", with("Content-Type", "application/protobuf"), 400, "malformed"},
		"2 MiB":              {"POST", path, strings.Repeat(" ", 2<<20), good, 413, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			status, header, text := request(t, s, c.method, c.path, strings.NewReader(c.body), c.header)
			if status != c.status || !strings.Contains(text, c.text) {
				t.Errorf("%d %q, want %d with %q", status, text, c.status, c.text)
			}
			if header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(header.Get("Access-Control-Allow-Headers"), "Authorization") {
				t.Errorf("no CORS in %v", header)
			}
			if strings.Contains(text, token) {
				t.Error("the answer repeats the token")
			}
		})
	}
	t.Run("2 MiB without a length", func(t *testing.T) {
		body := io.MultiReader(bytes.NewReader(make([]byte, 2<<20)))
		if status, _, text := request(t, s, "POST", path, body, good); status != 400 || !strings.Contains(text, "malformed") {
			t.Errorf("%d %q, want 400", status, text)
		}
	})
}

func request(t *testing.T, s *httptest.Server, method, path string, body io.Reader, header map[string]string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}
