package node

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/livekit/protocol/auth"
	"github.com/livekit/protocol/livekit"
	"github.com/twitchtv/twirp"

	"github.com/domicile/domicile/control"
	"github.com/domicile/domicile/residency"
	"github.com/domicile/domicile/residency/retention"
	"github.com/domicile/domicile/residency/vault"
)

// recorders calls the Egress API of a node as LiveKit's SDKs do.
func recorders(t *testing.T, n *testNode, grant auth.VideoGrant) (livekit.Egress, context.Context) {
	t.Helper()
	token, err := control.MintToken("devkey", testKeys["devkey"], control.Grants{Video: &grant}, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := twirp.WithHTTPRequestHeaders(t.Context(), http.Header{"Authorization": {"Bearer " + token}})
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return livekit.NewEgressProtobufClient("http://"+n.addr.String(), c), ctx
}

// toVault are the file outputs of a request.
func toVault(name string) []*livekit.EncodedFileOutput {
	return []*livekit.EncodedFileOutput{{Filepath: name}}
}

// whose reads all of a recording, which fails when anything of it was changed, and
// returns whose tracks of what source it has.
func whose(t *testing.T, n *testNode, id string) map[string]bool {
	t.Helper()
	r, err := n.vault.Read(vault.ID(id))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, track := range r.Tracks {
		c, err := track.Open()
		if err != nil {
			t.Fatal(err)
		}
		clusters := 0
		for ; err == nil; clusters++ {
			_, err = c.Next()
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if !errors.Is(err, io.EOF) || clusters < 2 {
			t.Errorf("track %s: %d clusters, %v", track.Meta.TrackID, clusters, err)
		}
		found[track.Meta.Participant+" "+track.Meta.Kind] = true
	}
	return found
}

// TestEgress records one participant, then two tracks of another beside that, by an
// API that is called where nothing is stored: both in one recording on the origin,
// which takes nobody else.
func TestEgress(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin", "nyc US")
	fra, nyc := m.node("fra"), m.node("nyc")
	anna, eve := enter(t, fra, "town", "anna", nil), enter(t, nyc, "town", "eve", nil)
	voice, camera := anna.publish("voice", livekit.TrackType_AUDIO), eve.publish("camera", livekit.TrackType_VIDEO)
	anna.publish("face", livekit.TrackType_VIDEO)
	speech := eve.publish("speech", livekit.TrackType_AUDIO)
	eve.hears(voice)
	anna.hears(camera)
	api, ctx := recorders(t, nyc, auth.VideoGrant{RoomRecord: true})

	one, err := api.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{RoomName: "town", Identity: "anna", FileOutputs: toVault("{room_name}/anna.mp4")})
	if err != nil || !strings.HasPrefix(one.EgressId, "EG_") || one.Status != livekit.EgressStatus_EGRESS_ACTIVE || one.RoomName != "town" ||
		one.FileResults[0].Filename != "town/anna.mp4" || one.GetParticipant().GetIdentity() != "anna" {
		t.Fatalf("got %v, %v", one, err)
	}
	eve.await("sees that it is recorded", func() bool { return eve.room.ActiveRecording })
	two, err := api.StartTrackEgress(ctx, &livekit.TrackEgressRequest{RoomName: "town", TrackId: camera, Output: &livekit.TrackEgressRequest_File{File: &livekit.DirectFileOutput{}}})
	if err != nil {
		t.Fatal(err)
	}
	list := func(req *livekit.ListEgressRequest) map[string]*livekit.EgressInfo {
		t.Helper()
		l, err := api.ListEgress(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		byID := map[string]*livekit.EgressInfo{}
		for _, i := range l.Items {
			byID[i.EgressId] = i
		}
		return byID
	}
	if l := list(&livekit.ListEgressRequest{RoomName: "town", Active: true}); len(l) != 2 || l[one.EgressId] == nil || l[two.EgressId] == nil {
		t.Errorf("listed: %v", l)
	}
	if l := list(&livekit.ListEgressRequest{RoomName: "other"}); len(l) != 0 {
		t.Errorf("of another room: %v", l)
	}
	id := strings.TrimPrefix(one.FileResults[0].Location, "recordings/")
	eventually(t, "three tracks are recorded", func() bool {
		info, err := fra.vault.Info(vault.ID(id))
		return err == nil && len(info.Tracks) == 3 && info.Size() > 30_000
	})

	stopped, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: one.EgressId})
	if err != nil || stopped.Status < livekit.EgressStatus_EGRESS_ENDING {
		t.Fatalf("got %v, %v", stopped, err)
	}
	eventually(t, "the first is complete", func() bool {
		return list(&livekit.ListEgressRequest{})[one.EgressId].Status == livekit.EgressStatus_EGRESS_COMPLETE
	})
	if rec := fra.rooms.get("town").Snapshot().Record.Recording; rec == nil || rec.ID != id {
		t.Errorf("the recording does not go on for the second: %+v", rec)
	}
	if _, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: one.EgressId}); code(err) != twirp.FailedPrecondition {
		t.Errorf("a second stop: %v", err)
	}
	if _, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: two.EgressId}); err != nil {
		t.Fatal(err)
	}
	finished(t, fra, id)
	var done *livekit.EgressInfo
	eventually(t, "the second is complete", func() bool {
		done = list(&livekit.ListEgressRequest{EgressId: two.EgressId})[two.EgressId]
		return done.Status == livekit.EgressStatus_EGRESS_COMPLETE
	})
	if f := done.FileResults[0]; f.Size < 10_000 || f.Duration <= 0 || f.Location != "recordings/"+id || done.EndedAt <= done.StartedAt {
		t.Errorf("got %v", done)
	}
	if got := whose(t, fra, id); len(got) != 3 || !got["anna audio"] || !got["anna video"] || !got["eve video"] {
		t.Errorf("recorded: %v, track %s is nobody's wish", got, speech)
	}
	eve.await("sees that it is over", func() bool { return !eve.room.ActiveRecording })
}

