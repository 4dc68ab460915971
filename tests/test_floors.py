"""Imports run down the list of floors in docs/internals.md, never up."""

from __future__ import annotations

import ast
import configparser
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent


def floors() -> list[set[str]]:
    """The rooms of each row of the table, from the ground up."""
    table = (ROOT / "docs" / "internals.md").read_text().split("## The floors")[1].split("## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| ")]
    return [set(re.findall(r"`(\w+)/?`", row)) for row in rows if "`" in row]


def rooms_imported(path: Path) -> set[str]:
    """The rooms of the package that a module imports from."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
        elif isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("qmailldap.")}


class FloorsTests(SynchronousTestCase):
    def test_no_room_imports_from_one_above(self) -> None:
        height = {room: level for level, rooms in enumerate(floors()) for room in rooms}
        looked_at = 0
        for path in sorted((ROOT / "qmailldap").rglob("*.py")):
            room = path.relative_to(ROOT / "qmailldap").parts[0].removesuffix(".py")
            if room == "__init__":
                continue
            for imported in rooms_imported(path) - {room}:
                looked_at += 1
                self.assertLessEqual(height[imported], height[room], f"{path} from {imported}")
        self.assertGreater(looked_at, 20)

    def test_every_package_is_in_the_list_of_those_to_be_installed(self) -> None:
        configuration = configparser.ConfigParser()
        configuration.read(ROOT / "setup.cfg")
        listed = configuration["options"]["packages"].split()
        there = [
            ".".join(path.parent.relative_to(ROOT).parts)
            for path in (ROOT / "qmailldap").rglob("__init__.py")
        ]
        self.assertEqual(sorted(listed), sorted([*there, "twisted.plugins"]))
