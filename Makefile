# Two commands: `make demo` shows it, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## install what is missing, build, run a real workflow on a real cluster before your eyes
	@scripts/setup.sh build
	@scripts/demo.sh

test: ## all that CI runs: format, lints, every test (three members and a real Kafka among them), instruction counts, docs
	@scripts/setup.sh test
	@scripts/test.sh

check: ## the quick half of `make test`: format, lints, unit tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace --lib -q

guard: ## the hot path's instruction counts against benchmarks/baseline.toml; NOVA_UPDATE=1 writes it anew
	@scripts/setup.sh test
	@scripts/guard.sh

build: ## the release build of `nova` and of the load generator
	@scripts/setup.sh build
	cargo build --release -p nova-cli -p nova-loadtest

faults: ## ten thousand executions on a cluster of processes and a real Kafka while each kind of process is killed
	@scripts/setup.sh test
	cargo build --release -p nova-cli
	NOVA_BIN=$(abspath $(or $(CARGO_TARGET_DIR),target))/release/nova NOVA_FAULTS_EXECUTIONS=10000 cargo test -p nova-cli --test cluster -- --nocapture each_execution \
	  | tee >(cat >&2) | { grep 'test result: ok. 1 passed' >/dev/null || { echo 'faults: the test failed, or did not run' >&2; exit 1; }; }

PEERS ?= restate-1 restate-3 temporal
NOVAFLOW ?= embedded embedded-3
SCENARIOS ?= s1 s2 s3 s4
ROUNDS ?= 3
RECORD ?= benchmarks/results/peers-$(shell date -u +%Y%m%d-%H%M).json
comma := ,
bench-peers: build ## the same work on Restate, Temporal and NovaFlow, and the ratios; PEERS= NOVAFLOW= SCENARIOS= ROUNDS= RECORD= APPEND=1 ANYWAY=1
	@$(if $(strip $(PEERS)),benchmarks/peers/setup.sh $(PEERS))
	cargo build --release -p nova-peers
	NOVA_PEERS=$(or $(NOVA_CACHE),$(CURDIR)/.cache)/peers cargo run --release --quiet -p nova-peers -- \
	  $(PEERS) $(NOVAFLOW) --scenarios $(subst $() ,$(comma),$(strip $(SCENARIOS))) --rounds $(ROUNDS) --record $(RECORD) \
	  $(if $(filter 1,$(APPEND)),--append) $(if $(filter 1,$(ANYWAY)),--anyway)

scale: ## what larger clusters would do: the model beside what was measured, then twelve servers; RECORDS= of nova-loadtest
	cargo run --release --locked --quiet -p nova-scale -- check $(RECORDS)
	cargo run --release --locked --quiet -p nova-scale -- knee twelve twelve-history twelve-two
	cargo run --release --locked --quiet -p nova-scale -- predict twelve-two --rate 100000

SEEDS ?= 100
SECONDS_EACH ?= 600
simulate: ## clusters in simulated time while members die, stand still and lose each other; SEEDS= SECONDS_EACH=
	cargo run --profile simulate --locked --quiet -p nova-simulator -- run --seeds $(SEEDS) --seconds $(SECONDS_EACH)

torture: ## the long form of all that proves it under faults, some two hours; SEEDS= SECONDS_EACH= RUNS= SWEEP= GAPS=
	@scripts/setup.sh test
	@scripts/torture.sh

soak: build ## an hour of work and faults, after which a cluster must be as quick and as small as before; SOAK_SECONDS=
	@scripts/setup.sh test
	cargo build --locked -p nova-torture
	NOVA_BIN=$(or $(CARGO_TARGET_DIR),target)/release/nova $(or $(CARGO_TARGET_DIR),target)/debug/nova-torture run --soak \
	  --seconds $(or $(SOAK_SECONDS),3600) --calm 20 --pause 100

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
fuzz: ## bytes of libFuzzer for every decoder; fails where something does not hold; FUZZ_SECONDS= for each, FUZZ_TARGETS=
	@scripts/setup.sh fuzz
	@scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

schemathesis: ## requests made from the OpenAPI document, right and wrong, against a running `nova dev`
	@scripts/setup.sh schemathesis
	@scripts/schemathesis.sh

model: ## check the protocol's model: every rule holds, every planted bug is found (a minute or two)
	cd docs/reference/protocol-model && cargo run --release --locked -- $(ARGS)

deny: ## licences, advisories and sources of all dependencies
	@scripts/setup.sh deny
	cargo deny check

clean: ## remove build output, caches and the demo's data
	cargo clean
	rm -rf .cache data

.PHONY: help demo test check guard build faults bench-peers scale simulate torture soak fuzz schemathesis model deny clean
