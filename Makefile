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
# SVT-AV1, where root runs it, gives its threads real-time priority, before which all other tests wait: tests run without the right to that.
NO_REAL_TIME := $(shell setpriv --bounding-set=-sys_nice true 2>/dev/null && echo setpriv --bounding-set=-sys_nice)

setup:
	@scripts/setup

demo: setup
	@$(BIN)/wristworld demo $(if $(ANCHORS),--anchors $(ANCHORS)) $(if $(VIEW),--view) $(ARGS)

test: setup
	@$(NO_REAL_TIME) $(BIN)/python -m pytest -n 3 --dist loadfile --max-worker-restart 2 $(ARGS)

fuzz: setup
	@$(NO_REAL_TIME) $(BIN)/python -m pytest -m hypothesis --hypothesis-profile=fuzz $(ARGS)

bench: setup
	@$(BIN)/wristworld bench $(ARGS)

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/mypy
