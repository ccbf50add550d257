package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"
)

// maxBodyBytes bounds a request's body: metadata in JSON escapes, and room.
const maxBodyBytes = 1 << 20

// Backend does what the API asks for. It answers with the errors of this package.
type Backend interface {
	CreateRoom(ctx context.Context, req *livekit.CreateRoomRequest) (*livekit.Room, error)
	// ListRooms returns the rooms of these names, or all if none are named.
	ListRooms(ctx context.Context, names []string) ([]*livekit.Room, error)
	DeleteRoom(ctx context.Context, name string) error
	ListParticipants(ctx context.Context, room string) ([]*livekit.ParticipantInfo, error)
	RemoveParticipant(ctx context.Context, room, identity string) error
	Moderation
}

// NewRoomService serves /twirp/livekit.RoomService/<Method> in JSON and
// protobuf. Every request needs a bearer token; its grants decide as LiveKit's
// server does, and a missing grant is "unauthenticated" as it is there.
// Browsers of any origin may call: the token is the protection.
func NewRoomService(b Backend, keys Keys, now func() time.Time) http.Handler {
	return authorized(livekit.NewRoomServiceServer(&roomService{backend: b}), keys, now)
}

// authorized hands requests with a good token on, with what it grants.
func authorized(rpc http.Handler, keys Keys, now func() time.Time) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		allowAnyOrigin(w)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		grants, err := bearer(r, keys, now())
		if err != nil {
			// A broken connection is all that can fail here, and nobody is left to tell.
			_ = twirp.WriteError(w, twirp.Unauthenticated.Error(err.Error()))
			return
		}
		if r.ContentLength > maxBodyBytes {
			http.Error(w, fmt.Sprintf("request has %d bytes, at most %d are allowed", r.ContentLength, maxBodyBytes), http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		rpc.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), grantsKey{}, grants)))
	})
}

// allowAnyOrigin answers CORS. Authorization has to be named: the wildcard does
// not cover it (Fetch standard, "CORS non-wildcard request-header name").
func allowAnyOrigin(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, *")
	h.Set("Access-Control-Max-Age", "86400")
}

// bearer verifies the request's token.
func bearer(r *http.Request, keys Keys, now time.Time) (*Grants, error) {
	token, err := BearerToken(r)
	if err != nil {
		return nil, err
	}
	if token == "" {
		return nil, errors.New(`no token: send "Authorization: Bearer …"`)
	}
	return VerifyToken(token, keys, now)
}

// BearerToken returns the token of the Authorization header, empty if the
// header is absent.
func BearerToken(r *http.Request) (string, error) {
	h := r.Header.Get("Authorization")
	if h == "" {
		return "", nil
	}
	scheme, token, ok := strings.Cut(h, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", errors.New(`authorization header is not "Bearer …"`)
	}
	return strings.TrimSpace(token), nil
}

// grantsKey is the context key of the caller's grants.
type grantsKey struct{}

// CallerKey returns the name of the API key that signed the caller's token, for a
// Backend whose rooms belong to somebody.
func CallerKey(ctx context.Context) string {
	if g, ok := ctx.Value(grantsKey{}).(*Grants); ok {
		return g.APIKey
	}
	return ""
}

// may returns an error unless the caller has the grant.
func may(ctx context.Context, grant string, has func(*Grants) bool) error {
	if g, ok := ctx.Value(grantsKey{}).(*Grants); ok && has(g) {
		return nil
	}
	return twirp.Unauthenticated.Error("permissions denied: the token does not grant " + grant)
}

func mayCreate(ctx context.Context) error {
	return may(ctx, "roomCreate", func(g *Grants) bool { return g.Video.RoomCreate })
}

func mayList(ctx context.Context) error {
	return may(ctx, "roomList", func(g *Grants) bool { return g.Video.RoomList })
}

// mayAdmin wants roomAdmin for exactly this room. The empty name is nobody's.
func mayAdmin(ctx context.Context, room string) error {
	return may(ctx, "roomAdmin for this room", func(g *Grants) bool {
		return g.Video.RoomAdmin && room != "" && g.Video.Room == room
	})
}

// roomService checks grants and arguments and hands over to the backend.
type roomService struct{ backend Backend }

