package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/domicile/domicile/configs"
	"github.com/domicile/domicile/node"
)

// target says which node a command is about.
type target struct {
	Config string `type:"path" help:"The node's configuration." placeholder:"node.yaml"`
	Dir    string `type:"path" env:"DOMICILE_DIR" help:"A demo mesh's directory. Default: the demo started last."`
	Node   string `default:"fra" help:"Which node of the demo mesh."`
}

// systemConfig is where a node in production has its configuration.
const systemConfig = "/etc/domicile/node.yaml"

// dataDir finds the data directory of the node: of the named configuration, of
// the demo mesh, or of this machine's node.
func (t target) dataDir() (string, error) {
	config := t.Config
	switch dir := t.Dir; {
	case config != "":
	case dir != "":
		config = filepath.Join(dir, t.Node, "node.yaml")
	case lastDemo() != "":
		config = filepath.Join(lastDemo(), t.Node, "node.yaml")
	default:
		config = systemConfig
	}
	y, err := configs.LoadNode(config)
	if err != nil {
		if t.Config == "" && t.Dir == "" {
			return "", fmt.Errorf("no node found: say which with --config or --dir (%w)", err)
		}
		return "", err
	}
	return y.DataDir, nil
}

// demoPointer remembers where the demo was started last.
func demoPointer() string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "domicile", "demo")
}

func lastDemo() string {
	b, err := os.ReadFile(demoPointer())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// maxAnswer bounds what a node answers in JSON, in bytes.
const maxAnswer = 16 << 20

// ask sends a question to a running node's admin socket.
func ask(ctx context.Context, dataDir, path string, query url.Values, into any) error {
	b, err := askBytes(ctx, dataDir, path, query, maxAnswer)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// askBytes is ask for an answer of at most so many bytes, whatever they are.
func askBytes(ctx context.Context, dataDir, path string, query url.Values, limit int64) ([]byte, error) {
	return call(ctx, dataDir, http.MethodGet, path+"?"+query.Encode(), nil, limit)
}

// tell sends a running node's admin socket something to act on.
func tell(ctx context.Context, dataDir, path string, what, into any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	b, err := call(ctx, dataDir, http.MethodPost, path, body, maxAnswer)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

// call returns an answer of at most so many bytes.
func call(ctx context.Context, dataDir, method, path string, body []byte, limit int64) ([]byte, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialAdmin(ctx, dataDir)
		}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // there is no such address: the node is behind a socket
	}
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w (is it running, and are you its user?)", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error *node.Refusal `json:"error"`
		}
		if json.Unmarshal(b, &e) == nil && e.Error != nil {
			return nil, e.Error
		}
		return nil, errors.New("ask the node: " + resp.Status)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("ask the node: it answers with more than %d bytes", limit)
	}
	return b, nil
}

type stateCmd struct {
	target
}

// Run prints the node's state as JSON.
func (c *stateCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if err := ask(ctx, dir, "/state", nil, &answer); err != nil {
		return err
	}
	return printJSON(answer)
}

func printJSON(v any) error {
	e := json.NewEncoder(os.Stdout)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
