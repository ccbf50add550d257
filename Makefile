# make alone prints the targets. Each recipe says what it is doing.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

DEMO_DIR ?= .demo
FUZZTIME ?= 1m
SEED     ?= 1
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD  := go build -ldflags '-X main.version=$(VERSION)'

# For all of go's commands alike, so that they share what they have compiled.
export GOFLAGS := $(strip -trimpath $(filter-out -trimpath,$(GOFLAGS)))

# What runs goroutines or sockets is tested under the race detector, the rest
# without it: it is five to ten times as slow. What starts real browsers comes last.
# cores are packages below node that start no goroutine (internal/lint holds them to it).
cores = ./router ./router/cascade ./router/explain ./router/plan ./router/replan \
  ./node/drainage ./node/front/admission ./node/room/reliable ./node/rtc/jsep ./node/sfu/allocate ./node/sfu/bwe ./node/sfu/quality ./node/sfu/speakers ./node/turn/alloc ./node/witness \
  ./relay/flow ./relay/seal ./relay/wire \
  ./residency ./residency/bundles ./residency/evidence/report ./residency/evidence/verify ./residency/register ./residency/registry ./residency/whereabouts
raced = $$(go list ./control/... ./node/... ./relay/... ./residency/... ./router/... | grep -vxF "$$(go list ./node $(cores))")
plain = $$(go list ./... | grep -vE '/bench/(e2e|load|netlab)|/internal/lint$$|/(control|node|relay|residency|router)(/|$$)') $(cores)
# make lint runs internal/lint and has go vet find more, in everything, than go test does by itself.
gotest = go test -vet=off -count=1

web_sources := $(shell find web/src web/public web/index.html web/vite.config.ts web/tsconfig.json web/package.json -type f 2>/dev/null)

say = @printf '\n== %s\n'

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: build ## build everything and start the demo: three nodes on loopback
	$(say) "starting the demo in $(DEMO_DIR) (Ctrl-C stops it)"
	@exec bin/domicile demo --dir $(DEMO_DIR)

.PHONY: build
build: web ## build bin/domicile with the page inside
	$(say) "compiling bin/domicile $(VERSION) (the first time takes a minute or two)"
	@mkdir -p bin
	@$(GOBUILD) -o bin/domicile ./cmd/domicile

.PHONY: toolchain
toolchain:
	@for tool in go node npm; do command -v $$tool >/dev/null || { echo "make: $$tool is missing: Domicile is built with Go 1.26 and Node 20"; exit 1; }; done

.PHONY: web
web: toolchain web/dist/index.html ## build the page, where its sources changed

web/node_modules/.installed: web/package-lock.json | toolchain
	$(say) "installing the page's packages with npm ci"
	@cd web && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

web/dist/index.html: web/node_modules/.installed $(web_sources)
	$(say) "building the page"
	@cd web && npm run --silent build -- --logLevel warn
	@touch $@

.PHONY: deps
deps: ## install the Debian packages that the tests need
	$(say) "looking for the tools that the tests need"
	@scripts/deps

.PHONY: test
test: ## run all tests, as continuous integration does
	@$(MAKE) deps
	@$(MAKE) web
	@$(MAKE) lint
	@failed=; for part in test-web test-go test-race test-node test-e2e; do \
	  $(MAKE) $$part || failed="$$failed $$part"; \
	done; \
	if [ -n "$$failed" ]; then printf '\n== failed:%s\n' "$$failed"; exit 1; fi
	$(say) "all tests passed"

.PHONY: lint
lint: ## gofmt, go vet, and the rules of the architecture
	$(say) "gofmt"
	@bad=$$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 ls -d 2>/dev/null | xargs gofmt -l); \
	  if [ -n "$$bad" ]; then printf 'not formatted, run gofmt -w on:\n%s\n' "$$bad"; exit 1; fi
	$(say) "go vet"
	@go vet ./...
	$(say) "architecture"
	@go test -count=1 ./internal/lint

.PHONY: test-web
test-web: web ## tests of the page, the built one in a browser included
	$(say) "types and unit tests of the page"
	@cd web && npm run --silent typecheck && npm run --silent test
	$(say) "the built page in a browser"
	@cd web && npm run --silent smoke

