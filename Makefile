# Everything a newcomer needs: `make demo` and `make test` install what is missing, build and run.
# The build itself is CMake's (CMakePresets.json); this file only names the steps.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

JOBS ?= $(shell nproc)
RELEASE := build/release
# Without a terminal ninja would print a line per file; then it prints only what went wrong.
QUIET := $(shell [ -t 1 ] || echo --quiet)
step = @echo ==
configure = [ -f build/$(1)/build.ninja ] || cmake --preset $(1) > build/$(1).log 2>&1 || { cat build/$(1).log; exit 1; }
# Two tests at a time share the cores: threads that wait must sleep, not spin.
CTEST := OMP_WAIT_POLICY=passive ctest --output-on-failure --no-label-summary -j $(JOBS)

.PHONY: help setup build demo test check bench bench-rivals format saes study clean

help:
	@echo 'make demo    install what is missing, build, and watch saif at work (needs the network once)'
	@echo 'make test    install what is missing, build, and run every test and check'
	@echo 'make setup   only install: Debian packages, a Rust toolchain, the model SmolLM2-135M-Instruct'
	@echo 'make build   only build: the program is $(RELEASE)/saif'
	@echo 'make check   only the checks of the source: architecture, format, clang-tidy'
	@echo 'make format  put the source into the form that `make check` asks for'
	@echo 'make bench   measure the kernels and the engine on this machine'
	@echo 'make bench-rivals  saif beside llama.cpp and Transformers (an hour; less with ARGS=--quick): docs/benchmarks.md'
	@echo 'make saes    train the bundled SAEs again (hours)'
	@echo 'make study   choose the settings of the demo again on the tuning split (hours)'
	@echo 'make clean   remove build/ (the model stays in the cache)'

setup:
	$(step) 'setup: packages and the model'
	@tools/setup.sh

build: setup
	$(step) 'build: $(RELEASE)/saif'
	@mkdir -p build && $(call configure,release)
	@ninja $(QUIET) -C $(RELEASE) -j $(JOBS) saif

demo: build
	@tools/fetch_model.sh --check
	$(step) 'demo'
	@$(RELEASE)/saif demo

# The tests of both builds are one run of ctest, so that its summary names everything that failed or was skipped.
test: setup
	$(step) 'build with tests: build/release and build/asan'
	@mkdir -p build && $(call configure,release) && $(call configure,asan)
	@ninja $(QUIET) -C $(RELEASE) -j $(JOBS)
	@ninja $(QUIET) -C build/asan -j $(JOBS) unit_tests
	$(step) 'test: release; unit tests under address and undefined-behaviour sanitizers; checks'
	@mkdir -p build/all
	@printf 'subdirs(../release)\nsubdirs(../asan)\n' > build/all/CTestTestfile.cmake
	@$(CTEST) --test-dir build/all

check:
	$(step) 'check: architecture, format, clang-tidy'
	@mkdir -p build && $(call configure,release)
	@$(CTEST) --test-dir $(RELEASE) -L lint

bench: build
	$(step) 'bench: kernels'
	@cmake --preset release -B build/bench -DSAIF_BENCH=ON -DSAIF_TESTS=OFF > build/bench.log 2>&1 || { cat build/bench.log; exit 1; }
	@ninja $(QUIET) -C build/bench -j $(JOBS)
	@for program in build/bench/bench_*; do if [ -x "$$program" ]; then "$$program"; fi; done
	$(step) 'bench: the engine on smollm2'
	@$(RELEASE)/saif bench

# ARGS: of bench/rivals/run.py, such as --quick or --only "1b bf16".
bench-rivals: build
	$(step) 'bench: llama.cpp and Transformers (once)'
	@bench/rivals/setup.sh
	$(step) 'bench: in turn'
	@python3 bench/rivals/run.py $(ARGS)

format:
	@git ls-files --cached --others --exclude-standard -- '*.h' '*.cc' | xargs -r clang-format-16 -i

saes: build
	@tools/make_saes.sh

study: build
	@tools/make_study.sh

clean:
	rm -rf build
