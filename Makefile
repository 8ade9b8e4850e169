# From nothing:   make demo    the whole loop in simulation, with a report to look at
#                 make test    all tests
# More:           make setup | doctor | lint | clean
# Options of the command behind a target:   make demo ARGS=--quick      make test ARGS="-k critic"

ARGS ?=
IN_VENV = . .venv/environment.sh && . .venv/bin/activate &&

.PHONY: demo test setup doctor lint clean

demo: setup
	@$(IN_VENV) dexpie demo $(ARGS)

test: setup
	@$(IN_VENV) python -m pytest $(ARGS)

setup:
	@scripts/bootstrap.sh

doctor: setup
	@$(IN_VENV) dexpie doctor $(ARGS)

lint: setup
	@$(IN_VENV) ruff check . && ruff format --check . && mypy

clean: # what was recorded and trained (outputs/) stays
	rm -rf .venv build install log *.egg-info msg/build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