.PHONY: test-go
test-go: web ## Go tests of commands, configuration, tools
	$(say) "Go tests that need no race detector"
	@$(gotest) -timeout 8m $(plain)
	$(say) "Go tests of what measures, one package at a time"
	@$(gotest) -p 1 -timeout 8m ./bench/load/... ./bench/netlab/...

.PHONY: test-race
test-race: web ## Go tests of what the node is made of, under the race detector
	$(say) "Go tests under the race detector: what the node is made of"
	@$(gotest) -race -p 3 -timeout 15m $(raced)

.PHONY: test-node
test-node: web ## Go tests of the node, under the race detector
	$(say) "Go tests under the race detector: the node, whole meshes two at a time"
	@$(gotest) -race -timeout 15m ./node

.PHONY: test-e2e
test-e2e: web ## whole meetings: real processes, browsers and network namespaces
	@if [ -d bench/e2e ]; then \
	  printf '\n== %s\n' "whole meetings in real browsers (root needed)"; \
	  $(gotest) -timeout 20m -parallel 3 ./bench/e2e/...; \
	else \
	  printf '\n== %s\n' "no bench/e2e in this tree: no meetings in real browsers"; \
	fi

.PHONY: residency-million
residency-million: ## a million random cases on the code that decides where bytes go, a tenth of them whole meetings (SEED=n replays)
	$(say) "900,000 worlds of decisions, 100,000 meetings, 10,000 meshes of links (an hour on two idle processors)"
	@go test -count=1 -timeout 6h -v -run '^TestNoLeak$$' ./router -args -leak.cases=900000 -leak.seed=$(or $(SEED),1)
	@go test -count=1 -timeout 6h -v -run '^TestNoLeak$$' ./node/room -args -leak.cases=100000 -leak.seed=$(or $(SEED),1)
	@go test -count=1 -timeout 6h -v -run '^TestNoLeak$$' ./relay -args -leak.cases=10000 -leak.seed=$(or $(SEED),1)

.PHONY: consent-schedules
consent-schedules: ## 100,000 random schedules of people, consent, recordings and cut links: nobody is recorded unasked (SEED=n replays)
	$(say) "100,000 schedules"
	@go test -count=1 -timeout 3h -v -run '^TestNobodyIsRecordedUnasked$$' ./node/room -args -leak.cases=100000 -leak.seed=$(or $(SEED),1)

.PHONY: random-cases
random-cases: toolchain ## the random tests of vault, relay and media plane with many more cases than make test has
	$(say) "100,000 tamperings, 10,000 silences, 2,000 meetings of each codec (6 minutes)"
	@go test -count=1 -timeout 1h -v -run '^TestRandomTampering$$' ./residency/vault -args -tamperings 100000
	@go test -count=1 -timeout 1h -v -run '^TestSilenceIsFoundSoon$$' ./relay -args -vigil.seeds 10000
	@go test -count=1 -timeout 1h -v -run '^TestDecoderFollowsWhateverHappens$$' ./node/sfu -args -oracle.seeds 2000

.PHONY: residency-faults
residency-faults: ## plant every fault in that code, one after the other: each must be found
	$(say) "planting faults (10 minutes)"
	@go test -count=1 -timeout 30m -v -run TestFaultsAreCaught ./internal/faults -args -faults.all

