"""The users of the host: those of passwd, for logins that the directory does not know.

The network process cannot read shadow. It has the broker asked, which says yes, no or unknown (see
`qmailldap.privsep.shadow`), and makes answers that took no hash take as long as the others. Source:
qmail-ldap's locallookup.c.
"""

from __future__ import annotations

import errno
import os
import pwd
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from qmailldap.account import HIGHEST_ID, LOWEST_ID, Account, join_path
from qmailldap.crypt3 import crypt, preferred_setting
from qmailldap.durations import Durations
from qmailldap.loglevel import Log
from qmailldap.printable import printable
from qmailldap.quota import Quota
from qmailldap.refusal import LoginRefused, Refusal
from qmailldap.threads import Busy, Offload
from qmailldap.turns import Turns

__all__ = ["ANSWER_LIMIT", "MOST_ASKED", "LocalUsers", "seconds_of_a_hash"]

T = TypeVar("T")

MOST_ASKED = 4
"""How many passwords are checked at a time."""

ANSWER_LIMIT = 40.0
"""Seconds that the broker's answer is waited for; its child has ended after `shadow.LIMIT`."""

_ANSWERS = {"yes": True, "no": False, "unknown": None}

_log = Log(namespace="qmailldap.local_users", of_sessions=False)


def seconds_of_a_hash() -> float:
    """How long the host takes to hash a password as it would a new one; blocks.

    Raises ``OSError`` and `MemoryError` where it cannot.
    """
    setting = preferred_setting()
    begun = time.perf_counter()
    if crypt(b"x", setting) is None:
        raise OSError("crypt(3) refuses the setting that it prefers")
    return time.perf_counter() - begun


class LocalUsers:
    """Has passwords proved by the broker, and makes accounts of passwd's entries.

    ``ask`` gives a Deferred of ``yes``, ``no`` or ``unknown`` for a login and a password; it may
    fail with `Busy` and ``OSError``. ``offload`` takes what blocks. ``delivery`` is the mailbox,
    relative to home unless absolute, of users whose .qmail names none.
    """

    def __init__(
        self,
        ask: Callable[[bytes, bytes], Deferred[str]],
        offload: Offload,
        delivery: str,
        clock: IReactorTime,
    ) -> None:
        self._ask = ask
        self._offload = offload
        self._delivery = delivery
        self._clock = clock
        # All wait in one queue, those who only pretend too: else the waiting would tell them apart.
        self._turns = Turns(clock, places=MOST_ASKED)
        # How long it took where a password was hashed.
        self._checked = Durations(clock)
        # As long as that is not known, what is nearest: the hash alone.
        self._hashed = Durations(clock)

    async def prove(self, login: bytes, password: bytes) -> bool | None:
        """Whether the password is that of the user.

        None where there is no such user, or one whom no password lets in. Raises `Busy` where too
        many wait, and ``OSError`` where the broker cannot tell. All of them take the same time but
        for a full queue.
        """
        return await self._in_turn(lambda: self._prove(login, password))

    async def pretend(self) -> None:
        """Take the time that `prove` takes, a full queue's too. Raises nothing."""
        with suppress(Busy):
            await self._in_turn(lambda: self._sit_out(self._clock.seconds()))

    async def account(self, login: bytes) -> Account:
        """Whom passwd says that the login is; to be called once the password is proved.

        Raises `LoginRefused`: RECORD_INCORRECT for an id that is none of a user, or a home that is
        not absolute, TEMPORARY where passwd cannot be read. Paths may hold any character: who can
        write passwd is trusted, as by the original.
        """
        try:
            asked = self._offload(pwd.getpwnam, os.fsdecode(login))
            user = await asked.addTimeout(ANSWER_LIMIT, self._clock)
        except KeyError:
            raise LoginRefused(
                Refusal.TEMPORARY, "passwd does not know the user any more"
            ) from None
        except TimeoutError:
            text = f"passwd: no answer in {ANSWER_LIMIT:.0f} s"
            raise LoginRefused(Refusal.TEMPORARY, text) from None
        except (Busy, OSError) as error:
            raise LoginRefused(Refusal.TEMPORARY, f"passwd: {error}") from None
        except MemoryError:
            raise LoginRefused(Refusal.OUT_OF_MEMORY, "to read passwd") from None
        for name, number in (("uid", user.pw_uid), ("gid", user.pw_gid)):
            if not LOWEST_ID <= number <= HIGHEST_ID:
                raise LoginRefused(
                    Refusal.RECORD_INCORRECT,
                    f"{name} is {number}, not {LOWEST_ID} to {HIGHEST_ID}",
                    # There is no mail to be had, and nobody shall try root's passwords here.
                    shown=Refusal.WRONG_CREDENTIALS,
                )
        home = user.pw_dir
        if not home.startswith("/"):
            raise LoginRefused(
                Refusal.RECORD_INCORRECT, f"home {printable(os.fsencode(home))} is not absolute"
            )
        return Account(
            login=login,
            dn=f"passwd:{printable(os.fsencode(user.pw_name))}",
            uid=user.pw_uid,
            gid=user.pw_gid,
            home=home,
            mailbox=join_path(home, self._delivery),
            delivery=self._delivery,
            names_both=False,
            asks_dot_qmail=True,
            quota=Quota(),
            max_message_size=0,
            mail_host=None,
        )

    async def _in_turn(self, work: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> T:
        return await self._turns.take("passwd", lambda: Deferred.fromCoroutine(work()))

    async def _prove(self, login: bytes, password: bytes) -> bool | None:
        begun = self._clock.seconds()
        try:
            proved = _ANSWERS[await self._answer(login, password)]
        except (OSError, Busy):
            await self._sit_out(begun)
            raise
        if proved is None:
            await self._sit_out(begun)
        else:
            self._checked.add(self._clock.seconds() - begun)
        return proved

    async def _answer(self, login: bytes, password: bytes) -> str:
        try:
            return await self._ask(login, password).addTimeout(ANSWER_LIMIT, self._clock)
        except TimeoutError:
            raise OSError(errno.ETIMEDOUT, f"no answer in {ANSWER_LIMIT:.0f} s") from None

    async def _sit_out(self, begun: float) -> None:
        """Wait until a check that began then would be done."""
        if self._checked:
            await self._checked.sit_out(begun)
            return
        if not self._hashed:
            await self._time_a_hash()
        if self._hashed:
            await self._hashed.sit_out(begun)

    async def _time_a_hash(self) -> None:
        # Where this fails for once, the next login tries again.
        with suppress(Busy, MemoryError):
            try:
                self._hashed.add(await self._offload(seconds_of_a_hash))
            except OSError as error:
                _log.warn("passwd no hash can be timed: {error}", error=error)
                self._hashed.add(0.0)
