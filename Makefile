# Two commands do everything on a fresh machine with Go:
#
#   make demo    a phone boots, registers and talks through the box, in memory
#   make test    the gate: format, vet, staticcheck, every test under -race
#
# What needs root, a kernel feature or a Debian package skips by name without.

GO       ?= go
STATIC   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
PACKAGES := tftp-hpa atftp tftpd-hpa curl openssl iproute2 tshark \
            baresip-core sip-tester kamailio iperf3 nftables openssh-client skopeo

# What the benchmarks compare with.
PEERS    := rtpengine-daemon iproute2 gcc make libc6-dev libssl-dev

# What builds the VM image, and what boots it.
IMAGE_PACKAGES := apt dpkg zstd grub-common grub-pc-bin grub-efi-amd64-bin mtools e2fsprogs qemu-utils
BOOT_PACKAGES  := qemu-system-x86 ovmf xorriso

.PHONY: all demo test replay replay-verify import-report packages check fuzz bench bench-links bench-srtp \
        sipp image image-test lab-nodes build clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o patchbay ./cmd/patchbay

demo:
	$(GO) run ./cmd/patchbay demo

test: packages check
	$(GO) test -race -timeout 15m ./...
	$(GO) test -run Allocs ./appliance/media

# Definitions of the box for containerlab, GNS3 and EVE-NG, in lab-nodes/. GNS3 wants
# the virtual machine's disk: that of "make image", or IMAGE=path/to/patchbay.qcow2
IMAGE ?= $(wildcard build/image/patchbay.qcow2)
lab-nodes: build
	./patchbay lab nodes --out lab-nodes $(if $(IMAGE),--image $(IMAGE))

# The regression suite: what comes of packets that arrive at a box. A difference
# that is meant is accepted with "go test ./pcaps -update".
replay:
	$(GO) test -count=1 ./pcaps

# What left the box in each case and of each capture, read by TShark: no address
# that NAT hides in any field of SIP, SDP or SCCP.
replay-verify: packages
	@command -v tshark >/dev/null || { echo "replay-verify wants tshark, the Debian package of that name"; exit 1; }
	$(GO) test -count=1 -v -run '^TestVerify' ./pcaps -verify

# What becomes of the lines of configurations as ASAs write them: the share that is
# obeyed, without effect and refused, and the refused ones by how often they occur.
import-report:
	$(GO) test -count=1 -v -run '^TestCorpus$$' ./appliance/importer -report

# The real peers of the tests. Without root or apt-get their tests say that
# they skip, and why.
packages:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
		missing=$$(for p in $(PACKAGES); do \
			dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
		if [ -n "$$missing" ]; then \
			echo "installing" $$missing; \
			{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
			  apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null 2>&1 \
			|| echo "some packages could not be installed: their tests will skip by name"; \
		fi; \
	else \
		echo "not root, or no apt-get: tests that want" $(PACKAGES) "skip by name where they are absent"; \
	fi

check:
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATIC) ./...

# Each fuzz test for ten seconds, one after the other.
fuzz:
	@for p in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
			echo "== $$p $$f"; \
			$(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime 10s $$p || exit 1; \
		done; \
	done

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./stack/... ./nat ./appliance/media ./inspect/... ./appliance ./appliance/replay ./pcaps

# What a packet costs over each driver, and the same wires in the kernel's hands:
# NAT forwarding; SRTP and RTP, beside rtpengine under the same generator; the SRTP
# operation alone. Wants root and two cores with nothing else to do; prints the
# tables of docs/PERFORMANCE.md.
bench-links: packages bench-srtp
	$(GO) test -count=1 -timeout 60m -run 'TestBenchForward|TestBenchMedia' -v ./cmd/patchbay -bench.links

# The SRTP operation beside pion's and libsrtp2's, which is built for it from
# Debian's source, with OpenSSL. Without a network or a compiler it skips by name.
bench-srtp:
	@$(MAKE) --no-print-directory packages PACKAGES="$(PEERS)"
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	{ sh appliance/media/testdata/libsrtp.sh "$$dir" || { echo "no libsrtp2 could be built"; rm -rf "$$dir"; }; } && \
	$(GO) test -count=1 -run '^TestBenchSRTP$$' -v ./appliance/media -libsrtp "$$(test -d "$$dir" && echo "$$dir")"

# SIPp's calls through the box, through the kernel's NAT and through none, 50 a
# second for 30 seconds over UDP and TCP, and iperf3. Wants root; takes eight
# minutes.
sipp:
	$(GO) test -count=1 -timeout 20m -run 'TestSIPp|TestIperf' -v ./cmd/patchbay -sipp.for 30s -iperf.for 5 -compare

# The VM image in all formats, in build/image. It needs no root, but for the Debian
# packages.
image:
	@$(MAKE) --no-print-directory packages PACKAGES="$(IMAGE_PACKAGES)"
	$(GO) run ./cmd/patchbay image build --out build/image --format raw,qcow2,vmdk,ova

# Builds it twice and boots it in QEMU: calls through it, a power cut, BIOS and UEFI,
# upgrades good and bad, damage. Without KVM it takes some ten minutes.
image-test:
	@$(MAKE) --no-print-directory packages PACKAGES="$(IMAGE_PACKAGES) $(BOOT_PACKAGES)"
	$(GO) test -count=1 -v -timeout 60m -run '^(TestBoot|TestReproducible)' ./image -boot

clean:
	rm -rf patchbay build
