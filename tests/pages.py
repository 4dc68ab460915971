"""The pages of the documentation as a forge shows them: their headings and their links."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["PAGES", "PROJECT", "anchors", "links", "site_module"]

PROJECT = Path(__file__).parent.parent

PAGES = [
    *(PROJECT / name for name in ("README.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((PROJECT / "docs").rglob("*.md")),
]
"""Every page in Markdown."""

_BLOCK = re.compile(r"^( *)```.*?^\1```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _text(page: Path) -> str:
    """What is said, without blocks of code."""
    return _BLOCK.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    """Where its links lead to, in the page's own words."""
    return _LINK.findall(_text(page))


def anchors(page: Path) -> set[str]:
    """What of it can be linked to: its headings, as forges name them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_text(page)):
        words = re.sub(r"[^\w\- ]", "", _LINK.sub("", heading).lower())
        name = words.replace(" ", "-")
        found.add(next(each for each in _numbered(name) if each not in found))
    return found


def _numbered(name: str) -> list[str]:
    """The second heading of the same words has a number."""
    return [name, *(f"{name}-{number}" for number in range(1, 100))]


def site_module(name: str) -> Any:
    """A module of the site's extension, which is not installed."""
    folder = str(PROJECT / "docs" / "_ext")
    sys.path.insert(0, folder)
    try:
        return import_module(name)
    finally:
        sys.path.remove(folder)
