"""The directive `generated-table`: one of `tables.TABLES`, by its name."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import TABLES, Table


class GeneratedTable(SphinxDirective):
    """Each row has an anchor of its kind and name: ``refusal-wrong-credentials``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"no table {name!r}; there are {', '.join(TABLES)}")
        return [_as_nodes(TABLES[name]())]


def _as_nodes(table: Table) -> nodes.table:
    group = nodes.tgroup(cols=len(table.headings))
    group += [nodes.colspec(colwidth=1) for _ in table.headings]
    head, body = nodes.thead(), nodes.tbody()
    head += _row([[nodes.paragraph("", heading)] for heading in table.headings])
    for row, anchor in zip(table.rows, table.anchors(), strict=True):
        cells = [[nodes.paragraph("", "", nodes.literal("", row.name))]]
        cells += [[nodes.paragraph("", line) for line in cell.split("\n")] for cell in row.cells]
        body += _row(cells)
        body[-1]["ids"].append(anchor)
    group += [head, body]
    return nodes.table("", group)


def _row(cells: list[list[nodes.paragraph]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", *paragraphs) for paragraphs in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("generated-table", GeneratedTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
