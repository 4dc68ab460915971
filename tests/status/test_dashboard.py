"""What names metrics elsewhere, the dashboard and the docs, against the table of figures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.figures import FIGURES
from qmailldap.figures.table import PREFIX, Kind, figure

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "contrib" / "grafana" / "qmailldap.json"
PAGE = ROOT / "docs" / "metrics.md"

_NAME = re.compile(rf"\b{PREFIX}[a-z_]*[a-z]")
_SELECTED = re.compile(rf"\b({PREFIX}[a-z_]*[a-z])\{{([^}}]*)\}}")
_BY = re.compile(r"\bby \(([^)]*)\)")
_LABEL = re.compile(r"([a-z]+)\s*(?:=~|=|!=|!~)")


def shown_names() -> dict[str, str]:
    """What there is to be seen of each figure, and the figure's name."""
    names = {}
    for each in FIGURES:
        ends = ("_bucket", "_sum", "_count") if each.kind is Kind.HISTOGRAM else ("",)
        names.update({each.shown + end: each.name for end in ends})
    return names


def expressions(dashboard: Any) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


class NamesTestCase(SynchronousTestCase):
    def assert_known(self, expression: str) -> set[str]:
        """Its metrics are there, with these labels; gives their names."""
        names = shown_names()
        found = set(_NAME.findall(expression))
        self.assertLessEqual(found, set(names), expression)
        usual = {"job", "instance"}
        for name, selector in _SELECTED.findall(expression):
            labels = set(_LABEL.findall(selector))
            self.assertLessEqual(labels - usual, set(figure(names[name]).labels), expression)
        known = {label for name in found for label in figure(names[name]).labels}
        for labels in _BY.findall(expression):
            wanted = {label.strip() for label in labels.split(",")}
            self.assertLessEqual(wanted - usual - {"le"}, known, expression)
        return {names[name] for name in found}


class DashboardTests(NamesTestCase):
    def setUp(self) -> None:
        self.dashboard = json.loads(DASHBOARD.read_text("utf-8"))

    def test_it_has_what_grafana_wants_of_a_dashboard(self) -> None:
        for key in ("title", "uid", "schemaVersion", "panels", "templating", "time", "refresh"):
            self.assertIn(key, self.dashboard)
        for panel in self.dashboard["panels"]:
            for key in ("id", "type", "title", "gridPos"):
                self.assertIn(key, panel)
            if panel["type"] != "row":
                self.assertTrue(panel["description"])
                self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                self.assertTrue(panel["targets"])
        ids = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(set(ids)), len(ids))
        variables = [each["name"] for each in self.dashboard["templating"]["list"]]
        self.assertEqual(variables, ["datasource", "job", "instance"])

    def test_no_panel_lies_on_another(self) -> None:
        taken: set[tuple[int, int]] = set()
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24)
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells

    def test_it_shows_all_figures_and_none_that_is_not_there(self) -> None:
        shown = set[str]()
        for expression in expressions(self.dashboard):
            shown |= self.assert_known(expression)
        self.assertEqual(shown, {each.name for each in FIGURES})


class PageTests(NamesTestCase):
    def setUp(self) -> None:
        self.page = PAGE.read_text("utf-8")

    def test_every_metric_that_is_named_is_there(self) -> None:
        text, rules, rest = self.page.split("<!-- alerts -->")
        known = {PREFIX + each.name for each in FIGURES} | set(shown_names())
        for name in _NAME.findall(text + rest):
            # A prefix, an ellipsis behind it, is of several.
            self.assertTrue(any(each.startswith(name) for each in known), name)
        for expression in re.findall(r"expr: (?:\|\n((?: {10}.*\n)+)|(.*))", rules):
            self.assert_known("".join(expression))

    def test_outcomes_of_the_rules_are_some(self) -> None:
        outcomes = figure("logins_total").known
        for pattern in re.findall(r'outcome=~?"([^"]*)"', self.page):
            for each in pattern.split("|"):
                self.assertTrue([one for one in outcomes if re.fullmatch(each, one)], each)
