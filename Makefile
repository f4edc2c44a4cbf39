# Every target sets up what it needs; .ci/setup lists the tools and their sources.
#
#   make demo    run four services, a receiver and a stream of events, on this machine
#   make test    run all tests except the slow ones in two processes     make test ARGS="tests/egress -q -n 0"
#   make slow    run the tests that are marked slow: load, failover, fuzzing
#   make lint    run all static checks
#   make bench   measure throughput and latency
#   make simulation  play delivery in virtual time from SEEDS seeds     make simulation ARGS="--seed 17"
#   make torture kill services at random, KILLS times, and count lost events
#   make decisions  check that unit tests take every branch of delivery's decisions
#   make mutation   change delivery's decisions one at a time, and count the changes that no unit test notices
#   make protos  write the stubs from the .proto files

ARGS ?=
KILLS ?= 1000
SEEDS ?= 5000

BIN := .venv/bin
GENERATE := .bootstrap/generator/bin/python protos/generate.py

# Ignore a virtual environment that happens to be active: it is not ours.
unexport VIRTUAL_ENV
unexport PYTHONHOME
# Keep compiled modules: otherwise every process compiles all of them again, and every test that migrates compiles the migrations.
unexport PYTHONDONTWRITEBYTECODE

.NOTPARALLEL:
.PHONY: demo test slow lint bench simulation torture decisions mutation protos project generator mutator

demo: project
	$(BIN)/hooktide demo $(ARGS)

test: project
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile $(ARGS)

slow: project
	$(BIN)/python -m pytest -m slow $(ARGS)

bench: project
	$(BIN)/python -m tests.bench $(ARGS)

simulation: project
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(ARGS)

torture: project
	$(BIN)/python -m tests.torture --kills $(KILLS) $(ARGS)

decisions: project
	$(BIN)/python -m tests.repository.decision_coverage

mutation: project mutator
	$(BIN)/python -m tests.repository.decision_mutation $(ARGS)

protos: generator
	$(GENERATE)

lint: project generator
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/baseline.binpb
	$(GENERATE) --check
	$(BIN)/docker-compose --file docker-compose.yml config --quiet
	$(BIN)/hadolint Dockerfile

project generator mutator:
	@./.ci/setup $@