.PHONY: bench
bench: build ## load on real nodes: the standing scenarios (RECORD=1 writes bench/results)
	@scripts/deps bench
	$(say) "load: each scenario on nodes of its own, then the floor (11 minutes; leave the machine alone)"
	@go run ./bench/load --scenario all $(if $(RECORD),--record) $(BENCHFLAGS)
	$(say) "benchmarks of single packages"
	@go test -run '^$$' -bench . -benchmem $$(git grep -l '^func Benchmark' -- 'control/*_test.go' 'node/*_test.go' 'relay/*_test.go' 'residency/*_test.go' 'router/*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: bench-network
bench-network: web ## freezes, sound and recovery of real browsers on bad networks (root needed; writes bench/results)
	$(say) "two browsers and a bad network between them (10 minutes; leave the machine alone)"
	@go test -count=1 -timeout 30m -tags network -v -run TestNetworkFigures ./bench/e2e

.PHONY: bench-moves
bench-moves: web ## what pages miss when their node is killed, stopped or drained, N times (10) each (KINDS=killed,frozen,drained; root; RECORD=1 writes bench/results)
	$(say) "a node is killed, stopped and drained under a page, N=$(or $(N),10) times each (20 seconds each; leave the machine alone)"
	@go test -count=1 -timeout 0 -tags network -v -run '^TestMoveFigures$$' ./bench/e2e -moves.samples $(or $(N),10) $(if $(KINDS),-moves.kinds $(KINDS)) $(if $(RECORD),-moves.record)

.PHONY: residency-real
residency-real: web ## N random residency cases (100) on real nodes in namespaces, everything captured (root; RECORD=1 writes bench/results)
	$(say) "random policies, moves and failures on real nodes: N=$(or $(N),100) cases (20 minutes for 1000)"
	@go test -count=1 -timeout 0 -v -run '^TestResidencyReal$$' ./bench/e2e -real.cases $(or $(N),100) $(if $(RECORD),-real.record) $(REALFLAGS)
	@$(if $(RECORD),go run ./bench/residency -table)

.PHONY: bench-failover
bench-failover: web ## how soon a frozen node is suspect: N times (100), real nodes in namespaces (root; RECORD=1 writes bench/results)
	$(say) "freezing a node again and again"
	@go test -count=1 -timeout 30m -v -run '^TestFrozenNodeIsSuspect$$' ./bench/e2e -failover.samples $(or $(N),100) $(if $(RECORD),-failover.record)

.PHONY: s3-test
s3-test: toolchain ## recordings in a bucket of a real S3 server (builds versitygw first; minutes)
	$(say) "building an S3 server, and recordings in a bucket of it"
	@GOBIN=$(CURDIR)/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
	@VERSITYGW=$(CURDIR)/bin/versitygw go test -count=1 -tags s3 -v ./residency/vault/bucket

.PHONY: recorder-kills
recorder-kills: web ## what kill -9 costs a recording: N processes (1000) at random moments, each film opened in Chromium (RECORD=1 writes bench/results)
	$(say) "killing processes that record, N=$(or $(N),1000) (3 seconds each, three at a time), then opening what is left in Chromium"
	@films=$$(mktemp -d); trap 'rm -r "$$films"' EXIT; \
	  go test -count=1 -timeout 0 -v -run '^TestKilledRecorder$$' ./node/record -kills $(or $(N),1000) -kills.keep "$$films" $(if $(RECORD),-kills.record) && \
	  go test -count=1 -timeout 0 -tags network -v -run '^TestFilmsOpen$$' ./bench/e2e -films "$$films" $(if $(RECORD),-films.record $(CURDIR)/bench/results/$$(date -u +%F)-recorder-kills.json)

.PHONY: bench-export
bench-export: toolchain ## how fast an hour of ten tracks is exported as it was sent (3 GB of disk; RECORD=1 writes bench/results)
	$(say) "an hour of ten tracks, made up and exported (1 minute; leave the machine alone)"
	@go test -count=1 -timeout 10m -tags figures -v -run '^TestHourIsExported$$' ./node/record $(if $(RECORD),-hour.record)

.PHONY: bench-recording
bench-recording: build ## what it costs a node to record 100 tracks of 2 Mbit/s (2 GB of disk; RECORD=1 writes bench/results)
	$(say) "100 cameras in ten rooms of one node, recorded and not (1 minute; leave the machine alone)"
	@go run ./bench/load --scenario recording --floor=false $(if $(RECORD),--record) $(BENCHFLAGS)

.PHONY: bench-export-sync
bench-export-sync: toolchain ## flashes and beeps of an exported hour, of clocks that drift by 200 ppm each way (RECORD=1 writes bench/results)
	$(say) "an hour with clocks that drift (3 minutes)"
	@go test -count=1 -timeout 60m -tags figures -v -run '^TestDrift$$' ./node/record -drift 1h $(if $(RECORD),-hour.record)

.PHONY: bench-meeting-sync
bench-meeting-sync: web ## flashes and beeps that Chromium publishes, in the export of their meeting (FOR=1h DRIFT=200; RECORD=1 writes bench/results)
	$(say) "flashes and beeps for $(or $(FOR),30s) (leave the machine alone)"
	@go test -count=1 -timeout 0 -tags network -v -run '^TestSyncFigures$$' ./bench/e2e -sync.for $(or $(FOR),30s) -sync.drift $(or $(DRIFT),0) $(if $(RECORD),-sync.record)

.PHONY: residency-stops
residency-stops: web ## how long media goes on that is no longer allowed: N ends (100) of each kind (root; RECORD=1 writes bench/results)
	$(say) "policies tightened, certificates revoked, edges left, on real nodes (3 minutes; leave the machine alone)"
	@go test -count=1 -timeout 30m -v -run '^TestMediaStops$$' ./bench/e2e -stops.samples $(or $(N),100) $(if $(RECORD),-stops.record)
	@$(if $(RECORD),go run ./bench/residency -table)

.PHONY: bench-relay
bench-relay: toolchain ## one hop between two nodes: latency, CPU against the floor, loss, a bottleneck, many tracks (root; writes bench/results)
	$(say) "a hop, over UDP and over QUIC (5 minutes; leave the machine alone)"
	@go test -count=1 -timeout 20m -tags figures -v -run '^TestFigures$$' ./bench/relay -relay.record

.PHONY: bench-residency
bench-residency: toolchain ## what the gate and the evidence cost, from opening a stream to a packet (writes bench/results)
	$(say) "benchmarks of gate, evidence, relay and policies (2 minutes; leave the machine alone)"
	@go run ./bench/residency

.PHONY: bench-mesh
bench-mesh: toolchain ## simulated meshes of 1,000 nodes, rooms of 100,000: the trees of tracks (SEED=1; RECORD=1 writes bench/results)
	$(say) "rooms in meshes made from a seed (half a minute)"
	@go run ./bench/meshsim -seed $(or $(SEED),1) $(if $(RECORD),-record)

# All that a node in the middle can do, and the two paths on which nobody does.
HEAL_FAULTS ?= kill,source,freeze,pause,cut,deaf,mute,flap,loss,overtaking

.PHONY: bench-heal
bench-heal: web ## how soon tracks flow again when the node in the middle fails, N times (10) each (root; RECORD=1 writes bench/results)
	$(say) "a node fails under a meeting of five real ones: $(HEAL_FAULTS), N=$(or $(N),10) times each"
	@go test -count=1 -timeout 0 -v -run '^TestNodesFail$$' ./bench/netlab/healing -heal.times $(or $(N),10) -heal.rooms 4 -heal.stall 100ms \
	  -heal.faults $(HEAL_FAULTS) $(if $(FOR),-heal.for $(FOR)) $(if $(RECORD),-heal.record ../../results/$$(date -u +%F)-heal.json) $(HEALFLAGS)

.PHONY: bench-heal-recording
bench-heal-recording: web ## the origin that records is killed, N times (3): the recording goes on at the other (root)
	$(say) "an origin that records is killed, N=$(or $(N),3) times"
	@go test -count=1 -timeout 0 -tags heal -v -run '^TestRecordingOutlivesItsNode$$' ./bench/netlab/healing -heal.recordings $(or $(N),3)

.PHONY: fuzz
fuzz: web ## fuzz every parser, FUZZTIME each (1m)
	$(say) "fuzzing, $(FUZZTIME) for each target"
	@scripts/fuzz $(FUZZTIME)

.PHONY: evidence-tamper
evidence-tamper: ## tamper with a room's evidence in ten thousand ways (SEED), each must be found
	$(say) "10,000 tamperings of seed $(SEED)"
	@go test -count=1 -run TestEveryTamperingIsFound ./residency/evidence/verify -v -args -tamperings 10000 -seed $(SEED)

.PHONY: screenshot
screenshot: build ## renew the picture of a meeting in docs/images
	$(say) "taking a picture of a meeting"
	@scripts/screenshot

.PHONY: clean
clean: ## remove what was built, and the demo's data
	$(say) "removing bin, $(DEMO_DIR), the built page and its packages"
	@rm -rf bin $(DEMO_DIR) web/node_modules
	@find web/dist -mindepth 1 ! -name placeholder -delete