// code is the twirp code of an error, "" if it has none.
func code(err error) twirp.ErrorCode {
	var te twirp.Error
	if errors.As(err, &te) {
		return te.Code()
	}
	return ""
}

// TestEgressOfTheRoom records its sound, and then, by the host's button, the rest too.
func TestEgressOfTheRoom(t *testing.T) {
	t.Parallel()
	var program listener
	var up atomic.Bool // the program that is told what happens
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		program.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	m := newMeshOf(t, testBundle(1), func(_ *testMesh, cfg *Config) {
		cfg.Webhooks = []Webhook{{URL: srv.URL, APIKey: "devkey", Recipient: residency.Recipient{Name: "program", Country: "DE"}}}
	}, "fra DE origin")
	fra := m.node("fra")
	anna := enter(t, fra, "town", "anna", nil)
	anna.publish("voice", livekit.TrackType_AUDIO)
	anna.publish("face", livekit.TrackType_VIDEO)
	api, ctx := recorders(t, fra, auth.VideoGrant{RoomRecord: true})
	sound, err := api.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{RoomName: "town", Layout: "speaker", AudioOnly: true, FileOutputs: toVault("")})
	if err != nil {
		t.Fatal(err)
	}
	id := strings.TrimPrefix(sound.FileResults[0].Location, "recordings/")
	eventually(t, "sound is recorded", func() bool {
		info, err := fra.vault.Info(vault.ID(id))
		return err == nil && len(info.Tracks) == 1 && info.Size() > 1000
	})
	// The host's button takes the rest too, and its other way ends all.
	if started, refusal := record(t, fra, "town", "start"); refusal != nil || started.ID != id {
		t.Fatalf("got %+v, %v", started, refusal)
	}
	eventually(t, "pictures are recorded", func() bool {
		info, err := fra.vault.Info(vault.ID(id))
		return err == nil && len(info.Tracks) == 2 && info.Size() > 10_000
	})
	if _, refusal := record(t, fra, "town", "stop"); refusal != nil {
		t.Fatal(refusal)
	}
	finished(t, fra, id)
	eventually(t, "the egress is over", func() bool {
		l, err := api.ListEgress(ctx, &livekit.ListEgressRequest{EgressId: sound.EgressId})
		return err == nil && len(l.Items) == 1 && l.Items[0].Status == livekit.EgressStatus_EGRESS_COMPLETE
	})

	// The node is killed while it records: what lies on its disk at a moment is put back.
	running, err := api.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{RoomName: "town", Identity: "anna", FileOutputs: toVault("anna")})
	if err != nil {
		t.Fatal(err)
	}
	part := vault.ID(strings.TrimPrefix(running.FileResults[0].Location, "recordings/"))
	eventually(t, "something is recorded", func() bool {
		info, err := fra.vault.Info(part)
		return err == nil && len(info.Tracks) == 2 && info.Size() > 10_000
	})
	waiting := func() int {
		files, err := filepath.Glob(filepath.Join(fra.cfg.DataDir, "webhooks", "*.age"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	eventually(t, "what the program is not told waits on the disk", func() bool {
		return waiting() == fra.hooks[0].sender.Waiting() && waiting() == 10
	})
	killed := t.TempDir()
	for _, folder := range []string{"egresses", "recordings", "webhooks"} {
		if err := os.CopyFS(filepath.Join(killed, folder), os.DirFS(filepath.Join(fra.cfg.DataDir, folder))); err != nil {
			t.Fatal(err)
		}
	}
	m.halt("fra")
	up.Store(true)
	for _, folder := range []string{"egresses", "recordings", "webhooks"} {
		if err := errors.Join(os.RemoveAll(filepath.Join(fra.cfg.DataDir, folder)), os.Rename(filepath.Join(killed, folder), filepath.Join(fra.cfg.DataDir, folder))); err != nil {
			t.Fatal(err)
		}
	}
	fra = m.start(fra.cfg)
	api, ctx = recorders(t, fra, auth.VideoGrant{RoomRecord: true})
	l, err := api.ListEgress(ctx, &livekit.ListEgressRequest{RoomName: "town"})
	if err != nil || len(l.Items) != 2 {
		t.Fatalf("listed after a kill: %v, %v", l, err)
	}
	if i := l.Items[0]; i.EgressId != running.EgressId || i.Status != livekit.EgressStatus_EGRESS_FAILED || !strings.Contains(i.Error, "stopped while") || i.EndedAt <= i.StartedAt {
		t.Errorf("it was running: %v", i)
	}
	if i := l.Items[1]; i.EgressId != sound.EgressId || i.Status != livekit.EgressStatus_EGRESS_COMPLETE || i.FileResults[0].Size == 0 {
		t.Errorf("it was complete: %v", i)
	}
	if _, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: running.EgressId}); code(err) != twirp.FailedPrecondition {
		t.Errorf("stopping what a kill has ended: %v", err)
	}
	eventually(t, "the program is told what it has missed", func() bool { return waiting() == 0 && len(program.of("town")) >= 10 })
	told := program.of("town")
	if at := slices.Index(told, "participant_joined anna"); slices.Index(told, "room_started") > at || slices.Index(told, "track_published anna/voice") < at || slices.Index(told, "egress_ended") < at {
		t.Errorf("out of order: %q", told)
	}
	for what, want := range map[string]int{"room_started": 1, "participant_joined anna": 1, "track_published anna/voice": 1, "track_published anna/face": 1, "egress_started": 2, "egress_ended": 1, "recording_started": 2, "recording_ended": 1} {
		if n := len(slices.DeleteFunc(slices.Clone(told[:10]), func(s string) bool { return s != what })); n != want {
			t.Errorf("%s was told %d times: %q", what, n, told)
		}
	}
	// An erasure of somebody takes what was recorded of them alone off the list.
	if _, refusal := order(t, fra, retention.Erasure, OrderRequest{Room: "town", Participant: "anna"}); refusal != nil {
		t.Fatal(refusal)
	}
	eventually(t, "it is off the list, and the disk", func() bool {
		l, err := api.ListEgress(ctx, &livekit.ListEgressRequest{})
		files, globErr := filepath.Glob(filepath.Join(fra.cfg.DataDir, "egresses", "*"))
		return err == nil && globErr == nil && len(l.Items) == 1 && l.Items[0].EgressId == sound.EgressId && len(files) == 1
	})
}

