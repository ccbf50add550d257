package node

import "github.com/prometheus/client_golang/prometheus"

var descDNSQuestions = prometheus.NewDesc("domicile_dns_questions_total", "Questions of DNS by what became of them.", []string{"result"}, nil)

// collectDNS hands out what became of questions; nothing where none are answered.
func (n *Node) collectDNS(count func(*prometheus.Desc, uint64, ...string)) {
	if n.names == nil {
		return
	}
	for result, v := range n.names.Counts() {
		count(descDNSQuestions, v, string(result))
	}
}
