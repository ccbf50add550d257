package control

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/livekit/protocol/livekit"
)

// EgressOrder is what is to be recorded of a room, whatever of the API's requests asked
// for it.
type EgressOrder struct {
	Room      string
	Identity  string   // of one participant; "": of anybody
	Screen    bool     // with Identity: their screen share instead of camera and microphone
	Tracks    []string // these alone; none: all
	AudioOnly bool
	VideoOnly bool
	File      string // what the API calls the file; "": it gets a name of its own

	// Outside lists where it should go instead of the room's own origins. The gate
	// answers for each.
	Outside []Outside
	// Missing is why it cannot be done although nothing speaks against it, nil if it
	// can. The gate's refusal comes first: it would not help to have it.
	Missing error

	Info *livekit.EgressInfo // with the request as it was made, which has no secrets left
}

// Outside is a place outside of the mesh.
type Outside struct {
	Kind  string // "S3 bucket", "stream", …
	Place string // its name, without secrets
}

// String names the place.
func (o Outside) String() string { return fmt.Sprintf("%s %q", o.Kind, o.Place) }

const (
	noStreams  = "a stream leaves for a place outside of the mesh; recordings stay on the room's origins"
	noPictures = "segments and images are not made while a meeting is on; export the recording"
	noEncoding = "tracks are recorded as they were published; a composed view is encoded when it is exported"
)

// maxPlace bounds what is repeated of a place that a request names.
const maxPlace = 200

// roomOrder records everybody.
func roomOrder(req *livekit.RoomCompositeEgressRequest) (EgressOrder, error) {
	o := EgressOrder{Room: req.RoomName, AudioOnly: req.AudioOnly, VideoOnly: req.VideoOnly,
		Info: &livekit.EgressInfo{RoomName: req.RoomName, Request: &livekit.EgressInfo_RoomComposite{RoomComposite: req}}}
	switch {
	case req.CustomBaseUrl != "":
		o.lacks("this server opens no web pages: custom_base_url")
	case !composes(req.Layout):
		o.lacks(fmt.Sprintf("layout %.64q: want \"grid\" or \"speaker\"", req.Layout))
	case req.AudioMixing != livekit.AudioMixing_DEFAULT_MIXING:
		o.lacks("sound is not mixed while a meeting is on: audio_mixing")
	case req.AudioOnly && req.VideoOnly:
		return o, fmt.Errorf("%w: audio_only and video_only leave nothing", ErrInvalid)
	}
	return o, o.outputs(req.Options != nil, []*livekit.EncodedFileOutput{req.GetFile()}, req.FileOutputs, //nolint:staticcheck // older clients write it
		append(req.StreamOutputs, req.GetStream()), append(req.SegmentOutputs, req.GetSegments()), req.ImageOutputs, req.Webhooks) //nolint:staticcheck // likewise
}

// composes reports whether a layout is one of those that an export has.
func composes(layout string) bool {
	return layout == "" || strings.HasPrefix(layout, "grid") || strings.HasPrefix(layout, "speaker")
}

func participantOrder(req *livekit.ParticipantEgressRequest) (EgressOrder, error) {
	o := EgressOrder{Room: req.RoomName, Identity: req.Identity, Screen: req.ScreenShare,
		Info: &livekit.EgressInfo{RoomName: req.RoomName, Request: &livekit.EgressInfo_Participant{Participant: req}}}
	if err := ValidIdentity(req.Identity); err != nil {
		return o, err
	}
	return o, o.outputs(req.Options != nil, nil, req.FileOutputs, req.StreamOutputs, req.SegmentOutputs, req.ImageOutputs, req.Webhooks)
}

func tracksOrder(req *livekit.TrackCompositeEgressRequest) (EgressOrder, error) {
	o := EgressOrder{Room: req.RoomName,
		Info: &livekit.EgressInfo{RoomName: req.RoomName, Request: &livekit.EgressInfo_TrackComposite{TrackComposite: req}}}
	for _, id := range []string{req.AudioTrackId, req.VideoTrackId} {
		if id != "" {
			o.Tracks = append(o.Tracks, id)
		}
	}
	if err := o.checkTracks(); err != nil {
		return o, err
	}
	return o, o.outputs(req.Options != nil, []*livekit.EncodedFileOutput{req.GetFile()}, req.FileOutputs, //nolint:staticcheck // older clients write it
		append(req.StreamOutputs, req.GetStream()), append(req.SegmentOutputs, req.GetSegments()), req.ImageOutputs, req.Webhooks) //nolint:staticcheck // likewise
}

