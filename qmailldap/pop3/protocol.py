"""The server side of POP3 (RFC 1939, 2449, 3206) in the manner of qmail-popup and qmail-pop3d.

Here are the TRANSACTION and the UPDATE state; what comes before the login is in `authorization`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from qmailldap.pop3.authorization import Authorization
from qmailldap.pop3.content import DotStuffer, TopOfMessage, framed, lines_at_once
from qmailldap.pop3.syntax import CommandRefused, number
from qmailldap.present import Presence, name_of
from qmailldap.threads import Busy

__all__ = ["POP3"]

_Facts = Callable[[int, int], Sequence[object]]
"""Gives what a listing tells of the messages from one index on and before another."""

_Texts = dict[tuple[int, int], bytes]
"""Lines of a listing, by the index of the first and how many they are."""


def _texts_of_list(_: object) -> _Texts:
    return {}


def _texts_of_uidl(_: object) -> _Texts:
    return {}


class POP3(Authorization):
    """One POP3 session.

    What stock Twisted gets wrong and this class puts right is listed in docs/internals.md.
    """

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = self._ended or "disconnected"
        if self.mbox is not None and self._ended != "quit":
            self._log_out(deleted=0)
        super().connectionLost(reason)

    def presence(self) -> Presence:
        session = self._session
        at_work = self._is_under_way() or self._exchange is not None or self._holding_back
        return Presence(
            id=session.id,
            user=name_of(session.user),
            host=session.peer,
            since=self._begun,
            kind="waiting" if self.mbox is None else "local",
            doing=self._doing.decode("ascii") if at_work else "",
            octets=session.octets,
            tls=self._encryption.description,
        )

    def _open(self, user: bytes, maildrop: Any, log_out: Callable[[], None]) -> None:
        # From here on the end of the connection sees to it.
        self.mbox, self._onLogout = maildrop, log_out
        self.setTimeout(self._limits.idle)
        self._session.logged_in(user, *maildrop.dropListing())
        self.successResponse(b"")

    def do_STAT(self) -> None:
        self.successResponse(b"%d %d" % self.mbox.dropListing())

    def do_LIST(self, i: bytes | None = None) -> None:
        if i is None:
            self._list(b"%d %d\r\n", self.mbox.sizes, _texts_of_list)
        else:
            index = self._index(i)
            self.successResponse(b"%d %d" % (index + 1, self.mbox.listMessages(index)))

    def do_UIDL(self, i: bytes | None = None) -> None:
        if i is None:
            self._list(b"%d %b\r\n", self.mbox.uniqueIds, _texts_of_uidl)
        else:
            index = self._index(i)
            self.successResponse(b"%d %b" % (index + 1, self.mbox.getUidl(index)))

    def _list(self, line: bytes, facts: _Facts, texts_of: Callable[[Any], _Texts]) -> None:
        """Answer with a line of each message that is not deleted: its number and its fact.

        What other sessions of the same messages have made of them is not made again.
        """
        mbox, count = self.mbox, self.mbox.messageCount()
        at_once = lines_at_once(self._limits.chunk)
        all_there = mbox.dropListing()[0] == count
        texts: _Texts | None = mbox.shared(texts_of) if all_there else None

        def piece(start: int) -> bytes:
            stop = start + at_once
            numbered = enumerate(facts(start, stop), start + 1)
            if all_there:
                return b"".join([line % each for each in numbered])
            left = [line % each for each in numbered if not mbox.isDeleted(each[0] - 1)]
            return b"".join(left)

        def pieces() -> Iterator[bytes]:
            for start in range(0, count, at_once):
                key = start, at_once
                text = None if texts is None else texts.get(key)
                if text is None:
                    text = piece(start)
                    if texts is not None:
                        texts[key] = text
                yield text

        chunks = framed(pieces())
        self.transport.write(next(chunks))
        if count > at_once:
            # Nothing more is made of it as long as the client does not read.
            self._answer(self._send(chunks))

    async def _send(self, chunks: Iterator[bytes]) -> None:
        while True:
            await self._flow.opened()
            chunk = next(chunks, None)
            if chunk is None:
                return
            self.transport.write(chunk)

    def do_RETR(self, i: bytes) -> None:
        index = self._index(i)
        whole = self.mbox.takeAtHand(index)
        if whole is None:
            self._answer(self._send_message(index, None))
            return
        # Most messages of most sessions: nothing to wait for, and one write.
        stuffer = DotStuffer()
        content = stuffer.encode(whole)
        self.transport.write(b"".join([b"+OK \r\n", content, stuffer.finish()]))
        self._session.sent(len(content), 1)
        self._highest = max(self._highest, index + 1)

    def do_TOP(self, i: bytes, size: bytes) -> None:
        self._answer(self._send_message(self._index(i), TopOfMessage(number(size))))

    async def _send_message(self, index: int, top: TopOfMessage | None) -> None:
        """RETR and TOP.

        The first write takes the +OK along, and the last octets are held until the end of the
        message was found to be its end: so a message in trouble is refused while nothing of it is
        out, and later ends the connection rather than the message.
        """
        message = None
        begun = False
        try:
            message = await self.mbox.getMessage(index)
            stuffer = DotStuffer()
            data, unsent = b"+OK \r\n", 0
            complete = False
            while not complete:
                chunk = message.readChunk()
                if isinstance(chunk, Deferred):
                    chunk = await chunk
                if self._ended:
                    return
                complete = not chunk
                if top is not None:
                    chunk = top.take(chunk)
                    complete = complete or top.complete
                content = stuffer.encode(chunk)
                unsent += len(content)
                data += content
                if complete:
                    data += stuffer.finish()
                if complete or len(data) >= self._limits.chunk:
                    await self._flow.opened()
                    self.transport.write(data)
                    self._session.sent(unsent)
                    begun, data, unsent = True, b"", 0
        except (Busy, OSError) as error:
            self._session.message_failed(self.mbox.getUidl(index), str(error))
            if begun:
                self._cut_off("message-failed")
            elif not self._ended:
                self.failResponse(b"unable to open that message")
            return
        finally:
            if message is not None:
                message.close()
        self._highest = max(self._highest, index + 1)
        self._session.sent(0, int(top is None))

    def do_DELE(self, i: bytes) -> None:
        index = self._index(i)
        self.mbox.deleteMessage(index)
        self._highest = max(self._highest, index + 1)
        self.successResponse(b"")

    def do_NOOP(self) -> None:
        self.successResponse(b"")

    def do_RSET(self) -> None:
        self.mbox.undeleteMessages()
        self._highest = 0
        self.successResponse(b"")

    def do_QUIT(self) -> None:
        # Whatever follows is not read any more, and what was marked is removed even if the client
        # does not wait for the answer.
        self._ended = "quit"
        if self.mbox is None:
            self.successResponse(b"")
            self._hang_up()
        else:
            self._answer(self._update())

    async def _update(self) -> None:
        """The UPDATE state: only here a mailbox is changed."""
        marked = self.mbox.messageCount() - self.mbox.dropListing()[0]
        try:
            kept = await self.mbox.sync()
        except Exception as error:
            if isinstance(error, (Busy, OSError)):
                self._session.not_updated(str(error))
            else:
                self._session.failed("update")
            kept = marked
            self.failResponse(b"[SYS/TEMP] unable to update the mailbox")
        else:
            if kept:
                self.failResponse(b"unable to unlink all deleted messages")
            else:
                self.successResponse(b"")
        self._log_out(deleted=marked - kept)
        self._hang_up()

    def _log_out(self, deleted: int) -> None:
        self._session.logged_out(self._ended, deleted, self.mbox.messageCount() - deleted)

    def _index(self, word: bytes) -> int:
        """The index of the message that a client calls by this number."""
        counted = number(word)
        if counted == 0:
            raise CommandRefused(b"messages are counted from 1")
        if counted > self.mbox.messageCount():
            raise CommandRefused(b"not that many messages")
        if self.mbox.isDeleted(counted - 1):
            raise CommandRefused(b"already deleted")
        return counted - 1
