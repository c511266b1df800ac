# Thin on purpose: the host tool (support/partita) does the work. Variables: see `make help`.
# Variables given to make reach the tool through its environment.

CARGO := $(or $(shell command -v cargo),$(wildcard $(HOME)/.cargo/bin/cargo))
ifeq ($(CARGO),)
# No Rust: rustup can be had from the system's own packages on newer Debian and Ubuntu.
$(shell (command -v rustup || apt-get install -y rustup || sudo -n apt-get install -y rustup) >/dev/null 2>&1 \
	&& rustup toolchain install stable >/dev/null 2>&1)
CARGO := $(or $(shell command -v cargo),$(wildcard $(HOME)/.cargo/bin/cargo))
endif
ifeq ($(CARGO),)
$(error cargo is not installed and this system has no package of rustup; install Rust 1.95 or newer with rustup and run make again)
endif

PARTITA = $(CARGO) run -q -p partita --
FREESTANDING = -p partita-pd-blk -p partita-pd-console -p partita-pd-ivc -p partita-pd-pulse -p partita-pd-supervisor -p partita-pd-timer -p partita-pd-vmm

.PHONY: help run smoke build check report bench bench-kernel image test fuzz soak soak-fuzz fmt lint generate cc prepare
run smoke build check report bench image generate: cc
test fuzz soak soak-fuzz lint: prepare
cc:
	@command -v cc >/dev/null || support/partita/prepare build
prepare:
	@support/partita/prepare test
	@$(PARTITA) prepare
help:    ## this list
	@sed -n 's/^\([a-z-]*\): *## /  make \1\t/p' Makefile | expand -t 16
	@echo; $(PARTITA) --help | sed -n 's/.*\[env: \([A-Z_]*\)=.*/  \1=/p' | paste -sd' ' | sed 's/^/variables:/'
run:     ## build, boot the guests, attach this terminal
	@$(PARTITA) run
smoke:   ## build, run a scripted session with all guests, check their disk
	@$(PARTITA) smoke
build:   ## build loader.img
	@$(PARTITA) build
check:   ## say what is wrong with partita.json
	@$(PARTITA) check
report:  ## what each protection domain may touch: a table, and build/report.svg
	@$(PARTITA) report
bench:   ## measure
	@CONFIG=$(or $(CONFIG),release) $(PARTITA) bench
bench-kernel: ## count what kernel operations cost, on both kernels with MICROKIT_SDK
	@CONFIG=$(or $(CONFIG),release) $(PARTITA) bench-kernel
image:   ## the image for a board, and the words to flash it
	@$(PARTITA) image
generate: ## write system.xml and the schema again after a change of partita.json
	@$(PARTITA) generate --output system.xml && $(PARTITA) schema > docs/partita.schema.json
test:    ## everything that can be tested here
	@$(CARGO) run -q -p partita-system-tests --bin check -- $(STEPS)
fuzz:    ## every fuzz target and the lines it covers, SECONDS_EACH=60
	@$(CARGO) run -q -p partita-system-tests --bin fuzz -- --coverage --seconds $(or $(SECONDS_EACH),60)
soak:    ## kill services under I/O load and count what is lost, SECONDS=600
	@$(CARGO) run -q -p partita-system-tests --bin soak -- --seconds $(or $(SECONDS),600)
soak-fuzz: ## every fuzz target for ten minutes
	@$(CARGO) run -q -p partita-system-tests --bin fuzz -- --coverage --seconds $(or $(SECONDS_EACH),600)
fmt:     ## format
	@$(CARGO) fmt --all
lint:    ## format check and clippy
	@$(CARGO) fmt --all --check && $(CARGO) clippy -q --all-targets -- -D warnings
