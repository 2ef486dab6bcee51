# Targets for people and CI; `make` alone lists them. scripts/deps.sh installs everything that a target needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build check test test-unit test-kernel test-machine test-browser test-fresh try life sweep fuzz demo bench bench-native storm lint token miri packages reproducible two-packages test-packages test-fips vagrant-test deny clean

CARGO ?= cargo

# What clippy checks in the program and not in tests: in libraries and binaries, as they are built for use. The numbers are in clippy.toml.
PROGRAM_LINTS := -D warnings -D clippy::too_many_lines -D clippy::too_many_arguments -D clippy::fn_params_excessive_bools \
	-D clippy::struct_excessive_bools

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## install what is missing for the build and for every tier of make test
	@scripts/deps.sh build test lint kernel machine localstack openbao browser packages

build: ## build the agent, the fake AWS endpoint and all tests
	@scripts/deps.sh build
	$(CARGO) build --workspace --all-targets

check: ## quick check while you work, in a minute: formatting, limits, clippy, unit tests; before a commit, run make lint and make test
	@scripts/deps.sh build
	$(CARGO) fmt --all --check
	@scripts/limits.sh
	$(CARGO) clippy --workspace --lib --bins -- $(PROGRAM_LINTS)
	@scripts/test.sh check

test: deps build two-packages ## run every tier: unit and integration, kernel, machine, browser, packages
	@scripts/test.sh unit kernel+machine+browser+packages

test-unit: build ## run unit, property and integration tests, which need no virtual machine and no root
	@scripts/deps.sh test
	@scripts/test.sh unit

test-kernel: build ## run the tests with real dm-crypt in User-Mode Linux, LocalStack included
	@scripts/deps.sh test kernel localstack openbao
	@scripts/test.sh kernel

test-machine: build ## run the tests on Debian in QEMU, with systemd, udev and EC2's NVMe names
	@scripts/deps.sh test machine localstack
	@scripts/test.sh machine

test-browser: build ## run the tests of the HTML pages in Chromium
	@scripts/deps.sh test browser
	@scripts/test.sh browser

test-fresh: ## run the commands of the README on bare Debian 12 and 13, and with qemu-utils from backports (root; half an hour)
	@scripts/deps.sh fresh
	@scripts/fresh.sh bookworm trixie other-qemu

vagrant-test: packages ## test the package on EC2-like nodes in Vagrant, with LocalStack as KMS (20 minutes or more without KVM)
	@scripts/deps.sh localstack vagrant
	$(CARGO) build --release --package fake-aws
	@vagrant/test.sh

try: ## run one test in a VM and show its console: TEST=name (default: first boot, reboot, unlock)
	@scripts/deps.sh build test uml
	$(CARGO) build --workspace --bins
	@scripts/test.sh try

life: build ## run 100 random lives of a node, 20 events each, and shorten failures (half an hour; LIFE_SEED=n LIFE_LIVES=n LIFE_EVENTS=n)
	@scripts/deps.sh kernel
	@scripts/test.sh sweep-life

sweep: build ## try every crash point, 60 power cuts, the corpus in both roles, 100 lives (hours; SWEEP_POINTS=n, SWEEP_PULLS=n for fewer)
	@scripts/deps.sh kernel machine
	@scripts/test.sh sweep-corpus sweep-crashes sweep-power sweep-life

fuzz: ## run every fuzz target for FUZZ_SECONDS (180), guided by coverage; FUZZ_TARGETS="kms state" selects some
	@scripts/deps.sh build
	@scripts/fuzz.sh $(FUZZ_TARGETS)

demo: ## show it all in a VM: first boot, write a file, reboot, read the file
	@scripts/deps.sh build machine
	$(CARGO) build --workspace --bins --example demo
	@"$${CARGO_TARGET_DIR:-target}/debug/examples/demo"

bench: ## compare the time of a boot with cryptsetup by hand: BENCH_VOLUMES="1 4 8 24", BENCH_ROUNDS=3 (an hour without KVM)
	@scripts/deps.sh build machine
	$(CARGO) build --release --bin luks-agent
	$(CARGO) build --workspace --bins --example bench --example measure
	@"$${CARGO_TARGET_DIR:-target}/debug/examples/bench"

bench-native: ## measure the agent's own part of a boot on this processor, without a virtual machine (a minute)
	@scripts/deps.sh build
	$(CARGO) build --release --bin luks-agent
	@scripts/token.sh
	@$(CARGO) run --quiet --example native

storm: ## boot 1,000 to 100,000 nodes at once against the quotas of KMS, in virtual time, and print the tables of docs/fleet.md (half an hour, 7 GB of memory)
	@scripts/deps.sh build
	@$(CARGO) run --release --example storm

token: ## build the token plug-in of cryptsetup in target/token, for the libraries of this machine (docs/stock-tools.md)
	@scripts/deps.sh build
	@scripts/token.sh

miri: ## run the tests of the token plug-in in Miri, which finds undefined behaviour in unsafe code (needs rustup; half a minute)
	@scripts/deps.sh build
	@rustup toolchain install nightly --profile minimal --component miri,rust-src
	$(CARGO) +nightly miri test --package luks-agent-cryptsetup-token --lib -- --skip agent::tests --skip token::tests # processes; safe code, which takes long

packages: ## build .deb and .rpm in target/packages, for Debian 11 and later and RHEL 9 and later (ARCHES="x86_64 aarch64"; FIPS=1: docs/fips.md)
	@scripts/deps.sh build packages $(if $(filter 1,$(FIPS)),fips)
	@scripts/packages.sh $(ARCHES)

reproducible: ## build the packages twice, the second time from a copy elsewhere, and compare their bytes
	@scripts/deps.sh build packages
	@scripts/reproducible.sh

# The same package twice; the second is an upgrade of the first.
two-packages:
	@scripts/deps.sh build packages
	@scripts/packages.sh x86_64
	@PACKAGE_RELEASE=2 scripts/packages.sh x86_64

test-packages: two-packages build ## check the packages: contents, and install, upgrade and removal of .deb and .rpm on Debian 11 to 13, and on aarch64
	@scripts/deps.sh test machine packages aarch64
	@scripts/packages.sh x86_64 aarch64
	@scripts/test.sh packages-all

test-fips: ## build the packages with AWS-LC's FIPS module, and test them and the calls to KMS with it (docs/fips.md)
	@scripts/deps.sh build test packages fips
	@FIPS=1 scripts/packages.sh
	@scripts/test.sh fips

deny: ## check the dependencies: licences, vulnerabilities, duplicates, sources
	@scripts/deps.sh build
	@scripts/deny.sh

lint: ## check formatting, clippy with warnings denied, the length of files and functions, shellcheck
	@scripts/deps.sh build lint
	shellcheck --severity=warning .ci/run scripts/*.sh packaging/*/*.sh vagrant/*.sh vagrant/provision/*.sh
	$(CARGO) fmt --all --check
	@scripts/limits.sh
	$(CARGO) clippy --workspace --all-targets -- -D warnings -A clippy::too_many_arguments
	$(CARGO) clippy --workspace --lib --bins -- $(PROGRAM_LINTS)

clean: ## remove what was built, except the cached images and LocalStack
	$(CARGO) clean
