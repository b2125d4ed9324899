# nap: node auto-provisioning for AKS. `make help` lists what can be done here.
export GOTOOLCHAIN := go1.27.3
GO ?= go
export GO

GOLANGCI_VERSION := v2.15.0
GOVULNCHECK_VERSION := v1.9.0
HELM_VERSION := v3.22.0

# Kubernetes compiled from its module has to be told which release it is.
KUBE_VERSION := v1.37.2
KUBE_PKG := k8s.io/component-base/version
KUBE_LDFLAGS := -s -w \
  -X $(KUBE_PKG).gitVersion=$(KUBE_VERSION) \
  -X $(KUBE_PKG).gitMajor=1 -X $(KUBE_PKG).gitMinor=37 \
  -X $(KUBE_PKG).gitTreeState=clean

# What `nap version` says. The date is the commit's, so that builds are reproducible.
VERSION_PKG := github.com/nap-aks/nap/internal/version
VERSION_LDFLAGS = \
  -X $(VERSION_PKG).version=$(shell git describe --tags --always --dirty 2>/dev/null || echo dev) \
  -X $(VERSION_PKG).commit=$(shell git rev-parse HEAD 2>/dev/null) \
  -X $(VERSION_PKG).date=$(shell TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null)

# Helm's own version, and the Kubernetes release that it knows, as in Helm's releases.
HELM_LDFLAGS := -s -w -X helm.sh/helm/v3/internal/version.version=$(HELM_VERSION) \
  -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37
.PHONY: properties nap-sim sim sim-night help plan build controller up unit race e2e e2e-karpenter test test-az test-tofu clients fuzz lint verify vuln licenses bench generate

help: ## list what can be done here
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

plan: ## plan examples/shop.yaml without a cluster (builds nap without Kubernetes: 2.5 to 5 minutes the first time)
	@mkdir -p bin
	@hack/build.sh bin/nap-plan ./cmd/nap -tags slim -ldflags '-s -w $(VERSION_LDFLAGS)'
	@test -e bin/nap || ln -s nap-plan bin/nap
	@bin/nap-plan plan -f examples/shop.yaml
	@echo
	@echo "Ask why: bin/nap explain pod web-00 -n shop -f examples/shop.yaml"
	@echo "Then:    make up, for a whole local Azure"

build: ## build bin/nap (the first time this compiles Kubernetes: 7 to 13 minutes on two cores)
	@mkdir -p bin
	@if [ -L bin/nap ]; then rm bin/nap; fi # a link that make plan left
	@hack/build.sh bin/nap ./cmd/nap -ldflags '$(KUBE_LDFLAGS) $(VERSION_LDFLAGS)'

controller: ## build bin/nap-controller, the binary for a real cluster
	@mkdir -p bin
	@hack/build.sh bin/nap-controller ./cmd/nap-controller -ldflags '-s -w $(VERSION_LDFLAGS)'

up: build ## build everything and start the local Azure with a cluster that provisions its own nodes
	bin/nap up

unit: ## the fast tests: every package but the end-to-end ones (under 2 minutes once built)
	$(GO) test -ldflags '$(KUBE_LDFLAGS)' -timeout 30m $$($(GO) list ./... | grep -v /test/e2e)

CHECKS ?= 20000
properties: ## the engine's properties on CHECKS other random clusters each (minutes; a failure prints its seed)
	$(GO) test -count=1 -timeout 6h ./engine -run 'Plans|Path|Bound|Warm|Even' -rapid.checks=$(CHECKS) -rapid.seed=0

# Packages that start goroutines and do not compile in Kubernetes, whose build
# with -race takes a quarter of an hour.
RACE ?= ./snapshot/... ./controllers/... ./azure/... ./localazure/arm/... ./localazure/logstore/... ./localazure/kql/...
race: ## the tests of concurrent packages with the race detector (needs a C compiler)
	CGO_ENABLED=1 $(GO) test -race -timeout 20m $(RACE)

