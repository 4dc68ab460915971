"""The file work of one session, done by whichever keeper of its owner there is."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred

from qmailldap.maildir.listings import ListingCache, Mailbox
from qmailldap.maildir.reading import OpenMessage
from qmailldap.maildir.work import Begun, Finished, Place, Unchanged
from qmailldap.privsep import encoding
from qmailldap.privsep.channel import Answer, Channel, KeeperLost
from qmailldap.privsep.wire import FrameError

__all__ = ["KeptHands", "Owner", "Question"]

T = TypeVar("T")

Owner = tuple[int, int]
"""A user id and a group id."""

Question = Callable[[Channel], list[bytes]]
"""Words a question for the channel that it is to be asked on."""


class Asker(Protocol):
    """What is asked of `qmailldap.privsep.pool.Keepers`."""

    def ask(self, owner: Owner, question: Question) -> Deferred[Answer]: ...


class KeptHands:
    """Hands that are a keeper's: `qmailldap.maildir.hands.Hands`.

    What the session found when it began is kept here, too, so that any keeper can go on with it.
    """

    def __init__(
        self,
        keepers: Asker,
        owner: Owner,
        place: Place,
        session: int,
        listings: ListingCache | None = None,
    ) -> None:
        self._keepers = keepers
        self._owner = owner
        self._place = place
        self._session = encoding.number_field(session)
        self._listings = listings
        self._begun: Begun | None = None
        # The channel to the keeper that knows the session.
        self._known_to: Channel | None = None
        self._under_way = 0
        self._closed = False

    def begin(self) -> Deferred[Begun]:
        return Deferred.fromCoroutine(self._begin())

    def fetch(self, number: int) -> Deferred[list[OpenMessage]]:
        return Deferred.fromCoroutine(self._fetch(number))

    def finish(self, deleted: frozenset[int]) -> Deferred[Finished]:
        return Deferred.fromCoroutine(self._finish(deleted))

    def close(self) -> None:
        self._closed = True
        if not self._under_way and self._known_to is not None:
            self._known_to.tell(b"forget", self._session)
            self._known_to = None

    async def _begin(self) -> Begun:
        if self._listings is None:
            place = encoding.write_place(self._place)
            answer, channel = await self._ask(b"begin", *place)
            self._begun = _read(encoding.read_begun, answer, channel)
        else:
            mailbox = Mailbox(*self._owner, self._place.mailbox)
            self._begun = await self._listings.begin(mailbox, self._begin_anew, self._begin_again)
        return self._begun

    async def _begin_anew(self) -> Begun:
        place = encoding.write_place(self._place)
        answer, channel = await self._ask(b"begin", *place, b"")
        return _read(encoding.read_begun_anew, answer, channel)

    async def _begin_again(self, token: bytes) -> Begun | Unchanged:
        place = encoding.write_place(self._place)
        answer, channel = await self._ask(b"begin", *place, token)
        found = _read(encoding.read_begun_again, answer, channel)
        if isinstance(found, Unchanged):
            # The keeper has no listing, and is told it if it has to do anything more.
            self._known_to = None
        return found

    async def _fetch(self, number: int) -> list[OpenMessage]:
        answer, channel = await self._ask(b"fetch", encoding.number_field(number))
        opened = _read(partial(_read_opened, files=answer.files), answer, channel)
        files = iter(answer.files)
        return [
            OpenMessage(
                message.size,
                message.first,
                next(files) if message.has_file else None,
                message.written_at,
            )
            for message in opened
        ]

    async def _finish(self, deleted: frozenset[int]) -> Finished:
        answer, channel = await self._ask(b"finish", encoding.write_numbers(deleted))
        return _read(encoding.read_finished, answer, channel)

    async def _ask(self, operation: bytes, *about: bytes) -> tuple[Answer, Channel]:
        asked: list[Channel] = []

        def question(channel: Channel) -> list[bytes]:
            asked.append(channel)
            fields = [operation, self._session, *about]
            if channel is not self._known_to and self._begun is not None:
                fields += encoding.write_place(self._place)
                fields += encoding.write_begun(self._begun)
            return fields

        self._under_way += 1
        try:
            answer = await self._keepers.ask(self._owner, question)
            # Not before: another question may come to be answered first.
            self._known_to = asked[0]
            return answer, asked[0]
        except OSError as error:
            if asked and not isinstance(error, KeeperLost):
                self._known_to = asked[0]
            raise
        finally:
            self._under_way -= 1
            if self._closed:
                self.close()


def _read_opened(fields: Sequence[bytes], files: Sequence[io.FileIO]) -> list[encoding.Opened]:
    """What was opened, with just these files: never is one message continued by another."""
    opened = encoding.read_opened(fields, len(files))
    expected = [(message.device, message.inode) for message in opened if message.has_file]
    if expected != [(status.st_dev, status.st_ino) for status in map(_status, files)]:
        raise FrameError("a file that is another than was opened")
    return opened


def _status(file: io.FileIO) -> os.stat_result:
    return os.fstat(file.fileno())


def _read(reader: Callable[[Sequence[bytes]], T], answer: Answer, channel: Channel) -> T:
    """What an answer says. One that says nothing comes from a keeper that is none any more."""
    try:
        return reader(answer.fields)
    except FrameError as error:
        for file in answer.files:
            file.close()
        channel.give_up(f"it sent what is no answer: {error}")
        raise KeeperLost(str(error)) from None
