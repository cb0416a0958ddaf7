# Everything that a person or CI runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
SIMULATE := $(CARGO) run --locked --quiet --profile simulation -- simulate
# Built tools are kept here, outside the clone.
CACHE := $(or $(TIDEGATE_CACHE),$(HOME)/.cache/tidegate)

CARGO_DENY_VERSION := 0.20.2
CARGO_DENY_HOME := $(CACHE)/cargo-deny/$(CARGO_DENY_VERSION)
CARGO_DENY := $(CARGO_DENY_HOME)/bin/cargo-deny

.PHONY: help
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  \1|/' | column -t -s '|'

.PHONY: demo
demo: compiler ## Play the story of examples/istio on a cluster in memory (DEMO="--interactive" waits for Enter)
	$(CARGO) run --locked --quiet -- demo $(DEMO)

.PHONY: test
test: fmt-check lint deny unit ## Formatting, lints, licences and advisories, all tests but e2e, and 2,000 generated releases

.PHONY: unit
# Properties draw the same cases in every run, so that what is red was made so by a change. A plain `cargo test` draws others.
unit: export PROPTEST_RNG_SEED = 1
unit: compiler
	$(CARGO) test --locked --no-fail-fast
	$(SIMULATE) --runs 2000 --seed 0

.PHONY: simulate
simulate: compiler ## 2,000 generated releases with people and faults, judged after every write (RUNS=, SEED=)
	$(SIMULATE) --runs $(or $(RUNS),2000) --seed $(or $(SEED),0)

.PHONY: e2e
e2e: compiler ## The real controller on a real control plane, with real requests through Envoy (root or user namespaces)
	tests/e2e/tools/deps.sh
	$(CARGO) test --locked --test e2e -- $(E2E) --skip traffic_ --skip measure_

.PHONY: e2e-traffic
e2e-traffic: compiler ## Releases through Istio, Contour and Traefik, and a Prometheus that decides (E2E=, SKIP=traefik)
	tests/e2e/tools/deps.sh
	$(CARGO) test --locked --test e2e -- $(or $(E2E),traffic_) $(addprefix --skip ,$(SKIP))

.PHONY: fmt
fmt: ## Format the code
	$(CARGO) fmt

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt -- --check

.PHONY: lint
lint: compiler ## Compiler and clippy warnings, and what `lua lint` finds in the scripts, as errors
	$(CARGO) clippy --locked --all-targets -- -D warnings
	# `--all-targets` leaves out what a plain `cargo test` does not run.
	$(CARGO) clippy --locked --test e2e -- -D warnings
	$(CARGO) run --locked --quiet -- lua lint --strict

.PHONY: mutate
mutate: compiler ## Which changes of the traffic scripts no test case notices, and each script's score (LEAST=90, SCRIPTS=)
	$(CARGO) run --locked --quiet -- lua mutate --least $(or $(LEAST),90) $(SCRIPTS)

.PHONY: deny
deny: $(CARGO_DENY) ## Dependencies: licences, sources, duplicates, advisories
	hack/deny.sh $(CARGO_DENY)

.PHONY: idle
idle: compiler ## What 1,000 Rollouts at rest ask of the API server in ten (virtual) minutes (ROLLOUTS=)
	ROLLOUTS=$(or $(ROLLOUTS),1000) $(CARGO) test --locked --test idle -- --nocapture

.PHONY: upgrade
upgrade: compiler ## A rolling upgrade of the controller during 200 releases, in memory (RELEASES=)
	RELEASES=$(or $(RELEASES),200) $(CARGO) test --locked --test election -- --nocapture upgrade

.PHONY: idle-process
idle-process: compiler ## Memory and requests of the real process with 1,000 Rollouts at rest (ROLLOUTS=, HISTORY=, SECONDS=)
	$(CARGO) bench --locked --profile simulation --bench idle

.PHONY: pods-process
pods-process: compiler ## What 50,000 pods cost a controller at rest, and during the release of four: memory and requests
	$(CARGO) bench --locked --profile simulation --bench pods

.PHONY: metrics-process
metrics-process: compiler ## Processor and memory of the real process with 1,000 releases that metrics judge (ROLLOUTS=, NAMESPACES=, SECONDS=, SHARED=1)
	$(CARGO) bench --locked --profile simulation --bench measuring

.PHONY: webhook-process
webhook-process: compiler ## Latency of the real process's webhooks at 500 reviews a second, and its memory amid bad input (RATE=, SECONDS=)
	$(CARGO) bench --locked --profile simulation --bench webhook

.PHONY: admission-cost
admission-cost: compiler ## What a write of a workload takes on a real API server: with the policy, the webhook, neither (ROUNDS=)
	tests/e2e/tools/deps.sh
	$(CARGO) test --locked --profile simulation --test e2e -- measure_admission --nocapture

.PHONY: script-times
script-times: compiler ## What one call of each built-in script takes, at one rule and at 500, and memory over 2,000 edits (RUNS=)
	$(CARGO) bench --locked --profile simulation --bench scripts

.PHONY: bench
bench: compiler ## Benchmarks; figures are under target/criterion
	$(CARGO) bench --locked

.PHONY: crds
crds: bless-generated ## Make crds/ and the generated files of the chart anew

.PHONY: bless-generated
bless-generated: compiler
	BLESS=1 $(CARGO) test --locked --test generated

.PHONY: bless
bless: compiler ## Accept what the code makes as the golden files, then look at `git diff`
	BLESS=1 $(CARGO) test --locked

.PHONY: image
image: compiler ## An OCI image under target/image, with SBOM and provenance; needs no container engine (PLATFORMS="amd64 arm64")
	@command -v python3 >/dev/null || hack/install.sh python3
	@[ -e /etc/ssl/certs/ca-certificates.crt ] || hack/install.sh ca-certificates
	hack/image.sh target/image $(or $(PLATFORMS),amd64 arm64)

.PHONY: image-test
image-test: ## Run the image under target/image as a pod would, a foreign platform's by QEMU
	hack/image-test.py target/image

.PHONY: manifests
manifests: ## Plain manifests for kubectl and kustomize under target/manifests
	hack/manifests.sh target/manifests

.PHONY: bless-chart
bless-chart: compiler ## Accept what the chart renders (tests/chart), then look at `git diff`
	tests/e2e/tools/deps.sh
	BLESS=1 $(CARGO) test --locked --test e2e -- chart_renders

# Luau is C++.
.PHONY: compiler
compiler:
	@command -v c++ >/dev/null || hack/install.sh g++

# Unoptimised: it builds in a third of the time and checks in two seconds.
$(CARGO_DENY): | compiler
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install cargo-deny --version $(CARGO_DENY_VERSION) --locked --debug --root $(CARGO_DENY_HOME)
