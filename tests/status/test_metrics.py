"""/metrics and /healthz."""

from __future__ import annotations

from functools import partial
from typing import Any

from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from qmailldap.figures import FIGURES, Tally
from qmailldap.figures.table import Kind
from qmailldap.status import process
from qmailldap.status.gauges import FRESH, LOOK
from qmailldap.status.health import Health
from qmailldap.status.http import Page
from qmailldap.status.metrics import KEPT, Metrics
from qmailldap.status.process import register_process


class Crew:
    """The processes of a server, whose answers the test has."""

    def __init__(self) -> None:
        self.tallies = [Tally(lambda: 0.0), Tally(lambda: 0.0)]
        self.asked: list[tuple[str, Any]] = []
        self.waiting: Deferred[list[Any]] | None = None

    def answer(self, question: str, responder: Any) -> None:
        raise AssertionError("nothing is answered here")

    def ask(self, question: str, argument: Any = None) -> Deferred[list[Any]]:
        self.asked.append((question, argument))
        if self.waiting is not None:
            return self.waiting
        return succeed([tally.snapshot() for tally in self.tallies])


class PageTestCase(SynchronousTestCase):
    def get(self, page: Page, accept: str = "") -> Any:
        request: Any = DummyRequest([])
        request.method = b"GET"
        request.path = b"/"
        if accept:
            request.requestHeaders.setRawHeaders("Accept", [accept])
        page.render(request)
        return request

    def body(self, request: Any) -> str:
        self.assertEqual(request.finished, 1)
        return b"".join(request.written).decode()

    def content_type(self, request: Any) -> str:
        (content_type,) = request.responseHeaders.getRawHeaders("Content-Type") or []
        return str(content_type)


