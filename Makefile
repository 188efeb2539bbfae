# What there is to do here. Every target sets up what it needs itself (tests/setup.sh, idempotent); after the
# first run none of them needs the network.

MAKEFLAGS += --no-print-directory
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where cargo installs its tools, which a bare shell often lacks.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
RELEASE := $(TARGET)/release

.PHONY: help setup build unikernel demo test test-api test-crash test-kernels test-xen test-xen-driver \
	test-xen-appliance bench bench-bystander bench-forecast bench-technologies plots soak-technologies soak-dataplane \
	other-layout fuzz-dataplane fuzz-transit lint deny deb clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: ## Install everything that the other targets need (as root)
	@tests/setup.sh all

build: ## Build target/release/selvedge and selvedged
	@tests/setup.sh build
	cargo build --release --locked

unikernel: ## Build the reference unikernel and the tenders that start it, in target/unikernel
	@tests/setup.sh unikernel
	@unikernel/build.sh "$(TARGET)/unikernel"

# `exec`: signals reach the demo itself, which cleans up.
demo: ## Show the whole on this machine: client, engine, load, replicas that follow it (as root)
	@tests/setup.sh build lab
	@cargo build --release --locked
	@exec "$(RELEASE)/selvedge-demo"

test: ## Run all tests (as root; without, those that need it are skipped and listed)
	@tests/setup.sh build lab kernels xen api
	@$(MAKE) unikernel
	@exec tests/run.sh

test-kernels: ## Try the program on Debian's kernels and several network cards, a line for each (as root)
	@tests/setup.sh build lab kernels
	@cargo build --release --locked
	@CARDS="$${CARDS:-virtio-net-pci igb e1000e}" cargo test --release --locked --quiet -p tests --test kernels -- --nocapture

test-xen: ## Run the tests of xen-manager on a Xen host in an emulator (no root)
	@tests/setup.sh build xen
	@$(MAKE) unikernel
	@exec tests/xen/run.sh xen-manager/store xen-manager/domains

test-xen-driver: ## Run the tests of the driver for Xen there: the contract suite on PV and PVH, faults, launch forms
	@tests/setup.sh build xen
	@$(MAKE) unikernel
	@exec tests/xen/run.sh tests/xen

test-xen-appliance: ## Run the daemon in dom0 there: DNS from outside in its kernel, guests that follow the load (as root)
	@tests/setup.sh build lab xen
	@exec tests/xen/run.sh outside/xen_appliance

EXAMPLES ?= 20
SEED ?= 1
test-api: ## Ask the daemon all that its OpenAPI document describes; EXAMPLES=20 SEED=1 (as root)
	@tests/setup.sh build api
	@cargo build --release --locked
	@EXAMPLES=$(EXAMPLES) SEED=$(SEED) tests/api/run.sh

KILLS ?= 300
test-crash: ## Kill the operator's loop at KILLS=300 points, the daemon with a real engine at 30; SEED=1 (as root)
	@tests/setup.sh build lab
	@cargo build --release --locked
	@KILLS=$(KILLS) SEED=$(SEED) cargo test --release --locked --quiet -p tests --test crash -- --nocapture
	@KILLS=30 SEED=$(SEED) cargo test --release --locked --quiet -p tests --test orders killed_again -- --nocapture

TRACES ?= ../shared/traces
# The lab that measures other servers beside ours is no part of this repository.
DNS_PEERS ?= ../shared/lab/dns-peers
bench: ## Measure: the program in the kernel, then other DNS servers beside it (as root)
	@tests/setup.sh build lab
	@cargo build --release --locked
	@"$(RELEASE)/selvedge" bench dataplane
	@if [ -x "$(DNS_PEERS)" ]; then \
		"$(DNS_PEERS)" run --rounds 3 --seconds 3 --candidate "$(CURDIR)/tests/bench/candidate" && \
		"$(DNS_PEERS)" stress --rounds 3 --seconds 3 --candidate "$(CURDIR)/tests/bench/candidate"; \
	else echo "SKIPPED (no $(DNS_PEERS)): other servers beside ours; DNS_PEERS=PATH names the lab"; fi

JSON ?=
bench-forecast: ## Measure: fits and forecasts beside statsmodels, 10,000 services; JSON=1 for figures only (no root)
	@tests/setup.sh build forecast >&2
	@cargo build --release --locked --quiet -p autoscale --example bench
	@"$(TARGET)/statsmodels/bin/python" tests/bench/forecast.py "$(RELEASE)/examples/bench" $(if $(JSON),--json)

