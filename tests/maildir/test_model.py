"""Whole sessions against a model, with other programs at work in the mailbox all the time.

Every file has contents of its own, so that the model can tell which file went where. The promise:
nothing is lost that was not marked, everything marked is gone, the rest of new/ is in cur/.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir.names import seen_name, unique_name
from qmailldap.maildir.storage import Listing, Maildir
from tests.maildir.support import deliver, files_of, make_maildir, open_descriptors

picks = st.integers(min_value=0, max_value=10**6)
flag_texts = st.sampled_from(["", "S", "RS", "T", "FS"])
name_tails = st.sampled_from(["mx", "mx,S=4", "m x", "", "mx,S=9,W=x", "\udcff"])


class Sessions(RuleBasedStateMachine):
    """One session after the other; between its steps, others deliver, rename and remove."""

    copies_are_made: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.descriptors = open_descriptors()
        self.folder = tempfile.TemporaryDirectory()
        self.path = make_maildir(Path(self.folder.name) / "Maildir")
        self.disk: dict[str, bytes] = {}
        self.delivered = 0
        self.maildir = Maildir(os.fsencode(self.path))
        self.listing: Listing | None = None
        self.session: list[bytes] = []
        self.marked: set[int] = set()
        self.copied: set[str] = set()

    def teardown(self) -> None:
        self.folder.cleanup()
        assert self.descriptors == open_descriptors()

    def put(self, file: str) -> None:
        if file not in self.disk:
            self.delivered += 1
            self.disk[file] = b"%04d" % self.delivered
            deliver(self.path, file, self.disk[file])

    def pick(self, number: int) -> str:
        return sorted(self.disk)[number % len(self.disk)]

    @rule(tail=name_tails, numbered=st.booleans(), flags=flag_texts, in_new=st.booleans())
    def somebody_delivers(self, tail: str, numbered: bool, flags: str, in_new: bool) -> None:
        name = f"{self.delivered // 2 + 1 if numbered else 'x'}.{self.delivered}{tail}"
        self.put(f"new/{name}" if in_new else f"cur/{name}:2,{flags}")

    @precondition(lambda self: self.disk)
    @rule(number=picks, flags=flag_texts)
    def somebody_renames(self, number: int, flags: str) -> None:
        file = self.pick(number)
        target = f"cur/{os.fsdecode(unique_name(os.fsencode(file[4:])))}:2,{flags}"
        if target not in self.disk:
            (self.path / file).rename(self.path / target)
            self.disk[target] = self.disk.pop(file)

    @precondition(lambda self: self.disk)
    @rule(number=picks)
    def somebody_removes(self, number: int) -> None:
        file = self.pick(number)
        (self.path / file).unlink()
        del self.disk[file]

    @precondition(lambda self: self.copies_are_made and self.disk)
    @rule(number=picks, flags=flag_texts)
    def somebody_puts_another_file_under_the_same_unique_name(
        self, number: int, flags: str
    ) -> None:
        name = os.fsdecode(unique_name(os.fsencode(self.pick(number)[4:])))
        self.copied.add(name)
        self.put(f"cur/{name}:2,{flags}")

    @rule()
    def log_in(self) -> None:
        self.listing = self.maildir.scan()
        self.session = [self.disk[os.fsdecode(file)] for file in self.listing.files]
        self.marked = set()
        unique = {unique_name(os.fsencode(file[4:])) for file in self.disk}
        assert len(unique) == len(self.session) == len(set(self.session))

    @precondition(lambda self: self.session)
    @rule(number=picks)
    def retr(self, number: int) -> None:
        index = number % len(self.session)
        try:
            descriptor, size = self.maildir.open(index)
        except FileNotFoundError:
            assert self.session[index] not in self.disk.values() or self.copied
        else:
            with open(descriptor, "rb") as file:
                content = file.read()
            assert size == len(content)
            assert content == self.session[index] or self.copied

    @precondition(lambda self: self.session)
    @rule(number=picks)
    def dele(self, number: int) -> None:
        self.marked.add(number % len(self.session))

    @rule()
    def rset(self) -> None:
        self.marked = set()

    @precondition(lambda self: self.listing is not None)
    @rule()
    def quit(self) -> None:
        before = dict(self.disk)
        failures = self.maildir.finish(frozenset(self.marked)).not_removed
        marked = {self.session[index] for index in self.marked}
        expected = {}
        for file, content in self.disk.items():
            if content in marked:
                continue
            seen = "cur/" + os.fsdecode(seen_name(os.fsencode(file[4:])))
            moves = file.startswith("new/") and content in self.session and seen not in self.disk
            expected[seen if moves else file] = content
        after = files_of(self.path)
        if self.copied:
            lost = set(before.values()) - set(after.values())
            assert lost <= marked
            left = {
                file
                for file, content in after.items()
                if content in marked
                and os.fsdecode(unique_name(os.fsencode(file[4:]))) not in self.copied
            }
            assert not left
        else:
            assert failures.files == 0
            assert after == expected
        self.disk = after
        self.listing, self.session, self.marked = None, [], set()

    @invariant()
    def nothing_changes_but_at_quit(self) -> None:
        assert files_of(self.path) == self.disk


class SessionsWithCopies(Sessions):
    """The same where unique names are not unique, which no program should do."""

    copies_are_made = True


class ModelTests(SynchronousTestCase):
    def test_sessions_do_what_the_model_says(self) -> None:
        run_machine(
            Sessions, settings=settings(deadline=None, max_examples=60, stateful_step_count=40)
        )

    def test_no_file_is_taken_for_another_of_the_same_unique_name(self) -> None:
        run_machine(
            SessionsWithCopies,
            settings=settings(deadline=None, max_examples=60, stateful_step_count=40),
        )
