# make alone prints the targets. Each recipe says what it is doing.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

DEMO_DIR ?= .demo
FUZZTIME ?= 1m
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOBUILD  := go build -ldflags '-X main.version=$(VERSION)'

# For all of go's commands alike, so that they share what they have compiled.
export GOFLAGS := $(strip -trimpath $(filter-out -trimpath,$(GOFLAGS)))

# What runs goroutines or sockets is tested under the race detector, the rest
# without it; what starts real browsers comes last.
raced = $$(go list ./control/... ./node/... ./relay/... ./residency/... ./router/...)
plain = $$(go list ./... | grep -vE '/bench/e2e|/(control|node|relay|residency|router)(/|$$)')

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
	@$(MAKE) test-web
	@$(MAKE) test-go
	@$(MAKE) test-race
	@$(MAKE) test-e2e
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
	@go test -count=1 -timeout 8m $(plain)

.PHONY: test-race
test-race: web ## Go tests of the node and all below it, under the race detector
	$(say) "Go tests under the race detector"
	@go test -race -count=1 -timeout 10m $(raced)

.PHONY: test-e2e
test-e2e: web ## whole meetings: real processes, browsers and network namespaces
	@if [ -d bench/e2e ]; then \
	  printf '\n== %s\n' "whole meetings in real browsers (root needed)"; \
	  go test -count=1 -timeout 15m ./bench/e2e/...; \
	else \
	  printf '\n== %s\n' "no bench/e2e in this tree: no meetings in real browsers"; \
	fi

.PHONY: bench
bench: build ## load on real nodes: the standing scenarios (RECORD=1 writes bench/results)
	$(say) "load: each scenario on nodes of its own, then the floor (5 minutes; leave the machine alone)"
	@go run ./bench/load --scenario all $(if $(RECORD),--record) $(BENCHFLAGS)
	$(say) "benchmarks of single packages"
	@go test -run '^$$' -bench . -benchmem $$(git grep -l '^func Benchmark' -- 'control/*_test.go' 'node/*_test.go' 'relay/*_test.go' 'residency/*_test.go' 'router/*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: bench-network
bench-network: web ## freezes, sound and recovery of real browsers on bad networks (root needed; writes bench/results)
	$(say) "two browsers and a bad network between them (10 minutes; leave the machine alone)"
	@go test -count=1 -timeout 30m -tags network -v -run TestNetworkFigures ./bench/e2e

.PHONY: fuzz
fuzz: web ## fuzz every parser, FUZZTIME each (1m)
	$(say) "fuzzing, $(FUZZTIME) for each target"
	@scripts/fuzz $(FUZZTIME)

.PHONY: screenshot
screenshot: build ## renew the picture of a meeting in docs/images
	$(say) "taking a picture of a meeting"
	@scripts/screenshot

.PHONY: clean
clean: ## remove what was built, and the demo's data
	$(say) "removing bin, $(DEMO_DIR), the built page and its packages"
	@rm -rf bin $(DEMO_DIR) web/node_modules
	@find web/dist -mindepth 1 ! -name placeholder -delete
