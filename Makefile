# nap: node auto-provisioning for AKS. `make help` lists what can be done here.
export GOTOOLCHAIN := go1.27.3
# Kubernetes compiled from its module has to be told which release it is.
KUBE_VERSION := v1.37.2
VERSION_PKG  := k8s.io/component-base/version
LDFLAGS := -s -w \
  -X $(VERSION_PKG).gitVersion=$(KUBE_VERSION) \
  -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=37 \
  -X $(VERSION_PKG).gitTreeState=clean
GO ?= go
GOLANGCI_VERSION := v2.15.0
HELM_VERSION := v3.22.0
# What a release of Helm is told: its own version, and that of Kubernetes it knows.
HELM_LDFLAGS := -s -w -X helm.sh/helm/v3/internal/version.version=$(HELM_VERSION) \
  -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37

.PHONY: help up build unit e2e e2e-karpenter test test-az test-tofu clients fuzz lint bench generate

help: ## list what can be done here
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## build bin/nap (the first time this compiles Kubernetes: about 13 minutes on 2 cores)
	@mkdir -p bin
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/nap ./cmd/nap

up: build ## build everything and start the local Azure with a cluster that provisions its own nodes
	bin/nap up

unit: ## the fast tests: every package but the end-to-end ones (under 2 minutes once built)
	$(GO) test -ldflags '$(LDFLAGS)' -timeout 15m $$($(GO) list ./... | grep -v /test/e2e)

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

lint: .tools/golangci-lint-$(GOLANGCI_VERSION) ## golangci-lint and the import rules
	$< run ./...
	$(GO) test -count=1 ./test/rules

.tools/golangci-lint-$(GOLANGCI_VERSION):
	GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv .tools/golangci-lint $@

bench: ## nap's engine beside Karpenter's, on the same inputs in one process; prints bench/RESULTS.md
	$(GO) run ./bench

generate: ## make the generated files again
	$(GO) generate ./...
