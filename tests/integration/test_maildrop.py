"""What a session does to the files of a mailbox, and what others may do to them meanwhile."""

from __future__ import annotations

import os
import poplib

from twisted.internet.threads import deferToThread

from .clients import Conversation
from .mailboxes import BIG_MESSAGE, MESSAGES, as_lines
from .processes import wait_until
from .site import PASSWORD, SiteTestCase

GONE = "unable to open that message"


class UpdateTests(SiteTestCase):
    """Deleting, and moving from new/ to cur/, is done at QUIT and only then."""

    async def test_messages_are_deleted_at_quit(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            before = maildir.contents()
            pop.dele(1)
            pop.noop()
            self.assertEqual(maildir.contents(), before)
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual([*maildir.contents().values()], [MESSAGES["dots"]])

    async def test_what_was_new_is_in_cur_after_quit(self) -> None:
        maildir = self.user("joe")
        names = [maildir.deliver(MESSAGES["plain"]), maildir.deliver(MESSAGES["dots"])]
        seen = maildir.deliver(MESSAGES["8-bit"], "cur", ":2,FS")
        await self.start()
        await self.in_session("joe", poplib.POP3.quit)
        self.assertEqual(maildir.new(), [])
        self.assertEqual(maildir.cur(), [names[0] + ":2,", names[1] + ":2,", seen + ":2,FS"])

    async def test_a_connection_that_ends_without_quit_changes_nothing(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        before = maildir.contents()
        await self.start()
        for way_out in (Conversation.hang_up, Conversation.abort):
            connection = await self.connect()
            await deferToThread(connection.log_in, "joe", PASSWORD)
            await deferToThread(connection.ask, b"DELE 1")
            await deferToThread(connection.ask, b"DELE 2")
            way_out(connection)
        await wait_until(lambda: self.server.log.count("logout ") == 2, 5, "both ends in the log")
        self.assertEqual(maildir.contents(), before)

    async def test_a_server_that_is_stopped_deletes_nothing(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"]])
        before = maildir.contents()
        await self.start()
        connection = await self.connect()
        await deferToThread(connection.log_in, "joe", PASSWORD)
        await deferToThread(connection.ask, b"DELE 1")
        await self.server.stop()
        self.assertEqual(maildir.contents(), before)

    async def test_rset_takes_deletions_back(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["empty"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            pop.dele(1)
            pop.dele(2)
            self.assertEqual(pop.stat(), (0, 0))
            with self.assertRaisesRegex(poplib.error_proto, "already deleted"):
                pop.dele(2)
            pop.rset()
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual(len(maildir.contents()), 2)

    async def test_two_sessions_may_delete_the_same_message(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()

        def inner(pop: poplib.POP3) -> None:
            pop.dele(1)
            pop.quit()

        def outer(pop: poplib.POP3) -> bytes:
            pop.dele(1)
            other = poplib.POP3("127.0.0.1", self.server.port, timeout=10)
            other.user("joe")
            other.pass_(PASSWORD)
            inner(other)
            return pop.quit()

        # It is gone, which is what was asked for.
        self.assertEqual(await self.in_session("joe", outer), b"+OK ")
        self.assertEqual([*maildir.contents().values()], [MESSAGES["dots"]])


class ListingTests(SiteTestCase):
    async def test_unique_ids_are_the_names_without_their_flags(self) -> None:
        maildir = self.user("joe")
        names = [
            maildir.deliver(MESSAGES["plain"]),
            maildir.deliver(MESSAGES["plain"], "cur", ":2,S"),
            maildir.deliver(MESSAGES["plain"], "cur", ":2,"),
        ]
        await self.start()

        def unique_ids(pop: poplib.POP3) -> list[str]:
            listing = pop.uidl()[1]
            pop.quit()
            return [line.decode().split()[1] for line in listing]

        self.assertEqual(await self.in_session("joe", unique_ids), names)
        # And stay what they are once the files have moved.
        self.assertEqual(await self.in_session("joe", unique_ids), names)

    async def test_the_oldest_message_is_the_first_wherever_it_is(self) -> None:
        maildir = self.user("joe")
        maildir.deliver(b"Subject: one\n", "cur", ":2,")
        maildir.deliver(b"Subject: two\n")
        maildir.deliver(b"Subject: three\n", "cur", ":2,S")
        # Not of the same number of digits: it is the number that counts, not the text.
        early = maildir.path / "new" / "999999999.1.mx1.example.org"
        early.write_bytes(b"Subject: zero\n")
        await self.start()

        def subjects(pop: poplib.POP3) -> list[bytes]:
            return [pop.retr(number)[1][0] for number in range(1, pop.stat()[0] + 1)]

        self.assertEqual(
            await self.in_session("joe", subjects),
            [b"Subject: zero", b"Subject: one", b"Subject: two", b"Subject: three"],
        )

    async def test_what_is_not_a_message_is_not_listed(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"]])
        (maildir.path / "new" / ".hidden").write_bytes(b"not mail\n")
        (maildir.path / "tmp" / "1700000000.1.mx1").write_bytes(b"still being delivered\n")
        (maildir.path / "maildirsize").write_bytes(b"1000S\n")
        await self.start()
        self.assertEqual((await self.in_session("joe", poplib.POP3.stat))[0], 1)

    async def test_mail_that_comes_during_a_session_waits_for_the_next(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            self.late = maildir.deliver(MESSAGES["dots"])
            self.assertEqual(pop.stat()[0], 1)
            self.assertEqual(len(pop.uidl()[1]), 1)
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual(maildir.new(), [self.late])
        self.assertEqual((await self.in_session("joe", poplib.POP3.stat))[0], 2)


class OtherProgramsTests(SiteTestCase):
    """A delivery agent, an IMAP server or a shell works on the same Maildir during a session."""

    async def test_a_message_that_was_removed_meanwhile(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            (maildir.path / "new" / maildir.new()[0]).unlink()
            with self.assertRaisesRegex(poplib.error_proto, GONE):
                pop.retr(1)
            with self.assertRaisesRegex(poplib.error_proto, GONE):
                pop.top(1, 0)
            self.assertEqual(pop.retr(2)[1], as_lines(MESSAGES["dots"]))
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual([*maildir.contents().values()], [MESSAGES["dots"]])

    async def test_a_message_that_was_read_by_another_program_meanwhile(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        await self.start()

        def session(pop: poplib.POP3) -> None:
            for name in maildir.new():
                os.rename(maildir.path / "new" / name, maildir.path / "cur" / (name + ":2,S"))
            self.assertEqual(pop.retr(1)[1], as_lines(MESSAGES["plain"]))
            pop.dele(2)
            pop.quit()

        await self.in_session("joe", session)
        self.assertEqual([*maildir.contents().values()], [MESSAGES["plain"]])
        self.assertTrue(maildir.cur()[0].endswith(":2,S"))

    async def test_a_mailbox_that_is_moved_away_meanwhile(self) -> None:
        maildir = self.user("joe", messages=[MESSAGES["plain"], MESSAGES["dots"]])
        self.user("jane")
        await self.start()
        aside = maildir.path.with_name("Elsewhere")

        def session(pop: poplib.POP3) -> None:
            maildir.path.rename(aside)
            with self.assertRaisesRegex(poplib.error_proto, GONE):
                pop.retr(1)
            aside.rename(maildir.path)
            self.assertEqual(pop.retr(1)[1], as_lines(MESSAGES["plain"]))

        await self.in_session("joe", session)
        self.assertEqual(len(maildir.contents()), 2)
        await self.assert_serves("jane")

    async def test_a_message_that_shrinks_while_it_is_sent_does_not_look_complete(self) -> None:
        maildir = self.user("joe", messages=[BIG_MESSAGE * 8])
        self.user("jane")
        await self.start()

        connection = await self.connect(receive_buffer=4096)

        def session() -> bytes:
            connection.log_in("joe", PASSWORD)
            connection.send(b"RETR 1\r\n")
            received = connection.read_some(10_000)
            os.truncate(maildir.path / "new" / maildir.new()[0], 5_000)
            return received + connection.rest()

        received = await deferToThread(session)
        self.assertFalse(received.endswith(b"\r\n.\r\n"))
        await self.assert_serves("jane")
