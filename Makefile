# What a contributor types. Everything needs Go alone; .ci/run is the whole of what CI does.

GO         ?= go
TESTFLAGS  ?=
TIMEOUT    ?= 30m
PKG        ?= ./...
BENCHDIR   ?= .cache/synth-0.8b
BENCHCOUNT ?= 5

.PHONY: help test short vet fmt lint accuracy bench build ci clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## every test over every golden (about two minutes on two cores)
	$(GO) test -timeout $(TIMEOUT) $(TESTFLAGS) $(PKG)

short: ## the same without the long sequences
	$(GO) test -short -timeout $(TIMEOUT) $(TESTFLAGS) $(PKG)

vet: ## go vet
	$(GO) vet $(PKG)

fmt: ## gofmt, in place
	gofmt -l -w $$(git ls-files '*.go')

lint: vet ## vet and staticcheck (fetched by go run, pinned)
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 $(PKG)

accuracy: ## measure docs/accuracy.md again
	$(GO) run ./internal/accuracy -o docs/accuracy.md

bench: ## speed as shares of what this machine reads and multiplies (docs/benchmarks.md)
	bash .ci/bench $(BENCHDIR) $(BENCHCOUNT)

build: ## bin/sibyl
	$(GO) build -trimpath -o bin/ ./cmd/sibyl

ci: ## what CI runs
	bash .ci/run

clean: ## what make made
	rm -rf bin dist
