package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/domicile/domicile/node/webhook"
)

var descWebhooks = prometheus.NewDesc("domicile_webhooks_total", "Events for webhooks that were sent, or dropped for a reason.", []string{"result"}, nil)

// collectWebhooks hands out what became of events, of all webhooks together: where they
// are is not for whoever collects metrics.
func (n *Node) collectWebhooks(count func(*prometheus.Desc, uint64, ...string)) {
	if len(n.hooks) == 0 {
		return
	}
	var sent uint64
	dropped := map[webhook.Reason]uint64{}
	for _, h := range n.hooks {
		sent += h.sender.Sent()
		for _, r := range webhook.Reasons() {
			dropped[r] += h.sender.Dropped(r)
		}
	}
	count(descWebhooks, sent, "sent")
	for r, v := range dropped {
		count(descWebhooks, v, string(r))
	}
}
