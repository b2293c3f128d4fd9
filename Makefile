# surprisal. `make` lists the targets. Needed: Go, Rust (cargo) and a C compiler.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

LIB := .build/lib
STAMP := .build/stamp
TOOLS := .build/bin

# One set of flags for every build, test and check, so that Go compiles each package
# once: for the dispatcher (without cgo) as for the worker, with the CUDA engine or
# without. `eval "$(make -s env)"` gives a shell the same.
export CGO_ENABLED := 1
TAGS := netgo,osusergo,disable_grpc_modules,grpcnotrace
export GOFLAGS := -trimpath -tags=$(TAGS) $(filter-out -trimpath -tags=% -ldflags=%,$(GOFLAGS))

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# NVML's functions are found at run time, as the worker first calls them. Where the
# compiler has all of them found at the start, no worker would start without a driver.
ifeq ($(shell uname -s),Linux)
LAZY := -extldflags=-Wl,-z,lazy
GOFLAGS += -ldflags=$(LAZY)
endif
# Without symbols for debuggers, which are a third of the program; stack traces stay.
LDFLAGS := -s -w -X main.version=$(VERSION) $(LAZY)

# The Rust half of the tokenizers module, at the version that go.mod names.
TOKENIZERS := github.com/daulet/tokenizers
TOKENIZERS_VERSION := $(shell awk '$$1 == "$(TOKENIZERS)" { print $$2 } $$2 == "$(TOKENIZERS)" { print $$3 }' go.mod)

STATICCHECK_VERSION := v0.8.2
STATICCHECK := $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)

# Servers that speak S3 and Google Cloud Storage, for tests alone.
VERSITYGW_VERSION := v1.8.0
VERSITYGW := $(TOOLS)/versitygw-$(VERSITYGW_VERSION)
FAKEGCS_VERSION := v1.56.1
FAKEGCS := $(TOOLS)/fake-gcs-server-$(FAKEGCS_VERSION)
# And Azure Blob Storage: Azurite, which needs Node.js. Its tests are skipped where it is not.
AZURITE_VERSION := v3.35.0
AZURITE := $(TOOLS)/azurite-$(AZURITE_VERSION)

# What tests compare with: other readers of parquet, percentiles, the hub's cache.
PYTHON_WHEELS := pyarrow==22.* duckdb==1.4.* numpy==2.* pandas==2.* huggingface_hub==1.*

DEADCODE_VERSION := v0.51.0
DEADCODE := $(TOOLS)/deadcode-$(DEADCODE_VERSION)

GOVULNCHECK_VERSION := v1.9.0
GOVULNCHECK := $(TOOLS)/govulncheck-$(GOVULNCHECK_VERSION)

DEMO := examples/demo
# Many tests wait more than they work.
CORES := $(shell getconf _NPROCESSORS_ONLN)
GO_TEST_FLAGS ?= -timeout 30m -p $(shell echo $$(($(CORES) + 1))) -parallel $(shell echo $$((2 * $(CORES))))

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: native
native: $(LIB)/libtokenizers.a ## build the static library that the worker links (once)

.PHONY: build
build: native ## build bin/dispatcher (no cgo) and bin/worker
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o bin/dispatcher ./cmd/dispatcher
	go build -ldflags '$(LDFLAGS)' -o bin/worker ./cmd/worker

.PHONY: demo
demo: build ## score the demo corpus with the demo model, on the CPU
	rm -rf $(DEMO)/out
	bin/dispatcher run --model $(DEMO)/model --out $(DEMO)/out $(DEMO)/corpus
	bin/dispatcher report $(DEMO)/out

.PHONY: test
test: native ## run every test but the longest, which SURPRISAL_TEST_LONG=1 adds
	go test $(GO_TEST_FLAGS) ./...

.PHONY: check
check: native $(STATICCHECK) ## the inner loop: format, vet, staticcheck, layout, short tests of what differs from main
	.ci/check $(STATICCHECK)

.PHONY: sim
sim: native ## simulate 2,000 runs of dispatchers, queue and workers in virtual time, with crashes and a bad network
	SURPRISAL_SIM_SEEDS=2000 go test -timeout 30m -run 'TestSimulation$$' ./internal/worker

.PHONY: bench-queue
bench-queue: ## 300 workers on one server: the queue's cost per job; the dispatcher's memory with 1,000,000 jobs
	go build -o .build/benchqueue ./bench/queue
	.build/benchqueue --jobs 1500 --score 13s
	.build/benchqueue --jobs 20000 --in-flight 1
	.build/benchqueue --memory --jobs 1000000

.PHONY: bench
bench: native ## measure the tokenizer and the CPU engine
	go test -run '^$$' -bench . -benchmem ./internal/model/...

.PHONY: bench-load
bench-load: ## open a 5.8 GB fp32 checkpoint as bf16: seconds and peak memory
	go run ./internal/tools/genckpt --config gdn2_kla_1.3B --dtype float32 --seed 1 --out .build/bench-ckpt
	SURPRISAL_BENCH_CKPT=$(CURDIR)/.build/bench-ckpt go test -run '^$$' -bench Open1B3 -benchtime 2x ./internal/model
	rm -rf .build/bench-ckpt

.PHONY: bench-filter
bench-filter: build python ## filter FILES=10 files of a million rows (DISTINCT of them generated) and compare with DuckDB: seconds, memory
	go run ./bench/filter -python .build/python/bin/python3 -files $(or $(FILES),10) -distinct $(or $(DISTINCT),0) -repeat $(or $(REPEAT),3) -dir .build/bench-filter
	rm -rf .build/bench-filter

