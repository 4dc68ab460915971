"""Searches for octets that the server cannot bear, with atheris; see `main`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".fuzz"
"""What was found so far, by target: octets that lead to code where nothing else led to."""

_WATCHED = ("qmailldap", "twisted.protocols.haproxy")
"""Packages whose branches lead the search. ldaptor is one only where it is what is searched in: to
prepare it takes longer than all others, and slows every login."""

_LONGEST_INPUT = 4096
_LONGEST_RUN = 10
"""Seconds that one input may take; more is a finding as well."""

_MOST_MEMORY = 1024
"""MiB, likewise."""

_NOT_HERE = """\
make fuzz needs atheris, which is not installed for this Python ({version}).
There are wheels for CPython 3.11 to 3.14 on Linux (x86-64): pip install 'qmailldap[fuzz]', or in a
checkout: pip install --editable '.[test,fuzz]'. Without it, the same is tried with hypothesis, for
a shorter time: trial tests.pop3.test_fuzz
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; gives the exit code, 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="where the octets go [all, one after the other]")
    parser.add_argument("--seconds", type=int, default=300, help="for all of it [%(default)s]")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only the octets of this file")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        return _replay(parser, options.target, options.replay)
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write(_NOT_HERE.format(version=sys.version.split()[0]))
        return 1
    if options.target is not None:
        return _search(parser, options.target, options.seconds)
    return _search_all(options.seconds)


def _search_all(seconds: int) -> int:
    from fuzz.targets import TARGETS

    shares = sum(target.share for target in TARGETS.values())
    worst = 0
    for name, target in TARGETS.items():
        each = max(1, seconds * target.share // shares)
        _say(f"== {name}: {each} s")
        # The engine ends the process that it runs in.
        command = [sys.executable, "-m", "fuzz", name]
        before = {*KEPT.glob(f"{name}-*-*")}
        code = subprocess.run([*command, f"--seconds={each}"], cwd=ROOT).returncode
        if code:
            worst = 1
            _say(f"== {name}: ended with {code}. What it has found, once more and without atheris:")
            for path in {*KEPT.glob(f"{name}-*-*")} - before:
                _say(f"   {' '.join(command)} --replay {path}")
    return worst


def _search(parser: argparse.ArgumentParser, name: str, seconds: int) -> int:
    # By its name, as it is not everywhere.
    atheris: Any = importlib.import_module("atheris")
    # What is imported here is watched for the branches that are taken in it.
    packages = [*_WATCHED, *(["ldaptor"] if name == "ldap" else [])]
    # It says so of each module.
    quiet = contextlib.redirect_stderr(io.StringIO())
    with quiet, atheris.instrument_imports(include=packages):
        from fuzz.targets import TARGETS
    if name not in TARGETS:
        parser.error(f"there are {', '.join(TARGETS)}")
    corpus, seeds = KEPT / name, KEPT / f"{name}-seeds"
    for folder in (corpus, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for number, octets in enumerate(TARGETS[name].seeds()):
        (seeds / f"{number}").write_bytes(octets)
    run, _ = TARGETS[name].prepare()
    options = [
        *(f"-max_total_time={seconds}", f"-max_len={_LONGEST_INPUT}", f"-timeout={_LONGEST_RUN}"),
        *(f"-rss_limit_mb={_MOST_MEMORY}", f"-artifact_prefix={KEPT}/{name}-"),
        *("-print_final_stats=1", "-verbosity=0"),
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus), str(seeds)], run)
    atheris.Fuzz()
    return 0


def _replay(parser: argparse.ArgumentParser, name: str | None, file: Path) -> int:
    from fuzz.actions import decode
    from fuzz.targets import TARGETS, options_of

    if name not in TARGETS:
        parser.error(f"which target? There are {', '.join(TARGETS)}")
    octets = file.read_bytes()
    if name == "session":
        _say(f"{options_of(octets[0] if octets else 0)}")
        for action in decode(octets[1:]):
            _say(f"  {action.name} {action.value!r}")
    run, end = TARGETS[name].prepare()
    try:
        run(octets)
    finally:
        end()
    _say("nothing is wrong with that")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
