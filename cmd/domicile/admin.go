package main

import (
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

// ask sends a question to a running node's admin socket.
func ask(ctx context.Context, dataDir, path string, query url.Values, into any) error {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return node.DialAdmin(ctx, dataDir)
		}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node"+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the node: %w (is it running, and are you its user?)", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("ask the node: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var e struct {
			Error *node.Refusal `json:"error"`
		}
		if json.Unmarshal(b, &e) == nil && e.Error != nil {
			return e.Error
		}
		return errors.New("ask the node: " + resp.Status)
	}
	return json.Unmarshal(b, into)
}

type explainCmd struct {
	target
	Room   string `required:"" help:"The room's name; it need not exist yet."`
	IP     string `name:"ip" required:"" help:"The attendee's address."`
	Policy string `help:"The policy of a room that does not exist yet. Default: the mesh's."`
	JSON   bool   `name:"json" help:"Print JSON."`
}

// Run prints the ranked candidates.
func (c *explainCmd) Run(ctx context.Context) error {
	dir, err := c.dataDir()
	if err != nil {
		return err
	}
	var answer json.RawMessage
	query := url.Values{"room": {c.Room}, "ip": {c.IP}, "policy": {c.Policy}}
	if err := ask(ctx, dir, "/explain", query, &answer); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(answer)
	}
	var text struct{ Text string }
	if err := json.Unmarshal(answer, &text); err != nil {
		return err
	}
	fmt.Print(text.Text)
	return nil
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
