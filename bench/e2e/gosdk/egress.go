package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/livekit/protocol/livekit"
	lksdk "github.com/livekit/server-sdk-go/v2"
)

// egress has what the first client publishes recorded in the four ways that there are,
// at once, by the node of the second; lists them, stops them, and asks for what has to be
// refused.
func (p *play) egress() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	api := lksdk.NewEgressClient(p.urls[1], p.key, p.secret)
	running, err := p.startEgresses(ctx, api)
	if err != nil {
		return err
	}
	list, err := api.ListEgress(ctx, &livekit.ListEgressRequest{RoomName: p.room, Active: true})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if len(list.Items) != len(running) {
		return fmt.Errorf("list: %d of %d", len(list.Items), len(running))
	}
	for _, i := range running {
		if _, err := api.StopEgress(ctx, &livekit.StopEgressRequest{EgressId: i.EgressId}); err != nil {
			return fmt.Errorf("stop: %w", err)
		}
	}
	if err := p.completes(ctx, api, len(running)); err != nil {
		return err
	}
	return p.refused(ctx, api)
}

// startEgresses begins one of each kind.
func (p *play) startEgresses(ctx context.Context, api *lksdk.EgressClient) (running []*livekit.EgressInfo, err error) {
	files := func() []*livekit.EncodedFileOutput {
		return []*livekit.EncodedFileOutput{{Filepath: "{room_name}.mp4"}}
	}
	for _, start := range []func() (*livekit.EgressInfo, error){
		func() (*livekit.EgressInfo, error) {
			return api.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{RoomName: p.room, Layout: "grid", FileOutputs: files()})
		},
		func() (*livekit.EgressInfo, error) {
			return api.StartParticipantEgress(ctx, &livekit.ParticipantEgressRequest{RoomName: p.room, Identity: "one", FileOutputs: files()})
		},
		func() (*livekit.EgressInfo, error) {
			return api.StartTrackEgress(ctx, &livekit.TrackEgressRequest{RoomName: p.room, TrackId: p.vp8.SID(),
				Output: &livekit.TrackEgressRequest_File{File: &livekit.DirectFileOutput{}}})
		},
		func() (*livekit.EgressInfo, error) {
			return api.StartTrackCompositeEgress(ctx, &livekit.TrackCompositeEgressRequest{RoomName: p.room, AudioTrackId: p.opus.SID(), VideoTrackId: p.vp8.SID(), FileOutputs: files()})
		},
	} {
		i, err := start()
		if err != nil {
			return nil, fmt.Errorf("start number %d: %w", len(running)+1, err)
		}
		if i.Status != livekit.EgressStatus_EGRESS_ACTIVE || i.RoomName != p.room || len(i.FileResults) != 1 {
			return nil, fmt.Errorf("started: %v", i)
		}
		running = append(running, i)
	}
	return running, nil
}

// completes waits until all that were stopped are complete, each with something in it.
func (p *play) completes(ctx context.Context, api *lksdk.EgressClient, want int) error {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		list, err := api.ListEgress(ctx, &livekit.ListEgressRequest{RoomName: p.room})
		if err != nil {
			return fmt.Errorf("list what is over: %w", err)
		}
		complete := 0
		for _, i := range list.Items {
			if i.Status == livekit.EgressStatus_EGRESS_COMPLETE && i.FileResults[0].Size > 0 {
				complete++
			}
		}
		if complete == want {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d are complete: %v", complete, want, list.Items)
		}
	}
}

// refused asks for a bucket that nobody has declared.
func (p *play) refused(ctx context.Context, api *lksdk.EgressClient) error {
	_, err := api.StartRoomCompositeEgress(ctx, &livekit.RoomCompositeEgressRequest{RoomName: p.room, FileOutputs: []*livekit.EncodedFileOutput{{
		Filepath: "a.mp4", Output: &livekit.EncodedFileOutput_S3{S3: &livekit.S3Upload{AccessKey: "k", Secret: "s", Region: "us-east-1", Bucket: "films"}}}}})
	if err == nil {
		return errors.New("a bucket elsewhere was accepted")
	}
	for _, part := range []string{"permission_denied", "us-east-1/films", "its country is unknown"} {
		if !strings.Contains(err.Error(), part) {
			return fmt.Errorf("refused without %q: %w", part, err)
		}
	}
	return nil
}
