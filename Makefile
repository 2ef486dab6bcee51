# Targets for people and CI; `make` alone lists them. Everything a target needs is installed by scripts/deps.sh.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps build check test test-unit test-kernel test-machine test-fresh try life sweep fuzz demo bench lint packages reproducible two-packages test-packages vagrant-test deny clean

CARGO ?= cargo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

deps: ## install what building and every tier of make test need, if it is missing
	@scripts/deps.sh build test lint kernel machine localstack packages

build: ## build the agent, the fake AWS endpoint and all tests
	@scripts/deps.sh build
	$(CARGO) build --workspace --all-targets

check: ## the inner loop, in a minute: formatting, clippy and unit tests of the libraries; make lint and make test come after it
	@scripts/deps.sh build
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --lib --bins -- -D warnings
	@scripts/test.sh check

test: deps build two-packages ## every tier: unit and integration, kernel, machine, packages
	@scripts/test.sh unit kernel+machine+packages

test-unit: build ## unit, property and integration tests: no machine, no root
	@scripts/deps.sh test
	@scripts/test.sh unit

test-kernel: build ## real dm-crypt in User-Mode Linux, LocalStack included
	@scripts/deps.sh test kernel localstack
	@scripts/test.sh kernel

test-machine: build ## Debian with systemd, udev and EC2's NVMe names in QEMU
	@scripts/deps.sh test machine localstack
	@scripts/test.sh machine

test-fresh: ## the commands of the README on bare Debian 12 and 13, and beside another suite's QEMU (root; half an hour)
	@scripts/deps.sh fresh
	@scripts/fresh.sh bookworm trixie other-qemu

vagrant-test: packages ## the package on EC2-like nodes in Vagrant, LocalStack as KMS (20 minutes and more without KVM)
	@scripts/deps.sh localstack vagrant
	$(CARGO) build --release --package fake-aws
	@vagrant/test.sh

try: ## one test in a VM, with its console: TEST=name (default: first boot, reboot, and the volumes are back)
	@scripts/deps.sh build test uml
	$(CARGO) build --workspace --bins
	@scripts/test.sh try

life: build ## half an hour: 100 random lives of a node, 20 events each, and the shortest that fails (LIFE_SEED=n LIFE_LIVES=n LIFE_EVENTS=n)
	@scripts/deps.sh kernel
	@scripts/test.sh sweep-life

sweep: build ## hours: every crash point, 60 power pulls, the corpus in both roles, 100 lives (SWEEP_POINTS=n, SWEEP_PULLS=n for fewer)
	@scripts/deps.sh kernel machine
	@scripts/test.sh sweep-corpus sweep-crashes sweep-power sweep-life

fuzz: ## every fuzz target for FUZZ_SECONDS (180), guided by coverage; FUZZ_TARGETS="kms state" for some
	@scripts/deps.sh build
	@scripts/fuzz.sh $(FUZZ_TARGETS)

demo: ## the whole story in a VM: first boot, a file, a reboot, the file is back
	@scripts/deps.sh build machine
	$(CARGO) build --workspace --bins --example demo
	@"$${CARGO_TARGET_DIR:-target}/debug/examples/demo"

bench: ## how long boot takes, against cryptsetup by hand: BENCH_VOLUMES="1 4 8 24", BENCH_ROUNDS=3 (an hour without KVM)
	@scripts/deps.sh build machine
	$(CARGO) build --release --bin luks-agent
	$(CARGO) build --workspace --bins --example bench --example measure
	@"$${CARGO_TARGET_DIR:-target}/debug/examples/bench"

packages: ## .deb and .rpm in target/packages, for Debian 11 and later and RHEL 9 and later (ARCHES="x86_64 aarch64")
	@scripts/deps.sh build packages
	@scripts/packages.sh $(ARCHES)

reproducible: ## build the packages twice, the second time from a copy elsewhere, and compare their bytes
	@scripts/deps.sh build packages
	@scripts/reproducible.sh

# the same twice, the second as an upgrade of the first
two-packages:
	@scripts/deps.sh build packages
	@scripts/packages.sh x86_64
	@PACKAGE_RELEASE=2 scripts/packages.sh x86_64

test-packages: two-packages build ## what is in the packages, and their life on Debian 11, 12 and 13, and on aarch64
	@scripts/deps.sh test machine packages aarch64
	@scripts/packages.sh x86_64 aarch64
	@scripts/test.sh packages-all

deny: ## licences, vulnerabilities and duplicates of what the project depends on
	@scripts/deps.sh build
	@scripts/deny.sh

lint: ## formatting, clippy with warnings denied, shellcheck
	@scripts/deps.sh build lint
	shellcheck --severity=warning .ci/run scripts/*.sh packaging/*/*.sh vagrant/*.sh vagrant/provision/*.sh
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

clean: ## remove what was built (not the cached images and LocalStack)
	$(CARGO) clean
