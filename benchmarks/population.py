"""The users of `benchmarks.bench`, their mail, and what the load generator says and hears of it.

Both servers have the same users, by the same records, and each its own copy of all mail: two
Maildirs in each home.
"""

from __future__ import annotations

import itertools
import os
import pwd
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from benchmarks import scripts
from benchmarks.load import Generator
from benchmarks.mail import PASSWORD, file_name, filled, login, on_the_wire
from benchmarks.mail import mailbox as usual_mailbox
from benchmarks.scripts import Session
from benchmarks.servers import user_entry
from benchmarks.sites import make_home
from qmailldap.crypt3 import crypt

__all__ = [
    "FOLDERS",
    "HASHED",
    "HUGE",
    "LARGE",
    "MANY",
    "OWNER",
    "USUAL",
    "Population",
]

OWNER = pwd.getpwnam("nobody")
"""Whose all mail is, and as whom both servers work on it."""

FOLDERS = {"qmailldap": "Maildir-qmailldap", "dovecot": "Maildir"}
"""Each server's Maildir in a home. None sees what the other keeps beside the mail."""

USUAL, LARGE, MANY, HUGE, HASHED = "usual", "large", "many", "huge", "hashed"
"""Groups of users: five messages of 1 to 8 KB; a hundred of 1 MB; 10,000 and 100,000 small ones;
and a password that takes some 0.2 s of CPU to prove."""

_LARGE_MESSAGES = 100
_LARGE_SESSIONS = 4
_EVERY = 4
"""Of so many large messages a session retrieves one: enough that its login does not count."""

_MEGABYTE = 1_000_000
_SMALLEST, _SIZES = 300, 600

# A salt of bcrypt: 22 characters of its own base64, the last of them one of four.
_BCRYPT_12 = b"$2b$12$abcdefghijklmnopqrstuu"


@attrs.frozen
class _Group:
    """Users who differ only in their number; ``mailbox`` makes the mail of that number."""

    name: str
    users: int
    mailbox: Callable[[int], Iterable[bytes]]

    def mailboxes(self) -> Iterator[tuple[str, Iterable[bytes]]]:
        """Each login and its messages."""
        for number in range(self.users):
            yield login(self.name, number), self.mailbox(number)


class Population:
    """All users, below ``homes``, which it makes; ``users`` is how many there are of each group."""

    def __init__(self, homes: Path, users: Mapping[str, int]) -> None:
        self._homes = homes
        self._groups = {
            name: _Group(name, count, _MAILBOXES[name]) for name, count in users.items()
        }

    def entries(self) -> str:
        """The users, as LDIF."""
        bcrypt = crypt(PASSWORD.encode(), _BCRYPT_12)
        assert bcrypt is not None, "the host's crypt(3) knows no bcrypt"
        values = {HASHED: "{CRYPT}" + bcrypt.decode()}
        return "".join(
            user_entry(
                user,
                {
                    "homeDirectory": str(self._homes / user),
                    "qmailUID": OWNER.pw_uid,
                    "qmailGID": OWNER.pw_gid,
                },
                values.get(group.name),
            )
            for group in self._groups.values()
            for user, _ in group.mailboxes()
        )

    def deliver(self) -> None:
        """Make all mail, twice, and wait until the disk has it."""
        for group in self._groups.values():
            for user, mailbox in group.mailboxes():
                messages = list(mailbox)
                for folder in FOLDERS.values():
                    make_home(
                        self._homes / user, messages, OWNER.pw_uid, OWNER.pw_gid, folder=folder
                    )
        # Else it would be written while something is measured.
        os.sync()

    def write_scripts(self, generator: Generator) -> dict[str, Path]:
        """What the users of each group can do, by names as "visit-GROUP"."""
        paths = {}
        for name, group in self._groups.items():
            for what, make in _SESSIONS[name].items():
                made = (make(user, list(mailbox)) for user, mailbox in group.mailboxes())
                script = f"{what}-{name}"
                paths[script] = generator.script(script, itertools.chain.from_iterable(made))
        return paths

    def users(self, group: str) -> int:
        """How many there are of a group, which may be none."""
        return self._groups[group].users if group in self._groups else 0

    def change(self, server: str, group: str) -> None:
        """Change each mailbox of a group, as another mail program that flags one message does.

        The folder's time changes, and one name; what is listed does not.
        """
        for user, mailbox in self._groups[group].mailboxes():
            folder = self._homes / user / FOLDERS[server] / "cur"
            seen = folder / file_name(0, next(iter(mailbox)))
            flagged = seen.with_name(seen.name.replace(":2,S", ":2,FS"))
            if seen.exists():
                seen.rename(flagged)
            else:
                flagged.rename(seen)


def _small(name: str, count: int) -> Callable[[int], Iterable[bytes]]:
    def messages(number: int) -> Iterator[bytes]:
        for index in range(count):
            yield filled(name, number, index, _SMALLEST + 7 * index % _SIZES)

    return messages


# The large messages are all one: the load generator need not leave the cache to compare them.
_MAILBOXES: Mapping[str, Callable[[int], Iterable[bytes]]] = {
    USUAL: lambda number: usual_mailbox(USUAL, number),
    LARGE: lambda number: [filled(LARGE, 0, 0, _MEGABYTE)] * _LARGE_MESSAGES,
    MANY: _small(MANY, 10_000),
    HUGE: _small(HUGE, 100_000),
    HASHED: lambda number: usual_mailbox(HASHED, number),
}


def _sizes(messages: Iterable[bytes]) -> list[int]:
    return [len(on_the_wire(text)) for text in messages]


def _visit(user: str, messages: Sequence[bytes]) -> list[Session]:
    return [scripts.visit(user, _sizes(messages))]


def _poll(user: str, messages: Sequence[bytes]) -> list[Session]:
    return [scripts.poll(user, messages)]


def _listing(user: str, messages: Sequence[bytes]) -> list[Session]:
    return [scripts.listing(user, _sizes(messages))]


def _transfer(user: str, messages: Sequence[bytes]) -> list[Session]:
    """The same session for each client, for the generator's own server tells none apart.

    Not all messages, for it is waited until the last session has ended; but from all parts of the
    mailbox.
    """
    whole = scripts.transfer(user, messages, retrievals=len(messages)).steps
    # Around the retrievals are the greeting, USER, PASS and QUIT.
    return [Session((*whole[:3], *whole[3:-1:_EVERY], whole[-1]))] * _LARGE_SESSIONS


_SESSIONS: Mapping[str, Mapping[str, Callable[[str, Sequence[bytes]], list[Session]]]] = {
    USUAL: {"visit": _visit, "poll": _poll},
    LARGE: {"transfer": _transfer},
    MANY: {"listing": _listing},
    HUGE: {"listing": _listing},
    HASHED: {"visit": _visit},
}
