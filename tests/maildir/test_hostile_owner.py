"""Sessions in a mailbox whose owner renames and replaces things before any call of the system.

Whatever he does, a session ends, raises nothing but ``OSError``, holds no descriptor, and neither
reads nor changes what is outside of the Maildir.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.reading import CHUNK, OpenMessage
from qmailldap.maildir.work import Place, Work
from qmailldap.quota import Quota
from tests.maildir.support import deliver, make_maildir, open_descriptors

FUNCTIONS = (
    "fstat",
    "fsync",
    "lstat",
    "mkdir",
    "open",
    "read",
    "rename",
    "scandir",
    "stat",
    "unlink",
    "write",
)
SECRET = b"the mail of somebody else\n"
ROUNDS = 250


class Owner:
    """Does something to the mailbox before some of the calls; what, ``chance`` decides."""

    def __init__(self, home: Path, outside: Path, chance: random.Random) -> None:
        self.real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in FUNCTIONS}
        self._home = home
        self._outside = outside
        self._chance = chance
        self._at_work = False
        self._moved = 0

    def before(self, name: str) -> Callable[..., Any]:
        """The function of ``os``, of which he may be ahead."""

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._at_work and self._chance.random() < 0.2:
                self._at_work = True
                try:
                    self._do_something()
                except OSError:
                    pass  # He, too, finds things other than he thought.
                finally:
                    self._at_work = False
            return self.real[name](*args, **kwargs)

        return call

    def _do_something(self) -> None:
        maildir = self._home / "Maildir"
        path = self._chance.choice(
            [
                maildir,
                *[maildir / folder for folder in ("tmp", "new", "cur", ".Sent", ".Sent/cur")],
                *[maildir / "maildirsize", maildir / "maildirfolder", self._home / ".qmail"],
                *[maildir / file for file in ("new/1.a", "cur/1.a:2,", "cur/2.b:2,", "cur/3.c:2,")],
                *[maildir / file for file in ("tmp/stale", "cur/2.b:2,S", "new/3.c")],
            ]
        )
        if os.path.realpath(path.parent) != str(path.parent):
            return  # By a link of his own: he has no right to what is outside.
        self._moved += 1
        aside = self._home / f"aside-{self._moved}"
        path.rename(aside)
        match self._chance.randrange(8):
            case 0:
                os.mkfifo(path)
            case 1:
                path.mkdir()
            case 2:
                path.write_bytes(b"x" * self._chance.choice([0, 5, CHUNK, 2 * CHUNK]))
            case 3:
                path.symlink_to(path.name)
            case 4 if path != maildir:
                # That the Maildir itself may be a link is for administrators to use.
                path.symlink_to(self._outside / self._chance.choice(["new", "new/1.a", "none"]))
            case 5:
                aside.rename(path.with_name(path.name + "x"))
            case 6:
                path.touch()
                path.chmod(0)
            case _:
                aside.rename(path)


class HostileOwnerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(os.path.realpath(self.mktemp()))
        self.home = self.folder / "home"
        self.outside = make_maildir(self.folder / "outside")
        for file in ("new/1.a", "new/1.a:2,", "new/2.b:2,", "cur/3.c:2,", "tmp/stale"):
            os.utime(deliver(self.outside, file, SECRET), (0, 0))
        self.place = Place(
            os.fsencode(self.home),
            os.fsencode(self.home / "Maildir"),
            b"./Maildir/",
            quota=Quota(10_000_000, 100),
            asks_dot_qmail=True,
        )

    def test_no_session_is_led_astray(self) -> None:
        outside = self.state_outside()
        descriptors = open_descriptors()
        ended = 0
        for seed in range(ROUNDS):
            self.have_a_mailbox()
            owner = Owner(self.home, self.outside, random.Random(seed))
            patches = [self.patch(os, name, owner.before(name)) for name in FUNCTIONS]
            try:
                ended += self.session()
            finally:
                for patch in patches:
                    patch.restore()
            self.assertEqual(descriptors, open_descriptors(), f"seed {seed}")
            self.assertEqual(outside, self.state_outside(), f"seed {seed}")
        # Some must get through, or this has shown little.
        self.assertGreater(ended, ROUNDS // 20)

    def have_a_mailbox(self) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        maildir = make_maildir(self.home / "Maildir")
        make_maildir(maildir / ".Sent")
        deliver(maildir, "new/1.a", b"one")
        deliver(maildir, "cur/2.b:2,", b"2" * (2 * CHUNK))
        deliver(maildir, "cur/3.c:2,", b"three")
        os.utime(deliver(maildir, "tmp/stale"), (0, 0))

    def session(self) -> bool:
        """All that a session may do, twice; whether QUIT came to its end."""
        ended = False
        work = Work(self.place)
        try:
            count = len(work.begin().listing.files)
        except OSError:
            return False
        for _ in range(2):
            for number in range(count):
                try:
                    opened = work.fetch(number)
                except OSError:
                    continue
                for message in opened:
                    self.assertNotIn(SECRET, self.content(message))
            try:
                finished = work.finish({0, 2}.intersection(range(count)))
            except OSError:
                continue
            self.assertNotIn("\n", finished.quota_problem)
            ended = True
        return ended

    def content(self, message: OpenMessage) -> bytes:
        if message.file is None:
            return message.first
        with message.file as file:
            return message.first + file.read()

    def state_outside(self) -> dict[str, tuple[int, bytes]]:
        return {
            str(path): (path.stat().st_nlink, path.read_bytes() if path.is_file() else b"")
            for path in sorted(self.outside.rglob("*"))
        }
