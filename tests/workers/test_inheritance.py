"""Arguments that carry the options, and what is inherited, to a worker."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from qmailldap.options import LOG_FORMATS, LOGS, MOST_WORKERS, Options
from qmailldap.workers import inheritance
from qmailldap.workers.inheritance import SAYS, Inheritance, WorkerOptions

_FEWER = settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])

# Of what a command line can hold, what means something there, and an octet that is no UTF-8.
texts = st.text("a-=:,/ \n\\'é\udc80", max_size=8)
counts = st.integers(1, 10**6)

values = st.fixed_dictionaries(
    {
        "control": texts,
        "user": st.none() | texts,
        "group": st.none() | texts,
        "guesses": st.none() | texts,
        "admin": st.none() | st.sampled_from(["/run/qmailldap/admin", "/-a=b: c"]),
        "status": st.none() | texts,
        "status-users": st.integers(0, 1),
        "workers": st.integers(0, MOST_WORKERS),
        "log": st.sampled_from([None, *LOGS]),
        "log-format": st.sampled_from(LOG_FORMATS),
        "keepers": counts,
        "listings": st.integers(0, 10**6),
        "grace": st.integers(0, 3600),
        "ldap-connections": counts,
        "mail-threads": counts,
        "hash-threads": counts,
        "listen": st.lists(texts, max_size=3),
        "pop3s": st.lists(texts, max_size=3),
        "certificate": st.lists(texts, max_size=3),
    }
)

descriptors = st.integers(0, 10**6)
inheritances = st.builds(
    Inheritance,
    number=counts,
    scores=descriptors,
    counts=descriptors,
    ports=st.tuples(descriptors, descriptors),
    relayed=st.booleans(),
    start=texts,
    reactor=texts,
    snapshot=st.none() | descriptors,
)


def given_as(values: dict[str, Any]) -> Options:
    """As a tac file may set them."""
    options = Options()
    options.update(values)
    options.postOptions()
    return options


class ArgumentsTests(SynchronousTestCase):
    @given(values)
    @_FEWER
    def test_another_process_reads_the_same_options(self, values: dict[str, Any]) -> None:
        options, read = given_as(values), Options()
        read.parseOptions(options.arguments())
        self.assertEqual(dict(read), dict(options))

    @given(inheritances, values)
    @_FEWER
    def test_a_worker_reads_the_options_and_what_it_inherits(
        self, inherited: Inheritance, values: dict[str, Any]
    ) -> None:
        options = given_as(values)
        read = WorkerOptions.parse([*inherited.arguments(), *options.arguments()])
        self.assertEqual(read.inheritance(), inherited)
        self.assertEqual({name: read[name] for name in options}, dict(options))

    @given(inheritances)
    @_FEWER
    def test_descriptors_keep_their_order_in_the_worker(self, inherited: Inheritance) -> None:
        seen, handed_over = inherited.handed_over()
        theirs = [seen.scores, seen.counts, *seen.ports]
        self.assertEqual(
            [handed_over[each] for each in theirs],
            [inherited.scores, inherited.counts, *inherited.ports],
        )
        if seen.snapshot is not None:
            self.assertEqual(handed_over[seen.snapshot], inherited.snapshot)
        # 0, 1 and 2 are what every program has.
        theirs += [] if seen.snapshot is None else [seen.snapshot]
        self.assertEqual(sorted(handed_over), list(range(SAYS + 1, SAYS + 1 + len(theirs))))

    def test_what_a_worker_starts_gets_none_of_what_it_inherits(self) -> None:
        hears, says, scores, counts, snapshot, *ports = opened = [os.dup(2) for _ in range(7)]
        for each in opened:
            self.addCleanup(os.close, each)
            os.set_inheritable(each, True)
        self.patch(inheritance, "HEARS", hears)
        self.patch(inheritance, "SAYS", says)
        Inheritance(
            number=1,
            scores=scores,
            counts=counts,
            ports=tuple(ports),
            relayed=False,
            start="/",
            reactor="",
            snapshot=snapshot,
        ).keep_to_this_process()
        self.assertEqual([os.get_inheritable(each) for each in opened], [False] * 7)

    def test_nobody_is_a_worker_by_mistake(self) -> None:
        for arguments in ([], ["--number=1"], ["--number=x"], ["--ports=a"], ["stray"]):
            with self.assertRaises(UsageError):
                WorkerOptions.parse(arguments)

    def test_how_many_workers_is_a_number(self) -> None:
        for text in ("-1", "two", str(MOST_WORKERS + 1), ""):
            with self.assertRaises(UsageError) as caught:
                Options().parseOptions([f"--workers={text}"])
            self.assertIn("--workers", str(caught.exception))
