"""What is compared: sites that differ in who owns the mail, and in the server's code and options.

Each has homes, a control directory and a twistd of its own; all share one directory server.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs

from benchmarks.mail import file_name, login, mailbox
from benchmarks.servers import OurServer, user_entry
from tests.integration.server import PROJECT

__all__ = ["FEW_OWNERS", "Configuration", "Site", "configurations", "make_home"]

FEW_OWNERS = 50
"""Fewer than the 64 processes that a server keeps by default: every owner's may stay."""

_FIRST_OWNER = 20000


@attrs.frozen
class Configuration:
    """One thing to be measured.

    ``code`` is the directory with the server's packages. ``twistd`` and ``server`` are options, for
    twistd and for its qmailldap-pop3. ``owners`` are the (uid, gid) that mailboxes belong to in
    turn.
    """

    name: str
    what: str
    code: Path
    owners: tuple[tuple[int, int], ...]
    twistd: tuple[str, ...] = ()
    server: tuple[str, ...] = ()


def configurations(before: Path, owners: int) -> tuple[Configuration, ...]:
    """All that there are; ``before`` is where the older code will be."""
    # An id that has a name: twistd looks up the groups of what --uid gives it.
    nobody = pwd.getpwnam("nobody")
    ids = (("uid", str(nobody.pw_uid)), ("gid", str(nobody.pw_gid)))
    as_nobody = tuple(f"--{option}={value}" for option, value in ids)

    def distinct(count: int) -> tuple[tuple[int, int], ...]:
        return tuple((_FIRST_OWNER + n, _FIRST_OWNER + n) for n in range(count))

    return (
        Configuration(
            "before",
            "the older commit, all of it run by the one owner of all mail",
            before,
            ((nobody.pw_uid, nobody.pw_gid),),
            twistd=as_nobody,
        ),
        Configuration(
            "one-owner",
            "this checkout, run as the one owner of all mail",
            PROJECT,
            ((nobody.pw_uid, nobody.pw_gid),),
            server=(f"--user={nobody.pw_uid}", f"--group={nobody.pw_gid}"),
        ),
        Configuration(
            "many-owners",
            f"this checkout, run as nobody, {owners} owners",
            PROJECT,
            distinct(owners),
            server=("--user=nobody",),
        ),
        Configuration(
            "few-owners",
            f"this checkout, run as nobody, {FEW_OWNERS} owners",
            PROJECT,
            distinct(FEW_OWNERS),
            server=("--user=nobody",),
        ),
        Configuration(
            "one-keeper",
            "this checkout, run as nobody, all mail of one other owner",
            PROJECT,
            distinct(1),
            server=("--user=nobody",),
        ),
    )


class Site(OurServer):
    """One configuration with its users, their mail and its server, all below ``directory``."""

    def __init__(
        self, configuration: Configuration, directory: Path, ldapserver: str, users: int
    ) -> None:
        super().__init__(
            configuration.name,
            directory,
            ldapserver,
            code=configuration.code,
            twistd=configuration.twistd,
            options=configuration.server,
        )
        self._owners = configuration.owners
        self._users = users

    def entries(self) -> str:
        """The users, as LDIF."""
        return "".join(
            user_entry(
                login(self.name, number),
                {"homeDirectory": str(home), "qmailUID": uid, "qmailGID": gid},
            )
            for number, home, uid, gid in self._homes()
        )

    def deliver(self) -> None:
        """Make all homes, which only their owners can look into, with all the mail in cur/."""
        for number, home, uid, gid in self._homes():
            make_home(home, mailbox(self.name, number), uid, gid)

    def _homes(self) -> Iterator[tuple[int, Path, int, int]]:
        """Each user's number, home, uid and gid."""
        for number in range(self._users):
            owner = self._owners[number % len(self._owners)]
            yield number, self.directory / "homes" / str(number), *owner


def make_home(
    home: Path, messages: Iterable[bytes], uid: int, gid: int, folder: str = "Maildir"
) -> None:
    """A Maildir of that name in a home, which is made as well; the messages are put in cur/.

    Only the owner can look into it.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    maildir = home / folder
    paths = [home, maildir, *(maildir / name for name in ("tmp", "new", "cur"))]
    for path in paths:
        path.mkdir(mode=0o700, exist_ok=path == home)
        os.chown(path, uid, gid)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    # By plain calls: a mailbox may have 100,000 messages.
    for index, content in enumerate(messages):
        file = os.open(f"{maildir}/cur/{file_name(index, content)}", flags, 0o600)
        try:
            os.write(file, content)
            os.fchown(file, uid, gid)
        finally:
            os.close(file)
