"""Pages whose text lies above docs/: a forge shows a link to it, the site the text itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from relinking import TEXTS, relinked
from sphinx.application import Sphinx


def _put_in_place(app: Sphinx, page: str, source: list[str]) -> None:
    shown = f"docs/{page}.md"
    written = TEXTS.get(page, shown)
    path = Path(app.srcdir).parent / written
    if path.exists():  # not a page in reStructuredText
        app.env.note_dependency(str(path))
        text = path.read_text("utf-8") if page in TEXTS else source[0]
        source[0] = relinked(text, written, shown)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _put_in_place)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