class MetricsTests(PageTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.crew = Crew()
        self.metrics = Metrics(self.crew, self.clock)

    def samples(self, text: str) -> dict[tuple[str, str], float]:
        return {
            (
                sample.name,
                ",".join(value for _, value in sorted(sample.labels.items())),
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            for value in (sample.value,)
        }

    def test_all_workers_are_one_set(self) -> None:
        for tally in self.crew.tallies:
            tally.add("logins_total", "ok-local", amount=2)
            tally.observe("login_part_seconds", "hash", seconds=0.2)
        samples = self.samples(self.body(self.get(self.metrics)))
        self.assertEqual(samples["qmailldap_logins_total", "ok-local"], 4)
        self.assertEqual(samples["qmailldap_login_part_seconds_bucket", "0.1,hash"], 0)
        self.assertEqual(samples["qmailldap_login_part_seconds_bucket", "0.25,hash"], 2)
        self.assertEqual(samples["qmailldap_login_part_seconds_bucket", "+Inf,hash"], 2)
        self.assertEqual(samples["qmailldap_login_part_seconds_count", "hash"], 2)
        self.assertEqual(samples["qmailldap_login_part_seconds_sum", "hash"], 0.4)

    def test_every_figure_is_there_with_its_help_and_kind(self) -> None:
        families = {
            family.name: family
            for family in text_string_to_metric_families(self.body(self.get(self.metrics)))
        }
        for each in FIGURES:
            family = families[each.shown.removesuffix("_total")]
            self.assertEqual(family.documentation, each.help)
            self.assertEqual(family.type, each.kind.value)
            if each.kind is Kind.COUNTER and not each.labels:
                self.assertEqual([sample.value for sample in family.samples], [0.0])

    def test_openmetrics_is_given_to_those_who_accept_it(self) -> None:
        request = self.get(
            self.metrics,
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5",
        )
        self.assertIn("application/openmetrics-text", self.content_type(request))
        text = self.body(request)
        self.assertTrue(text.endswith("# EOF\n"))
        names = {family.name for family in openmetrics_families(text)}
        self.assertIn("qmailldap_logins", names)
        self.assertIn("text/plain", self.content_type(self.get(self.metrics)))

    def test_whatever_is_accepted_something_is_given(self) -> None:
        for accept in (
            "application/openmetrics-text;version=x.y",
            "application/openmetrics-text;version=" + "9" * 2000,
            "application/openmetrics-text;escaping=none",
            "text/plain;version=;q=",
            ";;;,,,==",
            "\xff",
        ):
            request = self.get(self.metrics, accept)
            self.assertIn("qmailldap_logins_total", self.body(request))
            self.clock.advance(KEPT)

    def test_those_who_come_together_are_given_the_same(self) -> None:
        self.crew.waiting = Deferred()
        requests = [self.get(self.metrics) for _ in range(3)]
        self.assertEqual(self.crew.asked, [("figures", LOOK)])
        self.crew.waiting.callback([self.crew.tallies[0].snapshot()])
        self.assertEqual(len({self.body(request) for request in requests}), 1)

    def test_what_was_gathered_is_good_for_a_moment(self) -> None:
        self.get(self.metrics)
        self.clock.advance(KEPT - 0.01)
        self.get(self.metrics)
        self.assertEqual(len(self.crew.asked), 1)
        self.clock.advance(0.02)
        self.get(self.metrics)
        self.assertEqual(len(self.crew.asked), 2)

    def test_somebody_who_leaves_keeps_nobody_from_an_answer(self) -> None:
        self.crew.waiting = Deferred()
        gone, stays = self.get(self.metrics), self.get(self.metrics)
        gone.processingFailed(Failure(ConnectionError()))
        self.crew.waiting.callback([])
        self.assertEqual(gone.written, [])
        self.assertIn("qmailldap_logins_total", self.body(stays))

    def test_a_worker_that_tells_nonsense_is_left_out(self) -> None:
        self.crew.waiting = succeed([{"counters": 5}, None, self.crew.tallies[0].snapshot()])
        self.assertIn("qmailldap_logins_total", self.body(self.get(self.metrics)))

    def test_the_process_is_told_of_by_its_worker(self) -> None:
        for number, tally in enumerate(self.crew.tallies, 1):
            register_process(tally, number, self.clock)
        samples = self.samples(self.body(self.get(self.metrics)))
        for worker in "12":
            self.assertGreater(samples["qmailldap_process_resident_memory_bytes", worker], 1e6)
            self.assertGreater(samples["qmailldap_process_open_fds", worker], 3)
            self.assertGreater(samples["qmailldap_process_max_fds", worker], 3)
            self.assertGreater(samples["qmailldap_process_start_time_seconds", worker], 1e9)
        self.assertGreater(samples["qmailldap_process_cpu_seconds_total", ""], 0)

    def test_where_little_of_proc_can_be_read_nothing_untrue_is_told(self) -> None:
        # As with ProcSubset=pid of systemd.
        no_stat = partial(ProcessCollector, proc=self.mktemp())
        self.patch(process, "ProcessCollector", no_stat)
        register_process(self.crew.tallies[0], 1, self.clock)
        samples = self.samples(self.body(self.get(self.metrics)))
        self.assertEqual(
            {name for name, _ in samples if name.startswith("qmailldap_process_")},
            {"qmailldap_process_cpu_seconds_total"},
        )
        self.assertGreater(samples["qmailldap_process_cpu_seconds_total", ""], 0)


class _Directory:
    def __init__(self) -> None:
        self.told: Deferred[bool] = Deferred()
        self.fresh: list[float] = []

    def answers(self, fresh: float) -> Deferred[bool]:
        self.fresh.append(fresh)
        return self.told


class HealthTests(PageTestCase):
    def setUp(self) -> None:
        self.directory = _Directory()
        self.health = Health(lambda: self.directory)

    def test_it_is_well_while_a_directory_server_answers(self) -> None:
        request = self.get(self.health)
        self.assertEqual((request.finished, self.directory.fresh), (0, [FRESH]))
        self.directory.told.callback(True)
        self.assertEqual((request.responseCode, self.body(request)), (200, "ok\n"))
        self.assertEqual(self.content_type(request), "text/plain; charset=utf-8")

    def test_it_is_not_while_none_does_and_says_why(self) -> None:
        self.directory.told.callback(False)
        request = self.get(self.health)
        self.assertEqual(request.responseCode, 503)
        self.assertEqual(self.body(request), "no directory server answers\n")

    def test_a_fault_of_ours_is_no_health(self) -> None:
        self.directory.told.errback(RuntimeError())
        request = self.get(self.health)
        self.assertEqual(request.responseCode, 500)
        self.flushLoggedErrors(RuntimeError)
