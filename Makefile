# The two commands of a fresh clone: `make demo` and `make test`. Both install what is missing (tools/prerequisites.sh
# for system packages, pip into .venv for the rest) and build; the stamps below keep a second run from doing it again.
#
# PYTHON=python3.12 make test    another interpreter (3.11 or later) for .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export PIP_NO_INPUT := 1

NATIVE := $(shell find csrc src/meshsieve/_bindings -name '*.cpp' -o -name '*.h' -o -name '*.def') \
          $(wildcard src/meshsieve/_fast*.pyx src/meshsieve/_fast*.pxd) setup.py

.PHONY: demo test oracles bench fuzz race sanitize docs lint build clean
.DEFAULT_GOAL := demo

demo: $(VENV)/built
	@$(BIN)/meshsieve classify -r examples/demo/demo.pcap -p examples/demo/nsx.json examples/demo/edge.rules

test: $(VENV)/built $(VENV)/dev
	$(BIN)/python -m pytest -n auto tests

# tshark, nfdump, nft, iptables, Chromium: tests that compare with one that is missing skip, and say so.
oracles:
	tools/prerequisites.sh oracles

bench: $(VENV)/built $(VENV)/dev $(VENV)/bench
	$(BIN)/python -m benches packets --quick

# FUZZ_SECONDS=600 make fuzz    ten minutes a target
FUZZ_SECONDS ?= 60
fuzz: $(VENV)/built $(VENV)/dev
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

# Readers and writers of a changing list and of a prefix table under ThreadSanitizer. SWAPS=100000 make race    more
SWAPS ?= 10000
race:
	mkdir -p build
	$(CXX) -std=c++20 -O1 -g -fsanitize=thread -Icsrc/include -Icsrc/src -o build/live_race \
	  tests/native/live_race.cpp tests/native/prefix_race.cpp csrc/src/l4/*.cpp csrc/src/model/*.cpp csrc/src/simd/*.cpp \
	  csrc/src/prefix/*.cpp csrc/src/saved/*.cpp -lpthread
	TSAN_OPTIONS=exitcode=66 build/live_race $(SWAPS)

# The tests through Python under AddressSanitizer and UndefinedBehaviorSanitizer (g++; the build takes about an hour on two
# cores, and is kept). SANITIZE_TESTS=tests make sanitize    all of them
SANITIZE_TESTS ?= tests/capture tests/http tests/fuzz tests/saved
SANITIZERS := libasan.so libubsan.so libstdc++.so
sanitize: $(VENV)/dev
	MESHSIEVE_SANITIZE=1 $(BIN)/python setup.py -q build --build-base build/sanitized
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:strict_string_checks=1:detect_stack_use_after_return=1 \
	UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONMALLOC=malloc \
	LD_PRELOAD="$(foreach lib,$(SANITIZERS),$(shell $(CXX) -print-file-name=$(lib)))" \
	  $(BIN)/python -m pytest -p no:cacheprovider -o pythonpath="$$(echo build/sanitized/lib.*) ." $(SANITIZE_TESTS)

lint: $(VENV)/built $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=src $(BIN)/stubtest --concise --ignore-missing-stub --ignore-disjoint-bases --allowlist tools/stubtest.txt \
	  meshsieve._core meshsieve._fast meshsieve._fast_authz meshsieve._fast_balance meshsieve._fast_routes

docs: $(VENV)/built $(VENV)/docs
	$(BIN)/python -m tools.field_table --check
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

build: $(VENV)/built

clean:
	rm -rf $(VENV) build docs/_build src/*.egg-info src/meshsieve/*.so src/meshsieve/_fast*.cpp

# --- what the targets stand on -----------------------------------------------------------------------------------

$(VENV)/base: tools/prerequisites.sh pyproject.toml
	PYTHON=$(PYTHON) tools/prerequisites.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the build tools into $(VENV)"
	$(PIP) $$($(BIN)/python tools/requirements.py base)
	@touch $@

# Registers the package and its command once; csrc/ is compiled by the next rule, which knows what has changed.
$(VENV)/built: $(VENV)/base $(NATIVE)
	@echo "Building the C++ core (about a minute the first time)"
	$(BIN)/python setup.py -q build_ext --inplace
	test -x $(BIN)/meshsieve || $(PIP) --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/dev $(VENV)/docs $(VENV)/bench: $(VENV)/%: $(VENV)/base pyproject.toml
	@echo "Installing the [$*] extra into $(VENV)"
	$(PIP) $$($(BIN)/python tools/requirements.py $*)
	@touch $@
