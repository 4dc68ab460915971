"""Kept listings against a mailbox that others work in, and clocks that do what clocks do.

The files are real, the times of their directories are those of a made-up file system: with ticks of
up to two seconds, of a clock that is ours or a file server's. Whatever happens, a session is given
what a scan would find at that moment.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.maildir import listings, scanning
from qmailldap.maildir.listings import LONGEST, ListingCache, Mailbox
from qmailldap.maildir.storage import Maildir
from qmailldap.maildir.work import Begun, Place, Work
from tests.maildir.support import deliver, make_maildir

MAILBOX = Mailbox(1000, 1000, b"/joe")

picks = st.integers(min_value=0, max_value=10**6)
flag_texts = st.sampled_from(["", "S", "RS"])
waits = st.sampled_from([0.0, 0.001, 1.0, 1.9, 2.6, 2.6, 5.0, LONGEST + 1])
steps = st.sampled_from([0.01, 0.4, 0.6, 1.0, 2.0, 2.6, 61.0, 3600.0])
changes = st.sampled_from(["deliver", "deliver_in_cur", "rename", "move", "remove"])


class KeptListings(RuleBasedStateMachine):
    """One mailbox, and sessions that begin in it while nobody else or somebody does."""

    hits = 0

    def __init__(self) -> None:
        super().__init__()
        self.temporary = tempfile.TemporaryDirectory()
        self.path = make_maildir(Path(self.temporary.name) / "Maildir")
        self.place = Place(os.fsencode(self.path.parent), os.fsencode(self.path))
        self.now = 1000.0
        self.ahead = 1_700_000_000.0
        self.delivered = 0
        self.was_set_back = False
        self.times: dict[int, int] = {}
        self.cache = ListingCache(monotonic=lambda: self.now, time=self.our_clock)
        self.patches = mock.patch.object(scanning, "_last_changes", self.last_changes)
        self.patches.start()

    def teardown(self) -> None:
        self.patches.stop()
        self.temporary.cleanup()

    @initialize(
        skew=st.none() | st.sampled_from([-86400.0, -60.0, -2.0, 0.0, 0.5, 3.0, 3600.0]),
        tick=st.sampled_from([0.001, 1.0, 2.0]),
        speed=st.sampled_from([0.9, 1.0, 1.1]),
    )
    def mount(self, skew: float | None, tick: float, speed: float) -> None:
        """No skew: the disk is ours."""
        self.skew, self.tick, self.speed = skew, tick, speed
        for folder in ("new", "cur"):
            self.touch(folder)

    def our_clock(self) -> float:
        return self.now + self.ahead

    def touch(self, folder: str) -> None:
        seconds = self.our_clock()
        if self.skew is not None:
            seconds = 1_700_000_000.0 + self.skew + self.now * self.speed
        shown = int(seconds / self.tick) * self.tick
        self.times[os.stat(self.path / folder).st_ino] = int(shown * 1e9)

    def last_changes(self, folders: scanning.Folders) -> list[tuple[int, int, int, int]]:
        inodes = [os.fstat(descriptor).st_ino for descriptor in folders.values()]
        return [(1, inode, self.times[inode], self.times[inode]) for inode in inodes]

    def files(self) -> list[str]:
        return sorted(
            f"{folder}/{name}"
            for folder in ("new", "cur")
            for name in os.listdir(self.path / folder)
        )

    @rule(seconds=waits)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=steps)
    def our_clock_is_set_back(self, seconds: float) -> None:
        self.ahead -= seconds
        self.was_set_back = True

    # One that is set back and forth between two sessions is beyond what can be noticed.
    @precondition(lambda self: self.skew is not None or not self.was_set_back)
    @rule(seconds=steps)
    def our_clock_is_set_forward(self, seconds: float) -> None:
        self.ahead += seconds

    @rule(what=changes, number=picks, flags=flag_texts)
    def somebody_works(self, what: str, number: int, flags: str) -> None:
        files = self.files()
        if what.startswith("deliver"):
            self.delivered += 1
            name = f"{1_700_000_000 + self.delivered}.{self.delivered}.mx,S=2"
            folder = "new" if what == "deliver" else "cur"
            deliver(self.path, f"{folder}/{name}" + (":2," if folder == "cur" else ""))
            self.touch(folder)
        elif files:
            file = files[number % len(files)]
            name = file[4:].partition(":")[0]
            self.touch(file[:3])
            if what == "remove":
                (self.path / file).unlink()
            else:
                self.touch("cur")
                (self.path / file).rename(self.path / f"cur/{name}:2,{flags}")

    @rule()
    def log_in(self) -> None:
        found = Maildir(self.place.mailbox).scan()
        begun = self.begin()
        assert begun.listing == found
        self.was_set_back = False

    @rule(what=changes, number=picks, flags=flag_texts, at=st.sampled_from([0, 1, 2, 3]))
    def log_in_while_somebody_works(self, what: str, number: int, flags: str, at: int) -> None:
        """What this session is told may be either; the next one must not be misled."""
        change = partial(self.somebody_works, what, number, flags)
        if at in (0, 3):
            self.begin(before=change if at == 0 else None, after=change if at == 3 else None)
        else:
            read = scanning.regular_files
            left = [at]

            def regular_files(descriptor: int) -> Any:
                entries = list(read(descriptor))
                left[0] -= 1
                if not left[0]:
                    change()
                return entries

            with mock.patch.object(scanning, "regular_files", regular_files):
                self.begin()
        self.was_set_back = False

    @rule(seconds=steps, at_once=st.booleans())
    def log_in_while_the_clock_is_set_back(self, seconds: float, at_once: bool) -> None:
        def step() -> None:
            self.ahead -= seconds

        self.begin(before=step if at_once else None, after=None if at_once else step)
        # Whether it was before or after that has been noticed, who can tell.
        self.was_set_back = True

    def begin(
        self,
        before: Callable[[], None] | None = None,
        after: Callable[[], None] | None = None,
    ) -> Begun:
        """Begin a session; others act once it was asked for, or before it is answered."""

        def during(look: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
            if before is not None:
                before()
            answer = look(*arguments)
            if after is not None:
                after()
            return succeed(answer)

        work = Work(self.place)
        results: list[Begun] = []
        Deferred.fromCoroutine(
            self.cache.begin(
                MAILBOX,
                lambda: during(work.begin),
                lambda token: during(work.begin_again, token),
            )
        ).addCallback(results.append)
        (begun,) = results
        KeptListings.hits += begun.snapshot is None
        return begun


class OnACoarseClock(KeptListings):
    """The disk is ours, and nobody sets clocks: what is left is the tick."""

    our_clock_is_set_back = our_clock_is_set_forward = None  # type: ignore[assignment]
    log_in_while_the_clock_is_set_back = None  # type: ignore[assignment]

    @initialize()
    def mount(self) -> None:
        super().mount(None, 2.0, 1.0)


class KeptListingsTests(SynchronousTestCase):
    def test_a_session_is_given_what_a_scan_would_find(self) -> None:
        KeptListings.hits = 0
        run_machine(
            KeptListings,
            settings=settings(
                max_examples=80,
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        self.assertGreater(KeptListings.hits, 0)

    def test_it_would_not_if_listings_were_kept_at_once(self) -> None:
        self.patch(listings, "_is_settled", lambda *arguments: True)
        with self.assertRaises(AssertionError):
            run_machine(
                OnACoarseClock,
                settings=settings(
                    max_examples=1000,
                    stateful_step_count=30,
                    deadline=None,
                    phases=[Phase.generate],
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
