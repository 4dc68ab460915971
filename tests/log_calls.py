"""All calls of the package that log a line, as its source has them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import attrs

__all__ = ["Call", "log_calls"]

PACKAGE = Path(__file__).parent.parent / "qmailldap"

_METHODS = ("debug", "info", "warn", "error", "critical", "failure", "unmasked", "login")


@attrs.frozen
class Call:
    """``format`` up to what is added to it at times; ``level`` and ``kind`` as words of the source,
    empty where they are those of the ``method``."""

    place: str
    method: str
    format: str
    level: str
    kind: str


def log_calls() -> Iterator[Call]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "loglevel.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _is_of_a_log(node.func):
                assert isinstance(node.func, ast.Attribute)
                words = {each.arg: ast.unparse(each.value) for each in node.keywords}
                yield Call(
                    place=f"{path.relative_to(PACKAGE.parent)}:{node.lineno}",
                    method=node.func.attr,
                    format=_constant(node.args[0]),
                    level=words.get("level", ""),
                    kind=words.get("kind", ""),
                )


def _is_of_a_log(called: ast.expr) -> bool:
    """As ``_log.warn``, ``self.log.login``, ``log.info``, ``_log_of_connections.debug``."""
    if not isinstance(called, ast.Attribute) or called.attr not in _METHODS:
        return False
    owner = called.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return name.lstrip("_").split("_")[0] == "log"


def _constant(node: ast.expr) -> str:
    """The text that a format begins with."""
    if isinstance(node, ast.BinOp):
        return _constant(node.left)
    assert isinstance(node, ast.Constant), ast.unparse(node)
    return str(node.value)
