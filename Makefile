# Each target sets up what it needs, in .venv; the second time that takes a moment.
#   make demo    a simulated arm, its anchor cameras on ROS 2 topics, the node, and a report
#                ANCHORS="a.mp4 b.mp4"  the same on your own videos     VIEW=1  with a live viewer in the browser
#   make test    all tests, in three processes        ARGS="-k name" picks some
#   make fuzz    the property tests on random examples, other ones each time
#   make bench   rate, latency, memory
#   make lint    ruff and mypy
.PHONY: setup demo test fuzz bench lint
.DEFAULT_GOAL := setup

BIN := .venv/bin

setup:
	@scripts/setup

demo: setup
	@$(BIN)/wristworld demo $(if $(ANCHORS),--anchors $(ANCHORS)) $(if $(VIEW),--view) $(ARGS)

test: setup
	@$(BIN)/python -m pytest -n 3 --dist loadfile $(ARGS)

fuzz: setup
	@$(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz $(ARGS)

bench: setup
	@$(BIN)/wristworld bench $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy
