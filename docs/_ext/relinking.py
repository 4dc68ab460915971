"""Links of a page as the site needs them: they go from the folder that its text lies in.

Links to a text above docs/ lead to its page. Nothing of Sphinx is here.
"""

from __future__ import annotations

import posixpath
import re

__all__ = ["TEXTS", "relinked"]

TEXTS = {
    "about": "README.md",
    "benchmarks": "benchmarks/README.md",
    "changelog": "CHANGELOG.md",
}
"""By the name of the page the file, from the folder above docs/."""

_LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)(#[^)]*)?\)")


def relinked(text: str, written: str, shown: str) -> str:
    """A text with its links as the site needs them.

    ``written`` and ``shown`` are files by their paths from the folder above docs/: where its links
    go from, and whose page it stands on.
    """

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(written), found[1]))
        for page, file in TEXTS.items():
            if target == file:
                target = f"docs/{page}.md"
        target = posixpath.relpath(target, posixpath.dirname(shown))
        return f"]({target}{found[2] or ''})"

    return _LINK.sub(link, text)
