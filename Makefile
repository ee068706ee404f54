# `make test` is everything, from a clean clone; `make help` lists the rest.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

CARGO ?= cargo
STATE := target/test-env
PYTHON := $(STATE)/venv/bin/python

# What is promised, one figure each (tests/prove); `SIZE=ci` runs the small size that `make test` runs too.
FIGURES := attacks closure tokens fuzz reload fail-closed crash login jwks slow h2 idle
SIZE ?= full

.PHONY: help demo run test lint fmt bench bench-baseline bench-peers prove prove-table test-env fuzz-env peers-env clean $(FIGURES:%=prove-%)
.PHONY: test-fmt test-clippy test-rust test-doc test-deny test-e2e test-clients test-supabase test-oidc test-guides test-skipped

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## gateway, sample API and demo users in one process; prints the requests to try
	$(CARGO) run --release --locked -- demo

run: ## a real FastAPI app behind the gateway (examples/fastapi-items)
	examples/fastapi-items/run.sh

test: test-env test-fmt test-clippy test-rust test-doc test-deny test-e2e test-clients test-supabase test-oidc test-guides test-skipped ## installs what is missing, then runs everything
	@echo "make test: all passed"

lint: test-fmt test-clippy test-doc test-deny ## formatting, lints, documentation, licences

fmt: ## formats the Rust code in place
	$(CARGO) fmt

bench: ## measurements, as ratios inside one run
	$(CARGO) bench --locked

bench-baseline: ## counts instructions anew as what `make bench` compares with
	$(CARGO) bench --locked --bench instructions -- baseline

bench-peers: peers-env ## the same work in HAProxy, Envoy, nginx (about six minutes); writes docs/performance.md
	$(CARGO) bench --locked --bench peers -- record

peers-env:
	@tests/setup-peers.sh

prove: test-env ## every promise at full size (about an hour and a half); records it in docs/proof
	$(CARGO) test --release --locked --test prove -- --$(if $(filter full,$(SIZE)),full,smoke)

prove-fuzz: $(if $(filter full,$(SIZE)),fuzz-env)

fuzz-env:
	@tests/setup-fuzz.sh

prove prove-attacks: $(if $(filter full,$(SIZE)),peers-env)

$(FIGURES:%=prove-%): prove-%: test-env
	$(CARGO) test --release --locked --test prove -- $* --$(if $(filter full,$(SIZE)),full,smoke)

prove-table: ## writes docs/proof.md and the README's table from docs/proof
	$(CARGO) test --locked --test prove -- table

test-env: ## only installs what the tests need (into target/test-env)
	@tests/setup.sh

clean: ## removes build output and the test environment
	$(CARGO) clean

# --- the steps of `make test`, each of which can be run alone

test-fmt:
	@echo "==> formatting"
	$(CARGO) fmt --check

test-clippy:
	@echo "==> lints"
	$(CARGO) clippy --locked --all-targets -- -D warnings

test-rust:
	@echo "==> unit, property, integration and doc tests"
	@mkdir -p $(STATE)
	$(CARGO) test --locked 2>&1 | tee $(STATE)/cargo-test.log

test-doc:
	@echo "==> documentation"
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

test-deny:
	@echo "==> licences, bans, sources"
	@if ! command -v cargo-deny >/dev/null; then echo "SKIPPED: cargo-deny is not installed"; else \
	  $(CARGO) deny --offline --locked --log-level error check --hide-inclusion-graph licenses bans sources; \
	  if compgen -G "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs/*" >/dev/null; then \
	    $(CARGO) deny --offline --locked --log-level error check --disable-fetch advisories; \
	  else echo "SKIPPED: advisories (no copy of the advisory database at hand)"; fi; fi

test-e2e: test-env
	@echo "==> end to end, with a real uvicorn and FastAPI"
	$(CARGO) build --locked --bins --tests # with what the tests were built with
	$(PYTHON) tests/e2e/run.py

test-clients: test-env
	@echo "==> unmodified OAuth clients, and Swagger UI in Chromium"
	$(CARGO) build --locked --bins --tests
	$(PYTHON) tests/clients/run.py

test-supabase: test-env
	@echo "==> unmodified Supabase clients, directly and through the gateway"
	$(CARGO) build --locked --bins --tests
	$(PYTHON) tests/supabase/run.py

test-oidc: test-env
	@echo "==> a certified OpenID provider, and sessions of browsers in Chromium"
	$(CARGO) build --locked --bins --tests
	$(PYTHON) tests/oidc/run.py

test-guides: test-env
	@echo "==> the guides, followed to the letter"
	$(CARGO) build --locked --bins --tests
	$(PYTHON) tests/guides/run.py

test-skipped:
	@tests/skipped.sh $(STATE)/cargo-test.log
