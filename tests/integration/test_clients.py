"""Mail programs that people use, and what of the mail reaches their disks."""

from __future__ import annotations

import poplib
from typing import cast

from .clients import curl, fetchmail
from .mailboxes import BIG_MESSAGE, MESSAGES, as_lines, brief
from .site import PASSWORD, SiteTestCase


class PoplibTests(SiteTestCase):
    async def test_every_message_arrives_as_it_is_stored(self) -> None:
        self.user("joe", messages=[*MESSAGES.values()])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            for number, (name, content) in enumerate(MESSAGES.items(), 1):
                self.assertEqual(joined(pop.retr(number)[1]), joined(as_lines(content)), name)
                self.assertEqual(self._size(pop, number), b"%d" % len(content), name)
                top = pop.top(number, 10**6)[1]
                self.assertEqual(joined(top), joined(as_lines(content)), name)

        await self.in_session("joe", session)

    def _size(self, pop: poplib.POP3, number: int) -> bytes:
        # For one message this is the line of the answer, whatever its type says.
        line = cast(bytes, pop.list(number))
        return line.split()[2]


class CurlTests(SiteTestCase):
    async def curl(self, path: str, *options: str) -> list[bytes]:
        """What curl prints, in lines."""
        finished = await curl(self.server.port, "joe", PASSWORD, path, *options)
        self.assertEqual(finished.code, 0, finished.text)
        return as_lines(finished.output)

    async def test_curl_lists_and_retrieves(self) -> None:
        maildir = self.user("joe", messages=[*MESSAGES.values()])
        names = maildir.new()
        await self.start()
        self.assertEqual(
            await self.curl(""),
            [b"%d %d" % (i, len(content)) for i, content in enumerate(MESSAGES.values(), 1)],
        )
        self.assertEqual(
            await self.curl("", "--request", "UIDL"),
            [b"%d %b" % (i, name.encode()) for i, name in enumerate(names, 1)],
        )
        for number, (name, content) in enumerate(MESSAGES.items(), 1):
            # A message of nothing is shown by curl as one empty line.
            shown = as_lines(content) or [b""]
            self.assertEqual(joined(await self.curl(str(number))), joined(shown), name)

    async def test_curl_reads_the_header_and_deletes(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()
        self.assertEqual(
            await self.curl("", "--request", "TOP 2 0"), as_lines(MESSAGES["dots"])[:4]
        )
        await self.curl("1", "--request", "DELE", "--list-only")
        self.assertEqual([*maildir.contents().values()], [MESSAGES["dots"]])

    async def test_curl_is_told_that_a_password_is_wrong(self) -> None:
        self.user("joe")
        await self.start()
        finished = await curl(self.server.port, "joe", "wrong", "")
        self.assertEqual(finished.code, 67, finished.text)  # CURLE_LOGIN_DENIED


class FetchmailTests(SiteTestCase):
    async def fetchmail(self, *keywords: str, code: int = 0) -> list[bytes]:
        """The messages that fetchmail delivers."""
        place = self.directory / "fetchmail"
        fetched = await fetchmail(place, self.server.port, "joe", PASSWORD, *keywords)
        self.assertEqual(fetched.finished.code, code, fetched.finished.text)
        return fetched.messages

    async def test_fetchmail_keeps_what_it_fetched(self) -> None:
        contents = [
            MESSAGES["plain"],
            MESSAGES["dots"],
            MESSAGES["8-bit"],
            MESSAGES["long lines"],
            BIG_MESSAGE,
        ]
        maildir = self.user("joe", messages=contents)
        await self.start()
        in_brief = [brief(content) for content in contents]
        self.assertEqual([brief(message) for message in await self.fetchmail("keep")], in_brief)
        self.assertEqual([*maildir.contents().values()], in_brief)
        self.assertEqual(maildir.new(), [])

    async def test_fetchmail_knows_what_it_has_seen_by_the_unique_ids(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()
        self.assertEqual(len(await self.fetchmail("keep")), 2)
        maildir.deliver(MESSAGES["8-bit"])
        self.assertEqual(await self.fetchmail("keep"), [MESSAGES["8-bit"]])
        # Exit code 1: there was no mail to fetch.
        self.assertEqual(await self.fetchmail("keep", code=1), [])

    async def test_fetchmail_fetches_and_deletes(self) -> None:
        contents = [MESSAGES["crlf"], MESSAGES["no newline at the end"], MESSAGES["long lines"]]
        maildir = self.user("joe", messages=contents)
        await self.start()
        # In front of a program fetchmail itself makes plain LF of the line ends.
        self.assertEqual(
            await self.fetchmail("fetchall"),
            [b"".join(line + b"\n" for line in as_lines(content)) for content in contents],
        )
        self.assertEqual(maildir.contents(), {})


def joined(lines: list[bytes]) -> bytes:
    """The lines as one text to compare, in `brief`."""
    return brief(b"\n".join(lines))
