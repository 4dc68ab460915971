"""The site of the documentation, as `make docs` builds it: without a warning, all links good."""

from __future__ import annotations

import posixpath
import shutil
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from twisted.trial.unittest import TestCase

from tests.pages import site_module

from .processes import run
from .server import PROJECT, environment

_LIMIT = 120


class _Page(HTMLParser):
    """What can be linked to in a page, where its links lead, and what a browser loads for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.names.add(value)
            elif name == "href" and value:
                (self.links if tag == "a" else self.loaded).append(value)
            elif name == "src" and value:
                self.loaded.append(value)


class SiteTests(TestCase):
    timeout = 180

    async def test_it_builds_without_a_warning_and_its_links_lead_somewhere(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="qmailldap-test-"))
        self.addCleanup(shutil.rmtree, directory, ignore_errors=True)
        site = directory / "site"
        finished = await run(
            [
                *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q"),
                *("-b", "html", "-d", str(directory / "doctrees")),
                *(str(PROJECT / "docs"), str(site)),
            ],
            _LIMIT,
            environment=environment(),
        )
        self.assertEqual((finished.code, finished.text), (0, ""))

        pages = {
            path.relative_to(site).as_posix(): _Page(path)
            for path in site.rglob("*.html")
            if "_static" not in path.parts
        }
        for page, parsed in pages.items():
            for link in parsed.links:
                self.assert_leads_somewhere(site, pages, page, link)
            for link in parsed.loaded:
                parts = urlsplit(link)
                self.assertFalse(parts.netloc, f"{page} loads {link}")
                if parts.path:
                    path = site / Path(page).parent / unquote(parts.path)
                    self.assertTrue(path.is_file(), f"{page} loads {link}")

        shown = set().union(*(parsed.names for parsed in pages.values()))
        for make in site_module("tables").TABLES.values():
            self.assertEqual(set(make().anchors()) - shown, set())

    def assert_leads_somewhere(
        self, site: Path, pages: dict[str, _Page], page: str, link: str
    ) -> None:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path)))
        target = path if parts.path else page
        self.assertTrue((site / target).is_file(), f"{page}: {link}")
        if parts.fragment:
            self.assertIn(unquote(parts.fragment), pages[target].names, f"{page}: {link}")