# The simulator's own Go runtime is compiled from changed copies of a few files of the
# Go distribution: hack/simruntime says which and why. A few symbols of the runtime are
# linked that are not meant for others.
SIM = $(GO) run ./hack/simruntime build -o bin/nap-sim -ldflags '-s -w -checklinkname=0 $(VERSION_LDFLAGS)' ./cmd/nap-sim
SCENARIOS ?= test/sim/scenarios

nap-sim: ## build bin/nap-sim, the simulator (the first time everything compiles once more: 10 to 20 minutes on two cores)
	@mkdir -p bin
	$(SIM)

sim: nap-sim ## short scenarios in simulated time (about two minutes once built)
	bin/nap-sim run $(SCENARIOS)/daemon-anti-affinity.yaml
	bin/nap-sim run $(SCENARIOS)/known-never-initialised.yaml
	bin/nap-sim run $(SCENARIOS)/burst.yaml --name burst-5-over-0s-boot-1500ms

sim-night: nap-sim ## all scenarios: hours
	bin/nap-sim suite $(SCENARIOS)

e2e: build ## the documentation as a test: a private instance driven by the Azure SDK and client-go
	$(GO) test -count=1 -v -timeout 40m ./test/e2e

e2e-karpenter: build ## Karpenter's own end-to-end suites against the local Azure (SUITE="static buffers …" PARALLEL=2 FOCUS=… SKIP=… LOGS=…)
	NAP_KARPENTER_SUITE="$(or $(SUITE),integration)" NAP_KARPENTER_PARALLEL=$(PARALLEL) NAP_KARPENTER_FOCUS='$(FOCUS)' NAP_KARPENTER_SKIP='$(SKIP)' \
	NAP_KARPENTER_LOGS='$(abspath $(LOGS))' $(GO) test -count=1 -v -timeout 300m -run TestKarpenterSuites ./test/e2e

test: unit e2e ## all tests in Go

test-az: build clients ## every how-to page, driven by Microsoft's own Azure CLI and SDK, and by Helm (PAGES="01-enable ..." for some)
	HELM=$(CURDIR)/.tools/helm-$(HELM_VERSION) test/docs/run $(PAGES)

clients: .venv/.installed .tools/helm-$(HELM_VERSION) ## install the Azure CLI and the SDK for Python into .venv, from PyPI (needs Python 3.10 or newer), and build Helm
.venv/.installed: test/docs/requirements.txt test/docs/install
	test/docs/install .venv
	@touch $@

.tools/helm-$(HELM_VERSION):
	GOBIN=$(CURDIR)/.tools $(GO) install -trimpath -ldflags '$(HELM_LDFLAGS)' helm.sh/helm/v3/cmd/helm@$(HELM_VERSION)
	mv .tools/helm $@

test-tofu: build ## OpenTofu with the azurerm provider against the local Azure (the first time this builds both: about 15 minutes on 2 cores)
	test/tofu/install .tools/tofu
	test/tofu/run .tools/tofu

FUZZTIME ?= 30s
FUZZ ?= .
fuzz: ## every fuzz target below FUZZ for FUZZTIME (30s; nightly: make fuzz FUZZTIME=10m)
	@set -e; for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' ./$(FUZZ) | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -ho --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go | cut -c6-); do \
	    echo "$$dir $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$dir; done; done

lint: .tools/golangci-lint-$(GOLANGCI_VERSION) ## golangci-lint, and the rules of the repository (imports, sizes, headers)
	$< run ./...
	$(GO) test -count=1 ./test/rules

.tools/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .tools/golangci-lint $@

verify: .tools/golangci-lint-$(GOLANGCI_VERSION) .tools/shellcheck ## everything that needs no instance: generated files, modules, lint, shell scripts, licences
	@hack/verify.sh

.tools/shellcheck: hack/shellcheck.sh
	hack/shellcheck.sh $@

vuln: ## known vulnerabilities in dependencies that our code reaches (asks vuln.go.dev)
	$(GO) run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

licenses: ## the licences of all modules in the binaries
	@$(GO) run ./hack/licenses -list

bench: ## nap's engine beside Karpenter's, on the same inputs in one process; prints bench/RESULTS.md
	$(GO) run ./bench

generate: ## write the generated files again: CRDs, deep copies, catalogue, reference pages
	$(GO) generate ./...
