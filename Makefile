# nap: node auto-provisioning for AKS. `make help` lists what can be done here.
export GOTOOLCHAIN := go1.27.3
# Kubernetes compiled from its module has to be told which release it is.
KUBE_VERSION := v1.36.3
VERSION_PKG  := k8s.io/component-base/version
LDFLAGS := -s -w \
  -X $(VERSION_PKG).gitVersion=$(KUBE_VERSION) \
  -X $(VERSION_PKG).gitMajor=1 -X $(VERSION_PKG).gitMinor=36 \
  -X $(VERSION_PKG).gitTreeState=clean
GO ?= go

.PHONY: help up build
help: ## list what can be done here
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

build: ## build bin/nap (the first time this compiles Kubernetes: about 13 minutes on 2 cores)
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/nap ./cmd/nap

up: build ## build everything and start the local Azure with a cluster that provisions its own nodes
	bin/nap up