plots: ## Draw the loads in TRACES=../shared/traces into docs/plots, with forecast and supply
	@mkdir -p docs/plots
	@cargo build --release --locked --quiet
	@for trace in $(TRACES)/*.csv; do \
		capacity=20; case "$$trace" in *taxi*) capacity=1000;; esac; \
		"$(RELEASE)/selvedge" replay "$$trace" --predictor select --policy plan --capacity $$capacity \
			--svg "docs/plots/$$(basename "$$trace" .csv).svg" >/dev/null; \
	done

RUNS ?= 30
COUNT ?= 500
bench-technologies: ## Measure: instances of each technology, side by side; RUNS=30 COUNT=500 (as root)
	@tests/setup.sh build lab
	@$(MAKE) unikernel
	@cargo build --release --locked
	@RUNS=$(RUNS) COUNT=$(COUNT) cargo test --release --locked --quiet -p tests --test technologies side_by_side -- --nocapture

bench-bystander: ## Measure: TCP beside our program, beside a bare XDP_PASS, and beside none (as root)
	@tests/setup.sh build lab
	@ROUNDS=8 cargo test --release --locked --quiet -p tests --test bystander -- --nocapture

ROUNDS ?= 1000
soak-technologies: ## Instances come and go with something killed at every step; ROUNDS=1000 SEED=1 (as root)
	@tests/setup.sh build lab
	@$(MAKE) unikernel
	@cargo build --release --locked
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	ROUNDS=$(ROUNDS) SEED=$(SEED) cargo test --release --locked --quiet -p tests --test soak -- --nocapture | tee "$$log"; \
	grep '^cycles=' "$$log" || { grep SKIPPED "$$log"; exit 1; }

# In the same directory, so that only what differs is built anew; then the real one is put back.
other-layout: ## Build the daemon with other table layouts beside the real one, for tests of upgrades
	@tests/setup.sh build
	@cargo build --release --locked --bin selvedged --features control/other-layout \
		--config 'profile.release.package.control.opt-level=0'
	@install -D "$(RELEASE)/selvedged" "$(RELEASE)/other-layout/selvedged"
	@cargo build --release --locked --bin selvedged

soak-dataplane: ROUNDS := $(if $(filter command environment,$(firstword $(origin ROUNDS))),$(ROUNDS),100)
soak-dataplane: ## The daemon killed, stopped, up- and downgraded under constant queries; ROUNDS=100 SEED=1 (as root)
	@tests/setup.sh build lab
	@$(MAKE) other-layout
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	ROUNDS=$(ROUNDS) SEED=$(SEED) cargo test --release --locked --quiet -p tests --test soak_dataplane -- --nocapture | tee "$$log"; \
	grep '^rounds=' "$$log" || { grep SKIPPED "$$log"; exit 1; }

FRAMES ?= 10000000
fuzz-dataplane: ## Mutated queries through the program, held against the daemon; FRAMES=10000000 SEED=1 (as root)
	@tests/setup.sh build
	@cargo test --release --locked -p tests --test fuzz --no-run
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	FRAMES=$(FRAMES) SEED=$(SEED) cargo test --release --locked --quiet -p tests --test fuzz -- --nocapture | tee "$$log"; \
	grep '^frames=' "$$log" || { grep SKIPPED "$$log"; exit 1; }

REPLIES ?= 1000000
fuzz-transit: ## Mutated replies in transit, held against a twin; REPLIES=1000000 SEED=1 (as root)
	@tests/setup.sh build
	@cargo test --release --locked -p xdp-balancer --test transit --no-run
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	REPLIES=$(REPLIES) SEED=$(SEED) cargo test --release --locked --quiet -p xdp-balancer --test transit -- --nocapture | tee "$$log"; \
	grep -o 'replies=[0-9].*' "$$log" || { grep SKIPPED "$$log"; exit 1; }

# The program in the kernel compiles for its own target only, with the flags that its build gives it; the
# workspace's lints hold there through its manifest.
lint: ## Check form and habits: rustfmt, clippy
	@tests/setup.sh build unikernel lint
	cargo fmt --all --check
	cargo clippy --workspace --exclude xdp-balancer-ebpf --all-targets --locked -- -D warnings
	tests/lint-ebpf.sh
	unikernel/lint.sh "$(TARGET)/unikernel"

deny: ## Check licences and sources of all dependencies
	@tests/setup.sh build check
	cargo deny --locked --offline check licenses bans sources

deb: ## Build the Debian package; its path is the last line of the output
	@tests/setup.sh build deb
	@packaging/build.sh

clean: ## Remove what was built
	cargo clean
