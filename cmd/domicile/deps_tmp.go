package main

import (
	_ "filippo.io/age"
	_ "github.com/alecthomas/kong"
	_ "github.com/at-wat/ebml-go/webm"
	_ "github.com/coder/websocket"
	_ "github.com/goccy/go-yaml"
	_ "github.com/hashicorp/memberlist"
	_ "github.com/livekit/protocol/auth"
	_ "github.com/livekit/protocol/livekit"
	_ "github.com/maxmind/mmdbwriter"
	_ "github.com/oschwald/geoip2-golang/v2"
	_ "github.com/pion/turn/v4"
	_ "github.com/pion/webrtc/v4"
	_ "github.com/pressly/goose/v3"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/quic-go/quic-go"
	_ "modernc.org/sqlite"
	_ "github.com/twitchtv/twirp"
	_ "pgregory.net/rapid"
	_ "go.uber.org/goleak"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/rogpeppe/go-internal/testscript"
)

func main() {}