// TestEgressRefused asks for what leaves the zone, for what this server does not have,
// and without the right.
func TestEgressRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t, testBundle(1), "fra DE origin")
	fra := m.node("fra")
	anna := enter(t, fra, "town", "anna", nil)
	enter(t, fra, "unrecorded", "bob", preset("unrecorded"))
	voice := anna.publish("voice", livekit.TrackType_AUDIO)
	api, ctx := recorders(t, fra, auth.VideoGrant{RoomRecord: true})
	room := func(edit func(*livekit.RoomCompositeEgressRequest)) error {
		req := &livekit.RoomCompositeEgressRequest{RoomName: "town", FileOutputs: toVault("a.mp4")}
		edit(req)
		_, err := api.StartRoomCompositeEgress(ctx, req)
		return err
	}
	s3 := &livekit.S3Upload{AccessKey: "k", Secret: "canary-of-a-secret", Region: "us-east-1", Bucket: "films"}
	for want, err := range map[string]error{
		`permission_denied|S3 bucket "us-east-1/films": its country is unknown`: room(func(r *livekit.RoomCompositeEgressRequest) {
			r.FileOutputs[0].Output = &livekit.EncodedFileOutput_S3{S3: s3}
		}),
		`permission_denied|Google Cloud bucket "films"`: room(func(r *livekit.RoomCompositeEgressRequest) {
			r.FileOutputs[0].Output = &livekit.EncodedFileOutput_Gcp{Gcp: &livekit.GCPUpload{Bucket: "films"}}
		}),
		`permission_denied|stream "rtmps://live.example"`: room(func(r *livekit.RoomCompositeEgressRequest) {
			r.StreamOutputs = []*livekit.StreamOutput{{Urls: []string{"rtmps://user:canary-of-a-secret@live.example/app/canary-of-a-secret"}}}
		}),
		`permission_denied|webhook "https://hooks.example"`: room(func(r *livekit.RoomCompositeEgressRequest) {
			r.Webhooks = []*livekit.WebhookConfig{{Url: "https://hooks.example/x"}}
		}),
		`unimplemented|segments and images`: room(func(r *livekit.RoomCompositeEgressRequest) { r.ImageOutputs = []*livekit.ImageOutput{{}} }),
		`unimplemented|as they were published`: room(func(r *livekit.RoomCompositeEgressRequest) {
			r.Options = &livekit.RoomCompositeEgressRequest_Preset{Preset: livekit.EncodingOptionsPreset_H264_1080P_30}
		}),
		`unimplemented|custom_base_url`:       room(func(r *livekit.RoomCompositeEgressRequest) { r.CustomBaseUrl = "https://x.example" }),
		`unimplemented|want "grid"`:           room(func(r *livekit.RoomCompositeEgressRequest) { r.Layout = "circle" }),
		`invalid_argument|output`:             room(func(r *livekit.RoomCompositeEgressRequest) { r.FileOutputs = nil }),
		`invalid_argument|leave nothing`:      room(func(r *livekit.RoomCompositeEgressRequest) { r.AudioOnly, r.VideoOnly = true, true }),
		`not_found|does not exist`:            room(func(r *livekit.RoomCompositeEgressRequest) { r.RoomName = "nowhere" }),
		`permission_denied|does not allow`:    room(func(r *livekit.RoomCompositeEgressRequest) { r.RoomName = "unrecorded" }),
		`not_found|TR_none`:                   errOf(api.StartTrackEgress(ctx, &livekit.TrackEgressRequest{RoomName: "town", TrackId: "TR_none", Output: &livekit.TrackEgressRequest_File{}})),
		`permission_denied|WebSocket "wss://`: errOf(api.StartTrackEgress(ctx, &livekit.TrackEgressRequest{RoomName: "town", TrackId: voice, Output: &livekit.TrackEgressRequest_WebsocketUrl{WebsocketUrl: "wss://x.example/?key=canary-of-a-secret"}})),
		`invalid_argument|no track`:           errOf(api.StartTrackCompositeEgress(ctx, &livekit.TrackCompositeEgressRequest{RoomName: "town", FileOutputs: toVault("")})),
		`unimplemented|web pages`:             errOf(api.StartWebEgress(ctx, &livekit.WebEgressRequest{})),
		`unimplemented|when they are export`:  errOf(api.UpdateLayout(ctx, &livekit.UpdateLayoutRequest{})),
		`unimplemented|place outside`:         errOf(api.UpdateStream(ctx, &livekit.UpdateStreamRequest{})),
		`unimplemented|StartRoomComposite`:    errOf(api.StartEgress(ctx, &livekit.StartEgressRequest{})),
		`not_found|EG_none`:                   errOf(api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: "EG_none"})),
	} {
		c, text, _ := strings.Cut(want, "|")
		if string(code(err)) != c || !strings.Contains(err.Error(), text) || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	for _, grant := range []auth.VideoGrant{{RoomAdmin: true, Room: "town"}, {RoomRecord: true, Room: "elsewhere"}} {
		api, ctx := recorders(t, fra, grant)
		_, err := api.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{RoomName: "town", Identity: "anna", FileOutputs: toVault("")})
		if code(err) != twirp.Unauthenticated {
			t.Errorf("%+v: %v", grant, err)
		}
	}
	if infos, err := fra.vault.List(); err != nil || len(infos) != 0 {
		t.Errorf("%v, %v", infos, err)
	}
	if strings.Contains(fra.log.String(), "canary") {
		t.Error("a secret is in the log")
	}
}

func errOf[T any](_ T, err error) error { return err }
