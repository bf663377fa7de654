# make demo   everything for a first look: environment, install, helloworld on this machine, xpm-hpc jobs
# make test   system packages (as root on Debian), environment, linters, types, all tests but the slow ones
# make check  linters, types and the tests that need no cluster
# make slow   the slow ones: what can go wrong on a real Slurm, staged nodes, connections, transfers, environments
# make test-kill   submissions killed at every step, 100 rounds (8 minutes)
# make test-kill-oar   the same on OAR, 30 rounds (10 minutes)
# make test-newer-slurm   queries and submissions on Debian sid's Slurm, in a chroot, with and without pyslurm (as root
#             on Debian): 4 minutes the first time (200 s for the chroot, which takes 1.1 GB), then 30 s
# make bench  figures: start-up, local tasks, round trips, OAR (ten minutes), files beside rsync, a slow link
# make up, make down   the test clusters of tests/cluster: Slurm, OAR, sshd, a jump host and a laptop on this machine

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	command -v $$p >/dev/null && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' && { echo $$p; break; }; done)
BIN := .venv/bin
INSTALLED := .venv/installed

.PHONY: demo test test-newer-slurm check lint unit cluster slow test-kill test-kill-oar system bench up down clean

demo: $(INSTALLED)
	$(BIN)/python docs/examples/helloworld.py demo-workdir --port 0 --sleeptime 0.2
	$(BIN)/xpm-hpc jobs --workdir demo-workdir

test: system lint $(INSTALLED)
	$(BIN)/python -m pytest -m 'not slow'

# No environment of ours: the chroot has its own Python. The chroot is kept until its recipe changes, or `make clean`.
test-newer-slurm:
	python3 tests/newer_slurm/chroot.py

check: lint unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/python -m pytest tests/unit

cluster: system $(INSTALLED)
	$(BIN)/python -m pytest tests/cluster

slow: system $(INSTALLED)
	$(BIN)/python -m pytest -m slow

test-kill: system $(INSTALLED)
	XPM_HPC_KILL_ROUNDS=$${XPM_HPC_KILL_ROUNDS:-100} $(BIN)/python -m pytest tests/faults/test_kill.py -k slurm

test-kill-oar: system $(INSTALLED)
	XPM_HPC_KILL_ROUNDS=$${XPM_HPC_KILL_ROUNDS:-30} $(BIN)/python -m pytest tests/faults/test_kill.py -k oar

bench: $(INSTALLED)
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/local_tasks.py
	$(BIN)/python benchmarks/submission.py
	$(BIN)/python benchmarks/oar.py
	$(BIN)/python benchmarks/mirror.py
	$(BIN)/python benchmarks/slow_link.py

# Elsewhere than as root on Debian the tests of the cluster are skipped, with the reason.
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then python3 tests/cluster/rig.py install; \
	else echo "no root on Debian: the tests that need a cluster will be skipped"; fi

$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

up down: $(INSTALLED)
	$(BIN)/python tests/cluster/rig.py $@

clean:
	rm -rf .venv .newer-slurm demo-workdir build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
