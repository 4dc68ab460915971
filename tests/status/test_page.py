"""The status page as a browser gets it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.server import NOT_DONE_YET
from twisted.web.test.requesthelper import DummyRequest

from qmailldap.status.charts import rounded_up
from qmailldap.status.page import EVERY, StatusPage
from qmailldap.status.state import Place, Refused, State, together_of
from qmailldap.status.style import CONTENT_SECURITY_POLICY, STYLE

from .support import NOW, one, page_of, places, refused, state, texts

_FEWER = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
_VOID = {"meta", "link", "br"}
_LOADING = {"src", "srcset", "action", "data", "poster", "style", "background", "formaction"}


class Structure(HTMLParser):
    """Elements, attributes and text of a page; fails where elements are not nested."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: Any) -> None:
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def shape(self) -> list[Any]:
        """All but what stands in it."""
        return [(tag, sorted(attributes)) for tag, attributes in self.elements]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


class ContentTests(SynchronousTestCase):
    def test_it_says_what_goes_on(self) -> None:
        text = " ".join(Structure(page_of(state())).texts)
        for expected in ("mail1.example.org", "All is well.", "7.89 GB", "1 d 1 h", "ldap1:389"):
            self.assertIn(expected, text)

    def test_it_names_what_is_wrong(self) -> None:
        down = one(up=False, failed=NOW - 9, why="connection refused")
        text = " ".join(Structure(page_of(state(servers=(down,), silent=(2,)))).texts)
        for expected in (
            "Worker 2 does not answer.",
            "No directory server answers",
            "1 of 2",
            "down",
            "connection refused",
        ):
            self.assertIn(expected, text)
        self.assertNotIn("All is well", text)

    def test_users_are_named_only_where_that_is_wanted(self) -> None:
        shown = state(refusals=(refused(user="joe"),))
        self.assertNotIn("joe", page_of(shown))
        self.assertIn("joe", page_of(shown, users=True))

    def test_it_reloads_only_where_that_is_wanted(self) -> None:
        self.assertNotIn("http-equiv", page_of(state()))
        (meta,) = [
            each
            for each in Structure(page_of(state(), every=True)).all("meta")
            if "http-equiv" in each
        ]
        self.assertEqual(meta["content"], str(EVERY))

    def test_a_server_that_has_just_started_has_a_page(self) -> None:
        Structure(page_of(state(minutes=(), servers=(), refusals=(), silent=(1, 2))))


class SafetyTests(SynchronousTestCase):
    """Whatever anything is called, it is text."""

    @_FEWER
    @given(st.lists(places, min_size=1, max_size=3), texts, texts, texts)
    def test_nothing_that_is_shown_changes_the_page(
        self, names: list[Place], reason: str, peer: str, user: str
    ) -> None:
        seen = [*together_of(names)]
        hostile = state(
            servers=tuple(seen),
            members=tuple(seen),
            refusals=(Refused(time=NOW, reason=reason, peer=peer, user=user),),
        )
        tame = [attrs.evolve(each, name="a", why="b") for each in seen]
        harmless = attrs.evolve(
            hostile,
            servers=tuple(tame),
            members=tuple(tame),
            refusals=(Refused(time=NOW, reason="c", peer="d", user="e"),),
        )
        pages = [Structure(page_of(each, users=True)) for each in (hostile, harmless)]
        self.assertEqual(pages[0].shape, pages[1].shape)
        for text in pages[0].texts:
            # Between thousands there is a narrow space.
            self.assertTrue(text.replace("\n", "").replace("\u202f", "").isprintable(), repr(text))

    def test_markup_in_any_field_is_text(self) -> None:
        def shown(text: str) -> State:
            place = one(text, up=False, failed=NOW - 9, why=text, sessions=3)
            return state(
                name=text,
                version=text,
                servers=(place,),
                members=(place,),
                refusals=(refused(reason=text, peer=text, user=text),),
            )

        tame = Structure(page_of(shown("a"), users=True))
        for text in ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</title><b>"):
            page = page_of(shown(text), users=True)
            self.assertNotIn(text, page)
            hostile = Structure(page)
            self.assertEqual(hostile.shape, tame.shape)
            # The name in two places; both places in the list of troubles, and with their reason.
            self.assertGreaterEqual("".join(hostile.texts).count(text), 11)

    def test_nothing_is_loaded_from_anywhere(self) -> None:
        page = Structure(page_of(state(members=(one(),), refusals=(refused(),)), every=True))
        for tag, attributes in page.elements:
            self.assertNotIn(tag, ("script", "iframe", "object", "img", "form", "base", "image"))
            self.assertFalse(_LOADING & set(attributes), (tag, attributes))
            self.assertFalse([name for name in attributes if name.startswith("on")], tag)
        (icon,) = page.all("link")
        self.assertTrue((icon["href"] or "").startswith("data:"))
        for link in page.all("a"):
            self.assertRegex(link["href"] or "", r"\A(\./(\?every=\d+)?|metrics|healthz)\Z")
        self.assertNotIn("url(", STYLE)
        self.assertNotIn("@import", STYLE)

    def test_the_policy_allows_the_style_of_the_page_and_no_more(self) -> None:
        found = re.search("<style>(.*?)</style>", page_of(state()), re.DOTALL)
        assert found is not None
        digest = hashlib.sha256(found[1].encode()).digest()
        self.assertIn(
            f"style-src 'sha256-{base64.b64encode(digest).decode()}';", CONTENT_SECURITY_POLICY
        )
        self.assertIn("default-src 'none';", CONTENT_SECURITY_POLICY)
        self.assertNotIn("unsafe", CONTENT_SECURITY_POLICY)


class AccessibilityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.page = Structure(page_of(state(members=(one(),), refusals=(refused(),))))

    def test_there_are_landmarks_and_one_title(self) -> None:
        for tag in ("header", "main", "footer", "h1", "title"):
            # Drawings have titles, too.
            self.assertTrue(self.page.all(tag), tag)
        self.assertEqual(len(self.page.all("h1")), 1)
        self.assertEqual(self.page.all("html"), [{"lang": "en"}])

    def test_every_section_and_drawing_is_labelled_by_something_that_is_there(self) -> None:
        ids = [each["id"] for _, each in self.page.elements if "id" in each]
        self.assertEqual(len(ids), len(set(ids)))
        labelled = [*self.page.all("section"), *self.page.all("svg")]
        self.assertGreaterEqual(len(labelled), 6)
        for each in labelled:
            for name in (each["aria-labelledby"] or "").split():
                self.assertIn(name, ids)

    def test_every_table_has_headers_for_its_columns_and_rows(self) -> None:
        scopes = [each["scope"] for each in self.page.all("th")]
        self.assertEqual(set(scopes), {"col", "row"})
        for each in self.page.all("table"):
            self.assertTrue(each["aria-label"])

    def test_drawings_say_in_words_what_they_show(self) -> None:
        text = " ".join(self.page.texts)
        self.assertIn("Logins: 3 in this minute, at most 6, at ", text)
        self.assertRegex(text, r"Refused: \d in this minute")

    def test_colours_stand_out(self) -> None:
        """WCAG 2.1, 1.4.3: text 4.5 to 1 against what is behind it, in both schemes."""
        for scheme in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL):
            colours = dict(re.findall(r"--(\w+): #([0-9a-f]{6})", scheme))
            for text in ("ink", "soft", "first", "second", "good", "bad"):
                for behind in ("paper", "card"):
                    if text == "second":
                        self.assertGreater(_contrast(colours[text], colours[behind]), 3)
                    else:
                        self.assertGreater(_contrast(colours[text], colours[behind]), 4.5, text)


def _contrast(one: str, other: str) -> float:
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


class ScaleTests(SynchronousTestCase):
    @given(st.integers(0, 10**12))
    def test_a_scale_ends_at_a_round_number_that_can_be_halved(self, most: int) -> None:
        top = rounded_up(most)
        self.assertGreaterEqual(top, max(most, 2))
        self.assertLessEqual(top, max(2, 2 * most))
        self.assertEqual(top % 2, 0)
        self.assertLess(len(str(top).rstrip("0")), 3)


class ResourceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.given: Deferred[State] = Deferred()
        self.page = StatusPage(self.clock, lambda: self.given, False)
        self.request: Any = DummyRequest([b""])

    def render(self) -> None:
        self.assertEqual(self.page.render(self.request), NOT_DONE_YET)

    def finish(self) -> None:
        for _ in range(20):
            self.clock.advance(0)

    def test_the_page_comes_when_it_is_known_how_things_stand(self) -> None:
        self.render()
        self.given.callback(state())
        self.finish()
        self.assertEqual(self.request.finished, 1)
        page = b"".join(self.request.written)
        self.assertTrue(page.startswith(b"<!DOCTYPE html>\n<html "))
        headers = self.request.responseHeaders
        self.assertEqual(
            headers.getRawHeaders(b"Content-Security-Policy"), [CONTENT_SECURITY_POLICY.encode()]
        )
        self.assertEqual(headers.getRawHeaders(b"Content-Length"), [str(len(page)).encode()])

    def test_it_is_made_in_pieces(self) -> None:
        self.given = succeed(state())
        self.render()
        self.assertEqual(self.request.finished, 0)
        self.finish()
        self.assertEqual(self.request.finished, 1)

    def test_it_is_made_once_however_many_look(self) -> None:
        self.given = succeed(state())
        made: list[State] = []
        make = self.page._make

        def counted(state: State, every: bool) -> Any:
            made.append(state)
            return make(state, every)

        self.patch(self.page, "_make", counted)
        requests: list[Any] = [DummyRequest([b""]) for _ in range(3)]
        for request in requests[:2]:
            self.page.render(request)
        self.finish()
        self.page.render(requests[2])
        self.finish()
        self.assertEqual([each.finished for each in requests], [1, 1, 1])
        self.assertEqual(len({b"".join(each.written) for each in requests}), 1)
        self.assertEqual(len(made), 1)
        self.given = succeed(state())
        self.page.render(DummyRequest([b""]))
        self.finish()
        self.assertEqual(len(made), 2)

    def test_one_who_leaves_takes_nothing_from_the_others(self) -> None:
        other: Any = DummyRequest([b""])
        self.render()
        self.page.render(other)
        self.request.processingFailed(Exception("gone"))
        self.given.callback(state())
        self.finish()
        self.assertEqual((self.request.finished, other.finished), (0, 1))

    def test_nothing_is_written_to_who_has_left(self) -> None:
        self.render()
        self.request.processingFailed(Exception("gone"))
        self.finish()
        self.assertEqual((self.request.written, self.request.finished), ([], 0))

    def test_a_fault_is_logged_and_told_without_its_text(self) -> None:
        self.given = fail(RuntimeError("a secret"))
        self.render()
        self.assertEqual((self.request.responseCode, self.request.finished), (500, 1))
        self.assertNotIn(b"secret", b"".join(self.request.written))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
