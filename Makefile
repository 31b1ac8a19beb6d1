# The commands of the project. `make help` lists them.
SHELL := /bin/bash
SCRATCH := $(if $(ORCH_SCRATCH),$(ORCH_SCRATCH),.build)
FLAGS := --scratch-path $(SCRATCH) -Xswiftc -use-ld=lld --explicit-target-dependency-import-check error
DEBIAN := libsqlite3-dev libseccomp-dev libcap-dev zlib1g-dev libzstd-dev liblzma-dev libbz2-dev libnftables-dev nftables iproute2 busybox-static gcc pkg-config
# Counterparts of some tests, which are skipped where they are not installed.
TEST_DEBIAN := docker-registry skopeo umoci buildah podman runc wrk bind9-dnsutils tshark socat curl
PROGRAMS := orch orch-manager orch-agent orch-init orch-runtime
BENCHMARKS := consensus-bench network-bench runtime-bench image-bench
EVERYTHING := orchPackageTests $(PROGRAMS) simulator fuzz $(BENCHMARKS)
# By product: a build of the whole package also compiles swift-protobuf's protoc, 711 files of C++, for the host and for the target, and nothing here runs it.
products = @set -e; for product in $(1); do echo "$$product:"; swift build --product $$product $(2); done
SEEDS ?= 1..1000
# Tests at a time, of 475 that would else all begin at once and wait for each other beyond their bounds.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH ?= 6

TARGET ?= all
SECONDS_EACH ?= 60

.PHONY: help deps build release test fuzz simulate simulate-faults test-vm check format generate quickstart clean-cluster bench
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18
deps: ## install the Debian packages that are missing (root)
	@missing=$$(for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	  if [ -n "$$missing" ]; then echo "installing" $$missing; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; fi
build: deps ## debug build of everything
	$(call products,$(EVERYTHING),$(FLAGS))
release: deps ## release build of the five programs
	$(call products,$(PROGRAMS),-c release --static-swift-stdlib $(FLAGS))
quickstart: release ## a local cluster of three hosts with the sample stack on it (root)
	scripts/quickstart.sh $(SCRATCH)/release
clean-cluster: ## remove every trace of the local cluster, its sample images included
	@images=$${XDG_CACHE_HOME:-$$HOME/.cache}/orch; rm -rf "$$images/images"; rmdir "$$images" 2>/dev/null || true
	@if [ -x $(SCRATCH)/release/orch ]; then $(SCRATCH)/release/orch dev down; elif [ -x $(SCRATCH)/debug/orch ]; then $(SCRATCH)/debug/orch dev down; \
	  else echo "nothing was built, so nothing runs"; fi
bench: release ## the benchmarks, each beside its reference (root)
	@command -v python3 >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3 >/dev/null; }
	$(call products,$(BENCHMARKS),-c release --static-swift-stdlib $(FLAGS))
	Benchmarks/run.sh $(SCRATCH)/release
test: deps ## all tests; those of Tests/Integration need root and run alone, since they measure time
	@missing=$$(for p in $(TEST_DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	  if [ -n "$$missing" ]; then echo "installing" $$missing; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $$missing >/dev/null; fi
	$(call products,$(EVERYTHING),$(FLAGS))
	scripts/swift-test.sh --skip-build $(FLAGS) --skip IntegrationTests
	scripts/swift-test.sh --skip-build $(FLAGS) --filter IntegrationTests
	$(SCRATCH)/debug/fuzz replay Tests/Fuzz/Corpus >/dev/null || { $(SCRATCH)/debug/fuzz replay Tests/Fuzz/Corpus | tail -1; exit 1; }
	$(SCRATCH)/debug/simulator --file Tests/Simulator/regressions.txt --jobs 2
	$(SCRATCH)/debug/simulator --seeds 1..20 --jobs 2
	$(SCRATCH)/debug/simulator --fresh 100 --agents-max 60 --seconds 60 --jobs 2
fuzz: deps ## libFuzzer on the parsers of outside bytes (TARGET=dns, SECONDS_EACH=60)
	scripts/fuzz.sh $(SCRATCH) $(TARGET) $(SECONDS_EACH)
simulate: deps ## 1,000 simulated clusters (SEEDS=A..B for others, or --seed N by the program itself)
	swift build -c release --static-swift-stdlib $(FLAGS) --product simulator
	$(SCRATCH)/release/simulator --seeds $(SEEDS) --jobs 2
simulate-faults: deps ## every planted fault must be found within 200 seeds
	swift build $(FLAGS) --product simulator
	$(SCRATCH)/debug/simulator --all-faults --jobs 2
test-vm: deps ## tests of containers and cgroups in Debian's kernel with cgroup v2 only (a virtual machine, no KVM needed)
	@missing=$$(for p in qemu-system-x86 busybox-static cpio kmod systemd dbus; do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	  if [ -n "$$missing" ]; then echo "installing" $$missing; apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; fi
	$(call products,orchPackageTests orch-init orch-runtime,$(FLAGS))
	ORCH_SCRATCH=$(SCRATCH) scripts/test-vm.sh
	ORCH_SCRATCH=$(SCRATCH) ORCH_VM_SYSTEMD=1 scripts/test-vm.sh SystemdTests
	ORCH_SCRATCH=$(SCRATCH) ORCH_VM_SELINUX=1 scripts/test-vm.sh SELinuxTests
format: ## format every source in place
	swift format -i -r -p Sources Tests Package.swift
check: deps ## format, imports, warnings as errors, unit tests
	swift format lint --strict -r -p Sources Tests Package.swift
	$(call products,$(EVERYTHING),$(FLAGS))
	scripts/swift-test.sh --skip-build $(FLAGS) --skip IntegrationTests
generate: ## Sources/Shared/Wire/Generated from its .proto files
	scripts/generate-wire.sh $(SCRATCH)
