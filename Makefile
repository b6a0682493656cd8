# Swiftlet. `make run` and `make test` need nothing but Debian 12 and Swift; they install the Debian packages that are missing.

BUILD_PACKAGES := pkg-config libssl-dev libsrtp2-dev liburing-dev libopus-dev libspeexdsp-dev libnghttp2-dev libhiredis-dev libusrsctp-dev \
	libmaxminddb-dev
TEST_PACKAGES := espeak-ng chromium firefox-esr python3-venv python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-bad-1.0 gstreamer1.0-nice \
	redis-server gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad golang-go golang-github-pion-webrtc.v3-dev
BENCH_PACKAGES := valgrind binutils
# Regions in network namespaces, and the world between them.
LAB_PACKAGES := iproute2 util-linux gcc libc6-dev
# What `swiftlet bench load --against nginx,coturn` and `Perf/session-figures.sh` compare with. Debian starts the first two as services when it
# installs them.
PEER_PACKAGES := nginx-light libnginx-mod-stream coturn golang-go golang-github-pion-webrtc.v3-dev

# Mutated inputs per parser in the unit tests; CI asks for a million.
SWIFTLET_MUTATIONS ?= 20000
# Handed to `swiftlet up`.
ARGS ?=
SEED ?= 1
# Runs with faults, half of them to show safety and half liveness.
SEEDS ?= 10000

SWIFT ?= swift
RELEASE := .build/release

.PHONY: help run build test unit simulations simulations-regions hotpath budgets e2e faults planted lint format bench lab simulate fuzz deps deps-test deps-bench \
	deps-lab deps-peers clean
.DEFAULT_GOAL := help

help:
	@echo "make run [ARGS='…']   build, start relay and transceiver here, and tell where the page is"
	@echo "make test             every test: unit, simulation, and real clients against the built programs"
	@echo "make unit             the tests without browsers"
	@echo "make e2e              the tests with Chromium, Firefox, aiortc and GStreamer"
	@echo "make hotpath          no reference counts, no allocations in the machine code of the packet path"
	@echo "make budgets          instructions and allocations of a packet against their budgets"
	@echo "make faults           what kills, upgrades and bad files cost, each beside the undisturbed minute"
	@echo "make lab              three regions in network namespaces: their story, bad input, time to first media (root)"
	@echo "make bench            what a packet costs the relay"
	@echo "make simulate SEED=N  one call in virtual time"
	@echo "make simulations [SEEDS=N]  many, with every fault there is"
	@echo "make fuzz             libFuzzer programs for every parser"
	@echo "make simulations-regions  50 relays, 200 transceivers, 20,000 calls, and faults"
	@echo "make planted          does the simulator find bugs that are put into a copy for it to find?"
	@echo "make lint             formatting"

run: deps build
	@exec $(RELEASE)/swiftlet up $(ARGS)

build: deps
	$(SWIFT) build -c release

test: unit simulations hotpath budgets e2e

unit: deps
	$(SWIFT) build -c release --build-tests
	SWIFT_BACKTRACE=enable=no SWIFTLET_MUTATIONS=$(SWIFTLET_MUTATIONS) $(SWIFT) test -c release --skip-build

# A run that breaks a promise ends with status 1 and names its seed.
simulations: build
	$(RELEASE)/swiftlet simulate --network perfect --seeds 5 >/dev/null
	$(RELEASE)/swiftlet simulate --network wifi --seeds 40 >/dev/null
	$(RELEASE)/swiftlet simulate --loss 20 --seeds 10 >/dev/null
	Tests/Simulation/faults.sh $(RELEASE)/swiftlet $(SEEDS) $(SEED)
	$(RELEASE)/swiftlet simulate --mode regions --seed $(SEED) --seeds 10

# Regions as large as operators have them: a few minutes, most of them in one thread.
simulations-regions: build
	$(RELEASE)/swiftlet simulate --mode regions --relays 50 --transceivers 200 --calls 20000 --seed $(SEED)

# No reference count and no allocation in the machine code of what runs for every packet.
hotpath: deps-bench build
	Tests/HotPath/check.sh $(RELEASE)/swiftlet-relay
	Tests/HotPath/check.sh $(RELEASE)/swiftlet-relay Tests/HotPath/worker.txt
	Tests/HotPath/check.sh $(RELEASE)/swiftlet-transceiver Tests/HotPath/transceiver.txt

# Instructions and allocations of a packet, against Perf/Budgets.
budgets: deps-bench build
	Perf/budgets.sh
	Perf/setup-budget.sh

e2e: deps-test build
	Tests/EndToEnd/run.sh

faults: deps-test build
	SWIFTLET_FAULTS=long Tests/EndToEnd/run.sh test_faults test_faults_clients test_outage test_drain test_redis

# Needs root, or a user who may make namespaces and open /dev/net/tun. SWIFTLET_LAB=short leaves the figures out, =long makes more of them.
lab: deps-test deps-lab build
	@mkdir -p .build/lab
	cc -std=gnu17 -O2 -Wall -Wextra -Werror -o .build/lab/wan Tests/Lab/wan.c
	cc -shared -fPIC -O1 -o .build/lab/clock_shift.so Tests/EndToEnd/clock_shift.c -ldl
	Tests/Lab/run.sh

# A copy with known bugs, each simulated until it is found.
planted: deps
	SWIFT=$(SWIFT) Tests/Planted/run.sh

lint:
	$(SWIFT) format lint --strict --parallel -r Package.swift Sources Tests

format:
	$(SWIFT) format -i --parallel -r Package.swift Sources Tests

bench: deps-bench build
	Perf/bench.sh

simulate: build
	$(RELEASE)/swiftlet simulate --seed $(SEED)

fuzz: deps
	Tests/Fuzz/build.sh

deps:
	@Tuning/install-packages.sh $(BUILD_PACKAGES)

deps-test: deps
	@Tuning/install-packages.sh $(TEST_PACKAGES)

deps-lab:
	@Tuning/install-packages.sh $(LAB_PACKAGES)

deps-bench: deps
	@Tuning/install-packages.sh $(BENCH_PACKAGES)

deps-peers:
	@Tuning/install-packages.sh $(PEER_PACKAGES)

clean:
	rm -rf .build
