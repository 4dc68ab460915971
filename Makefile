# The two commands of the README, and what CI runs besides.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

# What the integration tests start: real servers and real clients.
PACKAGES = slapd ldap-utils dovecot-pop3d curl fetchmail openssl man-db haproxy fail2ban \
  systemd runit daemontools chromium
COMMANDS = /usr/sbin/slapd /usr/sbin/slapadd ldapsearch /usr/lib/dovecot/pop3-login curl fetchmail \
  openssl man groff /usr/sbin/haproxy fail2ban-regex systemd-analyze chpst setuidgid chromium
# What the benchmarks start, and what their load generator is compiled with.
bench-packages: PACKAGES = slapd dovecot-pop3d dovecot-ldap gcc libc6-dev libssl-dev
bench-packages: COMMANDS = /usr/sbin/slapd /usr/sbin/slapadd /usr/lib/dovecot/pop3-login \
  /usr/lib/dovecot/modules/auth/libauthdb_ldap.so cc /usr/include/stdio.h /usr/include/openssl/ssl.h
# By this file Debian lets whoever installs a package say that its services are not to be started.
POLICY = /usr/sbin/policy-rc.d

# Test processes at a time; the integration tests mostly wait for servers to start.
JOBS ?= 3

# Another Python to run the unit tests on, where there is one.
OTHER_PYTHON ?= 3.13

# How long make fuzz searches, in all.
FUZZ_SECONDS ?= 300

# Options of make bench, as BENCH=--quick; benchmarks/README.md tells them.
BENCH ?=

.PHONY: demo test fuzz bench unit-other lint docs completion deb packages bench-packages clean

demo: $(VENV)/installed
	$(BIN)/qmailldap demo --directory demo

test: $(VENV)/installed-test packages
	$(BIN)/trial --jobs=$(JOBS) tests

# What it finds is in .fuzz, with what it has learnt, from which it goes on the next time.
fuzz: $(VENV)/installed-fuzz
	$(BIN)/python -m fuzz --seconds=$(FUZZ_SECONDS)

# Our server beside Dovecot, as root. The table and the picture are in bench/.
bench: $(VENV)/installed-bench bench-packages
	$(BIN)/python -m benchmarks.bench $(BENCH)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(BIN)/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test,docs]'
	touch $@ $(VENV)/installed

$(VENV)/installed-lint: $(BIN)/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@ $(VENV)/installed $(VENV)/installed-test

$(VENV)/installed-fuzz: $(BIN)/python setup.cfg setup.py pyproject.toml
	@$(BIN)/python -m pip install --quiet --only-binary=atheris --editable '.[test,fuzz]' || { \
	  echo "make fuzz needs atheris, of which there is no wheel for this Python and this machine, or none in reach."; \
	  echo "There are wheels for CPython on Linux: make VENV=.venv-fuzz PYTHON=python3.11 fuzz"; \
	  exit 1; }
	touch $@ $(VENV)/installed $(VENV)/installed-test

$(VENV)/installed-docs: $(BIN)/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/installed

$(VENV)/installed-bench: $(BIN)/python setup.cfg setup.py pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@ $(VENV)/installed

packages bench-packages:
	@missing=; for each in $(COMMANDS); do command -v $$each >/dev/null || test -e $$each || missing="$$missing $$each"; done; \
	test -z "$$missing" && exit 0; \
	if test "$$(id -u)" = 0 && command -v apt-get >/dev/null; then \
	  if ! test -e $(POLICY); then \
	    trap 'rm -f $(POLICY)' EXIT; trap 'exit 1' HUP INT TERM; \
	    printf '#!/bin/sh\nexit 101\n' >$(POLICY) && chmod 755 $(POLICY); \
	  fi; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(PACKAGES); \
	else \
	  echo "make $(MAKECMDGOALS) needs:$$missing"; \
	  echo "On Debian: apt-get install --no-install-recommends $(PACKAGES)"; \
	  exit 1; \
	fi

# The package for Debian 13, unsigned, in build/deb; what is missing for it is said. LDAPTOR is a file
# of the distribution that debian/ldaptor.txt names, where the Python Package Index is not in reach.
deb:
	PYTHON=$(PYTHON) debian/build.sh build/deb $(LDAPTOR)

# The completion of bash and zsh, written anew from the options.
completion: $(VENV)/installed
	$(BIN)/python contrib/completion/generate.py

# The site of the documentation, in build/site.
docs: $(VENV)/installed-docs
	$(BIN)/sphinx-build -W --keep-going -b html docs build/site

# The unit tests on a second Python, in an environment of its own.
unit-other:
	@other=$$(command -v python$(OTHER_PYTHON)); \
	if test -n "$$other" && "$$other" -c ''; then :; \
	else other=$$(ls -d "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(OTHER_PYTHON)*/bin/python 2>/dev/null | tail -n 1); fi; \
	if test -z "$$other"; then echo "no Python $(OTHER_PYTHON) here: the unit tests ran on one Python only"; exit 0; fi; \
	set -ex; \
	"$$other" -m venv $(VENV)-$(OTHER_PYTHON); \
	$(VENV)-$(OTHER_PYTHON)/bin/python -m pip install --quiet --editable '.[test]'; \
	$(VENV)-$(OTHER_PYTHON)/bin/trial --jobs=$(JOBS) --temp-directory=_trial_temp_$(OTHER_PYTHON) \
	  $$(find tests -name 'test_*.py' -not -path 'tests/integration/*')

clean:
	rm -rf $(VENV) $(VENV)-* _trial_temp* .fuzz .hypothesis .mypy_cache .ruff_cache build *.egg-info