func trackOrder(req *livekit.TrackEgressRequest) (EgressOrder, error) {
	o := EgressOrder{Room: req.RoomName, Tracks: []string{req.TrackId},
		Info: &livekit.EgressInfo{RoomName: req.RoomName, Request: &livekit.EgressInfo_Track{Track: req}}}
	if err := o.checkTracks(); err != nil {
		return o, err
	}
	o.hooks(req.Webhooks)
	switch out := req.Output.(type) {
	case *livekit.TrackEgressRequest_File:
		o.File = out.File.GetFilepath()
		o.upload(out.File.GetS3(), out.File.GetGcp(), out.File.GetAzure(), out.File.GetAliOSS())
	case *livekit.TrackEgressRequest_WebsocketUrl:
		o.leaves("WebSocket", out.WebsocketUrl)
		o.lacks(noStreams)
	default:
		return o, errNoOutput
	}
	return o, o.checkFile()
}

// errNoOutput is LiveKit's answer to a request that names no output.
var errNoOutput = fmt.Errorf("%w: request has missing or invalid field: output", ErrInvalid)

// maxTrackID bounds a track's id, as the mesh does.
const maxTrackID = 64

func (o *EgressOrder) checkTracks() error {
	if len(o.Tracks) == 0 {
		return fmt.Errorf("%w: no track is named", ErrInvalid)
	}
	for _, id := range o.Tracks {
		if id == "" || len(id) > maxTrackID {
			return fmt.Errorf("%w: a track's id has %d bytes, want 1 to %d", ErrInvalid, len(id), maxTrackID)
		}
	}
	return nil
}

// checkFile wants what may stand in an answer; the file itself has no path.
func (o *EgressOrder) checkFile() error {
	if o.File == "" {
		return nil
	}
	return validText("filepath", o.File, MaxMetadataBytes>>6)
}

// leaves notes a place outside of the mesh.
func (o *EgressOrder) leaves(kind, place string) {
	place, _, _ = strings.Cut(place, "?") // keys of streams stand behind it
	o.Outside = append(o.Outside, Outside{Kind: kind, Place: strings.ToValidUTF8(place[:min(len(place), maxPlace)], "")})
}

func (o *EgressOrder) lacks(why string) {
	if o.Missing == nil {
		o.Missing = fmt.Errorf("%w: %s", ErrUnimplemented, why)
	}
}

// outputs reads the outputs of every kind.
func (o *EgressOrder) outputs(encoded bool, old, files []*livekit.EncodedFileOutput, streams []*livekit.StreamOutput,
	segments []*livekit.SegmentedFileOutput, images []*livekit.ImageOutput, hooks []*livekit.WebhookConfig) error {
	if encoded {
		o.lacks(noEncoding)
	}
	o.hooks(hooks)
	n := 0
	for _, f := range append(files, old...) {
		if f == nil {
			continue
		}
		n++
		o.File = cmp.Or(o.File, f.Filepath)
		o.upload(f.GetS3(), f.GetGcp(), f.GetAzure(), f.GetAliOSS())
	}
	for _, s := range streams {
		if s == nil {
			continue
		}
		n++
		for _, url := range s.Urls {
			o.leaves("stream", withoutKey(url))
		}
		o.lacks(noStreams)
	}
	for _, s := range segments {
		if s != nil {
			n++
			o.upload(s.GetS3(), s.GetGcp(), s.GetAzure(), s.GetAliOSS())
			o.lacks(noPictures)
		}
	}
	for _, i := range images {
		if i != nil {
			n++
			o.upload(i.GetS3(), i.GetGcp(), i.GetAzure(), i.GetAliOSS())
			o.lacks(noPictures)
		}
	}
	if n == 0 {
		return errNoOutput
	}
	return o.checkFile()
}

// withoutKey is the server of a stream's URL: the rest of it is a secret.
func withoutKey(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return "?"
	}
	host, _, _ := strings.Cut(rest, "/")
	if _, after, user := strings.Cut(host, "@"); user {
		host = after
	}
	return scheme + "://" + host
}

// upload notes a store outside of the mesh.
func (o *EgressOrder) upload(s3 *livekit.S3Upload, gcp *livekit.GCPUpload, azure *livekit.AzureBlobUpload, ali *livekit.AliOSSUpload) {
	switch {
	case s3 != nil:
		o.leaves("S3 bucket", strings.Trim(strings.Join([]string{s3.Endpoint, s3.Region, s3.Bucket}, "/"), "/"))
	case gcp != nil:
		o.leaves("Google Cloud bucket", gcp.Bucket)
	case azure != nil:
		o.leaves("Azure container", azure.AccountName+"/"+azure.ContainerName)
	case ali != nil:
		o.leaves("Alibaba bucket", strings.Trim(strings.Join([]string{ali.Endpoint, ali.Region, ali.Bucket}, "/"), "/"))
	}
}

// hooks notes webhooks of the request's own: where they go nobody has declared.
func (o *EgressOrder) hooks(list []*livekit.WebhookConfig) {
	for _, h := range list {
		o.leaves("webhook", withoutKey(h.GetUrl()))
	}
	if len(list) > 0 {
		o.lacks("webhooks are configured in node.yaml")
	}
}