func (s *roomService) CreateRoom(ctx context.Context, req *livekit.CreateRoomRequest) (*livekit.Room, error) {
	if err := mayCreate(ctx); err != nil {
		return nil, err
	}
	if err := checkCreate(req); err != nil {
		return nil, twirpError("create room", err)
	}
	room, err := s.backend.CreateRoom(ctx, req)
	return room, twirpError("create room", err)
}

// checkCreate refuses what would otherwise be promised silently and not done.
func checkCreate(req *livekit.CreateRoomRequest) error {
	switch {
	case req.Egress != nil:
		return fmt.Errorf("%w: egress with the room is not supported, start the recording once the room is open", ErrInvalid)
	case len(req.Agents) > 0:
		return fmt.Errorf("%w: agents are not supported", ErrInvalid)
	case req.NodeId != "":
		return fmt.Errorf("%w: node_id %.64q: the policy and the router choose the node", ErrInvalid, req.NodeId)
	}
	if err := ValidRoomName(req.Name); err != nil {
		return err
	}
	return ValidMetadata(req.Metadata)
}

func (s *roomService) ListRooms(ctx context.Context, req *livekit.ListRoomsRequest) (*livekit.ListRoomsResponse, error) {
	if err := mayList(ctx); err != nil {
		return nil, err
	}
	rooms, err := s.backend.ListRooms(ctx, req.Names)
	if err != nil {
		return nil, twirpError("list rooms", err)
	}
	return &livekit.ListRoomsResponse{Rooms: rooms}, nil
}

func (s *roomService) DeleteRoom(ctx context.Context, req *livekit.DeleteRoomRequest) (*livekit.DeleteRoomResponse, error) {
	if err := mayCreate(ctx); err != nil {
		return nil, err
	}
	if err := s.backend.DeleteRoom(ctx, req.Room); err != nil {
		return nil, twirpError("delete room", err)
	}
	return &livekit.DeleteRoomResponse{}, nil
}

func (s *roomService) ListParticipants(ctx context.Context, req *livekit.ListParticipantsRequest) (*livekit.ListParticipantsResponse, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	ps, err := s.backend.ListParticipants(ctx, req.Room)
	if err != nil {
		return nil, twirpError("list participants", err)
	}
	return &livekit.ListParticipantsResponse{Participants: ps}, nil
}

func (s *roomService) GetParticipant(ctx context.Context, req *livekit.RoomParticipantIdentity) (*livekit.ParticipantInfo, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	ps, err := s.backend.ListParticipants(ctx, req.Room)
	if err != nil {
		return nil, twirpError("get participant", err)
	}
	for _, p := range ps {
		if p.Identity == req.Identity {
			return p, nil
		}
	}
	return nil, twirp.NotFoundError("participant does not exist")
}

func (s *roomService) RemoveParticipant(ctx context.Context, req *livekit.RoomParticipantIdentity) (*livekit.RemoveParticipantResponse, error) {
	if err := mayAdmin(ctx, req.Room); err != nil {
		return nil, err
	}
	if err := s.backend.RemoveParticipant(ctx, req.Room, req.Identity); err != nil {
		return nil, twirpError("remove participant", err)
	}
	return &livekit.RemoveParticipantResponse{}, nil
}

// twirpError gives a backend's error its Twirp code.
func twirpError(op string, err error) error {
	if err == nil {
		return nil
	}
	var refused ErrRefused
	code := twirp.Internal
	switch {
	case errors.As(err, &refused):
		code = twirp.PermissionDenied
	case errors.Is(err, ErrNotFound):
		code = twirp.NotFound
	case errors.Is(err, ErrInvalid):
		code = twirp.InvalidArgument
	case errors.Is(err, ErrPrecondition):
		code = twirp.FailedPrecondition
	case errors.Is(err, ErrUnimplemented):
		code = twirp.Unimplemented
	case errors.Is(err, ErrUnavailable):
		code = twirp.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		code = twirp.DeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = twirp.Canceled
	}
	te := code.Error(op + ": " + err.Error())
	if refused.Rule != "" {
		te = te.WithMeta("rule", refused.Rule)
	}
	return te
}
