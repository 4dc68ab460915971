"""The site of the documentation: `make docs` builds it into build/site.

The pages are Markdown and reStructuredText that a forge shows as well, so links between them are
relative paths to files. What the site has besides are its order (index.md) and the tables that are
made from the code (`_ext/tables.py`).
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent

# The package need not be installed, and if it is, this is the one that is documented.
sys.path[:0] = [str(_HERE.parent), str(_HERE / "_ext")]

import qmailldap  # noqa: E402  # of this checkout

project = "qmailldap"
author = "The qmailldap authors"
version = release = qmailldap.__version__

extensions = ["myst_parser", "site_pages", "site_tables"]
exclude_patterns = ["_ext"]
nitpicky = True

# Headings are linked to by the names that a forge gives them.
myst_heading_anchors = 4

html_theme = "furo"
html_title = "qmailldap"
html_use_index = False
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