.PHONY: lint
lint: native $(STATICCHECK) ## gofmt, go vet, staticcheck, the limits of packages and lines
	@unformatted=$$(gofmt -l cmd internal); if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$(STATICCHECK) ./...
	go test -count 1 -run TestLimits ./internal
	go vet -tags $(TAGS),failpoints ./internal/failpoint ./e2e
	$(STATICCHECK) -tags $(TAGS),failpoints ./internal/failpoint ./e2e

.PHONY: limits
limits: native $(DEADCODE) ## functions nobody calls; lines of the product past the house's limit
	SURPRISAL_LIMITS=1 go test -count 1 -run 'TestLimits|TestSizeOfProduct' ./internal
	@dead=$$($(DEADCODE) -test -tags $(TAGS) ./...); [ -z "$$dead" ] || { printf '%s\n' "$$dead"; exit 1; }

include cuda.mk

.PHONY: stores
stores: $(VERSITYGW) $(FAKEGCS) ## build the object stores for the bucket tests (once)

.PHONY: azurite
azurite: $(AZURITE) ## install Azurite for the tests of az:// (once; needs npm)

.PHONY: python
python: $(STAMP)/python ## create .build/python with the libraries that tests and bench-filter compare with (once)

$(STAMP)/python: Makefile
	python3 -m venv .build/python
	.build/python/bin/python3 -m pip install -q --disable-pip-version-check $(PYTHON_WHEELS)
	mkdir -p $(STAMP)
	touch $@

.PHONY: prometheus
prometheus: ## install prometheus and promtool (Debian, Ubuntu: apt) for the tests of deploy/prometheus
	{ command -v promtool && command -v prometheus; } >/dev/null || apt-get install -y --no-install-recommends prometheus

.PHONY: chaos
chaos: native ## kill, freeze and cut off real processes, fill disks, and simulate, at length (20 minutes)
	SURPRISAL_CHAOS=long go test -tags $(TAGS),failpoints ./internal/failpoint ./e2e -run 'Chaos|Hit|Parse' -v -count 1 -timeout 60m
	SURPRISAL_SIM_SEEDS=2000 go test ./internal/worker -run Simulation -v -count 1 -timeout 60m

.PHONY: vulncheck
vulncheck: native $(GOVULNCHECK) ## report known vulnerabilities in code that the programs call; needs vuln.go.dev
	@out=$$($(GOVULNCHECK) ./cmd/... 2>&1) && code=0 || code=$$?; printf '%s\n' "$$out"; \
	case $$code:$$out in *"fetching vulnerabilities"*) echo "SKIPPED: vuln.go.dev can't be reached, nothing was checked";; *) exit $$code;; esac

.PHONY: clean
clean: ## delete everything that was built, including tools and native libraries
	rm -rf bin .build $(DEMO)/out

# cargo reads the module cache, which is read-only, and writes below .build alone.
$(LIB)/libtokenizers.a: $(STAMP)/tokenizers-$(TOKENIZERS_VERSION) | require-cargo
	go mod download $(TOKENIZERS)
	CARGO_TARGET_DIR=$(CURDIR)/.build/cargo/tokenizers cargo build --release --locked \
		--manifest-path "$$(go list -m -f '{{.Dir}}' $(TOKENIZERS))/Cargo.toml"
	mkdir -p $(LIB)
	cp .build/cargo/tokenizers/release/libtokenizers.a $@.tmp
	mv $@.tmp $@

# A stamp is newer than the library only when the version has changed.
$(STAMP)/tokenizers-$(TOKENIZERS_VERSION):
	mkdir -p $(STAMP)
	rm -f $(STAMP)/tokenizers-*
	touch $@

.PHONY: require-cargo
require-cargo:
	@command -v cargo >/dev/null || { echo "cargo is not on PATH: install Rust, https://rustup.rs" >&2; exit 1; }

$(VERSITYGW):
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 go install -ldflags '-s -w' github.com/versity/versitygw/cmd/versitygw@$(VERSITYGW_VERSION)
	mv $(TOOLS)/versitygw $@

$(GOVULNCHECK):
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 go install golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION)
	mv $(TOOLS)/govulncheck $@

$(DEADCODE):
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 go install golang.org/x/tools/cmd/deadcode@$(DEADCODE_VERSION)
	mv $(TOOLS)/deadcode $@

$(FAKEGCS):
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 go install -ldflags '-s -w' github.com/fsouza/fake-gcs-server@$(FAKEGCS_VERSION)
	mv $(TOOLS)/fake-gcs-server $@

$(STATICCHECK):
	mkdir -p $(TOOLS)
	GOBIN=$(CURDIR)/$(TOOLS) CGO_ENABLED=0 go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	mv $(TOOLS)/staticcheck $@

# A program of its own name, so that tests find it as the others.
$(AZURITE):
	mkdir -p $(TOOLS)
	npm install --no-fund --no-audit --ignore-scripts --prefix .build/azurite azurite@$(AZURITE_VERSION:v%=%)
	printf '#!/bin/sh\nexec node "%s" "$$@"\n' "$(CURDIR)/.build/azurite/node_modules/azurite/dist/src/blob/main.js" > $@.tmp
	chmod +x $@.tmp
	mv $@.tmp $@
