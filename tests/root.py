"""What a test that takes root does without: it says so, and fails unless that is known."""

from __future__ import annotations

import os
from unittest import SkipTest

__all__ = ["WITHOUT_ROOT", "no_root", "require_root"]

WITHOUT_ROOT = "QMAILLDAP_TESTS_WITHOUT_ROOT"


def no_root(why: str) -> None:
    """Skip the test where somebody has said that it cannot be run; else fail it.

    ``why`` goes on from "as this".
    """
    if os.environ.get(WITHOUT_ROOT) == "1":
        raise SkipTest(f"takes root, as this {why}")
    raise AssertionError(f"run as root, as this {why}, or set {WITHOUT_ROOT}=1")


def require_root(why: str) -> None:
    """As `no_root`, unless the tests are run as root."""
    if os.geteuid() != 0:
        no_root(why)
