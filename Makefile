# Everything a developer runs. `make test` is what CI runs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:

SEEDS ?= 20
SCENARIO ?= kill
SECONDS_PER_SEED ?= 60
SECONDS_PER_POLICY ?= 60
target = $${CARGO_TARGET_DIR:-target}

.PHONY: help setup test lint demo soak conflicts sim fuzz bench

help: ## Show this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: ## Install what is missing; returns at once when nothing is
	@scripts/setup

# The simulator is in the library, and seven times as fast with opt-level 1, which takes
# two minutes more to build; its checks of overflow and assertions stay on.
test: setup lint ## Lint, then all tests; one at a time, since each of the large ones runs whole regions
	@failed=0
	CARGO_PROFILE_TEST_OPT_LEVEL=1 cargo test --lib -- --test-threads=1 || failed=1
	cargo build --quiet --examples || failed=1
	cargo test --no-fail-fast --bins --test '*' -- --test-threads=1 || failed=1
	cargo test --quiet --doc || failed=1
	exit $$failed

lint: ## Formatting and clippy, warnings are errors
	@cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings

demo: setup ## Three regions on this machine: replication, a conflict, kills, comparison
	@echo 'demo: building (the first time takes some minutes)' >&2
	cargo build --quiet --bin causeway --example demo
	exec $(target)/debug/examples/demo

soak: setup ## A scenario of chaos/: SCENARIO, SEEDS runs of SECONDS_PER_SEED each
	@CAUSEWAY_SCENARIO=$(SCENARIO) CAUSEWAY_SOAK_SEEDS=$(SEEDS) CAUSEWAY_SOAK_SECONDS=$(SECONDS_PER_SEED) \
	  cargo test --test exactly_once -- --nocapture --test-threads=1

conflicts: setup ## Three regions write the same rows under every policy, SECONDS_PER_POLICY each
	@CAUSEWAY_CONFLICT_SECONDS=$(SECONDS_PER_POLICY) cargo test --test conflicts -- --nocapture

sim: ## Simulate SEEDS runs of the core; says how to run a failing seed again
	@CAUSEWAY_SIM_SEEDS=$(SEEDS) cargo test --release --lib -- sim::regions --nocapture

fuzz: ## Mutate topologies, records and binlogs, a minute each
	@CAUSEWAY_FUZZ_SECONDS=60 cargo test --test fuzz -- --nocapture --test-threads=3

bench: setup ## Measure catch-up, lag, decoding and memory; writes benches/results.json
	@cargo build --quiet --release --bin causeway
	cargo bench --quiet --bench capture --bench replication
